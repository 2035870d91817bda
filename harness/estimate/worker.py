"""Estimates for a plan, in a process of its own: settings as JSON on standard input, the step of each on a line."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from harness import methods
from harness.estimate.start import quick_start
from harness.estimate.unpacked import unpacked_params
from harness.execution import Execution
from harness.processes.lifetime import die_with
from harness.processes.threads import processor_count

_MOST_PROCESSES = 4


def step_of(setting: Mapping[str, Any]) -> tuple[int, ...] | str | None:
    """The fields of a :class:`harness.estimate.planned.Step`.

    None for what cannot be traced; why, where the method refuses its arguments.

    Arguments that only the method's notebook takes, such as how much of a spectrum to draw, are left out.
    """
    from harness.estimate.estimate import CannotApply, check, estimate

    known = methods.arguments(setting["method"])
    args = {name: value for name, value in json.loads(setting["method_args"]).items() if name in known}
    try:
        if not setting["has_step"]:
            model, method, dtype, labels = (setting[name] for name in ("model", "method", "dtype", "labels"))
            check(model, method, args, dtype, labels, scalar=setting["scalar"])
            return None
        step = estimate(
            setting["model"],
            setting["method"],
            args,
            batch_size=setting["batch_size"],
            length=setting["length"],
            dtype=setting["dtype"],
            optimizer_dtype=None,
            execution=Execution.model_validate_json(setting["execution"]),
            labels=setting["labels"],
        )
    except CannotApply as error:
        return str(error)
    except Exception:
        # Any library may refuse any combination in any way. A plan without an estimate is right; one that ends here
        # is not.
        return None
    unpacked = unpacked_params(step.total_params, step.weights_bytes, step.dtype)
    return step.total_bytes, step.flops, step.trainable_params, unpacked


def main() -> None:
    """Answer what stands on standard input, one setting after the other."""
    settings = json.load(sys.stdin)
    answers = sys.stdout
    with quick_start(), contextlib.redirect_stdout(sys.stderr):  # libraries may print
        from harness.estimate import estimate  # noqa: F401  # what is imported before the forks, they share

        for step in _steps(settings):
            print(json.dumps(step), file=answers, flush=True)


def _steps(settings: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, ...] | str | None]:
    """:func:`step_of` each, in their order, from as many processes as help."""
    processes = min(processor_count(), _MOST_PROCESSES, len(settings))
    if processes < 2:
        yield from map(step_of, settings)
        return
    # Elsewhere than on Linux, libraries of the system do not bear a fork.
    how = get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(processes, how, die_with, (os.getpid(),)) as pool:
        yield from pool.map(step_of, settings)


if __name__ == "__main__":
    main()
