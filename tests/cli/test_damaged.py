"""Damaged plans and tables are one line on the standard error stream and exit code 2, whatever the damage."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.fake_records import make_sweep

from harness import cli
from harness.ledger.records import read_records
from harness.results import tables

Told = Callable[..., str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "a"
    make_sweep(folder)
    tables.write(read_records(folder), folder)
    return folder


@pytest.fixture
def told(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """What a command says in a folder with a copy ``a`` of the whole sweep; it has to refuse."""
    shutil.copytree(whole, tmp_path / "a")
    monkeypatch.chdir(tmp_path)

    def told(*command: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tunebench", *command])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = capsys.readouterr()
        assert (exit_.value.code, out) == (2, ""), err
        assert err.startswith("error: ") and err.count("\n") == 1
        assert not [word for word in ("Input should", "Error:", "object is not", "Traceback") if word in err], err
        return err

    return told


DEEP = b"[" * 100_000


@pytest.mark.parametrize("content", [b"", b"{", b"3", b'{"trials": 3}', b'{"trials": [3]}', b'{"trials": [{}]}', DEEP])
def test_a_plan(told: Told, content: bytes) -> None:
    Path("a/plan.json").write_bytes(content)
    assert "a/plan.json: " in told("status", "a")


def damaged(name: str, how: str) -> None:
    shutil.rmtree("a/trials")  # of records, the tables would be made again
    path = Path(f"a/tables/{name}.parquet")
    table = pq.read_table(path)
    match how:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
        case "another file":
            path.write_text("method,score\nlora,0.9\n", encoding="utf-8")
        case "without a column":
            pq.write_table(table.drop_columns(["trial_id"]), path)
        case "another type":
            place = table.schema.get_field_index("trial_id")
            column = table.column("trial_id").dictionary_encode()
            pq.write_table(table.set_column(place, "trial_id", column), path)
        case "another version":
            pq.write_table(table.replace_schema_metadata({b"schema_version": b"1"}), path)
        case "another program":
            pq.write_table(table.replace_schema_metadata(None), path)


@pytest.mark.parametrize("name", ["trials", "scores"])
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("empty", "cannot be read as Parquet"),
        ("cut", "cannot be read as Parquet"),
        ("another file", "cannot be read as Parquet"),
        ("without a column", "the column 'trial_id' is missing; make the tables again"),
        ("another type", "the column 'trial_id' is "),
        ("another version", "schema version 1, not"),
        ("another program", "another program than TuneBench wrote it; make the tables again"),
    ],
)
def test_a_table(told: Told, name: str, how: str, says: str) -> None:
    damaged(name, how)
    assert f"/{name}.parquet: {says}" in told("report", "a", "--out", "page")
    assert not Path("page").exists(), "nothing is written"


@pytest.mark.parametrize("command", [("recommend", "a", "--model", "m", "--task", "t"), ("compare", "a", "a")])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.assign(test_score=float("inf")), "column 'test_score', row 0 "),
        (lambda t: t.assign(test_stderr=-1.0), "column 'test_stderr', row 0 "),
        (lambda t: pd.concat([t, t], ignore_index=True), "column 'trial_id', row "),
    ],
)
def test_values_that_no_tables_have_are_refused_by_what_reads_them(
    told: Told, command: tuple[str, ...], change: Callable[[pd.DataFrame], pd.DataFrame], says: str
) -> None:
    shutil.rmtree("a/trials")
    path = Path("a/tables/trials.parquet")
    schema = pq.read_schema(path)
    changed = change(pq.read_table(path).to_pandas())
    pq.write_table(pa.Table.from_pandas(changed, schema=schema, preserve_index=False), path)
    said = told(*command)
    assert f"trials.parquet: table 'trials', {says}" in said and said.endswith("; make the tables again\n")


@pytest.mark.slow
def test_damage_inside_a_table_that_only_shows_when_it_is_read(told: Told) -> None:
    shutil.rmtree("a/trials")
    path = Path("a/tables/scores.parquet")
    content = bytearray(path.read_bytes())
    content[200:600] = b"\xff" * 400
    path.write_bytes(content)
    assert "a: no report can be made of these tables: " in told("report", "a", "--out", "page")
