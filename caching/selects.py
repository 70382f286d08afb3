"""Which tables a read depends on, from its text, or why it is not cached. Pure.

The text is what the database executes, whatever wrote it: the ORM, ``raw()`` or a hand.

==========================  ====================================================================
a read depends on           every table named after FROM, JOIN or a comma in a FROM clause, in
                            subqueries and common table expressions too
a read is uncachable when   it locks rows, calls a function that is not known to depend on its
                            arguments alone, names the time, the user or a variable, or holds
                            text that databases read in different ways
==========================  ====================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

from . import reasons
from .sql import LOCKING, MEMORABLE, Token, Uncachable, begins_write, is_call, tokenize, upper

#: SQL functions whose result depends on their arguments alone, and types that take arguments.
PURE_FUNCTIONS: Final = frozenset(
    # numbers
    "ABS ACOS ASIN ATAN ATAN2 BIT_COUNT BITAND BITOR BITXOR CBRT CEIL CEILING COS COT DEGREES DIV EXP "
    "FLOOR GREATEST LEAST LN LOG LOG10 LOG2 MOD OCT PI POW POWER RADIANS ROUND SIGN SIN SQRT TAN TRUNC "
    "TRUNCATE WIDTH_BUCKET "
    # text
    "AKEYS ASCII AVALS BIT_LENGTH BTRIM CHAR_LENGTH CHARACTER_LENGTH CHR CONCAT CONCAT_WS ENCODE FIELD "
    "FIND_IN_SET FORMAT HEX INITCAP INSTR LCASE LEFT LENGTH LOCATE LOWER LPAD LTRIM MD5 MID "
    "OCTET_LENGTH ORD OVERLAY POSITION QUOTE_IDENT QUOTE_LITERAL REGEXP_LIKE REGEXP_REPLACE "
    "REGEXP_SUBSTR REPEAT REPLACE REVERSE RIGHT RPAD RTRIM SHA SHA1 SHA2 SHA224 SHA256 SHA384 SHA512 "
    "SIMILARITY SOUNDEX SPLIT_PART DIGEST STRICT_WORD_SIMILARITY STRPOS SUBSTR SUBSTRING SUBSTRING_INDEX "
    "TO_CHAR TO_NUMBER TRANSLATE TRIM UCASE UNACCENT UNHEX UNICODE UPPER WORD_SIMILARITY "
    # full text search
    "PHRASETO_TSQUERY PLAINTO_TSQUERY SETWEIGHT TO_TSQUERY TO_TSVECTOR TS_HEADLINE TS_RANK TS_RANK_CD "
    "WEBSEARCH_TO_TSQUERY "
    # dates and times
    "CONVERT_TZ DATE DATE_ADD DATE_FORMAT DATE_PART DATE_SUB DATE_TRUNC DATEDIFF DATETIME DAY "
    "DAYOFMONTH DAYOFWEEK DAYOFYEAR EXTRACT FROM_DAYS HOUR ISFINITE LAST_DAY MAKE_DATE MAKE_INTERVAL "
    "MAKEDATE MICROSECOND MINUTE MONTH QUARTER SEC_TO_TIME SECOND STRFTIME STR_TO_DATE TIME TIME_FORMAT "
    "TIMESTAMP TIMESTAMPADD TIMESTAMPDIFF TO_DATE TO_DAYS TO_SECONDS TO_TIMESTAMP WEEK WEEKDAY "
    "WEEKOFYEAR YEAR YEARWEEK DJANGO_DATE_EXTRACT DJANGO_DATE_TRUNC DJANGO_DATETIME_CAST_DATE "
    "DJANGO_DATETIME_CAST_TIME DJANGO_DATETIME_EXTRACT DJANGO_DATETIME_TRUNC DJANGO_FORMAT_DTDELTA "
    "DJANGO_TIME_DIFF DJANGO_TIME_EXTRACT DJANGO_TIME_TRUNC DJANGO_TIMESTAMP_DIFF "
    # choices and types
    "BIGINT CAST CHAR CHARACTER COALESCE CONVERT DECIMAL HOST IF IFNULL INT INTEGER ISNULL NULLIF NUMERIC "
    "TRY_CAST TYPEOF VARCHAR "
    # JSON, arrays, ranges, XML
    "ARRAY_APPEND ARRAY_CAT ARRAY_LENGTH ARRAY_POSITION ARRAY_TO_JSON ARRAY_TO_STRING CARDINALITY "
    "DATERANGE INT4RANGE INT8RANGE ISEMPTY JSON JSON_ARRAY JSON_ARRAY_LENGTH JSON_BUILD_ARRAY "
    "JSON_BUILD_OBJECT JSON_COMPACT JSON_CONTAINS JSON_CONTAINS_PATH JSON_EXTRACT JSON_KEYS JSON_LENGTH "
    "JSON_OBJECT JSON_QUOTE JSON_TYPE JSON_UNQUOTE JSON_VALID JSON_VALUE JSONB_ARRAY_LENGTH "
    "JSONB_BUILD_ARRAY JSONB_BUILD_OBJECT JSONB_EXTRACT_PATH JSONB_TYPEOF LOWER_INC LOWER_INF NUMRANGE "
    "ROW_TO_JSON TO_JSON TO_JSONB TSRANGE TSTZRANGE UNNEST UPPER_INC UPPER_INF XMLELEMENT "
    # aggregates
    "ANY_VALUE ARRAY_AGG AVG BIT_AND BIT_OR BIT_XOR BOOL_AND BOOL_OR CORR COUNT COVAR_POP COVAR_SAMP "
    "EVERY GROUP_CONCAT JSON_AGG JSON_ARRAYAGG JSON_GROUP_ARRAY JSON_OBJECTAGG JSONB_AGG "
    "JSONB_OBJECT_AGG MAX MIN PERCENTILE_CONT PERCENTILE_DISC REGR_AVGX REGR_AVGY REGR_COUNT "
    "REGR_INTERCEPT REGR_R2 REGR_SLOPE REGR_SXX REGR_SXY REGR_SYY STD STDDEV STDDEV_POP STDDEV_SAMP "
    "STRING_AGG SUM VAR_POP VAR_SAMP VARIANCE "
    # windows
    "CUME_DIST DENSE_RANK FIRST_VALUE LAG LAST_VALUE LEAD NTH_VALUE NTILE PERCENT_RANK RANK "
    "ROW_NUMBER".split()
)

#: Words that may stand before a bracket without being functions.
_KEYWORDS: Final = frozenset(
    "ALL AND ANY ARRAY AS ASC BETWEEN BY CASE COLLATE CROSS CUBE DESC DISTINCT ELSE END EXCEPT EXISTS "
    "FETCH FILTER FIRST FOLLOWING FROM FULL GROUP GROUPING HAVING ILIKE IN INNER INTERSECT INTERVAL IS "
    "JOIN LATERAL LIKE LIMIT MATERIALIZED NATURAL NEXT NOT NULL NULLS OFFSET ON OR ORDER OUTER OVER "
    "PARTITION PRECEDING RANGE RECURSIVE ROLLUP ROW ROWS SELECT SETS SIMILAR SOME THEN TO UNION UNIQUE "
    "USING VALUES WHEN WHERE WITH WITHIN".split()
)

#: May be called without arguments and still not tell the time.
_NO_ARGUMENTS: Final = frozenset(
    "ARRAY COUNT CUME_DIST DENSE_RANK GROUPING JSON_ARRAY JSON_BUILD_ARRAY JSON_BUILD_OBJECT "
    "JSON_OBJECT JSONB_BUILD_ARRAY JSONB_BUILD_OBJECT OVER PERCENT_RANK PI RANK ROW_NUMBER".split()
)

#: In a literal, databases may turn these into the present time.
_MOMENT: Final = re.compile(r"\b(?:now|today|tomorrow|yesterday|subsec|subsecond)\b", re.IGNORECASE)

#: Words that make an answer depend on more than rows.
_VOLATILE: Final = frozenset(
    "CURRENT_CATALOG CURRENT_DATE CURRENT_ROLE CURRENT_SCHEMA CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER "
    "LOCALTIME LOCALTIMESTAMP SESSION_USER SQL_CALC_FOUND_ROWS SYSDATE SYSTEM_USER TABLESAMPLE USER UTC_DATE "
    "UTC_TIME UTC_TIMESTAMP".split()
)


def tables_read(sql: str, functions: frozenset[str] = frozenset(), vendor: str = "") -> frozenset[str]:
    """Return the tables that the answer of ``sql`` depends on.

    ``functions`` are further functions whose result depends on their arguments alone; ``vendor``
    is the database that executes it, as Django calls it. Raises ``Uncachable`` when the answer
    depends on anything but the rows of those tables, or when the tables cannot be told.
    """
    read = _remembered if len(sql) <= MEMORABLE else _read
    found = read(sql, functions, vendor)
    if isinstance(found, str):
        raise Uncachable(found)
    return found


def _read(sql: str, functions: frozenset[str], vendor: str) -> frozenset[str] | str:
    """Return the tables, or the reason why they cannot be told."""
    try:
        tokens = tokenize(sql)
        while upper(tokens, len(tokens) - 1) == ";":
            tokens.pop()
        first = next((token.upper for token in tokens if token.upper != "("), "")
        if first not in ("SELECT", "WITH"):
            return reasons.NO_SELECT
        _refuse_volatile(tokens, functions)
        if vendor == "mysql":
            _refuse_dates_of_times(tokens, functions)
        return frozenset(name for name, _ in relations(tokens))
    except Uncachable as refusal:
        return str(refusal)


_remembered: Final = lru_cache(maxsize=2048)(_read)


def _refuse_volatile(tokens: list[Token], functions: frozenset[str]) -> None:
    for position, token in enumerate(tokens):
        word = token.upper
        if token.is_name:
            if upper(tokens, position + 1) == "(":
                _refuse_function(tokens, position, functions)
            if word in _VOLATILE:
                raise Uncachable(reasons.VOLATILE.format(word=word))
            if word in _SUSPECTS:
                _refuse_clause(tokens, position)
        elif word == ";":
            raise Uncachable(reasons.SEVERAL)
        elif token.kind == "variable":
            raise Uncachable(reasons.VARIABLE)
        elif token.kind == "string" and _MOMENT.search(token.raw):
            raise Uncachable(reasons.LITERAL_NOW.format(literal=token.raw))


_SUSPECTS: Final = frozenset("FOR IN INTO NEXT TABLE INSERT UPDATE DELETE MERGE REPLACE TRUNCATE".split())


def _refuse_clause(tokens: list[Token], position: int) -> None:
    word, following = tokens[position].upper, upper(tokens, position + 1)
    if word == "FOR" and following in LOCKING:
        raise Uncachable(reasons.LOCKS)
    if (
        word in ("INTO", "TABLE")
        or (word, following) in (("NEXT", "VALUE"), ("FOR", "SYSTEM_TIME"))
        or (word == "IN" and following != "(")  # SQLite takes the name of a table
        or begins_write(tokens, position)
    ):
        raise Uncachable(reasons.CLAUSE.format(words=f"{word} {following}".rstrip()))


def _refuse_function(tokens: list[Token], position: int, functions: frozenset[str]) -> None:
    token, before = tokens[position], upper(tokens, position - 1)
    word = token.text.upper()
    if word in functions or before in ("WITH", "RECURSIVE"):  # the columns of a table expression
        return
    known = word in PURE_FUNCTIONS or word in _KEYWORDS
    if not known or token.kind == "quoted" or before == ".":
        raise Uncachable(reasons.FUNCTION.format(name=word))
    alone = upper(tokens, position + 2) == ")" and word not in _NO_ARGUMENTS
    if alone or (word == "STRFTIME" and upper(tokens, position + 3) != ","):
        raise Uncachable(reasons.NO_ARGUMENT.format(name=word))


#: On MariaDB and MySQL these take a time of day for one of the present day.
_OF_DATES: Final = frozenset(
    "CONVERT_TZ DATE DATE_ADD DATE_SUB DATEDIFF DAY DAYOFMONTH DAYOFWEEK DAYOFYEAR LAST_DAY MONTH QUARTER "
    "TIMESTAMPADD TIMESTAMPDIFF TO_DAYS TO_SECONDS WEEK WEEKDAY WEEKOFYEAR YEAR YEARWEEK".split()
)
#: What gives a time of day, as a function or as a type.
_OF_TIMES: Final = frozenset("MAKETIME SEC_TO_TIME STR_TO_DATE TIME TIMEDIFF".split())


def _refuse_dates_of_times(tokens: list[Token], functions: frozenset[str]) -> None:
    for position, token in enumerate(tokens):
        word = token.text.upper()
        if is_call(tokens, position) and word not in functions:
            inside = _inside(tokens, position + 1)
            if (
                word == "TIMESTAMP"
                or (word in ("CAST", "CONVERT") and _makes_date(inside))
                or (word in _OF_DATES and any(map(_gives_time, inside)))
            ):
                raise Uncachable(reasons.DAY.format(name=word))


def _gives_time(token: Token) -> bool:
    return token.kind == "word" and token.text.upper() in _OF_TIMES


def _makes_date(inside: list[Token]) -> bool:
    """Whether what stands in the brackets of a CAST may make a date of a time of day; not of a text."""
    ends = [position for position, token in enumerate(inside) if token.upper in ("AS", ",")]
    if not ends or inside[ends[-1] + 1].text.upper() not in ("DATE", "DATETIME", "TIMESTAMP"):
        return False
    given = inside[: ends[-1]]
    is_formatted = given[0].upper == "DATE_FORMAT" and len(given) == len(_inside(given, 1)) + 3
    return not is_formatted and not (len(given) == 1 and given[0].kind in ("param", "string"))


def _inside(tokens: list[Token], start: int) -> list[Token]:
    """Return what stands between the bracket at ``start`` and the one that closes it."""
    depth = 0
    for end in range(start, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[end].upper, 0)
        if not depth:
            return tokens[start + 1 : end]
    raise Uncachable(reasons.BRACKETS)


class _Level:
    """What is between one pair of brackets, as far as it was read."""

    __slots__ = ("expressions", "pending", "recursive", "state")

    def __init__(self, state: str = "") -> None:
        #: "" (no SELECT yet), "with", "select", "from", "combined" behind a UNION and the like,
        #: or "relation" where one is expected.
        self.state = state
        #: Names that WITH has given to subqueries, as they were written.
        self.expressions: set[str] = set()
        #: The one whose own subquery is being read, where the name still means the table.
        self.pending: set[str] = set()
        self.recursive = False


def relations(tokens: list[Token]) -> Iterator[tuple[str, int]]:
    """Yield the tables that stand where a FROM clause takes a relation, with their depth in brackets.

    A FROM counts only behind a SELECT in the same brackets: EXTRACT(YEAR FROM x) has none. In
    doubt a name is yielded: one table too many is safe.
    """
    levels = [_Level()]
    for position, token in enumerate(tokens):
        word, level = token.upper, levels[-1]
        if word == "(":
            levels.append(_Level("relation" if level.state == "relation" else ""))
            if level.state == "relation":
                level.state = "from"
        elif word == ")":
            levels.pop()
            if not levels:
                raise Uncachable(reasons.BRACKETS)
        elif word in _CLAUSES:
            level.state = _CLAUSES[word](level, tokens, position) or level.state
        elif level.state == "relation":
            for name in _relation(levels, tokens, position):
                yield name, len(levels)
        elif level.state == "with":
            _name_expression(level, tokens, position)


def _select(level: _Level, tokens: list[Token], position: int) -> str:
    level.expressions |= level.pending
    return "select"


def _from(level: _Level, tokens: list[Token], position: int) -> str:
    before = upper(tokens, position - 1), upper(tokens, position - 2)
    is_comparison = before in (("DISTINCT", "IS"), ("DISTINCT", "NOT"))
    return "relation" if level.state and not is_comparison else ""


def _join(level: _Level, tokens: list[Token], position: int) -> str:
    return "relation"


def _comma(level: _Level, tokens: list[Token], position: int) -> str:
    level.expressions |= level.pending
    if level.state == "relation":
        raise Uncachable(reasons.NO_NAME)
    return "relation" if level.state == "from" else ""


def _with(level: _Level, tokens: list[Token], position: int) -> str:
    begins = level.state in ("", "relation") and upper(tokens, position - 1) in ("", "(")
    return "with" if begins else ""


def _combine(level: _Level, tokens: list[Token], position: int) -> str:
    return "combined"


def _end(level: _Level, tokens: list[Token], position: int) -> str:
    return "select" if level.state == "from" else ""


def _end_by(level: _Level, tokens: list[Token], position: int) -> str:
    # WITHIN GROUP (...) and USE INDEX FOR ORDER BY (...) may stand inside a FROM clause.
    ends = upper(tokens, position + 1) == "BY" and upper(tokens, position - 1) != "FOR"
    return _end(level, tokens, position) if ends else ""


#: What the words that begin a clause do to the state of their level; empty: nothing.
_CLAUSES: Final[dict[str, Callable[[_Level, list[Token], int], str]]] = {
    "SELECT": _select,
    "FROM": _from,
    "JOIN": _join,
    "STRAIGHT_JOIN": _join,
    ",": _comma,
    "WITH": _with,
    "UNION": _combine,
    "EXCEPT": _combine,
    "INTERSECT": _combine,
    "WHERE": _end,
    "HAVING": _end,
    "LIMIT": _end,
    "GROUP": _end_by,
    "ORDER": _end_by,
}


def _name_expression(level: _Level, tokens: list[Token], position: int) -> None:
    token = tokens[position]
    if token.upper == "RECURSIVE":
        level.recursive = True
    elif upper(tokens, position - 1) in ("WITH", "RECURSIVE", ",") and token.is_name:
        (level.expressions if level.recursive else level.pending).add(_written(token))


def _relation(levels: list[_Level], tokens: list[Token], position: int) -> Iterator[str]:
    token, following = tokens[position], upper(tokens, position + 1)
    if token.upper == "." or (following == "." and token.is_name):
        return  # the schema; the name follows
    if token.upper == "LATERAL" and following == "(":
        return
    if not token.is_name or token.upper == "ONLY":
        raise Uncachable(reasons.NO_NAME)
    levels[-1].state = "from"
    if following == "(" and token.kind == "word":
        return  # a function that returns rows
    written = _written(token)
    qualified = upper(tokens, position - 1) == "."
    if qualified or not any(written in level.expressions for level in levels):
        yield token.text


def _written(token: Token) -> str:
    return token.raw if token.kind == "quoted" else token.text
