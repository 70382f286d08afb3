"""What some clients can do beyond Django's cache API: take less time.

===================  ==============================================================================
backend              what is done
===================  ==============================================================================
``PyMemcacheCache``  With one server, it is asked without the client that hashes each key in Python
                     to choose a server. A ``set`` is not waited for (``noreply``).
``RedisCache``       With one server, a client is kept. Django makes a new one for each call, which
                     takes longer than the call. A script counts and stores in one round trip, not
                     in three.
both                 A question can be sent now and its answer read later, so that what is done
                     meanwhile takes no time of its own.
===================  ==============================================================================

Each thread has a connection of its own for that, beside the one of Django's client: what others ask
Django's client meanwhile is not mixed up with it.

Every other backend, and a subclass with a method of its own, is used by Django's API alone, and
so are these with ``DIRECT_CLIENTS`` off. What is inside of Django's backends and of the clients is
leaned on here and nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cache
from typing import Any, Final
from weakref import finalize

from django.core.cache.backends.base import BaseCache, default_key_func
from django.core.cache.backends.memcached import PyMemcacheCache
from django.core.cache.backends.redis import RedisCache, RedisCacheClient

#: Counts KEYS[1] on and stores ARGV[3] under ARGV[2] with the number, unless that is ARGV[1] or
#: below. As text: a number of Lua is exact up to 2**53 only.
APPEND: Final = """\
if redis.call('EXISTS', KEYS[1]) == 0 then
    return false
end
redis.call('INCR', KEYS[1])
local number = redis.call('GET', KEYS[1])
if #number > #ARGV[1] or (#number == #ARGV[1] and number > ARGV[1]) then
    redis.call('SET', ARGV[2] .. number, ARGV[3], 'EX', ARGV[4])
end
return number
"""

#: So many questions may wait for somebody to read their answers.
UNREAD: Final = 8

#: Bytes that are read from a socket at once.
CHUNK: Final = 1 << 16


class Strange(Exception):
    """A server answered something that is no answer to the question."""


class Refused(Exception):
    """A server said that it will not do what it was asked."""


class Question:
    """A question that was sent. Answers come in the order of the questions."""

    __slots__ = ("_answer", "_command", "_error", "_names", "client")

    def __init__(self, client: Client, command: Any, names: Any) -> None:
        #: ``names`` are those that the answer is about, as the client wants them back.
        self.client, self._command, self._names = client, command, names
        self._answer: Any = None
        self._error: Exception | None = None
        if len(client.waiting) > UNREAD:
            client.settle()
        client.busy = True
        try:
            client.send(command)
            client.waiting.append(self)
        except BaseException:
            client.fail()
            raise
        finally:
            client.busy = False

    def answer(self) -> Any:
        """Return the answer, when it is there; raise whatever the client raises."""
        waiting = self.client.waiting
        while self in waiting:
            waiting[0].receive()
        if self._error is not None:
            raise self._error
        return self._answer

    def receive(self) -> None:
        """Read the answer, the next one that comes, and keep it or the error."""
        client = self.client
        client.busy = True
        try:
            if self not in client.waiting:
                return  # a handler of signals was faster
            client.waiting.remove(self)
            try:
                self._answer = client.read(self._names)
            except client.lost:
                if client.waiting:
                    raise
                client.close()
                client.transmit(self._command)
                self._answer = client.read(self._names)
        except client.refused as error:
            self._error = error
        except BaseException as error:
            client.waiting.append(self)
            client.fail()  # what was not read would be the answer to the next question
            if not isinstance(error, Exception):
                raise  # interrupted
            self._error = error
        finally:
            client.busy = False


class Client:
    """A connection to the one server of a cache, of the present thread alone."""

    #: What is raised where the server has closed the connection.
    lost: type[Exception] = ConnectionError
    #: What is raised for an answer that says no.
    refused: type[Exception] = Refused

    def __init__(self) -> None:
        #: What was asked and not read yet.
        self.waiting: list[Question] = []
        #: It is being written to or read from. A handler of signals may want it, too.
        self.busy = False

    def settle(self) -> None:
        """Read what is waited for, so that the connection can be used for something else."""
        while self.waiting:
            self.waiting[0].receive()

    def fail(self) -> None:
        """Close the connection, on which nothing is to be waited for any more."""
        for question in self.waiting:
            question._error = ConnectionAbortedError("the connection was closed before the answer came")
        self.waiting.clear()
        self.close()

    def send(self, command: Any) -> None:
        """Send a command, on another connection if the server has closed what nobody used for long."""
        try:
            self.transmit(command)
        except self.lost:
            self.fail()
            self.transmit(command)

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        raise NotImplementedError

    def transmit(self, command: Any) -> None:
        """Send a command."""
        raise NotImplementedError

    def read(self, names: Any) -> Any:
        """Read the answer to what asked for ``names``."""
        raise NotImplementedError

    def ask(self, names: dict[str, str]) -> Question:
        """Ask for what is there of ``names``; the answer is by what they stand for."""
        raise NotImplementedError

    def store(self, name: str, value: Any, life: int | None) -> None:
        """Have ``value`` stored for ``life``, in the backend's spelling."""
        raise NotImplementedError


class Memcached(Client):
    """What pymemcache does, in two steps. It connects, and says how keys and values are spelled."""

    def __init__(self, backend: Any) -> None:
        super().__init__()
        # Without no_delay the kernel keeps back what is sent after something that is not answered
        # until the server has confirmed that, for which it takes its time: 40 ms.
        around = backend._class(backend.client_servers, **{**backend._options, "no_delay": True})
        (self.client,) = around.clients.values()
        self._buffer = b""
        finalize(self, self.client.close)

    def close(self) -> None:
        self._buffer = b""
        self.client.close()

    def _name(self, name: str) -> bytes:
        if len(name) <= 200 and name.isascii() and name.isprintable() and " " not in name:
            return self.client.key_prefix + name.encode() if self.client.key_prefix else name.encode()
        key: bytes = self.client.check_key(name, self.client.key_prefix)
        return key

    def transmit(self, command: bytes) -> None:
        if self.client.sock is None:
            self.client._connect()
        self.client.sock.sendall(command)

    def ask(self, names: dict[str, str]) -> Question:
        spelled = {self._name(name): key for name, key in names.items()}
        return Question(self, b"get %b\r\n" % b" ".join(spelled), spelled)

    def count(self, name: str) -> Question:
        """Ask to count ``name`` on; the answer is its number, or None where there is none."""
        return Question(self, b"incr %b 1\r\n" % self._name(name), None)

    def store(self, name: str, value: Any, life: int | None) -> None:
        key = self._name(name)
        data, flags = self.client.serde.serialize(key, value)
        if isinstance(data, str):
            data = data.encode(self.client.encoding)
        self.busy = True
        try:
            self.send(b"set %b %d %d %d noreply\r\n%b\r\n" % (key, flags, life or 0, len(data), data))
        except BaseException:
            self.fail()
            raise
        finally:
            self.busy = False

    def read(self, names: dict[bytes, str] | None) -> Any:
        return self._number() if names is None else self._values(names)

    def _more(self, missing: int = 1) -> bytes:
        """Return what is in the buffer and what comes, at least so many bytes more."""
        parts = [self._buffer]
        while missing > 0:
            data = self.client.sock.recv(max(CHUNK, missing))
            if not data:
                raise ConnectionResetError("the server has closed the connection")
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def _line(self) -> bytes:
        """Take the next line from the buffer."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._buffer = self._more()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _values(self, names: dict[bytes, str]) -> dict[str, Any]:
        found = {}
        while (line := self._line()) != b"END":
            word, *fields = line.split()
            if word != b"VALUE" or len(fields) != 3 or fields[0] not in names:
                raise Strange(line[:200])
            key, size = fields[0], int(fields[2])
            if len(self._buffer) < size + 2:
                self._buffer = self._more(size + 2 - len(self._buffer))
            data, self._buffer = self._buffer[:size], self._buffer[size + 2 :]
            found[names[key]] = self.client.serde.deserialize(key, data, int(fields[1]))
        return found

    def _number(self) -> int | None:
        line = self._line()
        if line == b"NOT_FOUND":
            return None
        if line.startswith(b"CLIENT_ERROR"):
            raise Refused(line)
        if not line.isdigit():
            raise Strange(line[:200])
        return int(line)


class Redis(Client):
    """What redis-py does, in two steps, on a connection that is kept."""

    def __init__(self, backend: Any) -> None:
        super().__init__()
        around = backend._cache
        pool, lib = around._get_connection_pool(write=True), around._lib
        # Neither asks anything by itself, nor opens another connection: answers are still to be read.
        own = {"health_check_interval": 0, "retry": lib.retry.Retry(lib.backoff.NoBackoff(), 0)}
        self.connection = pool.connection_class(**{**pool.connection_kwargs, **own})
        self._serializer = around._serializer
        exceptions = around._lib.exceptions
        self.lost, self.refused = exceptions.ConnectionError, exceptions.ResponseError
        finalize(self, self.connection.disconnect)

    def close(self) -> None:
        self.connection.disconnect()

    def transmit(self, command: tuple[Any, ...]) -> None:
        self.connection.send_command(*command)

    def read(self, names: dict[str, str] | None) -> Any:
        answer = self.connection.read_response()
        if names is None:
            return answer
        if not names:  # something was stored
            if answer not in (b"OK", "OK"):
                raise Strange(answer)
            return None
        pairs, loads = zip(names.values(), answer, strict=True), self._serializer.loads
        return {key: loads(value) for key, value in pairs if value is not None}

    def ask(self, names: dict[str, str]) -> Question:
        return Question(self, ("MGET", *names), names)

    def store(self, name: str, value: Any, life: int | None) -> None:
        # Its answer is read before that of the next question.
        self.settle()
        ends = () if life is None else ("EX", life)
        Question(self, ("SET", name, self._serializer.dumps(value), *ends), {})

    def append(self, counter: str, item: str, value: Any, timeout: int, above: int) -> int | None:
        """Count and store by the script."""
        data = self._serializer.dumps(value)
        command = "EVAL", APPEND, 1, counter, above, item, data, timeout
        number = Question(self, command, None).answer()
        return None if number is None else int(number)


@cache
def _spells(backend: type[BaseCache], method: str, of: type[BaseCache]) -> bool:
    """Whether keys are spelled, and ``method`` is done, as Django does."""
    names = (method, "make_key", "make_and_validate_key", "get_backend_timeout")
    return issubclass(backend, of) and all(getattr(backend, name) is getattr(of, name) for name in names)


class Own(threading.local):
    """What the present thread has for the cache of one alias, whose backends come and go.

    Of asynchronous tasks each has a backend of its own.
    """

    #: Of what the client was made, and the client; None where the server is not that simple.
    made: tuple[Any, Client | None] | None = None


def _client(own: Own, backend: Any, method: str) -> Any:
    """Return the client of the one server of a cache; None where it is not that simple."""
    kind = backend.__class__
    if not (_spells(kind, method, PyMemcacheCache) or _spells(kind, method, RedisCache)):
        return None
    of = kind, backend._servers
    if own.made is None or own.made[0] != of or (own.made[1] is not None and own.made[1].busy):
        own.made = of, _made(backend)
    return own.made[1]


def _made(backend: Any) -> Client | None:
    around = backend._cache
    if issubclass(backend.__class__, RedisCache):
        pools = around._lib.ConnectionPool, around._lib.BlockingConnectionPool
        is_simple = type(around) is RedisCacheClient and len(backend._servers) == 1
        return Redis(backend) if is_simple and around._pool_class in pools else None
    if type(around) is not backend._lib.HashClient or len(around.clients) != 1:
        return None
    (client,) = around.clients.values()
    return Memcached(backend) if type(client) is backend._lib.Client else None


def close(own: Own) -> None:
    """Close the connection of the present thread: something went wrong there."""
    made, own.made = own.made, None
    if made is not None and made[1] is not None:
        made[1].close()


def can_ask(own: Own, backend: Any) -> bool:
    """Whether ``ask`` can be used."""
    return _client(own, backend, "get_many") is not None


def ask(own: Own, backend: Any, keys: Iterable[str]) -> Question | None:
    """Ask for what is there of ``keys``; None where that cannot be done apart from the answer."""
    client = _client(own, backend, "get_many")
    return None if client is None else client.ask({backend.make_key(key): key for key in keys})


def get_many(own: Own, backend: Any, keys: Iterable[str]) -> dict[str, Any] | None:
    """Return what is there of ``keys``; None where there is no shorter way to ask."""
    client = _client(own, backend, "get_many")
    if client is None:
        return None
    names = {backend.make_key(key): key for key in keys}
    found: dict[str, Any] = client.ask(names).answer() if names else {}
    return found


def count(own: Own, backend: Any, key: str) -> Question | None:
    """Ask to count ``key`` on; None where that cannot be done apart from the answer.

    The answer is the number, or None where there is nothing to count from.
    """
    client = _client(own, backend, "incr")
    # What is to be stored by the number is then stored by the same client.
    if not isinstance(client, Memcached) or not _spells(backend.__class__, "set", PyMemcacheCache):
        return None
    return client.count(backend.make_key(key))


def send(own: Own, backend: Any, key: str, value: Any, timeout: Any) -> bool:
    """Have ``value`` stored, if possible without waiting; False where there is no shorter way."""
    client = _client(own, backend, "set")
    if client is None or (isinstance(client, Redis) and backend.get_backend_timeout(timeout) == 0):
        return False
    store(client, backend, key, value, timeout)
    return True


def store(client: Client, backend: Any, key: str, value: Any, timeout: Any) -> None:
    """Have ``value`` stored by ``client``."""
    client.store(backend.make_key(key), value, backend.get_backend_timeout(timeout))


def can_append(own: Own, backend: Any) -> bool:
    """Whether ``append`` can be used."""
    return isinstance(_client(own, backend, "incr"), Redis) and backend.key_func is default_key_func


def append(
    own: Own, backend: Any, counter: str, item: str, value: Any, timeout: int, above: int
) -> int | None:
    """Count ``counter`` on, and store ``value`` under ``item`` and the number; return the number.

    None where there is nothing to count from; not stored unless the number is ``above`` this.
    """
    counter, item = map(backend.make_and_validate_key, (counter, item))
    number: int | None = _client(own, backend, "incr").append(counter, item, value, timeout, above)
    return number
