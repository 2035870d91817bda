"""What fits: sizes of memory as people write them, and every method against the accelerators that are sold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import catalog
from harness.errors import InputError, shown

if TYPE_CHECKING:
    from harness.estimate.estimate import Estimate

GB = 10**9

#: Memory of common accelerators. A card sold as 24 GB has 24 GiB: the rest is left to its driver and to fragments.
SIZES_GB = (8, 16, 24, 48, 80, 141)

_UNITS = {"MB": 10**6, "GB": GB, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_bytes(text: str, where: str = "memory") -> int:
    """``24GB`` (powers of ten) or ``24GiB`` (powers of two) as bytes; :class:`InputError` for anything else."""
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z]+)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise InputError(f"{where}: {shown(text)} is not a size; write it like 24GB or 24GiB")
    if not (size := int(float(match[1]) * _UNITS[match[2].upper()])):
        raise InputError(f"{where}: {shown(text)} is no memory at all; write a size like 24GB or 24GiB")
    return size


@dataclass(frozen=True)
class Fit:
    """One method on one model."""

    method: str
    estimate: Estimate | None
    reason: str | None = None
    """Why there is no estimate: the method does not work on this model."""

    def smallest_gb(self, sizes: Sequence[int] = SIZES_GB) -> int | None:
        """The smallest of ``sizes`` (GB) that holds a training step; None when none does."""
        if self.estimate is None:
            return None
        return next((size for size in sorted(sizes) if self.estimate.fits(size * GB)), None)


def what_fits(model: str, args: Mapping[str, Mapping[str, Any]] | None = None, **settings: Any) -> list[Fit]:
    """Every method that trains on ``model``; ``settings`` go to :func:`harness.estimate.estimate.estimate`.

    ``args`` are arguments by method, such as ``{"lora": {"r": 64}}``. Raises :class:`InputError` for an unknown model
    or a setting that is not one.
    """
    from harness.estimate.estimate import estimate

    rows = [Fit("full", estimate(model, "full", (args or {}).get("full"), **settings))]
    for name in (name for name, entry in catalog.METHODS.items() if entry.trains and name != "full"):
        try:
            rows.append(Fit(name, estimate(model, name, (args or {}).get(name), **settings)))
        except InputError as error:
            rows.append(Fit(name, None, str(error)))
    return rows
