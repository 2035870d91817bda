"""An estimate as a table for people, and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.estimate.estimate import Estimate
from harness.estimate.estimate import estimate as estimated
from harness.estimate.fits import GB, SIZES_GB, Fit, what_fits

#: Stands for all methods where a method's name is expected.
ALL = "all"


@dataclass(frozen=True)
class Answer:
    """A table with remarks below it, and the same content as a JSON document."""

    header: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    remarks: tuple[str, ...]
    document: dict[str, Any]


def answer(model: str, method: str, args: Mapping[str, Any], memory_bytes: int | None, **settings: Any) -> Answer:
    """The estimate of one method, or of :data:`ALL`.

    ``args`` are the arguments of the one method.
    """
    if method == ALL:
        return _table(model, what_fits(model, **settings), memory_bytes)
    return _one(estimated(model, method, args, **settings), memory_bytes)


def document(estimate: Estimate) -> dict[str, Any]:
    """All fields of ``estimate``, by name."""
    return dataclasses.asdict(estimate)


def _gb(size: int) -> str:
    return f"{size / GB:,.3f}"


def _one(estimate: Estimate, memory_bytes: int | None) -> Answer:
    parts = {
        "weights": estimate.weights_bytes,
        "gradients": estimate.gradients_bytes,
        "optimizer states": estimate.optimizer_bytes,
        "activations": estimate.activations_bytes,
        "temporary": estimate.temporary_bytes,
        "peak of a training step": estimate.total_bytes,
    }
    remarks = [
        f"{estimate.trainable_params:,} of {estimate.total_params:,} parameters train; "
        f"{estimate.flops / 1e12:,.3f} TFLOP a step"
    ]
    extra = {}
    if memory_bytes is not None:
        fits = estimate.fits(memory_bytes)
        extra = {"memory_bytes": memory_bytes, "fits": fits}
        remarks.append(f"{'fits' if fits else 'does not fit'} in {_gb(memory_bytes)} GB")
    rows = [(name, _gb(size)) for name, size in parts.items()]
    return Answer(("memory", "GB"), rows, tuple(remarks), {**document(estimate), **extra})


def _table(model: str, fits: Sequence[Fit], memory_bytes: int | None) -> Answer:
    sizes = {f"{size} GB": size * GB for size in SIZES_GB}
    if memory_bytes is not None:
        sizes = {f"{_gb(memory_bytes)} GB": memory_bytes}
    rows = []
    for fit in fits:
        if (e := fit.estimate) is None:
            rows.append((fit.method, *[""] * (3 + len(sizes)), fit.reason or ""))
            continue
        shares = (f"{100 * e.trainable_params / e.total_params:.3g}", _gb(e.activations_bytes), _gb(e.total_bytes))
        rows.append((fit.method, *shares, *("yes" if e.fits(size) else "" for size in sizes.values()), ""))
    return Answer(
        ("method", "trains, %", "activations, GB", "peak, GB", *sizes, ""),
        rows,
        (),
        {
            "model": model,
            "methods": [
                {"method": fit.method, "estimate": fit.estimate and document(fit.estimate), "reason": fit.reason}
                for fit in fits
            ],
        },
    )
