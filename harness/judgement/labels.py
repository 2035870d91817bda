"""What the rows of a table are called: the method, and everything that tells two rows of one method apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd

from harness import plain
from harness.execution import FIELDS
from harness.results.execution_columns import asked


def labelled(frame: pd.DataFrame, among: Sequence[str] = ()) -> pd.DataFrame:
    """``frame`` with a ``label``: the method, and everything that tells two rows of one method apart.

    Columns and arguments that ``among`` names do not count.
    """
    label = frame.method.astype(str)
    told = frame.assign(**{name: _varying(frame, name, among) for name in _ARGUMENTS if name in frame})
    for column, say in _DISTINCTIONS.items():
        if column not in told or column in among:
            continue
        # An objective has its notebook: who knows the one knows the other.
        alike = ["method", "objective"] if column == "notebook" and "objective" in told else ["method"]
        if told.groupby(alike, dropna=False)[column].nunique(dropna=False).max() > 1:
            said = told[column].map(lambda value, say=say: say(None if pd.isna(value) else value))
            label = label + (", " + said).where(said != "", "")
    return frame.assign(label=label.map(plain.line))


_ARGUMENTS = ("method_args", "objective_args")


def _varying(frame: pd.DataFrame, column: str, without: Sequence[str]) -> list[str]:
    """Of the arguments in each row, as JSON, those in which rows of one method differ, ``without`` some."""
    parsed = [json.loads(text) if isinstance(text, str) else {} for text in frame[column]]
    values: dict[tuple[str, str], set[str]] = {}
    for method, arguments in zip(frame.method, parsed, strict=True):
        of_method = [given for other, given in zip(frame.method, parsed, strict=True) if other == method]
        for name in arguments:
            if (method, name) not in values:
                values[method, name] = {json.dumps(given.get(name)) if name in given else "" for given in of_method}
    return [
        json.dumps(
            {name: value for name, value in arguments.items() if len(values[method, name]) > 1 and name not in without}
        )
        for method, arguments in zip(frame.method, parsed, strict=True)
    ]


def arguments_text(method_args: str) -> str:
    """Arguments from the column ``method_args`` as people read them: '{"alpha": 16, "r": 8}' -> 'alpha 16, r 8'."""
    return ", ".join(f"{name} {value}" for name, value in json.loads(method_args or "{}").items())


def _of_execution(field: str, value: Any) -> str:
    """What is asked for in a field of the execution; '' for the usual."""
    if value in (None, FIELDS[field].default):
        return ""
    words = field.replace("_", " ")
    return words if value is True else f"{words} {value}"


_DISTINCTIONS: dict[str, Callable[[Any], str]] = {
    "sweep": lambda name: f"sweep {name}",
    "notebook": str,
    "method_args": arguments_text,
    "objective": str,
    "objective_args": arguments_text,
    "dtype": str,
    **{asked(name): partial(_of_execution, name) for name in FIELDS},
    "device": str,
    "requested_device": lambda name: f"asked for {name}",
    "model_revision": lambda name: f"revision {name or 'unknown'}",
    "task_version": lambda name: f"task version {name or 'unknown'}",
    "method_version": lambda name: f"file {name or 'unknown'}",
    "protocol_version": lambda n: f"protocol {n:g}",
    "train_examples": lambda n: f"{n:g} examples",
    "batch_size": lambda n: f"batch {n:g}",
    "epochs": lambda n: f"{n:g} epochs",
    "max_length": lambda n: f"length {n:g}",
    "eval_examples": lambda n: "scored on all" if n is None else f"scored on {n:g}",
    "max_new_tokens": lambda n: "answers of usual length" if n is None else f"answers of {n:g} tokens",
    "probes": lambda names: "no probes" if names is None else f"probes {names}",
    "latency_batches": lambda sizes: f"timed at batch {sizes}",
    "variant": str,
}
