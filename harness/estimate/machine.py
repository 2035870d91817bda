"""This machine's speed for an estimate of time, measured once in a process of its own: planning imports no torch.

It is the peak that trials measure too (:mod:`harness.measure.roofline`), for as many threads as a trial started here
would have. Where others have the processors meanwhile, the threads of a product wait for one another, and what is
measured may be a tenth of the peak: then it is the peak of one thread, which finds undisturbed moments, times threads.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.files import write_atomically
from harness.processes.threads import VARIABLE as THREADS
from harness.processes.threads import processor_count
from harness.processes.tied import tied
from harness.sources import cache

if TYPE_CHECKING:
    import torch

#: Raised when what is measured changes; older files are not read then.
VERSION = 2

#: This environment variable has the speed of the machine that trials will run on, and overrules the measurement.
VARIABLE = "TUNEBENCH_FLOPS_PER_S"

#: How long a measurement counts: a month, or a day where other work disturbed it.
_QUIET_S, _DISTURBED_S = 30 * 86400.0, 86400.0
_PATIENCE_S = 120.0
#: How long one thread is measured where all together were disturbed.
_PROBE_S = 1.0


def flops_per_s(device: str, dtype: str) -> float | None:
    """Floating-point operations per second of the largest matrix product; None where it cannot be measured.

    ``device`` and ``dtype`` are those of a trial, such as 'auto' and 'float32'. Raises
    :class:`harness.errors.InputError` where ``$TUNEBENCH_FLOPS_PER_S`` is not a number above 0.
    """
    if given := os.environ.get(VARIABLE):
        return _number(given)
    file = _file(device, dtype)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        measured = json.loads(file.read_text(encoding="utf-8"))
        if time.time() - measured["at"] < (_QUIET_S if measured["undisturbed"] else _DISTURBED_S):
            return float(measured["flops_per_s"])
    measured = _measured(device, dtype)
    if measured is None:
        return None
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({**measured, "at": time.time()}), durable=False)
    return float(measured["flops_per_s"])


def _number(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise InputError(f"${VARIABLE}: '{text}' is not a number of FLOPs per second, such as 3e11")


def _file(device: str, dtype: str) -> Path:
    name = f"v{VERSION}_{platform.node()}_{device.replace(':', '-')}_{_threads()}_{dtype}.json"
    return cache.root() / "machine" / name


def _threads() -> str:
    """How many threads a trial would compute with, as far as the environment says."""
    return os.environ.get(THREADS) or str(processor_count())


def _measured(device: str, dtype: str) -> dict[str, float | bool] | None:
    command = tied([sys.executable, "-P", "-m", "harness.estimate.machine", device, dtype])
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True).stdout
        measured: dict[str, float | bool] = json.loads(answer.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return measured


def main() -> None:
    """Measure for the device and number format on the command line, and print the result as JSON."""
    from harness.models import formats
    from harness.models.load import pick_device

    device, dtype = sys.argv[1:]
    place = pick_device(device)
    formats.use(dtype, place)
    peak, undisturbed = _peak(place, dtype)
    print(json.dumps({"flops_per_s": peak, "undisturbed": undisturbed}))


def _peak(device: torch.device, number_format: str) -> tuple[float, bool]:
    """FLOPs per second, and whether all threads were measured at once, with the processors to themselves.

    ``number_format`` is the name of a format in a trial.
    """
    import torch

    from harness.measure.roofline import measure_roofline, roofline
    from harness.models.formats import torch_dtype

    dtype = torch_dtype(number_format)
    peaks = roofline(device, dtype, number_format)
    if peaks.undisturbed:
        return peaks.flops_per_s, True
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    return max(peaks.flops_per_s, threads * measure_roofline(device, dtype, _PROBE_S).flops_per_s), False


if __name__ == "__main__":
    main()
