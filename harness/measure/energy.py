"""Energy: joules from the counters of the GPU (NVML) or of the processor (RAPL), where they can be read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.measure.environment import synchronize
from harness.measure.nvml import nvml_device

_RAPL = Path("/sys/class/powercap")


@dataclass
class Energy:
    """Filled when the :func:`energy` block ends."""

    joules: float | None = None
    """Joules of the whole GPU, or of the processor's packages, whoever used them; None where no counter can be read."""
    reason: str | None = None
    """Why there is no number."""


class _Unreadable(Exception):
    """There is no counter, or it cannot be read."""


@contextlib.contextmanager
def energy(device: torch.device, rapl: Path = _RAPL) -> Iterator[Energy]:
    """Measure the energy of the block: two readings of a counter, no sampling in between."""
    measured = Energy()
    try:
        since = _counter(device, rapl)
    except _Unreadable as error:
        measured.reason = str(error)
        yield measured
        return
    try:
        yield measured
    finally:
        synchronize(device)
        try:
            measured.joules = since()
        except _Unreadable as error:
            measured.reason = str(error)


def _counter(device: torch.device, rapl: Path) -> Callable[[], float]:
    """A function that gives the joules since now."""
    return _nvml_counter(device) if device.type == "cuda" else _rapl_counter(rapl)


def _nvml_counter(device: torch.device) -> Callable[[], float]:
    connection = nvml_device(device)
    if connection is None:
        raise _Unreadable("NVML cannot be read: the package nvidia-ml-py is not installed, or the driver refuses")
    nvml, handle = connection

    def millijoules() -> int:
        try:
            return int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except nvml.NVMLError as error:
            raise _Unreadable(f"NVML: {error}") from error

    synchronize(device)
    start = millijoules()
    return lambda: (millijoules() - start) / 1e3


def _rapl_counter(rapl: Path) -> Callable[[], float]:
    # intel-rapl:0, intel-rapl:1 … are the packages; intel-rapl:0:0 … are parts of them. AMD uses the same names.
    zones = sorted(path for path in rapl.glob("intel-rapl:*") if path.name.count(":") == 1)
    if not zones:
        raise _Unreadable("no RAPL counter on this machine")
    ranges = [_read(zone / "max_energy_range_uj") for zone in zones]
    starts = [_read(zone / "energy_uj") for zone in zones]

    def joules() -> float:
        ends = [_read(zone / "energy_uj") for zone in zones]
        # A counter begins at 0 again when it is full.
        used = ((end - start) % (size + 1) for start, end, size in zip(starts, ends, ranges, strict=True))
        return sum(used) / 1e6

    return joules


def _read(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError) as error:
        raise _Unreadable(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
