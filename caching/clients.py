"""What some clients can do beyond Django's cache API: take less time.

===================  ==============================================================================
backend              what is done
===================  ==============================================================================
``PyMemcacheCache``  With one server, its client is asked. The one that Django has around it hashes
                     each key in Python to choose a server, which takes longer than the answer.
                     Given ``no_delay``, a ``set`` is not waited for (``noreply``).
``RedisCache``       With one server, its client is kept. Django makes a new one for each call, which
                     takes longer than the call. A script counts and stores in one round trip, not
                     in three.
===================  ==============================================================================

Every other backend, and a subclass with a method of its own, is used by Django's API alone, and
so are these with ``DIRECT_CLIENTS`` off. The clients inside of Django's backends, ``cache._cache``,
are leaned on here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Final
from weakref import WeakKeyDictionary

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


@cache
def _spells(backend: type[BaseCache], method: str, of: type[BaseCache]) -> bool:
    """Whether keys are spelled, and ``method`` is done, as Django does."""
    names = (method, "make_key", "make_and_validate_key", "get_backend_timeout")
    return issubclass(backend, of) and all(getattr(backend, name) is getattr(of, name) for name in names)


def _memcached(backend: Any, method: str) -> Any:
    """Return the client of the one server of a cache; None where it is not that simple."""
    if not _spells(backend.__class__, method, PyMemcacheCache):
        return None
    around = backend._cache
    if type(around) is not backend._lib.HashClient or len(around.clients) != 1:
        return None
    (client,) = around.clients.values()
    return client


#: Beside each of Django's clients of one Redis server the client that it makes.
_redis_clients: WeakKeyDictionary[RedisCacheClient, Any] = WeakKeyDictionary()


def _redis(backend: Any, method: str) -> Any:
    """Return a client of the one server of a cache; None where it is not that simple."""
    if not _spells(backend.__class__, method, RedisCache):
        return None
    around = backend._cache
    if type(around) is not RedisCacheClient or len(backend._servers) != 1:
        return None
    client = _redis_clients.get(around)
    if client is None:
        client = _redis_clients[around] = around.get_client(write=True)
    return client


def get_many(backend: Any, keys: Iterable[str]) -> dict[str, Any] | None:
    """Return what is there of ``keys``; None where there is no shorter way to ask."""
    names = {backend.make_key(key): key for key in keys}
    if not names:
        return None
    if (client := _memcached(backend, "get_many")) is not None:
        return {names[name]: value for name, value in client.get_many(list(names)).items()}
    if (client := _redis(backend, "get_many")) is not None:
        loads, values = backend._cache._serializer.loads, client.mget(names)
        pairs = zip(names.values(), values, strict=True)
        return {key: loads(value) for key, value in pairs if value is not None}
    return None


def can_count(backend: Any) -> bool:
    """Whether ``count`` can be used."""
    return _memcached(backend, "incr") is not None


def count(backend: Any, key: str) -> int | None:
    """Count ``key`` on and return its number; None where there is nothing to count from."""
    number: int | None = _memcached(backend, "incr").incr(backend.make_key(key), 1)
    return number


def send(backend: Any, key: str, value: Any, timeout: Any) -> bool:
    """Have ``value`` stored, if possible without waiting; False where there is no shorter way."""
    life = backend.get_backend_timeout(timeout)
    if (client := _memcached(backend, "set")) is not None:
        # Without no_delay the kernel keeps back what is sent next until the server has confirmed this,
        # for which a server that has nothing to answer takes its time: 40 ms.
        if not backend._options.get("no_delay"):
            return False
        client.set(backend.make_key(key), value, life, noreply=True)
        return True
    if life != 0 and (client := _redis(backend, "set")) is not None:
        client.set(backend.make_key(key), backend._cache._serializer.dumps(value), ex=life)
        return True
    return False


def can_append(backend: Any) -> bool:
    """Whether ``append`` can be used."""
    return _redis(backend, "incr") is not None and backend.key_func is default_key_func


def append(backend: Any, counter: str, item: str, value: Any, timeout: int, above: int) -> int | None:
    """Count ``counter`` on, and store ``value`` under ``item`` and the number; return the number.

    None where there is nothing to count from; not stored unless the number is ``above`` this.
    """
    counter, item = map(backend.make_and_validate_key, (counter, item))
    data = backend._cache._serializer.dumps(value)
    number = _redis(backend, "incr").eval(APPEND, 1, counter, above, item, data, timeout)
    return None if number is None else int(number)
