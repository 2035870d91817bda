"""Queries of SQL: what is the same, what a query answers, and what it may not do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from helpers import own_tasks as own
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.tasks import data, sql
from harness.tasks.metrics import queries

SCRIPT = """
CREATE TABLE singer (name TEXT, age INTEGER, country TEXT);
INSERT INTO singer VALUES ('Ann', 30, 'France'), ('Bo', 41, 'Chile'), ('Cy', 30, 'France');
"""


@pytest.mark.parametrize(
    "other",
    [
        "select name from SINGER where age > 30 and country = 'france' ;",
        'SELECT name  FROM singer WHERE country = "France" AND age>30',
        "SELECT name FROM singer\nWHERE age > 30 AND country = `France`".replace("`", '"'),
    ],
)
def test_what_says_the_same_has_one_form(other: str) -> None:
    assert sql.logical_form(other) == sql.logical_form("SELECT name FROM singer WHERE age > 30 AND country = 'France'")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t WHERE x BETWEEN 1 AND 2 AND y = 3", "SELECT a FROM t WHERE y = 3 AND x BETWEEN 1 AND 2"),
        ("SELECT a FROM t WHERE x = 1 AND y = 2 OR z = 3", "SELECT a FROM t WHERE z = 3 OR y = 2 AND x = 1"),
        ("SELECT a FROM t WHERE b IN (SELECT b FROM s WHERE p=1 AND q=2)",
         "SELECT a FROM t WHERE b IN (SELECT b FROM s WHERE q=2 AND p=1)"),
        ("SELECT T1.a FROM t AS T1 INNER JOIN s AS T2 ON T1.i=T2.i", "SELECT T1.a FROM t T1 JOIN s T2 ON T1.i=T2.i"),
        ("SELECT a FROM t ORDER BY a ASC", "SELECT a FROM t ORDER BY a"),
        ("SELECT a FROM t WHERE b <> 1", "SELECT a FROM t WHERE b != 1"),
    ],
)  # fmt: skip
def test_other_ways_to_write_a_query(one: str, other: str) -> None:
    assert sql.logical_form(one) == sql.logical_form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t WHERE x = 1 AND y = 2", "SELECT a FROM t WHERE x = 1 OR y = 2"),
        ("SELECT a FROM t WHERE x BETWEEN 1 AND 2", "SELECT a FROM t WHERE x BETWEEN 2 AND 1"),
        ("SELECT a FROM t WHERE x BETWEEN 1 AND 2 AND y BETWEEN 3 AND 4",
         "SELECT a FROM t WHERE x BETWEEN 1 AND 4 AND y BETWEEN 3 AND 2"),
        ("SELECT a, b FROM t", "SELECT b, a FROM t"),
        ("SELECT a FROM t ORDER BY a DESC", "SELECT a FROM t ORDER BY a"),
        ("SELECT a FROM t WHERE x = 'a b'", "SELECT a FROM t WHERE x = 'ab'"),
        ("SELECT a FROM t WHERE x = 12", "SELECT a FROM t WHERE x = 1 2"),
        ("SELECT count(a) FROM t", "SELECT count(*) FROM t"),
        ("SELECT a FROM t GROUP BY a, b", "SELECT a FROM t GROUP BY b, a"),
    ],
)  # fmt: skip
def test_what_says_something_else_has_another_form(one: str, other: str) -> None:
    assert sql.logical_form(one) != sql.logical_form(other)


@given(st.text(max_size=60) | st.text("()' \"`;SELECTwhereandorbetween=1", max_size=80))
@example("(" * 5000)
@example("(" * 60 + ")" * 60)
def test_any_text_has_a_form_whatever_its_spaces(query: str) -> None:
    assert sql.logical_form(f"  {query} ;") == sql.logical_form(query)


def test_an_answer_is_its_rows() -> None:
    assert sql.answer("SELECT name FROM singer WHERE age = 30 ORDER BY name DESC", SCRIPT) == [("Cy",), ("Ann",)]
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n"
    assert sql.answer(count, "") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("query", "right", "same"),
    [
        ("SELECT name FROM singer WHERE NOT age = 41", "SELECT name FROM singer WHERE age = 30", True),
        ("SELECT name FROM singer ORDER BY name DESC", "SELECT name FROM singer", True),
        ("SELECT name FROM singer ORDER BY name DESC", "SELECT name FROM singer ORDER BY name", False),
        ("SELECT country FROM singer", "SELECT DISTINCT country FROM singer", False),
        ("SELECT avg(age) FROM singer WHERE age = 30", "SELECT 30", True),
        ("SELECT nothing FROM singer", "SELECT name FROM singer", False),
        ("", "SELECT name FROM singer", False),
    ],
)
def test_two_queries_are_the_same_by_their_rows(query: str, right: str, same: bool) -> None:
    assert sql.same_answer(query, right, SCRIPT) is same


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM singer",
        "DROP TABLE singer",
        "UPDATE singer SET age = 1",
        "INSERT INTO singer VALUES ('x', 1, 'y')",
        "CREATE TABLE t (a)",
        "ATTACH DATABASE 'other.sqlite' AS other",
        "PRAGMA table_info(singer)",
        "SELECT * FROM pragma_database_list",
        "VACUUM INTO 'copy.sqlite'",
        "SELECT load_extension('evil')",
        "SELECT 1; DROP TABLE singer",
        "BEGIN",
        "SELECT '\x00'",
        "SELECT \ud800",
        "SELECT zeroblob(1000000000)",
        f"SELECT 1 FROM {', '.join(['singer'] * 20)}",  # noqa: S608
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT " + "(" * 3000 + "1" + ")" * 3000,
        "not a query",
    ],
)
def test_a_query_that_does_more_than_read_or_too_much_does_not_run(
    query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sql, "MOST_INSTRUCTIONS", 2_000_000)
    with pytest.raises(sql.QueryError):
        sql.answer(query, SCRIPT)
    assert not list(tmp_path.iterdir())
    assert not sql.same_answer(query, "SELECT 1", SCRIPT)


def test_a_database_in_a_file_is_read_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "concert.sqlite"
    with sqlite3.connect(file) as connection:
        connection.executescript(SCRIPT)
    before = file.read_bytes()
    assert sql.answer("SELECT count(*) FROM singer", str(file)) == [(3,)]
    with pytest.raises(sql.QueryError):
        sql.answer("DELETE FROM singer", str(file))
    assert file.read_bytes() == before
    with pytest.raises(sql.QueryError, match="cannot be opened"):
        sql.answer("SELECT 1", str(tmp_path / "none.sqlite"))
    assert not (tmp_path / "none.sqlite").exists()


@settings(max_examples=25)
@given(st.text(max_size=40))
def test_no_answer_of_a_model_is_an_error(query: str) -> None:
    for metric in (queries.sql_execution, queries.logical_form):
        assert metric([query], [("SELECT 1",)]).rows.tolist() in ([[0]], [[1]])


OLDER = "SELECT name FROM singer WHERE age > {}"
ROWS = [{"q": f"older than {n}?", "sql": OLDER.format(n), "db": SCRIPT} for n in range(25, 31)]
TASK = {
    "kind": "generation",
    "prompt": "{q}",
    "completion": "{sql}",
    "database": "{db}",
    "splits": own.SPLITS,
    "metrics": ["sql_execution", "logical_form"],
}


def test_a_task_of_ones_own_runs_its_queries(tmp_path: Path) -> None:
    task = data.load(own.task(tmp_path, "rows.jsonl", own.jsonl(ROWS), TASK))
    assert task.spec.database_of(task.test[0].fields) == SCRIPT
    right = [e.completion for e in task.test]
    other = [one.replace("age >", "NOT age <=") for one in right]
    references = [(one,) for one in right]
    assert queries.sql_execution(other, references, databases=[SCRIPT] * len(right)).rows.tolist() == [[1], [1]]
    assert queries.logical_form(other, references).rows.tolist() == [[0], [0]]
    assert queries.sql_execution(other, references).rows.tolist() == [[0], [0]], "in an empty database neither runs"
    assert queries.sql_execution(right, references).rows.tolist() == [[1], [1]]


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([{**row, "sql": "SELECT no FROM singer"} for row in ROWS], {}, "the right query does not run: no such"),
        (ROWS, {"database": None}, "'sql_execution' needs 'database'"),
        (ROWS, {"metrics": ["logical_form"]}, "'sql_execution' needs 'database'"),
        ([{**row, "db": "../x.sqlite"} for row in ROWS], {}, "must be a path below the source"),
        ([{**row, "db": "no.sqlite"} for row in ROWS], {}, "the database cannot be opened"),
        ([{**row, "db": "CREATE nonsense"} for row in ROWS], {}, "the database cannot be opened"),
    ],
)  # fmt: skip
def test_mistakes_in_queries_are_told_before_anything_runs(
    tmp_path: Path, rows: list[dict[str, str]], changes: dict[str, object], message: str
) -> None:
    path = own.task(tmp_path, "rows.jsonl", own.jsonl(rows), {**TASK, **changes})
    assert message in own.refused(path)
