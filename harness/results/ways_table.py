"""The table of the execution study."""

from __future__ import annotations

from harness.results.columns import Column, Table

_C = Column

#: The usual way to train, which the others are compared with.
BASELINE = "baseline"

WAYS = Table(
    name="ways",
    row="one short training in one of the ways that the execution study compares",
    key=("trial_id", "way", "repeat"),
    columns=(
        _C("trial_id", "string", "the trial; all of its ways ran in turn", True),
        _C("model", "string", "the base", True),
        _C("method", "string", "the method that trained", True),
        _C("way", "string", f"the way in words; '{BASELINE}': the usual one", True),
        _C("execution", "string", "the fields of the block execution that differ from the usual ones, as JSON", True),
        _C(
            "added",
            "int",
            "the way's place where fields are added one by one, 0 for the baseline; null: it is none of these",
            minimum=0,
        ),
        _C("without", "string", "of all fields, the one that is left out; null: it is no such way"),
        _C("repeat", "int", "which time; every repeat runs each way once", True, minimum=0),
        _C("tokens_per_s", "float", "tokens per second of the steps after the first two; null: not active", minimum=0),
        _C("step_s", "float", "median seconds of the same steps", minimum=0),
        _C("activations_bytes", "int", "what the first forward pass kept for the backward pass", minimum=0),
        _C("peak_train_bytes", "int", "peak memory of training, as in the table trials", minimum=0),
        _C("loss", "float", "training loss of the last step"),
        _C("disturbed", "bool", "whether others had the processors meanwhile; null: not known"),
        _C("evidence", "string", "what was active and how that is known, as JSON"),
        _C("reason", "string", "why the way was not active"),
    ),
)
