"""Where trials run. An executor is one file here and one line in :data:`EXECUTORS`.

An executor runs ``tunebench trial TRIAL_DIR`` somewhere and says how that ended; everything else (what is ready, what
was lost, what is shown) is the driver's, :mod:`harness.runner.driver`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from harness.errors import InputError, unknown
from harness.runner.endings import Ending
from harness.sweeps.spec import Resources


class Job(Protocol):
    """One trial that was handed to an executor."""

    def waits(self) -> bool:
        """Whether it has not begun, as far as is known; a job that has ended does not wait."""

    def ended(self) -> Ending | None:
        """None while it runs or waits. Afterwards ``ok`` if the ledger has the truth, whatever that is; otherwise
        what is to be recorded for a trial that did not live to write its own record."""


class Executor(Protocol):
    """A place that runs trials."""

    def room(self) -> int:
        """How many more trials it takes now."""

    def submit(self, trial_dirs: Sequence[Path]) -> Sequence[Job]:
        """Start these trials, or queue them: at most :meth:`room`. The jobs of those that it took, the first ones."""

    def close(self) -> None:
        """End the jobs that are left, with all that they started, and give back what the executor holds.

        Trials that are ended so leave no record, and run again."""


class Factory(Protocol):
    """Makes an executor that runs ``jobs`` trials at a time; ``cold`` has every trial import for itself.

    Raises :class:`InputError` when there is no such place here, or it lacks what ``resources`` asks for.
    """

    def __call__(self, resources: Resources, jobs: int, cold: bool) -> Executor: ...

    def check(self, resources: Resources) -> None:
        """Raise what the call would raise, and start nothing: before the folder of the results is written."""


#: Name -> module:function, a :class:`Factory`. The module is imported when the executor is asked for.
EXECUTORS = {
    "local": "harness.runner.executors.local:LocalExecutor",
    "ray": "harness.runner.executors.ray:RayExecutor",
    "slurm": "harness.runner.executors.slurm:SlurmExecutor",
}

#: Name -> the package that it needs beyond the project's requirements; it comes with the extra of the same name.
PACKAGES = {"ray": "ray", "slurm": "submitit"}


def factory(name: str) -> Factory:
    """What makes the executor called ``name``. Raises :class:`InputError` when it does not exist or lacks a package."""
    if name not in EXECUTORS:
        raise unknown("--executor", name, EXECUTORS)
    if name in PACKAGES and find_spec(PACKAGES[name]) is None:
        raise InputError(
            f"--executor {name}: the package '{PACKAGES[name]}' is missing; pip install 'tunebench[{name}]'"
        )
    module, _, attribute = EXECUTORS[name].partition(":")
    return cast(Factory, getattr(import_module(module), attribute))
