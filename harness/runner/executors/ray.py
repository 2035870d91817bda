"""Trials as tasks of a Ray cluster: one that runs already, or one of this machine for the length of a run.

A task starts the trial as a process of its own and waits for it: no kernel is forked among Ray's threads, and the
trial ends when Ray's worker does.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.processes.lifetime import DRIVER_VARIABLE, kill_group
from harness.processes.threads import processor_count
from harness.runner import gpus
from harness.runner.endings import TAKEN_AWAY, Ending, of_process
from harness.runner.executors.process import start
from harness.sweeps.spec import Resources

#: Seconds that trials get to end in peace.
_PATIENCE_S = 10.0
#: Nothing but paths and exit codes goes through Ray's store: the least that Ray takes.
_STORE_BYTES = 80 * 10**6

#: For a cluster of this machine alone, before Ray is imported: stay on loopback (there is no other setting for it),
#: tell nobody, give workers no lower priority, which would spoil every time that is measured, and leave a trial that
#: asks for no GPU of its own those that the driver sees.
_OWN = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}


class RayJob:
    """One task."""

    def __init__(self, ray: Any, task: Any) -> None:
        self.task = task
        self._ray = ray
        self._ending: Ending | None = None

    def waits(self) -> bool:
        return False

    def ended(self) -> Ending | None:
        if self._ending is None and self._ray.wait([self.task], timeout=0)[0]:
            self._ending = self._look()
        return self._ending

    def _look(self) -> Ending:
        errors = self._ray.exceptions
        try:
            return of_process(self._ray.get(self.task))
        except (errors.TaskCancelledError, errors.NodeDiedError, errors.LocalRayletDiedError):
            return TAKEN_AWAY
        except errors.OutOfMemoryError:
            return Ending("oom", "Ray ended the trial for want of memory on its node")
        except errors.RayTaskError as error:
            return Ending("failed", f"the Ray task failed: {type(error.cause).__name__}: {error.cause}")
        except errors.RayError as error:
            return Ending("failed", f"the Ray worker of the trial died ({type(error).__name__})")


class RayExecutor:
    """``jobs`` tasks at a time, as far as the cluster has room for them. Every trial imports for itself."""

    def __init__(self, resources: Resources, jobs: int, cold: bool = True) -> None:
        del cold
        self._jobs = jobs
        self._resources = resources
        self._submitted: list[RayJob] = []
        self._ray = _connect(resources)
        self._trial = self._ray.remote(
            num_cpus=resources.cpus or 1,
            num_gpus=resources.gpus or 0,
            memory=None if resources.memory_gb is None else int(resources.memory_gb * 1e9),
            max_retries=0,  # what is lost is the driver's to see
        )(_trial)

    @staticmethod
    def check(resources: Resources) -> None:
        """See :class:`harness.runner.executors.Factory`. Whether a cluster answers is seen when it is joined."""
        if _address(resources) == "local":
            _check_machine(resources)

    def room(self) -> int:
        self._submitted = [job for job in self._submitted if job.ended() is None]
        return self._jobs - len(self._submitted)

    def submit(self, trial_dirs: Sequence[Path]) -> Sequence[RayJob]:
        jobs = [
            RayJob(self._ray, self._trial.remote(str(trial_dir.resolve()), self._environment()))
            for trial_dir in trial_dirs
        ]
        self._submitted += jobs
        return jobs

    def close(self) -> None:
        tasks = [job.task for job in self._submitted if job.ended() is None]
        for task in tasks:
            self._ray.cancel(task)
        if tasks:
            self._ray.wait(tasks, num_returns=len(tasks), timeout=_PATIENCE_S + 5)
        self._ray.shutdown()

    def _environment(self) -> dict[str, str]:
        """What the trials need of the driver's environment."""
        own = {name: value for name, value in os.environ.items() if name.startswith("TUNEBENCH_")}
        own.pop(DRIVER_VARIABLE, None)
        return own if self._resources.gpus != 0 else {**own, gpus.VARIABLE: ""}


def _address(resources: Resources) -> str:
    """Of the cluster; 'local' for one of this machine."""
    return resources.address or os.environ.get("RAY_ADDRESS", "local")


def _connect(resources: Resources) -> Any:
    """The module ``ray``, connected."""
    address = _address(resources)
    return _own(resources) if address == "local" else _join(address)


def _check_machine(resources: Resources) -> None:
    """Raise :class:`InputError` when a trial is to have more than this machine has."""
    for name, wanted, there in (
        ("gpus", resources.gpus, len(gpus.visible())),
        ("cpus", resources.cpus, processor_count()),
    ):
        if (wanted or 0) > there:
            raise InputError(f"resources.{name}: {wanted} for each trial, and this machine has {there}")


def _join(address: str) -> Any:
    import ray

    try:
        _knock(address)
        ray.init(address=address, **_QUIET)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(f"resources.address: no Ray cluster answers at '{address}': {error}") from error
    return ray


def _own(resources: Resources) -> Any:
    """A cluster of this machine, which ends with this process. Only who has its token may use it."""
    cores, cards = processor_count(), len(gpus.visible())
    _check_machine(resources)
    os.environ.update({name: value for name, value in _OWN.items() if name not in os.environ})
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    ray.init(
        address="local",
        num_cpus=cores,
        num_gpus=cards,
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        **_QUIET,
    )
    return ray


def _knock(address: str) -> None:
    """Raises OSError when nobody listens there; Ray itself would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _trial(trial_dir: str, environment: Mapping[str, str]) -> int:
    """What a task does: run one trial; its exit code. What this node's own environment says goes first."""
    process = start(Path(trial_dir), {name: value for name, value in environment.items() if name not in os.environ})
    try:
        while (code := process.poll()) is None:
            time.sleep(0.1)
    except BaseException:  # the task was cancelled
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            kill_group(process.pid)
        raise
    return code
