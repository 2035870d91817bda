"""Where trials run. An executor is one file here and one line in :data:`EXECUTORS`.

An executor starts ``tunebench trial TRIAL_DIR`` somewhere and says how that ended; everything else (what is ready,
what was lost, what is shown) is the driver's, :mod:`harness.runner.driver`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from harness.errors import unknown


class Job(Protocol):
    """One trial that was handed to an executor."""

    def ended(self) -> str | None:
        """Null while it runs or waits; afterwards how the process ended, such as 'exit code 0' or 'SIGKILL'."""

    def stop(self) -> None:
        """End it, with everything that it started; returns when it is gone."""


class Executor(Protocol):
    """A place that runs trials."""

    def submit(self, trial_dir: Path) -> Job:
        """Start the trial in ``trial_dir``."""

    def close(self) -> None:
        """Give back what the executor holds; all jobs have ended or were stopped."""


class Factory(Protocol):
    """Makes an executor; ``resources`` are the sweep's, ``cold`` has every trial import for itself."""

    def __call__(self, resources: Mapping[str, str | int | float], cold: bool) -> Executor: ...


#: Name -> module:function, a :class:`Factory`. The module is imported when the executor is asked for.
EXECUTORS = {"local": "harness.runner.executors.local:LocalExecutor"}


def factory(name: str) -> Factory:
    """What makes the executor called ``name``. Raises :class:`harness.errors.InputError` when there is none."""
    if name not in EXECUTORS:
        raise unknown("--executor", name, EXECUTORS)
    module, _, attribute = EXECUTORS[name].partition(":")
    return cast(Factory, getattr(import_module(module), attribute))
