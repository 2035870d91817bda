"""Tables of an earlier version that lacks only columns which were added since are read, and those are null."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers.fake_records import records

from harness.errors import InputError
from harness.results.columns import OLDEST_READABLE, SCHEMA_VERSION
from harness.results.files import read, where
from harness.results.tables import write

COMMITTED = Path(__file__).resolve().parents[2] / "results" / "serving"
ADDED = "control_ratio"


def older(folder: Path, version: int, without: str) -> Path:
    write(records(n_methods=2, seeds=1, rates=1, curve_steps=2), folder)
    for path in (folder / "tables").glob("*.parquet"):
        table = pq.read_table(path)
        table = table.drop_columns([without]) if without in table.column_names else table
        pq.write_table(table.replace_schema_metadata({b"schema_version": str(version).encode()}), path)
    return folder


def test_what_was_added_since_is_null(tmp_path: Path) -> None:
    tables = read(older(tmp_path, OLDEST_READABLE, ADDED))
    assert tables["trials"][ADDED].isna().all() and len(tables["trials"]) == 2
    assert tables["trials"][ADDED].dtype == "float64"
    assert len(where(tables, "latency", tables["trials"].trial_id, batch_size=1)) > 0


@pytest.mark.parametrize(
    ("version", "without", "message"),
    [
        (SCHEMA_VERSION, ADDED, f"the column '{ADDED}' is missing"),
        (OLDEST_READABLE, "status", "the column 'status' is missing"),
        (OLDEST_READABLE - 1, ADDED, f"schema version {OLDEST_READABLE - 1}, not {SCHEMA_VERSION}"),
        (SCHEMA_VERSION + 1, ADDED, f"schema version {SCHEMA_VERSION + 1}, not {SCHEMA_VERSION}"),
    ],
)
def test_what_is_missing_otherwise_is_an_error(tmp_path: Path, version: int, without: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(older(tmp_path, version, without))


def test_the_committed_tables_are_read() -> None:
    trials = read(COMMITTED)["trials"]
    assert len(trials) == 5
    assert set(trials.execution_packing) == {False} and set(trials.execution_optimizer) == {"adamw"}
