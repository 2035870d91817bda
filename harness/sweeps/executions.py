"""The ``execution`` block of a sweep: its axes, and which of them a cell of the matrix cannot take."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from harness import catalog
from harness.arguments import Once
from harness.execution import FIELDS, Execution
from harness.trial import Frozen, Trial


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _not_empty(values: list[Any]) -> list[Any]:
    if not values:
        raise ValueError("an empty list is no axis; give a value, or a list of values")
    return values


class _Axes(Frozen):
    def combinations(self) -> Iterator[Execution]:
        """Every combination of the values."""
        values = [getattr(self, name) for name in FIELDS]
        return (Execution(**dict(zip(FIELDS, several, strict=True))) for several in itertools.product(*values))


def _axis(name: str) -> Any:
    one: Any = Annotated[FIELDS[name].annotation, "a value of the axis", *FIELDS[name].metadata]
    kind = Annotated[list[one], BeforeValidator(_as_list), AfterValidator(_not_empty), Once]
    return kind, Field(default=[FIELDS[name].default], description=FIELDS[name].description)


_FIELDS: dict[str, Any] = {name: _axis(name) for name in FIELDS}
#: The block: each field of an execution, as a value or a list of values.
ExecutionAxes: Any = create_model("ExecutionAxes", __base__=_Axes, **_FIELDS)


class Cell(Protocol):
    """What is asked of a cell of the matrix."""

    @property
    def method(self) -> catalog.Method: ...
    @property
    def objective(self) -> catalog.Objective: ...
    @property
    def model(self) -> Any: ...


def reason_against(cell: Cell, trial: Trial, together: int) -> str | None:
    """Why the execution of ``trial`` cannot run in ``cell``; None if it can, as far as a plan knows.

    ``together`` is the number of processes that train it together. What only a machine can tell, such as a package that
    is missing, ends the trial itself as a skipped row.
    """
    if (reason := _against_format(trial, together)) is not None:
        return reason
    asked = trial.execution.asked
    if not asked:
        return None
    if together > 1:
        return f"execution.{next(iter(asked))}: several processes train together in the usual way alone"
    for name in asked:
        for what, entry in (("method", cell.method.name), ("objective", cell.objective.name)):
            if name in (unable := _UNABLE.get((what, entry), {})):
                return f"execution.{name}: not with {what} '{entry}': {unable[name]}"
        if cell.model.kind not in _KINDS.get(name, (cell.model.kind,)):
            needed = " or ".join(_KINDS[name])
            return f"execution.{name}: needs {needed} models; '{cell.model.name}' is {cell.model.kind}"
    return _unequal_parts(trial) or _unshared(trial) or _in_16_bits(trial)


_VIRTUAL = {"packing": "it puts virtual tokens before a row, not before each example in it"}
_OWN_LOSS = "its loss is not the mean over a batch's tokens"
_PAIRS = {
    "packing": "its batches are pairs of answers, not rows of text",
    "loss": "it needs the log-probability of each whole answer",
}
_OWN_STEPS = dict.fromkeys((name for name in FIELDS if name != "attention"), "it computes its steps by itself")
_OF_TRL = {name: "a trainer of TRL computes its steps" for name in _OWN_STEPS if name != "optimizer"}
#: Kind and name -> field -> why it cannot be other than usual there.
_UNABLE: Mapping[tuple[str, str], Mapping[str, str]] = {
    **{("method", name): _VIRTUAL for name in ("prompt", "p_tuning")},
    ("method", "prefix"): {
        **_VIRTUAL,
        "gradient_checkpointing": "layers that are computed again lack the keys and values that the prefix is",
    },
    ("method", "bitdelta"): {
        "loss": _OWN_LOSS,
        "accumulation": _OWN_LOSS,
        "shared_prompts": "its loss is of the prompts, too",
    },
    ("objective", "clm"): {"shared_prompts": "its texts have no prompts"},
    ("objective", "reward"): _PAIRS,
    ("objective", "dpo"): _PAIRS,
    ("objective", "rrhf"): _PAIRS,
    **{("objective", name): _OF_TRL for name in ("kto", "orpo", "rloo", "grpo")},
    ("objective", "ppo"): _OWN_STEPS,
}

#: Fields that are about the loss of tokens.
_KINDS: Mapping[str, tuple[catalog.ModelKind, ...]] = {
    "packing": ("decoder",),
    "loss": ("decoder", "encoder_decoder"),
}


def _unequal_parts(trial: Trial) -> str | None:
    parts, size = trial.execution.accumulation, trial.budget.batch_size
    if size % parts:
        return f"execution.accumulation: {parts} equal parts cannot be made of a batch of {size}"
    return None


def _unshared(trial: Trial) -> str | None:
    execution = trial.execution
    if not execution.shared_prompts:
        return None
    where = "execution.shared_prompts"
    if not execution.packing:
        return f"{where}: examples share a prompt in one row; write execution.packing: true beside it"
    if execution.accumulation == trial.budget.batch_size:
        sizes = f"batch_size is {trial.budget.batch_size}, accumulation {execution.accumulation}"
        return f"{where}: a row of one example shares nothing; {sizes}"
    if execution.attention not in ("auto", "sdpa"):
        return f"{where}: needs the attention sdpa; execution.attention is {execution.attention}"
    return None


def _in_16_bits(trial: Trial) -> str | None:
    if trial.execution.attention == "flash_attention_2" and trial.dtype in ("float32", "tf32"):
        return f"execution.attention: flash_attention_2 computes in 16 bits; dtype is {trial.dtype}"
    return None


def _against_format(trial: Trial, together: int) -> str | None:
    if trial.dtype == "tf32" and trial.device == "cpu":
        return "dtype: tf32 is a format of NVIDIA's GPUs since Ampere; device is cpu"
    if trial.dtype == "float16" and together > 1:
        return "dtype: the loss of float16 is scaled in one process alone"
    return None
