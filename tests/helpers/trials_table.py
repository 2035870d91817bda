"""A trials table from a few cells."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.execution import Execution
from harness.results.execution_columns import asked
from harness.results.schema import TRIALS
from harness.results.selection import fill_selection


def trials(*rows: dict[str, object]) -> pd.DataFrame:
    """A trials table with sensible values for whatever a row leaves out."""
    usual = {
        "sweep": "s",
        "model": "m",
        "task": "t",
        "objective": "sft",
        "method": "lora",
        "notebook": "methods/lora",
        "method_args": "{}",
        "objective_args": "{}",
        "parent_settings": "{}",
        "epochs": 1,
        "device": "cpu",
        "requested_device": "cpu",
        "protocol_version": 1,
        "dtype": "float32",
        **{asked(name): value for name, value in Execution()},
        "learning_rate": 1e-3,
        "train_examples": 8,
        "batch_size": 8,
        "max_length": 64,
        "status": "ok",
        "seed": 0,
        "higher_is_better": True,
    }
    filled: list[dict[str, Any]] = [{**usual, **row} for row in rows]
    fill_selection(filled)
    frame = pd.DataFrame(filled, columns=[c.name for c in TRIALS.columns])
    floats = {c.name: "float64" for c in TRIALS.columns if c.kind == "float"}
    # As Parquet gives a column of texts, also one in which none has a value.
    return frame.astype({**floats, "higher_is_better": "boolean", "method_version": "str"})
