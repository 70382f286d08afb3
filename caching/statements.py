"""What a statement does, from its text: which tables it writes, what it changes or locks. Pure.

A statement that writes names the table behind its verb. Where that is in doubt (a second
target, several statements in one string, a verb that is not known) it writes everything.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from .sql import LOCKING, MEMORABLE, VERBS, Token, Uncachable, begins_write, is_call, tokenize, upper


class Kind(Enum):
    """What a statement does to the data and to its connection."""

    READ = "reads"
    LOCK = "reads and locks"
    WRITE = "writes"
    SESSION = "changes the session"
    ISOLATION = "sets the isolation of the session"
    ROLLBACK_TO = "rolls back to a savepoint"
    NEUTRAL = "does nothing that matters here"


class Setting(NamedTuple):
    """A setting of the session that a statement sets, as PostgreSQL reads it."""

    name: str
    #: What it is set to, or the first of several such; empty for a RESET.
    value: str
    #: Whether it is for the present transaction only.
    local: bool


class Statement(NamedTuple):
    """What one call of ``cursor.execute`` does."""

    kind: Kind
    #: Tables written; None stands for all.
    tables: frozenset[str] | None = frozenset()
    #: The verb, in upper case. What may delete rows is neither ``INSERT`` nor ``UPDATE``.
    verb: str = ""
    #: The savepoint that it makes, releases or rolls back to.
    savepoint: str = ""
    #: What it sets, if that is one setting and nothing else.
    setting: Setting | None = None
    #: Whether what writes, or several statements, may change the session as well.
    changes_session: bool = False


EVERYTHING: Final = Statement(Kind.WRITE, None, "?", changes_session=True)

#: Settings that change neither what a statement reads nor what it returns.
_HARMLESS_SETTINGS: Final = frozenset(
    "APPLICATION_NAME AUTOCOMMIT CLIENT_MIN_MESSAGES CONSTRAINTS FOREIGN_KEY_CHECKS "
    "IDLE_IN_TRANSACTION_SESSION_TIMEOUT INNODB_LOCK_WAIT_TIMEOUT LOCK_TIMEOUT SQL_AUTO_IS_NULL "
    "STATEMENT_TIMEOUT UNIQUE_CHECKS WORK_MEM".split()
)
#: Settings of PostgreSQL that SET LOCAL gives back when the transaction ends. In MySQL, where
#: LOCAL means the session, they do not exist.
_LOCAL_SETTINGS: Final = frozenset("ROLE ROW_SECURITY SEARCH_PATH TIME TIMEZONE".split())
_HARMLESS_PRAGMAS: Final = frozenset(
    "BUSY_TIMEOUT CACHE_SIZE DEFER_FOREIGN_KEYS FOREIGN_KEYS FOREIGN_KEY_CHECK FOREIGN_KEY_LIST "
    "INDEX_INFO INDEX_LIST INDEX_XINFO INTEGRITY_CHECK JOURNAL_MODE JOURNAL_SIZE_LIMIT "
    "LEGACY_ALTER_TABLE MMAP_SIZE OPTIMIZE QUICK_CHECK SYNCHRONOUS TABLE_INFO TABLE_LIST TABLE_XINFO "
    "TEMP_STORE WAL_AUTOCHECKPOINT WAL_CHECKPOINT".split()
)
_NEUTRAL: Final = frozenset(
    "BEGIN CHECKPOINT CLOSE COMMIT DEALLOCATE END FETCH HELP KILL LISTEN MOVE NOTIFY "
    "ROLLBACK SHOW START UNLISTEN UNLOCK VACUUM".split()
)
_TRANSACTIONS: Final = frozenset("BEGIN START COMMIT END ROLLBACK".split())
#: What EXPLAIN ANALYZE executes.
_EXECUTED: Final = frozenset(
    "INSERT UPDATE DELETE MERGE REPLACE SELECT WITH VALUES TABLE CREATE REFRESH DECLARE EXECUTE".split()
)
#: Statements that may write, and leave the session alone. Any other that is not known may change it.
_DEFINITIONS: Final = frozenset(
    "ALTER COMMENT COPY CREATE DROP GRANT PREPARE REFRESH REINDEX RENAME REVOKE TRUNCATE".split()
)
#: Words that may stand between a verb and its table.
_NOISE: Final = frozenset(
    "INTO FROM ONLY IGNORE LOW_PRIORITY HIGH_PRIORITY DELAYED QUICK OR ROLLBACK ABORT FAIL REPLACE".split()
)
_LOCK_FUNCTION: Final = re.compile(r"PG_(TRY_)?ADVISORY_|GET_LOCK$")
#: A text without any of these words only reads, wherever its strings and comments end.
_DANGEROUS: Final = re.compile(
    r";|\b(?:INSERT|UPDATE|DELETE|MERGE|REPLACE(?!\()|TRUNCATE|INTO|FOR|LOCK|GET_LOCK|SET_CONFIG"
    r"|PG_\w*ADVISORY\w*)\b",
    re.IGNORECASE,
)
_SELECT: Final = re.compile(r"[\s(]*SELECT\b", re.IGNORECASE)
#: One statement, wherever its strings and comments end. It calls nothing that changes
#: the session, not even under a name in Unicode escapes, and makes nothing temporary.
_ONE_STATEMENT: Final = re.compile(
    r"[\s(]*(?:SELECT|WITH|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|COMMENT)\b"
    r"(?!.*(?:;\s*\S|SET_CONFIG|U&|PG_TEMP|TEMP\b|TEMPORARY\b))",
    re.IGNORECASE | re.DOTALL,
)


def statement(sql: str) -> Statement:
    """Return what ``sql`` does, whatever it is: this never raises."""
    return _remembered(sql) if len(sql) <= MEMORABLE else _statement(sql)


def _statement(sql: str) -> Statement:
    try:
        tokens = tokenize(sql)
    except Uncachable:
        if _SELECT.match(sql) and not _DANGEROUS.search(sql):
            return Statement(Kind.READ, verb="SELECT")
        return EVERYTHING._replace(changes_session=not _ONE_STATEMENT.match(sql))
    parts = _split(tokens)
    if not parts:
        return Statement(Kind.NEUTRAL)
    return _single(parts[0]) if len(parts) == 1 else _several([_single(part) for part in parts])


_remembered: Final = lru_cache(maxsize=2048)(_statement)


def _split(tokens: list[Token]) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.upper == ";":
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _several(parts: list[Statement]) -> Statement:
    kinds = {part.kind for part in parts} - {Kind.NEUTRAL}
    verbs = [part.verb for part in parts if part.verb in _TRANSACTIONS]
    if kinds == {Kind.ISOLATION} and not verbs:
        return Statement(Kind.ISOLATION, verb="SET")
    kind = next((kind for kind in _STRONGEST if kind in kinds), Kind.NEUTRAL)
    verb = verbs[-1] if verbs else _STRONGEST.get(kind, "")
    changes = any(map(_changes_session, parts))
    return Statement(kind, None if kind is Kind.WRITE else frozenset(), verb, changes_session=changes)


#: What several statements do if one of them does so, and the verb that this gets.
_STRONGEST: Final = {Kind.WRITE: "?", Kind.SESSION: "SET", Kind.LOCK: "SET"}


def _changes_session(part: Statement) -> bool:
    is_setting = part.kind in (Kind.SESSION, Kind.ISOLATION) or (
        part.kind is Kind.LOCK and part.verb == "SET"
    )
    return is_setting or part.changes_session


def _single(tokens: list[Token]) -> Statement:
    start = next((i for i, token in enumerate(tokens) if token.upper != "("), 0)
    verb, words = upper(tokens, start), [token.upper for token in tokens]
    if verb in VERBS - {"TRUNCATE"}:
        return _write(tokens, verb)
    if verb in ("SELECT", "WITH", "VALUES", "TABLE", "DECLARE"):
        return _select(tokens, words)
    if verb in ("EXPLAIN", "ANALYZE", "DESC", "DESCRIBE"):
        return _explain(verb, tokens[start:])
    if verb in ("SET", "RESET", "DISCARD", "USE", "PRAGMA"):
        return _session(verb, tokens, words)
    if verb == "CREATE" and not _TEMPORARY.isdisjoint(words[1:5]):
        return Statement(Kind.SESSION, verb=verb)  # it may hide a table of the same name
    if verb in ("SAVEPOINT", "RELEASE") or (verb == "ROLLBACK" and "TO" in words):
        kind, verb = (Kind.ROLLBACK_TO, "") if verb == "ROLLBACK" else (Kind.NEUTRAL, verb)
        return Statement(kind, verb=verb, savepoint=tokens[-1].text)
    if verb == "LOCK":
        return Statement(Kind.LOCK, verb=verb)
    if verb in _TRANSACTIONS and "CHAIN" in words and "NO" not in words:
        return Statement(Kind.NEUTRAL, verb="BEGIN")  # COMMIT AND CHAIN
    if verb in _NEUTRAL and words[1:2] not in (["PREPARED"], ["NOT"]):  # BEGIN NOT ATOMIC ... END
        return Statement(Kind.NEUTRAL, verb=verb)
    # TRUNCATE, schema changes, CALL, DO, ATTACH, the unknown
    changes = verb not in _DEFINITIONS or _also_changes(tokens) or _is_temporary(tokens)
    return Statement(Kind.WRITE, None, verb, changes_session=changes)


_TEMPORARY: Final = frozenset({"TEMP", "TEMPORARY"})


def _also_changes(tokens: list[Token]) -> bool:
    """Whether a part of a statement that writes changes the session: set_config(), SELECT INTO."""
    return any(
        token.text == "set_config"
        or (token.upper == "INTO" and upper(tokens, position - 1) not in VERBS | _NOISE)
        for position, token in enumerate(tokens)
    )


def _is_temporary(tokens: list[Token]) -> bool:
    """Whether something is made in the schema of what only this session sees."""
    return any(
        (token.text == "temp" or token.text.startswith("pg_temp")) and upper(tokens, position + 1) == "."
        for position, token in enumerate(tokens)
    )


def _write(tokens: list[Token], verb: str) -> Statement:
    places = [position for position in range(len(tokens)) if begins_write(tokens, position)]
    replaces = "REPLACE" in (upper(tokens, 2), upper(tokens, 1)) and upper(tokens, 1) == "OR"
    if replaces or (len(places) != 1 and verb in ("INSERT", "UPDATE")):
        verb = "REPLACE" if replaces else "WITH"
    return Statement(Kind.WRITE, _targets(tokens, places), verb, changes_session=_also_changes(tokens))


def _select(tokens: list[Token], words: list[str]) -> Statement:
    if any(begins_write(tokens, position) for position in range(len(tokens))):
        return _write(tokens, "WITH")
    if "INTO" in words:
        return Statement(Kind.WRITE, None, "SELECT INTO", changes_session=True)
    calls = {tokens[position].text.upper() for position in range(len(tokens)) if is_call(tokens, position)}
    if "SET_CONFIG" in calls:
        return Statement(Kind.SESSION, verb="SELECT", setting=_setting(tokens))
    locks = any(word == "FOR" and upper(tokens, i + 1) in LOCKING for i, word in enumerate(words))
    if locks or "LOCK" in words or any(map(_LOCK_FUNCTION.match, calls)):
        return Statement(Kind.LOCK, verb="SELECT")
    return Statement(Kind.READ, verb="SELECT")


def _explain(verb: str, tokens: list[Token]) -> Statement:
    """Look at what is explained: with ANALYZE it is executed as well."""
    words = [token.upper for token in tokens]
    inner = next((i for i, word in enumerate(words) if word in _EXECUTED), None)
    executed = "ANALYZE" in words or "ANALYSE" in words
    if not executed or (inner is None and verb != "EXPLAIN"):
        return Statement(Kind.NEUTRAL, verb=verb)  # ANALYZE of a table, too
    found = EVERYTHING if inner is None else _single(tokens[inner:])
    kind = Kind.NEUTRAL if found.kind is Kind.READ else found.kind
    return found._replace(kind=kind, verb=verb, setting=None)


def _session(verb: str, tokens: list[Token], words: list[str]) -> Statement:
    if verb == "SET" and words[1:2] == ["STATEMENT"] and "FOR" in words:
        return _single(tokens[words.index("FOR") + 1 :])
    if verb == "SET" and words[1:2] == ["TRANSACTION"]:
        return Statement(Kind.LOCK, verb=verb)  # until the transaction ends, as a lock
    if verb == "SET" and words[1:5] == ["SESSION", "TRANSACTION", "ISOLATION", "LEVEL"]:
        return Statement(Kind.ISOLATION, verb=verb)
    names = _assigned(tokens[1:])
    if verb == "SET" and names == ["AUTOCOMMIT"]:
        on = tokens[-1].text in ("1", "on", "true")
        return Statement(Kind.NEUTRAL, verb="COMMIT" if on else "BEGIN")
    if verb == "SET" and (words[1:2] == ["CONSTRAINTS"] or _HARMLESS_SETTINGS.issuperset(names)):
        return Statement(Kind.NEUTRAL, verb=verb)
    if verb == "SET" and words[1:2] == ["LOCAL"] and ("." in words[:5] or names[0] in _LOCAL_SETTINGS):
        return Statement(Kind.LOCK, verb=verb, setting=_setting(tokens))
    if verb == "PRAGMA" and (not {"=", "("} & set(words) or _HARMLESS_PRAGMAS.issuperset(names)):
        return Statement(Kind.NEUTRAL, verb=verb)
    return Statement(Kind.SESSION, verb=verb, setting=_setting(tokens))


_SETTING: Final = re.compile(
    r"""
    SET[ ](?:SESSION[ ]|(?P<local>LOCAL[ ]))?(?:(?P<set>\w+(?:[ ]\.[ ]\w+)*)[ ](?:=|TO)|(?P<role>ROLE))[ ]
        (?P<value>'[^']*'|"[^"]*"|\S+)(?:[ ],.*)?
    |RESET[ ](?P<reset>\w+(?:[ ]\.[ ]\w+)*)
    |SELECT[ ]set_config[ ]\([ ]'(?P<config>[\w.]+)'[ ],[ ](?P<given>'[^']*'|\S+)[ ],[ ](?P<is_local>\S+)[ ]\)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _setting(tokens: list[Token]) -> Setting | None:
    """Return the one setting that a SET, a RESET or a set_config() names; None if in doubt."""
    found = _SETTING.fullmatch(" ".join(token.raw for token in tokens))
    if found is None:
        return None
    name = found["set"] or found["role"] or found["reset"] or found["config"]
    value = found["value"] or found["given"] or ""
    value = value[1:-1] if value[:1] in ("'", '"') else value.lower()
    is_local = found["is_local"] and found["is_local"].upper() != "FALSE"
    return Setting(name.replace(" ", "").lower(), value, bool(found["local"] or is_local))


def _assigned(tokens: list[Token]) -> list[str]:
    """Return the names of the settings that stand before the values."""
    names, name, valued = [], "", False
    for token in [*tokens, Token(",", ",", "mark", ",")]:
        if token.upper == ",":
            names.append(name)
            name, valued = "", False
        elif token.upper in ("=", "TO", "(", ":", "ZONE", "CONSTRAINTS"):
            valued = True
        elif token.is_name and not valued:
            name = token.text.upper()
    return names


def _targets(tokens: list[Token], places: list[int]) -> frozenset[str] | None:
    """Return the tables that the statement writes; None where one cannot be told for sure."""
    targets = {_target(tokens[place].upper, tokens, place + 1) for place in places}
    return frozenset(filter(None, targets)) if targets and all(targets) else None


def _target(verb: str, tokens: list[Token], position: int) -> str | None:
    while upper(tokens, position) in _NOISE:
        position += 1
    while upper(tokens, position + 1) == ".":
        position += 2
    if position >= len(tokens) or not tokens[position].is_name:
        return None
    name, after = tokens[position].text, position + 1
    if verb in ("INSERT", "REPLACE", "MERGE"):
        return name
    if verb not in ("UPDATE", "DELETE"):
        return None
    ends = ("SET",) if verb == "UPDATE" else ("", "WHERE", "RETURNING", "ORDER", "LIMIT", ")")
    # Behind the table an alias may stand; a comma, a join or a USING is not one target.
    if after < len(tokens) and upper(tokens, after) not in ends:
        after += 2 if upper(tokens, after) == "AS" else 1
        if upper(tokens, after - 1) in ("USING", "JOIN", "FROM", ","):
            return None
    is_last = after >= len(tokens) and verb == "DELETE"
    return name if is_last or upper(tokens, after) in ends else None
