"""What a statement reads and writes: statements as somebody would write them who wants us to err."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import NotSupportedError, connection
from django.db.models import (
    Avg,
    Case,
    CharField,
    Count,
    DateTimeField,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    FilteredRelation,
    IntegerField,
    Max,
    OuterRef,
    Q,
    QuerySet,
    StdDev,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.functions import (
    MD5,
    SHA256,
    Cast,
    Coalesce,
    Concat,
    ExtractWeek,
    ExtractYear,
    Greatest,
    JSONObject,
    Lag,
    Least,
    Left,
    Length,
    Lower,
    LPad,
    Mod,
    Now,
    NullIf,
    Random,
    Rank,
    Repeat,
    Replace,
    Reverse,
    Round,
    RowNumber,
    StrIndex,
    Substr,
    Trim,
    TruncDate,
    TruncHour,
    TruncMonth,
    TruncWeek,
    Upper,
)
from django.db.models.sql import Query
from django.db.models.sql.constants import SINGLE
from django.test import SimpleTestCase, TestCase, skipUnlessDBFeature
from django.utils import timezone

from caching import selects, statements
from caching.selects import tables_read
from caching.sql import Uncachable, abridge
from caching.statements import EVERYTHING, Kind, statement
from tests.testapp.models import Article, Author, Book, Note, Novel, Paperback, Tag

# Reading


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT 1", ""),
        ("SELECT a FROM book", "book"),
        ("select a from BOOK;", "book"),
        ('SELECT a FROM "Book"', "book"),
        ("SELECT a FROM `book`", "book"),
        ('SELECT a FROM "public"."book", main.author', "book author"),
        ("SELECT a FROM a . book", "book"),
        ("SELECT a FROM book b, author AS a", "book author"),
        ("SELECT a FROM (book b INNER JOIN author a ON b.x = a.y), tag", "book author tag"),
        ("SELECT a FROM ((book)), (author, tag)", "book author tag"),
        ("SELECT a FROM book LEFT OUTER JOIN (author CROSS JOIN tag) ON (1 = 1)", "book author tag"),
        ("SELECT a FROM book NATURAL JOIN author STRAIGHT_JOIN tag", "book author tag"),
        ("SELECT a FROM book JOIN author USING (id), tag", "book author tag"),
        ("SELECT a FROM book, LATERAL (SELECT b FROM author) x, tag", "book author tag"),
        ("SELECT a FROM book WHERE EXISTS (SELECT 1 FROM author)", "book author"),
        ("SELECT (SELECT max(a) FROM author) FROM book", "book author"),
        (
            "SELECT a FROM book WHERE x IN (SELECT y FROM author) ORDER BY (SELECT 1 FROM tag)",
            "book author tag",
        ),
        ("(SELECT a FROM book) UNION ALL (SELECT a FROM author)", "book author"),
        ("SELECT a FROM book EXCEPT SELECT a FROM author INTERSECT SELECT a FROM tag", "book author tag"),
        ("SELECT a FROM (SELECT a FROM book UNION SELECT b FROM author) u, tag", "book author tag"),
        ("SELECT a FROM book GROUP BY a, b HAVING count(*) > 1 ORDER BY a, b LIMIT 1, 2", "book"),
        ("SELECT a FROM book WHERE a IS DISTINCT FROM b AND c IS NOT DISTINCT FROM d", "book"),
        ("SELECT EXTRACT(YEAR FROM a), SUBSTRING(b FROM 2 FOR 3), TRIM(BOTH FROM c) FROM book", "book"),
        ("SELECT OVERLAY(a PLACING %s FROM 1 FOR 2) FROM book, author", "book author"),
        ("SELECT substring((SELECT a FROM author) FROM 2) FROM book", "book author"),
        (
            "SELECT sum(a) OVER (PARTITION BY b ORDER BY c ROWS 1 PRECEDING) FROM book",
            "book",
        ),
        ("SELECT a, b FROM book GROUP BY GROUPING SETS ((a), (b), ())", "book"),
        ("SELECT count(*) FILTER (WHERE a > 1) FROM book", "book"),
        ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM book, author", "book author"),
        ("SELECT a FROM book FETCH FIRST 3 ROWS ONLY", "book"),
        ("SELECT ARRAY[%s, %s], a[1], b::varchar(10)[] FROM book, author", "book author"),
        ("SELECT a #> %s, b @> %s, c <@ %s, d ? %s, e ->> 'x' FROM book, author", "book author"),
        ("SELECT a %% 2, %(name)s, %s FROM book, author", "book author"),
        ("SELECT unnest(a) FROM book, unnest(%s) u, author", "book author"),
        ("SELECT replace(a, 'x', 'y'), strftime('%%Y', b) FROM book", "book"),
        # a comment or a literal that looks like SQL
        ("SELECT a /* FROM author */ FROM book -- , tag\n WHERE 1 = 1", "book"),
        ("SELECT a -- it's\r\nFROM book", "book"),
        ("SELECT a /* it's */ FROM book, /**/ author", "book author"),
        ("SELECT 'it''s FROM author' FROM book", "book"),
        ('SELECT "it\'s FROM author" FROM book, tag', "book tag"),
        ('SELECT """ FROM author " FROM book', "book"),
        # keywords that are names
        ('SELECT "from", "union" FROM book', "book"),
        ("SELECT a AS union FROM book", "book"),
        ("SELECT b.union, b.except FROM book b", "book"),
        ("SELECT a distinct FROM book", "book"),
        (
            "SELECT a FROM book b JOIN tag t ON b.order = t.where AND t.limit = b.group, author",
            "book author tag",
        ),
        ("SELECT a FROM author window, book", "author book"),
        ("SELECT a FROM book USE INDEX FOR ORDER BY (i), author", "book author"),
        ("SELECT a FROM book l\u0131m\u0131t, author", "book author"),
        ("SELECT b.user FROM book b", "book"),
        ("SELECT a FROM b\u00fccher, author", "b\u00fccher author"),
        ("SELECT a FROM no\u00a0space", "no\u00a0space"),
        # names that WITH gives
        ("WITH x AS (SELECT a FROM book) SELECT a FROM x, author", "book author"),
        ("WITH x (a, b) AS (SELECT a, b FROM book) SELECT a FROM x", "book"),
        ("WITH x AS NOT MATERIALIZED (SELECT a FROM book), y AS (SELECT a FROM x) SELECT a FROM y", "book"),
        (
            "WITH RECURSIVE x AS (SELECT 1 UNION ALL SELECT a FROM book JOIN x ON true) SELECT a FROM x",
            "book",
        ),
        (
            "SELECT a FROM (WITH x AS (SELECT a FROM book) SELECT a FROM x) y JOIN author ON true",
            "book author",
        ),
        ("WITH book AS (SELECT a FROM book) SELECT a FROM book", "book"),
        ("WITH book AS (SELECT 1) SELECT a FROM public.book", "book"),
        ('WITH "Book" AS (SELECT 1) SELECT a FROM book', "book"),
        ("SELECT a FROM (WITH book AS (SELECT 1) SELECT a FROM book) x JOIN book ON true", "book"),
        ("SELECT a FROM book WHERE a IN (WITH book AS (SELECT 1 FROM tag) SELECT a FROM book)", "book tag"),
        ("WITH x AS (SELECT a FROM y), y AS (SELECT 1) SELECT a FROM x", "y"),
        ("SELECT a FROM unnest(%s) WITH ORDINALITY, book", "book"),
        # numbers
        ("SELECT 1.5, .5, 1e3, 0x1F, 1. FROM book", "book"),
    ],
)
def test_tables_of_a_read(sql: str, tables: str) -> None:
    assert tables_read(sql) == frozenset(tables.split(" ") if tables else ())


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "UPDATE book SET a = 1",
        "SELECT a FROM book; SELECT a FROM author",
        "SELECT a FROM book FOR UPDATE",
        "SELECT a FROM book FOR NO KEY UPDATE OF book NOWAIT",
        "SELECT a FROM book FOR KEY SHARE SKIP LOCKED",
        "SELECT a FROM book FOR SHARE",
        "SELECT a FROM book LOCK IN SHARE MODE",
        "SELECT a FROM book FOR SYSTEM_TIME AS OF %s",
        "SELECT a INTO tag FROM book",
        "SELECT a FROM book INTO OUTFILE 'x'",
        "WITH x AS (DELETE FROM book RETURNING a) SELECT a FROM x",
        "WITH x AS (SELECT 1) UPDATE (book, tag) SET a = 1",
        # the time, the user, chance, the session
        "SELECT now() FROM book",
        "SELECT random () FROM book",
        'SELECT "random"() FROM book',
        "SELECT /* x */ current_date FROM book",
        "SELECT CURRENT_TIMESTAMP(6)",
        "SELECT user FROM book",
        "SELECT pg_catalog.now()",
        "SELECT a FROM book WHERE b > 'now'::timestamp",
        "SELECT date('NOW')",
        "SELECT date(a, ' Today ') FROM book",
        "SELECT datetime('subsec')",
        "SELECT date()",
        "SELECT strftime('%%Y')",
        "SELECT a FROM book WHERE b > @x",
        "SELECT @@sql_mode",
        "SELECT a FROM book WHERE b > @`x`",
        "SELECT SQL_CALC_FOUND_ROWS a FROM book",
        "SELECT a FROM book TABLESAMPLE SYSTEM (10)",
        "SELECT nextval('s'), lastval()",
        "SELECT NEXT VALUE FOR s",
        "SELECT last_insert_id() FROM book",
        "SELECT changes() FROM book",
        "SELECT my_function(a) FROM book",
        "SELECT django_now(a) FROM book",
        # relations that are not tables
        "SELECT a FROM generate_series(1, 3)",
        "SELECT a FROM json_each(%s)",
        "SELECT a FROM json_table(%s, '$' COLUMNS (a int path '$'))",
        "SELECT a FROM xmltable('/x' PASSING %s COLUMNS a int)",
        "SELECT a FROM %s",
        "SELECT a FROM 'book'",
        "SELECT a FROM [book]",
        "SELECT a FROM {OJ book}",
        "SELECT a FROM book, {OJ author}",
        "SELECT a FROM ONLY book",
        "SELECT a FROM book, , author",
        "WITH x AS (TABLE book) SELECT a FROM x",
        "SELECT a FROM author WHERE EXISTS (TABLE book)",
        "SELECT a FROM author WHERE a IN book",
        "SELECT a FROM book)",
        # text that databases read in different ways
        "SELECT 'a\\' FROM author --' FROM book",
        "SELECT E'a\\'' FROM book",
        'SELECT "a\\" FROM author --" FROM book',
        "SELECT $$ FROM author $$ FROM book",
        "SELECT $x$ FROM author $x$ FROM book",
        "SELECT a FROM book # it's\n, author --'",
        "SELECT a FROM book /*! , author */",
        "SELECT a FROM book /*M! , author */",
        "SELECT a FROM book /* /* */ , author -- */",
        "SELECT 1 --1\n FROM book",
        "SELECT a FROM book -- \r , author",
        "SELECT a FROM book /* open",
        "SELECT a FROM book 'open",
        "SELECT [it's] FROM book, [author's]",
        "SELECT a FROM book [as WHERE], author",
        "SELECT a FROM U&\"!0061uthor\" UESCAPE '!'",
        "SELECT 1.5FROM book",
        "SELECT 1FROM book",
        "SELECT a \ufeffFROM book",
        "SELECT a FROM book\0",
        "SELECT %sFROM book",
        "SELECT a FROM book WHERE a LIKE b ESCAPE '\\'' UNION SELECT a FROM author WHERE b = \"'\" --'",
        "SELECT a FROM book WHERE a LIKE b ESCAPE '\\'' UNION SELECT a FROM author /*'*/",
    ],
)
def test_uncachable_read(sql: str) -> None:
    with pytest.raises(Uncachable):
        tables_read(sql)


class ReasonTests(SimpleTestCase):
    def test_unknown_function_names_the_repair(self) -> None:
        with self.assertRaisesMessage(
            Uncachable,
            "the function MY_RANK is not known to be pure; if it is, name it in CACHE_MACHINE['FUNCTIONS']",
        ):
            tables_read("SELECT my_rank(a) FROM book")

    def test_declared_function(self) -> None:
        self.assertEqual(tables_read("SELECT my_rank(a) FROM book", frozenset({"MY_RANK"})), {"book"})

    def test_reason_is_the_same_when_asked_again(self) -> None:
        for _ in range(2):
            with self.assertRaisesMessage(Uncachable, "it is more than one statement"):
                tables_read("SELECT a FROM book; SELECT b FROM book")

    def test_escape_of_a_pattern(self) -> None:
        self.assertEqual(tables_read("SELECT a FROM book, tag WHERE a LIKE %s ESCAPE '\\'"), {"book", "tag"})

    def test_long_text_is_read_but_not_remembered(self) -> None:
        numbers = ", ".join(["1"] * 9000)
        with patch.object(selects, "_remembered", None), patch.object(statements, "_remembered", None):
            self.assertEqual(tables_read(f"SELECT a FROM book WHERE a IN ({numbers})"), {"book"})
            self.assertEqual(statement(f"DELETE FROM book WHERE a IN ({numbers})").tables, {"book"})


class AbridgeTests(SimpleTestCase):
    def test_statements_of_different_length_become_one(self) -> None:
        many = abridge("INSERT INTO book (a, b, c) VALUES " + ", ".join(["(%s, %s, %s)"] * 200))
        more = abridge("INSERT INTO book (a, b, c) VALUES " + ", ".join(["(%s, %s, %s)"] * 300))
        self.assertEqual(many, "INSERT INTO book (a, b, c) VALUES (%s)")
        self.assertEqual(many, more)

    def test_comma_behind_the_placeholders_stays(self) -> None:
        sql = "SELECT a FROM unnest(%s, %s, %s), book WHERE a IN (" + ", ".join(["%s"] * 500) + "), 1"
        self.assertEqual(abridge(sql), "SELECT a FROM unnest(%s), book WHERE a IN (%s), 1")
        self.assertEqual(tables_read(abridge(sql)), {"book"})

    def test_short_statement_is_left_alone(self) -> None:
        self.assertEqual(abridge("SELECT (%s, %s, %s)"), "SELECT (%s, %s, %s)")


# Writing


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("INSERT INTO book (a) VALUES (%s)", "book"),
        ('insert into "Public"."Book" select a from author', "book"),
        ("INSERT IGNORE INTO book VALUES (1)", "book"),
        ("INSERT OR REPLACE INTO book VALUES (1)", "book"),
        ("INSERT INTO book (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2 RETURNING a", "book"),
        ("INSERT INTO book (a) VALUES (1) ON DUPLICATE KEY UPDATE a = VALUES(a)", "book"),
        ("INSERT INTO book SELECT replace(a, 'x', 'y') FROM author", "book"),
        ("INSERT INTO book WITH x AS (DELETE FROM author RETURNING a) SELECT a FROM x", "book author"),
        ("REPLACE INTO book VALUES (1)", "book"),
        ("REPLACE book SET a = 1", "book"),
        ("UPDATE book SET a = (SELECT max(b) FROM author)", "book"),
        ("UPDATE ONLY book AS b SET a = 1 FROM author WHERE true", "book"),
        ("UPDATE OR IGNORE book SET a = 1", "book"),
        ("/* note */ UPDATE `book` b SET a = 1", "book"),
        ("DELETE FROM book", "book"),
        ("DELETE FROM book WHERE a IN (SELECT a FROM author)", "book"),
        ("DELETE FROM book AS b WHERE a = 1 RETURNING a", "book"),
        ("DELETE FROM book b ORDER BY a LIMIT 1", "book"),
        ("MERGE INTO book b USING author a ON true WHEN MATCHED THEN DELETE", "book"),
        ("MERGE INTO book USING author ON true WHEN NOT MATCHED THEN INSERT VALUES (1)", "book"),
        ("WITH x AS (SELECT a FROM author) UPDATE book SET a = 1 FROM x", "book"),
        ("WITH x AS (UPDATE book SET a = 1 RETURNING a) SELECT a FROM x", "book"),
        ("WITH x AS (DELETE FROM book RETURNING a) INSERT INTO tag SELECT a FROM x", "book tag"),
        ("(WITH x AS (DELETE FROM book) SELECT 1)", "book"),
        ("EXPLAIN ANALYZE UPDATE book SET a = 1", "book"),
        ("EXPLAIN (ANALYZE, FORMAT JSON) DELETE FROM book", "book"),
        ("ANALYZE FORMAT=JSON UPDATE book SET a = 1", "book"),
        ("DESCRIBE ANALYZE DELETE FROM book", "book"),
        ("SET STATEMENT max_statement_time = 1 FOR UPDATE book SET a = 1", "book"),
    ],
)
def test_tables_of_a_write(sql: str, tables: str) -> None:
    found = statement(sql)
    assert found.kind is Kind.WRITE
    assert found.tables == frozenset(tables.split())


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE book, author SET book.a = 1",
        "UPDATE book b, author SET b.a = 1",
        "UPDATE book JOIN author ON true SET book.a = 1",
        "UPDATE book b INNER JOIN author ON true SET book.a = 1",
        "UPDATE (book, author) SET book.a = 1",
        "WITH x AS (SELECT 1) UPDATE (book, author) SET book.a = 1",
        "UPDATE [book] SET a = 1",
        "UPDATE 'book' SET a = 1",
        "UPDATE book FOR PORTION OF p FROM 1 TO 2 SET a = 1",
        "DELETE book, author FROM book JOIN author",
        "DELETE book FROM book JOIN author",
        "DELETE book.*, author.* FROM book, author",
        "DELETE FROM book USING author WHERE true",
        "DELETE FROM book b USING author WHERE true",
        "DELETE FROM book, author USING book JOIN author",
        "DELETE FROM quick",
        "UPDATE book AS",
        "UPDATE",
        "TRUNCATE book",
        "TRUNCATE TABLE book, author CASCADE",
        "COPY book FROM STDIN",
        "CALL refresh()",
        "DO $$ BEGIN DELETE FROM book; END $$",
        "EXECUTE prepared",
        "EXECUTE IMMEDIATE 'DELETE FROM book'",
        "EXPLAIN ANALYZE EXECUTE prepared",
        "COMMIT PREPARED 'x'",
        "BEGIN NOT ATOMIC DELETE FROM book; END",
        "XA COMMIT 'x'",
        "SELECT a INTO tag FROM book",
        "CREATE TABLE book (a int)",
        "ALTER TABLE book ADD a int",
        "DROP TABLE book",
        "REFRESH MATERIALIZED VIEW book",
        "LOAD DATA INFILE 'x' INTO TABLE book",
        "UPDATE book SET a = 1; UPDATE author SET a = 1",
        "SELECT 1; DELETE FROM book",
        "SELECT 'a\\'; DELETE FROM book; --'",
        "SELECT 1 # it's\n; DELETE FROM book --'",
        "/*! DELETE FROM book */",
        "/*M! DELETE FROM book */",
        "/* /* */ DELETE FROM book -- */",
        "\ufeffDELETE FROM book",
    ],
)
def test_write_that_may_touch_anything(sql: str) -> None:
    found = statement(sql)
    assert found.kind is Kind.WRITE
    assert found.tables is None


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        (Kind.READ, "SELECT a FROM book"),
        (Kind.READ, "(SELECT a FROM book) UNION (SELECT a FROM author)"),
        (Kind.READ, "WITH x AS (SELECT 1) SELECT a FROM x"),
        (Kind.READ, "SELECT replace(a, 'x', 'y'), insert(a, 1, 2, 'z'), truncate(a, 1) FROM book"),
        (Kind.READ, "SELECT @@session.sql_mode, @x"),
        (Kind.READ, "SELECT a FROM book WHERE b LIKE 'x\\_y'"),
        (Kind.READ, "SELECT a FROM book WHERE b LIKE REPLACE(%s, '\\', '\\\\') ESCAPE '\\'"),
        (Kind.WRITE, "SELECT '\\'; REPLACE INTO book VALUES (1)"),
        (Kind.READ, "SELECT $$x$$"),
        (Kind.READ, "VALUES (1)"),
        (Kind.READ, "TABLE book"),
        (Kind.LOCK, "SELECT a FROM book FOR UPDATE"),
        (Kind.LOCK, "SELECT a FROM book FOR NO KEY UPDATE OF book SKIP LOCKED"),
        (Kind.LOCK, "SELECT a FROM book FOR KEY SHARE"),
        (Kind.LOCK, "SELECT a FROM book LOCK IN SHARE MODE"),
        (Kind.LOCK, "SELECT pg_advisory_xact_lock(1)"),
        (Kind.LOCK, 'SELECT pg_catalog."pg_try_advisory_lock"(1)'),
        (Kind.LOCK, "SELECT GET_LOCK('x', 1)"),
        (Kind.LOCK, "DECLARE c CURSOR FOR SELECT a FROM book FOR UPDATE"),
        (Kind.LOCK, "EXPLAIN ANALYZE SELECT a FROM book FOR UPDATE"),
        (Kind.LOCK, "LOCK TABLE book"),
        (Kind.LOCK, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        (Kind.LOCK, "SET LOCAL search_path TO tenant"),
        (Kind.LOCK, "SET LOCAL app.tenant = 'x'"),
        (Kind.LOCK, "SELECT 1; SELECT a FROM book FOR UPDATE"),
        (Kind.SESSION, "SET search_path = tenant"),
        (Kind.SESSION, "SET ROLE x"),
        (Kind.SESSION, "SET TIME ZONE 'UTC'"),
        (Kind.SESSION, "SET LOCAL sql_mode = ''"),
        (Kind.SESSION, "SET SESSION TRANSACTION READ ONLY"),
        (Kind.SESSION, "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
        (Kind.SESSION, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET @x = 1"),
        (Kind.ISOLATION, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
        (Kind.LOCK, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT a FROM book FOR UPDATE"),
        (Kind.ISOLATION, "SET SQL_AUTO_IS_NULL = 0; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"),
        (Kind.SESSION, "SET foreign_key_checks = 0, sql_mode = 'ANSI_QUOTES'"),
        (Kind.SESSION, "SET @x = 1"),
        (Kind.SESSION, "SET NAMES latin1"),
        (Kind.SESSION, "SET search_path = application_name"),
        (Kind.SESSION, "RESET ALL"),
        (Kind.SESSION, "DISCARD ALL"),
        (Kind.SESSION, "USE other"),
        (Kind.SESSION, "PRAGMA case_sensitive_like = ON"),
        (Kind.SESSION, "PRAGMA case_sensitive_like(cache_size)"),
        (Kind.SESSION, "SELECT set_config('search_path', 'x', false)"),
        (Kind.SESSION, 'SELECT "set_config"(%s, %s, false)'),
        (Kind.SESSION, "VALUES (set_config('role', 'x', false))"),
        (Kind.SESSION, "CREATE TEMPORARY TABLE book AS SELECT 1"),
        (Kind.SESSION, "CREATE OR REPLACE TEMP VIEW book AS SELECT 1"),
        (Kind.SESSION, "CREATE VIEW temp.book AS SELECT 1"),
        (Kind.SESSION, "SELECT 1; SET ROLE x"),
        (Kind.ROLLBACK_TO, 'ROLLBACK TO SAVEPOINT "s1"'),
        (Kind.NEUTRAL, ""),
        (Kind.NEUTRAL, "-- nothing\n;"),
        (Kind.NEUTRAL, "BEGIN"),
        (Kind.NEUTRAL, "START TRANSACTION"),
        (Kind.NEUTRAL, "SAVEPOINT x"),
        (Kind.NEUTRAL, "RELEASE SAVEPOINT x"),
        (Kind.NEUTRAL, "SET CONSTRAINTS a, b IMMEDIATE"),
        (Kind.NEUTRAL, "SET foreign_key_checks=0"),
        (Kind.NEUTRAL, "SET @@session.foreign_key_checks = 1, unique_checks = 1"),
        (Kind.NEUTRAL, "SET LOCAL statement_timeout = 100"),
        (Kind.NEUTRAL, "PRAGMA foreign_keys = OFF"),
        (Kind.NEUTRAL, "PRAGMA main.table_info(book)"),
        (Kind.NEUTRAL, "PRAGMA case_sensitive_like"),
        (Kind.NEUTRAL, "EXPLAIN UPDATE book SET a = 1"),
        (Kind.NEUTRAL, "EXPLAIN QUERY PLAN DELETE FROM book"),
        (Kind.NEUTRAL, "EXPLAIN ANALYZE SELECT a FROM book"),
        (Kind.NEUTRAL, "ANALYZE"),
        (Kind.NEUTRAL, "ANALYZE TABLE book"),
        (Kind.NEUTRAL, "DESC book"),
        (Kind.NEUTRAL, "VACUUM book"),
        (Kind.NEUTRAL, "SELECT 1; SELECT 2"),
    ],
)
def test_kind_of_a_statement(kind: Kind, sql: str) -> None:
    assert statement(sql).kind is kind


@pytest.mark.parametrize(
    ("changes", "sql"),
    [
        (True, "SET search_path TO x; UPDATE book SET a = 1"),
        (True, "UPDATE book SET a = 1; SELECT set_config('search_path', 'x', false)"),
        (True, "UPDATE book SET a = 1; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        (True, "UPDATE book SET a = 1; SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"),
        (True, "UPDATE book SET a = 1; CALL refresh()"),
        (True, "SET search_path TO $$x$$"),
        (True, "SET search_path = 'x', 'a\\b'"),
        (True, "UPDATE book SET a = $$x$$; SET search_path TO x"),
        (True, "UPDATE book SET a = $$x$$, b = set_config('search_path', 'x', false)"),
        (True, "UPDATE book SET a = $$x$$, b = U&\"set\\005fconfig\"('search_path', 'x', false)"),
        (True, "UPDATE book SET a = set_config('search_path', 'x', false)"),
        (True, "WITH x AS (DELETE FROM book RETURNING a) SELECT \"set_config\"('role', a, false) FROM x"),
        (True, "WITH x AS (DELETE FROM book RETURNING a) SELECT a INTO TEMP author FROM x"),
        (True, "SELECT 1 AS a INTO TEMP book"),
        (True, "SELECT 1 AS a INTO pg_temp.book"),
        (True, "CREATE TABLE pg_temp.book AS SELECT 1"),
        (True, "CREATE TABLE IF NOT EXISTS pg_temp_3.book (a int)"),
        (True, 'CREATE TABLE "temp".book (a int)'),
        (True, "CREATE TABLE book AS SELECT set_config('role', 'x', false)"),
        (True, "CREATE /*!32302 TEMPORARY */ TABLE book (a int)"),
        (True, "EXPLAIN ANALYZE CREATE TABLE pg_temp.book AS SELECT 1"),
        (True, "EXPLAIN ANALYZE EXECUTE prepared((SELECT 1))"),
        (True, "DO $$ BEGIN PERFORM set_config('search_path', 'x', false); END $$"),
        (True, "DO 'BEGIN END'"),
        (True, "CALL refresh()"),
        (True, "EXECUTE prepared"),
        (True, "EXECUTE IMMEDIATE 'SET @x = 1'"),
        (True, "BEGIN NOT ATOMIC SET @x = 1; END"),
        (True, "ATTACH DATABASE %s AS tenant"),
        (True, "DETACH DATABASE tenant"),
        (False, "UPDATE book SET a = 1"),
        (False, "UPDATE book SET a = 'x\\y'"),
        (False, "(INSERT INTO book VALUES ($$x$$));\n"),
        (False, "CREATE TABLE book (a text CHECK (a REGEXP '\\d'))"),
        (True, "CREATE /*!32302TEMPORARY*/ TABLE book (a int)"),
        (False, "DELETE FROM book WHERE a LIKE REPLACE(%s, '\\', '\\\\') ESCAPE '\\'"),
        (True, "SELECT $$x$$ AS a INTO TEMP book"),
        (False, "INSERT OR IGNORE INTO book SELECT a FROM author"),
        (False, "PREPARE paint AS UPDATE book SET a = 1"),
        (True, "EXECUTE paint"),
        (False, "MERGE INTO book USING author ON true WHEN NOT MATCHED THEN INSERT VALUES (1)"),
        (False, "UPDATE book SET a = 1; DELETE FROM author"),
        (False, "SET CONSTRAINTS a IMMEDIATE; ALTER TABLE book ADD b int"),
        (False, "SET foreign_key_checks = 0; TRUNCATE book"),
        (False, "CREATE TABLE book (a int)"),
        (False, "DROP TABLE book CASCADE"),
        (False, "TRUNCATE book"),
        (False, "EXPLAIN ANALYZE DELETE FROM book"),
    ],
)
def test_write_that_changes_the_session_as_well(changes: bool, sql: str) -> None:
    found = statement(sql)
    assert found.kind is Kind.WRITE
    assert found.changes_session is changes


@pytest.mark.parametrize(
    ("sql", "setting"),
    [
        ("SET search_path = 'Tenant','public'", ("search_path", "Tenant", False)),
        ("SET search_path TO Tenant, public", ("search_path", "tenant", False)),
        ('set session search_path to "Tenant", public;', ("search_path", "Tenant", False)),
        ("SET LOCAL search_path = %s", ("search_path", "%s", True)),
        ("SET App.Tenant = 'it''s'", ("app.tenant", "it''s", False)),
        ("SET LOCAL app . tenant /* x */ TO DEFAULT", ("app.tenant", "default", True)),
        ("SET ROLE clerk", ("role", "clerk", False)),
        ("SET LOCAL ROLE 'Clerk'", ("role", "Clerk", True)),
        ("SET role = clerk", ("role", "clerk", False)),
        ("RESET app.tenant", ("app.tenant", "", False)),
        ("SELECT set_config('app.tenant', '7', false)", ("app.tenant", "7", False)),
        ("SELECT set_config('app.tenant', %s, true)", ("app.tenant", "%s", True)),
        ("SELECT set_config('app.tenant', %s, %s)", ("app.tenant", "%s", True)),
        ("SELECT set_config(%s, %s, true)", None),
        ("SELECT set_config('app.tenant', '7', true), set_config('app.x', '7', true)", None),
        ("SELECT set_config('app.tenant', name, true) FROM book", None),
        ("SET search_path = a; SET app.tenant = 7", None),
        ("SET search_path FROM CURRENT", None),
        ("SET SESSION AUTHORIZATION clerk", None),
        ("SET TIME ZONE 'UTC'", None),
        ("DISCARD ALL", None),
    ],
)
def test_setting_that_a_statement_sets(sql: str, setting: tuple[str, str, bool] | None) -> None:
    assert statement(sql).setting == setting


@pytest.mark.parametrize(
    ("sql", "verb"),
    [
        ("INSERT INTO book VALUES (1)", "INSERT"),
        ("UPDATE book SET a = 1", "UPDATE"),
        ("DELETE FROM book", "DELETE"),
        ("REPLACE INTO book VALUES (1)", "REPLACE"),
        ("INSERT OR REPLACE INTO book VALUES (1)", "REPLACE"),
        ("UPDATE OR REPLACE book SET a = 1", "REPLACE"),
        ("INSERT INTO book WITH x AS (DELETE FROM tag) SELECT 1", "WITH"),
        ("WITH x AS (SELECT 1) INSERT INTO book SELECT 1", "WITH"),
        ("BEGIN; DELETE FROM book", "BEGIN"),
        ("BEGIN; DELETE FROM book; COMMIT", "COMMIT"),
        ("BEGIN; SELECT 1", "BEGIN"),
        ("BEGIN; SET @x = 1", "BEGIN"),
        ("BEGIN; SELECT a FROM book FOR UPDATE", "BEGIN"),
        ("SET autocommit = 0", "BEGIN"),
        ("SET autocommit=ON", "COMMIT"),
        ("SELECT 'a\\'; DELETE FROM book; --'", EVERYTHING.verb),
    ],
)
def test_verb_tells_whether_rows_may_be_deleted(sql: str, verb: str) -> None:
    assert statement(sql).verb == verb


@pytest.mark.parametrize(
    "value",
    [
        "CAST(a AS DATETIME(6))",
        "CAST(a AS date)",
        "CAST(CAST(`a` AS time(6)) AS datetime(6))",
        "CAST(DATE_FORMAT(a, %s) + a AS DATE)",
        "CONVERT(a, DATETIME)",
        "TIMESTAMP(a)",
        "DATE(TIME(a))",
        "TO_DAYS(CAST(a AS TIME))",
        "YEAR(SEC_TO_TIME(a))",
        "DATE_ADD(CAST(a AS TIME), INTERVAL 1 DAY)",
    ],
)
def test_date_that_mysql_makes_of_a_time(value: str) -> None:
    sql = f"SELECT {value} FROM book"
    with pytest.raises(Uncachable, match="may add the present day"):
        tables_read(sql, vendor="mysql")
    declared = frozenset("CAST CONVERT TIMESTAMP DATE TO_DAYS YEAR DATE_ADD".split())
    assert tables_read(sql, declared, "mysql") == tables_read(sql, vendor="postgresql") == {"book"}


@pytest.mark.parametrize(
    "value",
    [
        "DATE(CONVERT_TZ(`book`.`time`, %s, %s))",
        "TIME(CONVERT_TZ(a, %s, %s))",
        "CAST(DATE_FORMAT(CONVERT_TZ(a, %s, %s), %s) AS DATETIME)",
        "CAST(DATE_FORMAT(a, %s) AS TIME)",
        "CAST(%s AS datetime(6))",
        "CAST(a AS decimal(10, 2))",
        "CONVERT(a | b, SIGNED)",
        "CONVERT(a USING utf8mb4)",
        "YEAR(a)",
    ],
)
def test_date_that_mysql_makes_of_a_date(value: str) -> None:
    assert tables_read(f"SELECT {value} FROM book", vendor="mysql") == {"book"}


@pytest.mark.parametrize(
    "sql", ["SAVEPOINT s1", 'RELEASE SAVEPOINT "s1"', "RELEASE S1", "ROLLBACK TO SAVEPOINT `S1`"]
)
def test_savepoint_of_a_statement(sql: str) -> None:
    assert statement(sql).savepoint == "s1"


# What Django's ORM writes


def tables_of(query: Any) -> frozenset[str]:
    """Return the tables that Django knows a query to read, by walking it."""
    found: set[str] = set()
    queue: list[Any] = [query]
    while queue:
        part = queue.pop()
        if isinstance(part, Query):
            part = part.clone()
            part.get_compiler(connection=connection).pre_sql_setup()
            joins = [join for alias, join in part.alias_map.items() if part.alias_refcount[alias]]
            found |= {join.table_name for join in joins}
            queue += [part.where, *part.annotations.values(), *part.combined_queries, *part.order_by]
            queue += [join.filtered_relation for join in joins if join.parent_alias]
        elif isinstance(part, list | tuple):
            queue += part
        elif part is not None and not isinstance(part, str | bytes | int | float):
            queue += [getattr(part, name, None) for name in ("children", "lhs", "rhs", "query")]
            queue.append(getattr(part, "resolved_condition", None))
            queue += part.get_source_expressions() if hasattr(part, "get_source_expressions") else []
    return frozenset(found)


def shapes() -> Iterator[tuple[str, QuerySet[Any]]]:
    """Yield querysets of many shapes, each with what it shows."""
    books, authors = Book._base_manager.using(connection.alias), Author._base_manager.all()
    first = Book._base_manager.filter(author=OuterRef("pk")).order_by("title")
    yield "all", books
    yield "inheritance", Novel._base_manager.filter(genre="x", title="y")
    yield "proxy", Paperback._base_manager.all()
    yield "select_related", books.select_related("author__mentor", "editor")
    yield "many-to-many", books.filter(tags__name="x").exclude(tags__name="y")
    yield "reverse", authors.filter(books__title="x", edited__isnull=True)
    yield "generic", books.filter(notes__text="x")
    yield "content type", Note._base_manager.filter(content_type__model="x")
    yield "nulls", books.filter(editor=None).exclude(editor__name=None)
    yield "or", books.filter(Q(author__name="x") | ~Q(editor__name="y") ^ Q(price=1))
    for lookup in ("exact", "iexact", "contains", "icontains", "startswith", "endswith", "regex", "iregex"):
        yield lookup, books.filter(**{f"title__{lookup}": "a'b\\%_"})
    yield "in", books.filter(pk__in=[1, 2, 3], author__in=authors.filter(name="x"))
    yield "range", books.filter(price__range=(1, 2), published__lt=timezone.now())
    yield "F", books.filter(price__gt=F("author__id") * 2 % 3 - 1)
    yield "bits", books.annotate(b=F("id").bitand(3).bitor(4)).filter(b=1)
    yield "json", books.filter(data__a=1, data__a__b__0__contains="x", data__has_key="z")
    yield "json keys", books.filter(data__has_any_keys=["x", "y"], data__a__isnull=True).order_by("data__a")
    yield "json contained", books.filter(data__a__icontains="x", data__a__gt=2, data__a__in=[1, "x"])
    yield "json regex", books.filter(data__a__regex="x", data__b__iexact="y").values("data__a__c")
    yield "years", books.filter(published__year=2020, published__month__gte=3, published__week_day=1)
    yield "parts", books.filter(published__date="2020-01-01", published__time="10:00", published__hour=1)
    yield "dates", books.dates("published", "month")
    yield "datetimes", books.datetimes("published", "hour")
    yield (
        "trunc",
        books.annotate(m=TruncMonth("published"), d=TruncDate("published"), w=TruncWeek("published")),
    )
    yield "trunc hour", books.annotate(h=TruncHour("published")).values("h").annotate(n=Count("id"))
    yield "extract", books.annotate(y=ExtractYear("published"), w=ExtractWeek("published")).filter(y__gt=1)
    yield (
        "duration",
        books.annotate(
            d=ExpressionWrapper(F("published") - Value(timezone.now()), output_field=DurationField())
        ),
    )
    yield (
        "text",
        books.annotate(
            a=Concat("title", Value("'"), "author__name"),
            b=Upper(Lower(Trim("title"))),
            c=Substr("title", 1, 2),
            d=Left("title", 1),
            e=Length("title"),
            f=LPad("title", 9, Value("%s")),
            g=Replace("title", Value("a"), Value("FROM x")),
            h=StrIndex("title", Value("x")),
            i=Reverse("title"),
            j=Repeat("title", 2),
        ),
    )
    yield "digests", books.annotate(a=MD5("title"), b=SHA256("title"))
    yield (
        "numbers",
        books.annotate(
            a=Coalesce("price", 0, output_field=IntegerField()),
            b=Greatest("id", "author_id"),
            c=Least("id", 3),
            d=NullIf("id", 3),
            e=Round("price"),
            f=Mod("id", 2),
            g=Cast("price", CharField(max_length=9)),
            h=Cast("id", CharField()),
            i=Cast("title", DateTimeField()),
        ),
    )
    yield "json object", books.annotate(o=JSONObject(a="title", b=Value(1)))
    yield "case", books.annotate(k=Case(When(author__name="x", then=1), default=2)).order_by("-k")
    yield "aggregates", authors.annotate(n=Count("books", distinct=True), m=Max("books__price"))
    yield "filtered", authors.annotate(n=Sum("books__price", filter=Q(books__title="x"))).filter(n__gt=1)
    yield "deviation", authors.annotate(n=StdDev("books__price"), m=Avg("books__price"))
    yield "subquery", authors.annotate(t=Subquery(first.values("title")[:1])).filter(t="x")
    yield "exists", authors.filter(~Exists(first.filter(tags__name="x")))
    yield "nested", authors.filter(books__in=books.filter(tags__in=Tag._base_manager.filter(name="x")))
    yield (
        "filtered relation",
        authors.annotate(f=FilteredRelation("books", condition=Q(books__title="x"))).filter(f__price=1),
    )
    yield (
        "windows",
        books.annotate(
            r=Window(Rank(), partition_by="author", order_by="-price"),
            n=Window(RowNumber(), order_by="id"),
            p=Window(Lag("price"), order_by="id"),
            s=Window(Sum("price"), partition_by=F("author__name")),
        ),
    )
    yield "filtered window", books.annotate(r=Window(Rank(), order_by="price")).filter(r__lt=3)
    yield "distinct", books.values("author__name").distinct()
    yield "values", books.values_list("tags__name", "notes__text")
    yield "slice", books.order_by("author__name")[2:7]
    yield "union", books.filter(pk=1).union(books.filter(author__name="x"), all=True).order_by("title")[:3]
    yield "intersection", books.values("id").intersection(authors.values("id"))
    yield "difference", books.values("id").difference(Article._base_manager.values("id"))
    yield "reverse order", books.order_by(F("author__name").desc(nulls_last=True)).reverse()
    yield "none or", books.filter(Q(pk__in=[]) | Q(pk=1))
    yield "defer", books.only("title").select_related(None)
    yield "extra", books.extra(select={"x": "price + 1"}, where=["title = %s"], params=["x"])
    yield "dates of a parent", Novel._base_manager.dates("published", "year")


@contextmanager
def captured() -> Iterator[list[str]]:
    """Collect the statements as they are handed to the cursor, without their parameters."""
    sent: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        sent.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield sent


class DjangoTests(TestCase):
    """The tables found in the text are those that Django knows, on the database of this run."""

    databases = {"default"}

    def test_tables_are_those_of_the_query(self) -> None:
        ContentType.objects.get_for_model(Book)
        for name, queryset in shapes():
            with self.subTest(name):
                try:
                    sql, _ = queryset.query.sql_with_params()
                except NotSupportedError:
                    continue
                self.assertEqual(tables_read(sql), tables_of(queryset.query))
                self.assertIs(statement(sql).kind, Kind.READ)

    def test_statement_that_is_sent_is_a_read(self) -> None:
        books = Book._base_manager.all()
        with self.assertNumQueries(4) as sent:
            books.count()
            books.exists()
            books.annotate(n=Count("tags")).aggregate(Avg("n"))
            books.query.get_compiler(connection=connection).execute_sql(SINGLE)
        for query in sent.captured_queries:
            self.assertIs(statement(query["sql"]).kind, Kind.READ)
            self.assertIn("testapp_book", tables_read(query["sql"]))

    def test_volatile_querysets_are_refused(self) -> None:
        books = Book._base_manager.all()
        for queryset in (
            books.order_by("?"),
            books.annotate(r=Random()),
            books.filter(published__lt=Now()),
            books.annotate(n=Coalesce("published", Now())),
        ):
            with self.subTest(str(queryset.query)), self.assertRaises(Uncachable):
                tables_read(queryset.query.sql_with_params()[0])

    @skipUnlessDBFeature("has_select_for_update")
    def test_locking_querysets(self) -> None:
        books = Book._base_manager.all()
        variants = [{}]
        if connection.features.has_select_for_update_nowait:
            variants.append({"nowait": True})
        if connection.features.has_select_for_update_skip_locked:
            variants.append({"skip_locked": True})
        if connection.features.has_select_for_update_of:
            variants.append({"of": ("self",)})
        if connection.features.has_select_for_no_key_update:
            variants.append({"no_key": True})
        for options in variants:
            with self.subTest(options), self.assertNumQueries(1) as sent:
                list(books.select_for_update(**options))
            sql = sent.captured_queries[0]["sql"]
            self.assertIs(statement(sql).kind, Kind.LOCK)
            with self.assertRaises(Uncachable):
                tables_read(sql)

    @skipUnlessDBFeature("can_distinct_on_fields")
    def test_distinct_on(self) -> None:
        queryset = Book._base_manager.order_by("author__name").distinct("author__name")
        self.assertEqual(tables_read(queryset.query.sql_with_params()[0]), {"testapp_book", "testapp_author"})

    def test_writes(self) -> None:
        author = Author._base_manager.create(name="x")
        book = Book._base_manager.create(title="y", author=author)
        for name, write, written in (
            ("insert", lambda: Tag(name="t").save(), {"testapp_tag"}),
            ("update", lambda: book.save(), {"testapp_book"}),
            (
                "queryset",
                lambda: Book._base_manager.filter(author__name="x").update(price=1),
                {"testapp_book"},
            ),
            ("F", lambda: Book._base_manager.update(price=F("price") + 1), {"testapp_book"}),
            ("add", lambda: book.tags.create(name="z"), {"testapp_tag", "testapp_book_tags"}),
            ("bulk", lambda: Tag._base_manager.bulk_create([Tag(name="a"), Tag(name="b")]), {"testapp_tag"}),
            (
                "upsert",
                lambda: Tag._base_manager.bulk_create(
                    [Tag(pk=99, name="a"), Tag(pk=98, name="b")],
                    update_conflicts=True,
                    update_fields=["name"],
                    unique_fields=["id"]
                    if connection.features.supports_update_conflicts_with_target
                    else None,
                ),
                {"testapp_tag"},
            ),
            ("bulk_update", lambda: Book._base_manager.bulk_update([book], ["price"]), {"testapp_book"}),
            ("raw delete", lambda: Tag._base_manager.all()._raw_delete("default"), {"testapp_tag"}),
        ):
            if name == "raw delete":
                book.tags.clear()
            with self.subTest(name), captured() as sent:
                write()
            found = [statement(sql) for sql in sent]
            writes = [one.tables for one in found if one.kind is Kind.WRITE]
            self.assertEqual(frozenset().union(*(one or {"everything"} for one in writes)), written, sent)
