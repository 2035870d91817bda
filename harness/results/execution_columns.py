"""Columns of the trials table about how a trial trained: what was asked for, what was active, and how that is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.execution import FIELDS, Execution
from harness.results.columns import Column, Kind

_KINDS: dict[object, Kind] = {bool: "bool", int: "int"}


def asked(field: str) -> str:
    """The column with what the sweep asked for in this field of the ``execution`` block."""
    return f"execution_{field}"


def active(field: str) -> str:
    """The column with what was active in training."""
    return f"active_{field}"


def _pair(field: str) -> tuple[Column, Column]:
    kind = _KINDS.get(FIELDS[field].annotation, "string")
    least = 1 if kind == "int" else None
    return (
        Column(
            asked(field),
            kind,
            f"asked for: {FIELDS[field].description}",
            True,
            minimum=least,
            before=FIELDS[field].default,
        ),
        Column(active(field), kind, f"the same as it was when the trial trained{_MORE.get(field, '')}", minimum=least),
    )


_MORE = {
    "attention": ": the implementation that the network used",
    "optimizer": ": by the class of the optimiser and the format of its states",
    "loss": "; null where the objective's loss is not that of tokens",
}

#: The columns, for each field what was asked for and what was active.
EXECUTION: tuple[Column, ...] = (
    *(column for field in FIELDS for column in _pair(field)),
    Column(
        active("dtype"),
        "string",
        "number format of most matrix products of the first step, by their FLOPs; null where they were not counted",
    ),
    Column(
        "skipped_updates",
        "int",
        "updates that were left out because a gradient overflowed float16; the learning rate went on, and the loss "
        "scale was halved; null in other formats",
        minimum=0,
    ),
    Column(
        "execution_evidence",
        "string",
        "field -> how it is known what was active, as JSON: the operation that computed attention, share of padding, "
        "layers that were computed again, bytes of optimiser states for each trained parameter, compiled graphs, "
        "shares of number formats, loss scale",
    ),
    Column(
        "compile_s",
        "float",
        "seconds that compilation took before training; no part of a step; null without compilation",
        minimum=0,
    ),
    Column(
        "recomputed_flops",
        "float",
        "floating-point operations of one training step that only repeat earlier ones, counted (gradient "
        "checkpointing, chunked loss); part of train_flops",
        minimum=0,
    ),
    Column(
        "needed_flops",
        "float",
        "floating-point operations that an average training step needs: train_flops without padding, repetition and "
        "attention to what is masked (protocol, rule 11)",
        minimum=0,
    ),
    Column(
        "mfu_of_measured_peak",
        "float",
        "needed_flops per second of training steps, as a share of the matrix-product peak measured on this machine",
        minimum=0,
        maximum=1,
    ),
    Column(
        "mfu_of_data_sheet",
        "float",
        "the same as a share of the peak in the accelerator's data sheet; null on CPU",
        minimum=0,
        maximum=1,
    ),
)


def not_active(execution: Execution, columns: Mapping[str, Any]) -> str | None:
    """What was asked for and, by the measured ``columns`` of a trial, was not active; None if all of it was."""
    for field, value in execution.asked.items():
        seen = columns.get(active(field))
        if seen != value:
            words = "nothing shows what was active" if seen is None else f"{_written(seen)} was active"
            return f"execution.{field}: {_written(value)} was asked for, and {words}"
    return None


def _written(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)
