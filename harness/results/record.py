"""What a trial leaves behind: the notebook's outcome, and the record that ends the trial.

The notebook writes ``outcome.json`` (what it measured) as its last act; whoever runs the notebook then writes
``record.json`` (the specification, how it ended, and the outcome). A trial is done if and only if ``record.json``
exists, so both are written to a temporary name, flushed to disk and renamed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from harness import plain
from harness.files import OUTCOME_FILE, write_atomically
from harness.results.ownership import place_of_record
from harness.results.schema import LONG_TABLES, SCHEMA_VERSION, TRIALS, Status
from harness.trial import Trial


class Outcome(BaseModel):
    """What the notebook measured: columns of ``trials``, and rows of the long tables (without ``trial_id``)."""

    model_config = ConfigDict(extra="forbid")

    columns: dict[str, str | bool | int | float | None] = Field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)

    def model_post_init(self, _context: Any) -> None:
        known = {c.name for c in TRIALS.columns}
        if stray := sorted(set(self.columns) - known):
            raise ValueError(f"not columns of the trials table: {', '.join(stray)}")
        if stray := sorted(set(self.tables) - set(LONG_TABLES)):
            raise ValueError(f"not tables: {', '.join(stray)}")


class Record(BaseModel):
    """The end of one trial: its specification, its ending, and what was measured before it."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    trial_id: str
    sweep: str
    trial: Trial
    status: Status
    reason: Annotated[str, AfterValidator(plain.bounded)] | None = None
    failed_cell: int | None = None
    attempt: int = 0
    started_at: datetime
    duration_s: float | None = None
    task_kind: str | None = None
    model_family: str | None = None
    estimated_bytes: int | None = None
    """What the plan expected the peak of training to be."""
    parents: dict[str, str] = Field(default_factory=dict)
    """Role -> id of the trial that filled it, of the candidates that the specification names."""
    environment: dict[str, str | bool | None] = Field(default_factory=dict)
    """Columns of the trials table that describe machine, versions and commit; known for every ending."""
    outcome: Outcome | None = None
    sha256: str | None = Field(default=None, exclude=True)
    """Stands last in the file, with the checksum of all before it. The ledger writes and checks it, and leaves it out
    of what it reads."""


def _finite(value: Any) -> Any:
    """``value`` with NumPy scalars made plain and numbers that are not finite made null (JSON has neither)."""
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_outcome(
    trial_dir: str | Path | None,
    columns: Mapping[str, Any],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Outcome:
    """Validate what a notebook measured and, under a runner, hand it over.

    Nothing is written, and the outcome is only returned, when a person runs the notebook: then ``trial_dir`` is None,
    or another process ran that trial. Raises ValueError for a column or table that the schema does not have.
    """
    outcome = Outcome(
        columns={name: _finite(value) for name, value in columns.items()},
        tables={
            name: [{key: _finite(value) for key, value in row.items()} for row in rows] for name, rows in tables.items()
        },
    )
    if (place := place_of_record(trial_dir)) is not None:
        write_atomically(place / OUTCOME_FILE, json.dumps(outcome.model_dump(mode="json"), allow_nan=False))
    return outcome
