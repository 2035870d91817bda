"""What this machine can do at most, measured: matrix products per second and memory bandwidth.

Utilisation against a measured peak says what software leaves unused; a data sheet's peak is out of anybody's reach.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.files import write_atomically
from harness.measure.environment import accelerator, synchronize
from harness.sources import cache

#: Seconds spent on each of the two peaks.
_PROBE_S = 2.0
_QUIET_SHARE = 0.9
_LARGEST = {"cpu": 4096, "cuda": 16384}
_COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}


@dataclass(frozen=True)
class Roofline:
    """Peaks of one device in one number format (Williams et al. 2009, doi:10.1145/1498765.1498785)."""

    device: str
    dtype: str
    flops_per_s: float
    """Reached by square matrix products, 2 per multiply-add."""
    bytes_per_s: float
    """Read and written, of a copy that no cache holds."""
    processor_share: float
    """Share of its threads' time that the probe got; below 1 others were at work, and the true peaks are higher."""

    @property
    def undisturbed(self) -> bool:
        """Whether the probe had the machine to itself, so that these are peaks."""
        return self.processor_share >= _QUIET_SHARE


def _best_s(act: Callable[[], object], device: torch.device, budget_s: float) -> float:
    """Seconds of the fastest call within ``budget_s``, after one to warm up."""
    act()
    best, until = math.inf, time.perf_counter() + budget_s
    while time.perf_counter() < until or math.isinf(best):
        synchronize(device)
        start = time.perf_counter()
        act()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def measure_roofline(device: torch.device, dtype: torch.dtype, probe_s: float = _PROBE_S) -> Roofline:
    """Measure now; about twice ``probe_s`` seconds on a machine that does nothing else.

    On random numbers: on equal ones fewer bits flip, so that a processor draws less power and clocks higher than in any
    training. They come from a generator of their own, and nobody else's next draw changes.
    """
    kind = "cuda" if device.type == "cuda" else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    flops_per_s, share = _products(kind, device, dtype, probe_s, generator)
    source = torch.empty(_COPY_BYTES[kind] // 8, dtype=torch.int64, device=device).random_(generator=generator)
    target = torch.empty_like(source)
    took = _best_s(lambda: target.copy_(source), device, probe_s / 2)
    name = accelerator(device) or f"{platform.machine()} x {torch.get_num_threads()}"
    return Roofline(name, str(dtype).removeprefix("torch."), flops_per_s, 2 * source.nbytes / took, min(share, 1.0))


def _products(
    kind: str, device: torch.device, dtype: torch.dtype, probe_s: float, generator: torch.Generator
) -> tuple[float, float]:
    """FLOPs per second of the fastest matrix product, and the share of the processor that the probe got."""
    # Drawn before the clock starts: drawing is the work of one thread.
    numbers = torch.randn(2, _LARGEST[kind] ** 2, dtype=dtype, device=device, generator=generator)
    started, used = time.perf_counter(), time.process_time()
    size, until = 256, time.perf_counter() + probe_s
    flops_per_s = 0.0
    # Larger products come closer to the peak, until one takes too large a share of the time.
    while size <= _LARGEST[kind]:
        a, b = (row[: size**2].view(size, size) for row in numbers)
        out = torch.empty_like(a)
        left = until - time.perf_counter()
        took = _best_s(lambda: torch.mm(a, b, out=out), device, min(left / 3, probe_s / 5))  # noqa: B023
        flops_per_s = max(flops_per_s, 2 * size**3 / took)
        if 8 * took > until - time.perf_counter():
            break
        size *= 2
    if kind == "cuda":  # the products are the card's work; a thread that waits for it may sleep
        return flops_per_s, 1.0
    threads = torch.get_num_threads()
    return flops_per_s, (time.process_time() - used) / ((time.perf_counter() - started) * threads)


def roofline(device: torch.device, dtype: torch.dtype, number_format: str | None = None) -> Roofline:
    """The peaks of this machine, measured once a day and kept in the cache unless others used it meanwhile.

    ``number_format`` is the name of the format where it is not that of ``dtype``: TF32 has float32 numbers.
    """
    path = _path(device, number_format or str(dtype).removeprefix("torch."))
    try:
        return Roofline(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        peaks = measure_roofline(device, dtype)
    if not peaks.undisturbed:
        return peaks
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(dataclasses.asdict(peaks)))
    return peaks


def _path(device: torch.device, number_format: str) -> Path:
    parts = (
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        platform.node(),
        (accelerator(device) or f"cpu{torch.get_num_threads()}").replace("/", "-").replace(" ", "-"),
        number_format,
        torch.__version__,
    )
    return cache.root() / "roofline" / f"{'_'.join(parts)}.json"
