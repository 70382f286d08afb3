"""What a statement reads and what it writes, from its text. Pure: no cache, no settings.

The text is what the database executes, whatever wrote it: the ORM, ``raw()`` or a hand. What
cannot be read for sure is ``Uncachable`` when read and flushes everything when written.

==========================  ====================================================================
a read depends on           every table named after FROM, JOIN or a comma in a FROM clause, in
                            subqueries and common table expressions too
a read is uncachable when   it locks rows, calls a function that is not known to depend on its
                            arguments alone, names the time, the user or a random order, or
                            holds text that databases read in different ways
a write touches             the table after its verb; every name in the statement where a second
                            verb or several targets stand in it; everything where that is in doubt
==========================  ====================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from .conf import fold


class Uncachable(Exception):
    """A read whose answer is not cached; the reason is its text."""


class Kind(Enum):
    """What a statement does to the data and to its connection."""

    READ = "reads"
    LOCK = "reads and locks"
    WRITE = "writes"
    SESSION = "changes the session"
    ROLLBACK_TO = "rolls back to a savepoint"
    NEUTRAL = "does nothing that matters here"


class Statement(NamedTuple):
    """What one call of ``cursor.execute`` does."""

    kind: Kind
    #: Tables written; None stands for all.
    tables: frozenset[str] | None = frozenset()
    #: The verb, in upper case, for explanations; the savepoint of a ``ROLLBACK_TO``.
    verb: str = ""


class Token(NamedTuple):
    """A word, a quoted name or a mark of punctuation."""

    text: str
    upper: str
    quoted: bool = False


EVERYTHING: Final = Statement(Kind.WRITE, None, "?")

_TOKENS: Final = re.compile(
    r"""
    (?P<space>\s+|--(?=\s|$)[^\n]*|/\*(?!!)(?:[^*/]|\*(?!/)|/(?!\*))*\*/)
    |(?P<escape>ESCAPE\s*'\\')
    |(?P<string>'(?:[^'\\]|'')*')
    |(?P<quoted>"(?:[^"\\]|"")*"|`(?:[^`]|``)*`)
    |(?P<param>%s|%\(\w+\)s|%%)
    |(?P<word>[^\W\d][\w$]*)
    |(?P<number>\d[\w.]*)
    |(?P<doubt>['"`]|/\*|--|\$\$|\$\w+\$)
    |(?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)

#: Literals that databases turn into the present time.
_MOMENTS: Final = frozenset({"'now'", "'today'", "'tomorrow'", "'yesterday'"})

#: Words that name the time, the user or chance without brackets.
_VOLATILE_WORDS: Final = frozenset(
    "CURRENT_CATALOG CURRENT_DATE CURRENT_ROLE CURRENT_SCHEMA CURRENT_TIME CURRENT_TIMESTAMP "
    "CURRENT_USER LOCALTIME LOCALTIMESTAMP SESSION_USER SYSDATE SYSTEM_USER TABLESAMPLE USER "
    "UTC_DATE UTC_TIME UTC_TIMESTAMP".split()
)

#: Words that may stand before a bracket without being functions.
_KEYWORDS: Final = frozenset(
    "ALL AND ANY ARRAY AS ASC BETWEEN BY CASE COLLATE CROSS CUBE DATETIME DESC DISTINCT ELSE END EXCEPT "
    "EXISTS FETCH FILTER FIRST FOLLOWING FROM FULL GROUP GROUPING HAVING ILIKE IN INNER INTERSECT "
    "INTERVAL IS JOIN LATERAL LEFT LIKE LIMIT MATERIALIZED NATURAL NEXT NOT NULL NULLS OFFSET ON "
    "ONLY OR ORDER OUTER OVER PARTITION PRECEDING RANGE RECURSIVE RIGHT ROLLUP ROW ROWS SELECT "
    "SETS SIMILAR SOME THEN TO UNION UNIQUE USING VALUES WHEN WHERE WINDOW WITH WITHIN".split()
)

#: SQL functions whose result depends on their arguments alone.
PURE_FUNCTIONS: Final = frozenset(
    "ABS ACOS ANY_VALUE ARRAY_AGG ARRAY_APPEND ARRAY_CAT ARRAY_LENGTH ARRAY_POSITION ARRAY_TO_JSON "
    "ARRAY_TO_STRING ASCII ASIN ATAN ATAN2 AVG BIGINT BIT_AND BIT_COUNT BIT_LENGTH BIT_OR BIT_XOR "
    "BITAND BITOR BITXOR BOOL_AND BOOL_OR BTRIM CAST CBRT CEIL CEILING CHAR CHARACTER CHAR_LENGTH "
    "CHARACTER_LENGTH CHR COALESCE CONCAT CONCAT_WS CONVERT CORR COS COT COUNT COVAR_POP COVAR_SAMP CUME_DIST DATE "
    "DATE_ADD DATE_FORMAT DATE_PART DATE_SUB DATE_TRUNC DATEDIFF DAY DAYOFMONTH DAYOFWEEK DAYOFYEAR "
    "DECIMAL DEGREES DENSE_RANK DIV ENCODE EVERY EXP EXTRACT FIELD FIND_IN_SET FIRST_VALUE FLOOR "
    "FORMAT FROM_DAYS GREATEST GROUP_CONCAT HEX HOUR IF IFNULL INITCAP INSTR INT INTEGER ISNULL ISFINITE "
    "JSON JSON_AGG JSON_ARRAY JSON_ARRAY_LENGTH JSON_ARRAYAGG JSON_BUILD_ARRAY JSON_BUILD_OBJECT JSON_COMPACT JSON_CONTAINS "
    "JSON_CONTAINS_PATH JSON_EXTRACT JSON_GROUP_ARRAY JSON_KEYS JSON_LENGTH JSON_OBJECT JSON_OBJECTAGG JSON_QUOTE "
    "JSON_TYPE JSON_UNQUOTE JSON_VALID JSON_VALUE JSONB_AGG JSONB_ARRAY_LENGTH JSONB_BUILD_ARRAY "
    "JSONB_BUILD_OBJECT JSONB_EXTRACT_PATH JSONB_OBJECT_AGG JSONB_TYPEOF LAG LAST_DAY LAST_VALUE LCASE LEAD "
    "LEAST LEFT LENGTH LN LOCATE LOG LOG10 LOG2 LOWER LPAD LTRIM MAKE_DATE MAKE_INTERVAL MAKEDATE MAX MD5 "
    "MICROSECOND MID MIN MINUTE MOD MONTH NTH_VALUE NTILE NULLIF NUMERIC OCT OCTET_LENGTH ORD OVERLAY "
    "PERCENT_RANK PERCENTILE_CONT PERCENTILE_DISC PI POSITION POW POWER QUARTER QUOTE_IDENT QUOTE_LITERAL "
    "RADIANS RANK REGEXP_LIKE REGEXP_REPLACE REGEXP_SUBSTR REGR_AVGX REGR_AVGY REGR_COUNT REGR_INTERCEPT "
    "REGR_R2 REGR_SLOPE REGR_SXX REGR_SXY REGR_SYY REPEAT REPLACE REVERSE RIGHT ROUND ROW_NUMBER ROW_TO_JSON "
    "RPAD RTRIM SEC_TO_TIME SECOND SHA SHA1 SHA2 SHA224 SHA256 SHA384 SHA512 SIGN SIMILARITY SIN SOUNDEX "
    "SPLIT_PART SQRT STD STDDEV STDDEV_POP STDDEV_SAMP STRICT_WORD_SIMILARITY STRING_AGG STR_TO_DATE "
    "STRPOS SUBSTR SUBSTRING SUBSTRING_INDEX SUM TAN TIME TIMESTAMPADD TIMESTAMPDIFF TO_CHAR TO_DATE TO_DAYS "
    "TO_JSON TO_JSONB TO_NUMBER TO_TIMESTAMP TRANSLATE TRIM TRUNC TRUNCATE TRY_CAST TYPEOF UCASE UNHEX "
    "UNNEST UPPER VAR_POP VAR_SAMP VARCHAR VARIANCE WEEK WEEKDAY WEEKOFYEAR WIDTH_BUCKET WORD_SIMILARITY XMLELEMENT YEAR "
    "YEARWEEK".split()
)

#: Functions that may be called without arguments and still not tell the time.
_NO_ARGUMENTS: Final = frozenset(
    "COUNT CUME_DIST DENSE_RANK PERCENT_RANK PI RANK ROW_NUMBER ARRAY IN GROUPING SETS VALUES OVER JSON_ARRAY JSON_OBJECT JSON_BUILD_ARRAY JSON_BUILD_OBJECT JSONB_BUILD_ARRAY JSONB_BUILD_OBJECT".split()
)

_VERBS: Final = frozenset("INSERT UPDATE DELETE MERGE REPLACE TRUNCATE".split())
_LOCKING: Final = frozenset("UPDATE SHARE NO KEY".split())
_LOCK_FUNCTION: Final = re.compile(r"PG_(TRY_)?ADVISORY_|GET_LOCK$")


def tokenize(sql: str) -> list[Token]:
    """Return the words of ``sql``; raise ``Uncachable`` where databases would disagree on them."""
    return list(_tokens(sql))


def _tokens(sql: str) -> Iterator[Token]:
    for match in _TOKENS.finditer(sql):
        group, text = match.lastgroup, match.group()
        if group == "doubt":
            raise Uncachable(f"its SQL holds {text!r}, which databases read in different ways")
        if group in ("space", "escape"):
            continue
        if group == "quoted":
            yield Token(fold(text), "", quoted=True)
        elif group == "word":
            yield Token(text.casefold(), text.upper())
        else:
            yield Token(text, text.casefold() if group == "string" else text)


#: Placeholders of bulk inserts and IN lists: long, and of no interest here.
_PLACEHOLDERS: Final = re.compile(r"\((?:%s(?:, ?)?){3,}\)(?:, ?)?")


def abridge(sql: str) -> str:
    """Return ``sql`` with its long rows of placeholders left out."""
    return _PLACEHOLDERS.sub("(%s)", sql) if len(sql) > 1000 else sql


@lru_cache(maxsize=2048)
def tables_read(sql: str, functions: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the tables that the answer of ``sql`` depends on.

    ``functions`` are further functions whose result depends on their arguments alone. Raises
    ``Uncachable`` when the answer depends on anything but the rows of those tables, or when
    the tables cannot be told.
    """
    tokens = tokenize(sql)
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    first = next((token for token in tokens if token.text != "("), None)
    if first is None or first.upper not in ("SELECT", "WITH"):
        raise Uncachable("it is not a SELECT")
    _refuse_volatile(tokens, functions)
    return frozenset(_relations(tokens))


def _refuse_volatile(tokens: list[Token], functions: frozenset[str]) -> None:
    for position, token in enumerate(tokens):
        word, following = token.upper, _upper(tokens, position + 1)
        if word == ";":
            raise Uncachable("it is more than one statement")
        if word == "FOR" and following in _LOCKING:
            raise Uncachable("it locks the rows that it reads")
        if word in _MOMENTS or word in _VOLATILE_WORDS and _upper(tokens, position - 1) != ".":
            raise Uncachable(f"{token.upper} changes by itself")
        if word == "INTO" or _writes(tokens, position):
            raise Uncachable(f"its SQL holds {word}")
        if following == "(" and (token.quoted or word.isidentifier()):
            _refuse_function(tokens, position, functions)


def _refuse_function(tokens: list[Token], position: int, functions: frozenset[str]) -> None:
    word = tokens[position].upper or tokens[position].text.upper()
    if word in functions or _names_columns(tokens, position):
        return
    known = word in _KEYWORDS or word in PURE_FUNCTIONS or word.startswith("DJANGO_")
    if not known or tokens[position].quoted or _upper(tokens, position - 1) == ".":
        raise Uncachable(
            f"the function {word} is not known to be pure; if it is, name it in CACHE_MACHINE['FUNCTIONS']"
        )
    if _upper(tokens, position + 2) == ")" and word not in _NO_ARGUMENTS:
        raise Uncachable(f"{word}() without arguments may tell the time")


def _names_columns(tokens: list[Token], position: int) -> bool:
    """Whether the bracket after this word lists the columns of a common table expression."""
    return _upper(tokens, position - 1) in ("WITH", "RECURSIVE")


def _upper(tokens: list[Token], position: int) -> str:
    return tokens[position].upper if 0 <= position < len(tokens) else ""


def _relations(tokens: list[Token]) -> Iterator[str]:
    """Yield the tables that stand where a FROM clause takes a relation.

    A FROM counts only behind a SELECT in the same brackets: EXTRACT(YEAR FROM x) has none.
    """
    local = _table_expressions(tokens)
    levels: list[str] = [""]  # per bracket: "" no FROM yet, "select", "from", "relation" expected
    for position, token in enumerate(tokens):
        word, state = token.upper, levels[-1]
        if word == "(":
            levels.append("relation" if state == "relation" else "")
            if state == "relation":
                levels[-2] = "from"
        elif word == ")":
            if len(levels) == 1:
                raise Uncachable("its brackets do not match")
            levels.pop()
        elif word == "SELECT":
            levels[-1] = "select"
        elif word == "FROM" and state in ("select", "from"):
            if _upper(tokens, position - 1) != "DISTINCT":
                levels[-1] = "relation"
        elif word in ("JOIN", "STRAIGHT_JOIN") or (word == "," and state == "from"):
            levels[-1] = "relation"
        elif word in ("WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "WINDOW") and state == "from":
            levels[-1] = "select"
        elif word in ("UNION", "EXCEPT", "INTERSECT"):
            levels[-1] = ""
        elif state == "relation" and word not in ("LATERAL", "ONLY"):
            following = _upper(tokens, position + 1)
            if following == ".":
                continue  # the schema; the name follows
            if word != "." and not (following == "(" and not token.quoted):
                if not (token.quoted or word.isidentifier()):
                    raise Uncachable("a relation of its FROM clause is not a name")
                if token.text not in local:
                    yield token.text
                levels[-1] = "from"
            elif word != ".":
                levels[-1] = "from"  # a function that returns rows


def _table_expressions(tokens: list[Token]) -> frozenset[str]:
    """Return the names that WITH gives to subqueries."""
    names = set()
    for position, token in enumerate(tokens):
        if token.upper == "AS" and position and _upper(tokens, position + 1) in ("(", "MATERIALIZED", "NOT"):
            before = position - 1
            if tokens[before].text == ")":
                depth = 0
                while before >= 0:
                    depth += {")": 1, "(": -1}.get(tokens[before].text, 0)
                    before -= 1
                    if not depth:
                        break
            if before >= 1 and _upper(tokens, before - 1) in ("WITH", "RECURSIVE", ","):
                names.add(tokens[before].text)
    return frozenset(names)


# What statements write.

#: Settings that change neither what a statement reads nor what it returns.
_HARMLESS_SETTINGS: Final = frozenset(
    "APPLICATION_NAME AUTOCOMMIT CONSTRAINTS FOREIGN_KEY_CHECKS UNIQUE_CHECKS LOCK_TIMEOUT STATEMENT_TIMEOUT "
    "IDLE_IN_TRANSACTION_SESSION_TIMEOUT SQL_AUTO_IS_NULL INNODB_LOCK_WAIT_TIMEOUT CLIENT_MIN_MESSAGES".split()
)
_HARMLESS_PRAGMAS: Final = frozenset(
    "FOREIGN_KEYS FOREIGN_KEY_CHECK FOREIGN_KEY_LIST DEFER_FOREIGN_KEYS JOURNAL_MODE SYNCHRONOUS CACHE_SIZE BUSY_TIMEOUT "
    "MMAP_SIZE TEMP_STORE WAL_AUTOCHECKPOINT WAL_CHECKPOINT TABLE_INFO TABLE_XINFO INDEX_LIST INDEX_INFO "
    "JOURNAL_SIZE_LIMIT OPTIMIZE TABLE_LIST INDEX_XINFO LEGACY_ALTER_TABLE".split()
)
_NEUTRAL: Final = frozenset(
    "ANALYZE BEGIN CHECKPOINT CLOSE COMMIT DEALLOCATE DECLARE DESC DESCRIBE END FETCH HELP KILL LISTEN MOVE "
    "NOTIFY RELEASE ROLLBACK SAVEPOINT SHOW START UNLISTEN UNLOCK VACUUM VALUES".split()
)
#: Words that may stand between a verb and its table.
_NOISE: Final = frozenset(
    "INTO FROM ONLY IGNORE LOW_PRIORITY HIGH_PRIORITY DELAYED QUICK OR ROLLBACK ABORT FAIL REPLACE".split()
)


@lru_cache(maxsize=2048)
def statement(sql: str) -> Statement:
    """Return what ``sql`` does, whatever it is: this never raises."""
    try:
        tokens = tokenize(sql)
    except Uncachable:
        return EVERYTHING
    parts = _split(tokens)
    if not parts:
        return Statement(Kind.NEUTRAL)
    if len(parts) == 1:
        return _single(parts[0])
    kinds = [_single(part) for part in parts]
    for kind in (Kind.WRITE, Kind.SESSION, Kind.LOCK):
        if any(found.kind is kind for found in kinds):
            return EVERYTHING if kind is Kind.WRITE else Statement(kind)
    return Statement(Kind.NEUTRAL)


def _split(tokens: list[Token]) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.text == ";" and not token.quoted:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _single(tokens: list[Token]) -> Statement:
    start = next((i for i, token in enumerate(tokens) if token.text != "("), 0)
    verb, words = tokens[start].upper, [token.upper for token in tokens]
    if verb in ("INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"):
        return Statement(Kind.WRITE, _targets(tokens), verb)
    if verb in ("SELECT", "WITH"):
        return _select(tokens, words)
    if verb == "EXPLAIN":
        return _explain(tokens, words)
    if verb in ("SET", "RESET", "DISCARD", "USE", "PRAGMA"):
        return _session(verb, words)
    if verb == "ROLLBACK" and "TO" in words:
        return Statement(Kind.ROLLBACK_TO, verb=tokens[-1].text)
    if verb == "LOCK":
        return Statement(Kind.LOCK, verb=verb)
    if verb in _NEUTRAL:
        return Statement(Kind.NEUTRAL, verb=verb)
    return Statement(Kind.WRITE, None, verb)  # TRUNCATE, schema changes, CALL, DO, the unknown


def _select(tokens: list[Token], words: list[str]) -> Statement:
    if any(_writes(tokens, position) for position in range(len(tokens))):
        return Statement(Kind.WRITE, _targets(tokens), "WITH")
    if "INTO" in words:
        return Statement(Kind.WRITE, None, "SELECT INTO")
    if "SET_CONFIG" in words:
        return Statement(Kind.SESSION, verb="SELECT")
    locks = any(word == "FOR" and _upper(tokens, i + 1) in _LOCKING for i, word in enumerate(words))
    if locks or "LOCK" in words or any(map(_LOCK_FUNCTION.match, words)):
        return Statement(Kind.LOCK, verb="SELECT")
    return Statement(Kind.READ, verb="SELECT")


def _explain(tokens: list[Token], words: list[str]) -> Statement:
    executed = "ANALYZE" in words or "ANALYSE" in words
    if executed and any(_writes(tokens, position) for position in range(len(tokens))):
        return Statement(Kind.WRITE, _targets(tokens), "EXPLAIN")
    return Statement(Kind.NEUTRAL, verb="EXPLAIN")


def _session(verb: str, words: list[str]) -> Statement:
    if verb == "PRAGMA":
        sets = "=" in words or "(" in words
        harmless = not sets or not _HARMLESS_PRAGMAS.isdisjoint(words)
        return Statement(Kind.NEUTRAL if harmless else Kind.SESSION, verb=verb)
    if verb == "SET" and not _HARMLESS_SETTINGS.isdisjoint(words[1:3]):
        return Statement(Kind.NEUTRAL, verb=verb)
    if verb == "SET" and words[1:2] in (["LOCAL"], ["TRANSACTION"]):
        return Statement(Kind.LOCK, verb=verb)  # until the transaction ends, as a lock
    return Statement(Kind.SESSION, verb=verb)


def _writes(tokens: list[Token], position: int) -> bool:
    """Whether a part of the statement that writes begins at ``position``.

    Not one: the function REPLACE(...), FOR UPDATE, ON DELETE, ON CONFLICT DO UPDATE,
    ON DUPLICATE KEY UPDATE, WHEN MATCHED THEN UPDATE, INSERT OR REPLACE.
    """
    return (
        tokens[position].upper in _VERBS
        and _upper(tokens, position + 1) != "("
        and _upper(tokens, position - 1) not in (".", "DO", "FOR", "KEY", "ON", "OR", "THEN")
    )


def _targets(tokens: list[Token]) -> frozenset[str] | None:
    """Return the tables that the statement writes; None where one cannot be told for sure."""
    targets = set()
    for position, token in enumerate(tokens):
        if _writes(tokens, position):
            target = _target(token.upper, tokens, position + 1)
            if target is None:
                return None
            targets.add(target)
    return frozenset(targets) or None


def _target(verb: str, tokens: list[Token], position: int) -> str | None:
    while _upper(tokens, position) in _NOISE:
        position += 1
    while _upper(tokens, position + 1) == ".":
        position += 2
    if position >= len(tokens) or not (tokens[position].quoted or tokens[position].upper.isidentifier()):
        return None
    name, after = tokens[position].text, position + 1
    if verb in ("INSERT", "REPLACE", "MERGE"):
        return name
    ends = ("SET",) if verb == "UPDATE" else ("", "WHERE", "RETURNING", "ORDER", "LIMIT", ")")
    if verb not in ("UPDATE", "DELETE"):
        return None
    # Behind the table an alias may stand; a comma, a join or a USING is not one target.
    if after < len(tokens) and _upper(tokens, after) not in ends:
        after += 2 if _upper(tokens, after) == "AS" else 1
        if tokens[after - 1].upper in ("USING", "JOIN", "FROM", ","):
            return None
    return name if after >= len(tokens) and verb == "DELETE" or _upper(tokens, after) in ends else None
