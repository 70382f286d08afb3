"""The words of a statement, as every supported database reads them. Pure.

The dialects differ in what quotes, comments and escapes look like, and this does not know
which one it reads. Where they could disagree on where a word, a string or a comment ends,
the text is refused: ``Uncachable`` for a read, a flush of everything for a write.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from . import reasons
from .conf import fold


class Uncachable(Exception):
    """A read whose answer is not cached; the reason is its text."""


class Token(NamedTuple):
    """A word, a quoted name, a literal, a placeholder or a mark of punctuation."""

    #: The name in the form in which table names are compared; the text of anything else.
    text: str
    #: The keyword, in upper case; the text of a mark; empty for what can only be a name.
    upper: str
    kind: str
    #: As it was written.
    raw: str

    @property
    def is_name(self) -> bool:
        """Whether this may name a table, a column or a function."""
        return self.kind in ("word", "quoted")


_TOKENS: Final = re.compile(
    r"""
    (?P<space>[ \t\n\r\f\v]+
        |--(?=[ \t\n\r]|\Z)[^\r\n]*(?=\r?\n|\Z)      # MySQL wants the space, PostgreSQL stops at \r
        |/\*(?!M?!)(?:[^*/]|\*(?!/)|/(?!\*))*\*/)      # neither executed (MySQL) nor nested (PostgreSQL)
    |(?P<escape>ESCAPE[ ]*'\\')
    |(?P<string>'(?:[^'\\]|'')*')
    |(?P<quoted>"(?:[^"\\]|"")*"|`(?:[^`]|``)*`)
    |(?P<param>%[sbt](?!\w)|%\(\w+\)s|%%)
    |(?P<unclear>U&(?=['"])|%[sbt]\w)
    |(?P<word>[A-Za-z_\x80-\uFEFE\uFF00-\U0010FFFF][\w$\x80-\U0010FFFF]*)
    |(?P<number>(?:0x[0-9a-f]+|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?![\w$.\x80-\U0010FFFF]))
    |(?P<variable>@+(?=[\w'"`$\x80-\U0010FFFF]))
    |(?P<mark>\[(?:%s|[\d,:\s])*\]                     # of an array; in SQLite brackets quote names
        |\#(?=[^\r\n]*\Z)                              # a comment in MySQL: then nothing follows
        |-(?!-)|/(?!\*)|\$\d+(?![\w$\x80-\U0010FFFF])
        |[+*<>=~!&|^?.,;:(){}%@])
    |(?P<doubt>.)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE | re.ASCII,
)

#: In a string beside ESCAPE '\' these could end, or hide, what MySQL takes for a string.
_BRITTLE: Final = re.compile(r'["`#]|--|/\*')

#: Longer texts hold literals and do not come again: they would only fill the memory.
MEMORABLE: Final = 20_000

#: Placeholders of bulk inserts and IN lists: long, and of no interest here.
_PLACEHOLDERS: Final = re.compile(r"\(%s(?:, ?%s){2,}\)(?:, ?\(%s(?:, ?%s)*\))*")


def abridge(sql: str) -> str:
    """Return ``sql`` with its long rows of placeholders left out."""
    return _PLACEHOLDERS.sub("(%s)", sql) if len(sql) > 1000 else sql


def tokenize(sql: str) -> list[Token]:
    """Return the words of ``sql``; raise ``Uncachable`` where databases could disagree on them."""
    tokens: list[Token] = []
    escapes, before = False, ""
    for match in _TOKENS.finditer(sql):
        kind, raw = str(match.lastgroup), match.group()
        if kind == "space":
            continue
        text = upper = raw
        if kind == "word":
            text = raw.lower() if raw.isascii() else raw.casefold()
            # Behind a dot or AS, databases take a keyword for a name. Beyond ASCII, they know
            # no keywords, while upper() turns some letters into ASCII ones.
            upper = raw.upper() if before not in (".", "AS") and raw.isascii() else ""
        elif kind == "quoted":
            text, upper = fold(raw), ""
        elif kind == "string":
            upper = ""
        elif kind == "escape":
            escapes, upper = True, ""
        elif kind in ("doubt", "unclear"):
            raise Uncachable(reasons.UNCLEAR.format(text=raw))
        tokens.append(Token(text, upper, kind, raw))
        before = upper
    if escapes and any(token.kind in ("string", "quoted") and _is_brittle(token) for token in tokens):
        raise Uncachable(reasons.BACKSLASH)
    return tokens


def _is_brittle(token: Token) -> bool:
    return _BRITTLE.search(token.raw[1:-1]) is not None or "'" in token.raw[1:-1]


#: What a part of a statement that writes begins with.
VERBS: Final = frozenset("INSERT UPDATE DELETE MERGE REPLACE TRUNCATE".split())
#: What follows FOR where rows are locked.
LOCKING: Final = frozenset("UPDATE SHARE NO KEY".split())


def upper(tokens: list[Token], position: int) -> str:
    """Return the keyword or mark at ``position``; empty where there is none."""
    return tokens[position].upper if 0 <= position < len(tokens) else ""


def is_call(tokens: list[Token], position: int) -> bool:
    """Whether a name stands here, with a bracket behind it."""
    return tokens[position].is_name and upper(tokens, position + 1) == "("


def begins_write(tokens: list[Token], position: int) -> bool:
    """Whether a part of the statement that writes begins at ``position``.

    Not one: the functions INSERT(...), REPLACE(...) and TRUNCATE(...), FOR UPDATE, ON DELETE,
    ON CONFLICT DO UPDATE, ON DUPLICATE KEY UPDATE, WHEN MATCHED THEN UPDATE, INSERT OR REPLACE.
    """
    word = tokens[position].upper
    return (
        word in VERBS
        and not (word in ("INSERT", "REPLACE", "TRUNCATE") and upper(tokens, position + 1) == "(")
        and upper(tokens, position - 1) not in ("DO", "FOR", "KEY", "ON", "OR", "THEN")
    )
