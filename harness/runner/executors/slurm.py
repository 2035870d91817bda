"""Trials as jobs of a Slurm cluster: arrays through submitit, and what became of them from squeue.

submitit writes the batch script, and in the job it puts a trial back into the queue when Slurm announces the end of
its time or its preemption. It is not asked how a job ended: for that it needs Slurm's accounting, which many clusters
lack.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.processes.lifetime import kill_group
from harness.runner.endings import OK, TAKEN_AWAY, Ending, of_process, record_of_loss
from harness.runner.executors.process import start
from harness.sweeps.spec import Resources

#: Slurm's own limit on an array is 1001 unless a cluster sets another.
_ARRAY = 1000
#: Seconds between two looks at the queue: short while something changes, long while nothing does.
_LOOK_S = (1.0, 15.0)
#: Seconds that a trial gets to end in peace; Slurm itself gives 30.
_PATIENCE_S = 45.0
#: Seconds for which a job has to look failed: one that is put back into the queue does so for a moment, and one that
#: has put itself back until its last step is cleared away.
_SETTLES_S, _COMES_BACK_S = 4.0, 300.0
#: What submitit prints when it starts a job, and when it puts it back.
_STARTED, _PUT_BACK = "Starting with JobEnvironment", "Requeued job"
#: Seconds until the next try after Slurm would not take jobs any more.
_AGAIN_S = 60.0
#: Seconds before the end of its time at which a job is warned; less where the whole time is short.
_WARNING_S = 120

_OUT_OF_MEMORY = "Slurm ended the job for want of memory; see resources.memory_gb"
#: What Slurm writes into the log of a job that it ends so; its state may be any.
_OUT_OF_MEMORY_LOG = re.compile(r"slurmstepd.*(memory limit|oom)", re.IGNORECASE)

_QUEUED = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_HERE = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
#: What befell the cluster and not the trial, which runs again.
_NO_FAULT = {"COMPLETED", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REVOKED"}
_ENDINGS: Mapping[str, Ending] = {
    "OUT_OF_MEMORY": Ending("oom", _OUT_OF_MEMORY),
    "TIMEOUT": Ending("timeout", "Slurm ended the job at its time limit; see resources.time_min"),
    "DEADLINE": Ending("timeout", "Slurm ended the job at its deadline"),
    "CANCELLED": Ending("failed", "the Slurm job was cancelled"),
}


class TrialJob(submitit.helpers.Checkpointable):
    """What a job does: one trial in a process of its own, twice at most where its time runs out."""

    def __init__(self, trial_dir: Path) -> None:
        self.trial_dir = trial_dir
        self._pid: int | None = None

    def __call__(self) -> None:
        process = start(self.trial_dir)
        self._pid = process.pid
        try:
            _wait(process.pid)
        except UncompletedJobError:  # raised by submitit when the time ran out again
            self._record(Ending("timeout", "Slurm's time limit was reached twice; see resources.time_min"))
            raise
        ending = of_process(process.wait())
        if ending.status != "ok":
            self._record(ending)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called when Slurm has signalled that the job is to end: the trial gives its claim back and ends first."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)
            if not _wait(self._pid, _WARNING_S / 4):
                kill_group(self._pid)
        return submitit.helpers.DelayedSubmission(TrialJob(self.trial_dir))

    def _record(self, ending: Ending) -> None:
        ledger, _ = Ledger.of_trial(self.trial_dir)
        ledger.finish(record_of_loss(ledger, ledger.row(self.trial_dir.name), ending))


def _wait(pid: int, seconds: float | None = None) -> bool:
    """Wait for the end of a child without reaping it, so that a signal handler may wait for the same one."""
    child = os.pidfd_open(pid)
    try:
        return bool(select.select([child], [], [], seconds)[0])
    finally:
        os.close(child)


@dataclass
class Queue:
    """What Slurm says of this user's jobs; asked for at most as often as :data:`_LOOK_S` says."""

    states: Mapping[str, str]
    """Job -> state, such as '12_3' -> 'RUNNING'."""
    _every: float = _LOOK_S[0]
    _next: float = 0.0

    def look(self) -> None:
        if time.monotonic() >= self._next:
            states = _states()
            unchanged = states is None or states == self.states
            self._every = min(2 * self._every, _LOOK_S[1]) if unchanged else _LOOK_S[0]
            self.states = self.states if states is None else states
            self._next = time.monotonic() + self._every

    def soon(self) -> None:
        """Something was submitted: look again shortly."""
        self._every = _LOOK_S[0]
        self._next = time.monotonic() + self._every


def _text(path: Path) -> str:
    if path.is_symlink() or not path.is_file():  # a link may lead to a file of somebody else
        return ""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@dataclass(eq=False)
class SlurmJob:
    """One job, of an array or alone."""

    id: str
    queue: Queue
    log: Path
    """What Slurm and submitit said."""
    seen: bool = False
    """Whether Slurm has told of it: a new job may be missing from a look that began before it."""
    _failed_since: float | None = None
    """Monotonic seconds."""

    @property
    def array(self) -> str:
        return self.id.partition("_")[0]

    def waits(self) -> bool:
        return self.state() in _QUEUED

    def ended(self) -> Ending | None:
        state = self.state()
        if state in _QUEUED or state in _HERE:
            self._failed_since = None
            return None
        if state in _NO_FAULT:
            return OK if state == "COMPLETED" else TAKEN_AWAY
        if self._failed_since is None:
            self._failed_since = time.monotonic()
            self.queue.soon()
        if time.monotonic() - self._failed_since < (_COMES_BACK_S if self._comes_back() else _SETTLES_S):
            return None
        ending = _ENDINGS.get(state, Ending("failed", f"the Slurm job ended as {state}; see {self.log.name}"))
        if ending.status == "failed" and _OUT_OF_MEMORY_LOG.search(_text(self.log)):
            ending = Ending("oom", _OUT_OF_MEMORY)
        return Ending(ending.status, f"{ending.reason} (job {self.id})")

    def _comes_back(self) -> bool:
        """Whether the job has put itself back into the queue, and was not started again."""
        said = _text(self.log.with_suffix(".out"))
        return said.count(_PUT_BACK) >= said.count(_STARTED) > 0

    def state(self) -> str:
        """What Slurm says; a job that Slurm has forgotten ended while nobody looked."""
        self.queue.look()
        state = self.queue.states.get(self.id)
        self.seen = self.seen or state is not None
        return state or ("unknown" if self.seen else "PENDING")


def _checked(resources: Resources) -> tuple[int, Mapping[str, str]]:
    """The wall minutes of a trial, and the queue. Raises :class:`InputError` where one of them is missing."""
    if shutil.which("sbatch") is None:
        raise InputError("--executor slurm: there is no Slurm here ('sbatch' is not on the PATH)")
    if (states := _states()) is None:
        raise InputError("--executor slurm: Slurm does not answer here ('squeue' fails)")
    if resources.time_min is None:
        raise InputError(
            "resources.time_min: Slurm asks for the wall minutes of one trial; such as --set resources.time_min=60"
        )
    return resources.time_min, states


class SlurmExecutor:
    """One array for whatever is ready, of which ``jobs`` run at a time. Every trial imports for itself."""

    def __init__(self, resources: Resources, jobs: int, cold: bool = True) -> None:
        del cold
        self._resources = resources
        self._time_min, states = _checked(resources)
        self._jobs = jobs
        self._queue = Queue(states)
        self._submitted: list[SlurmJob] = []
        self._throttle = 0
        self._refused = float("-inf")
        """When Slurm last would not take more jobs, in monotonic seconds."""

    @staticmethod
    def check(resources: Resources) -> None:
        """See :class:`harness.runner.executors.Factory`."""
        _checked(resources)

    def room(self) -> int:
        """A whole array once fewer than ``jobs`` are left: each array is held back to what the others leave."""
        self._submitted = [job for job in self._submitted if job.ended() is None]
        self._hold_back()
        full = len(self._submitted) >= self._jobs or time.monotonic() - self._refused < _AGAIN_S
        return 0 if full else _ARRAY

    def submit(self, trial_dirs: Sequence[Path]) -> Sequence[SlurmJob]:
        self._throttle = self._jobs - len(self._submitted)
        folder = trial_dirs[0].resolve().parents[1]
        try:
            slurm = submitit.SlurmExecutor(folder / "slurm", max_num_timeout=1)
            slurm.update_parameters(
                **_parameters(self._resources, self._time_min, f"tunebench-{folder.name}", self._throttle)
            )
            with slurm.batch():
                submitted = [slurm.submit(TrialJob(trial_dir.resolve())) for trial_dir in trial_dirs]
        except (FailedJobError, FailedSubmissionError) as error:
            if self._submitted:  # it took some before, so this may pass: a limit on a user's jobs, a restart
                self._refused = time.monotonic()
                return []
            raise InputError(f"--executor slurm: sbatch refuses: {str(error).strip().splitlines()[-1]}") from error
        jobs = [SlurmJob(job.job_id, self._queue, job.paths.stderr) for job in submitted]
        self._submitted += jobs
        self._queue.soon()
        return jobs

    def close(self) -> None:
        left = [job for job in self._submitted if job.ended() is None]
        if not left:
            return
        _run("scancel", *sorted({job.array for job in left}))
        limit = time.monotonic() + _PATIENCE_S
        while any(job.ended() is None for job in left) and time.monotonic() < limit:
            self._queue.soon()
            time.sleep(_LOOK_S[0])

    def _hold_back(self) -> None:
        """Let the last array use what has become free beside it."""
        if not self._submitted or "_" not in self._submitted[-1].id:
            return
        last = self._submitted[-1].array
        throttle = self._jobs - sum(job.array != last for job in self._submitted)
        if throttle != self._throttle:
            _run("scontrol", "update", f"JobId={last}", f"ArrayTaskThrottle={throttle}")
            self._throttle = throttle


def _parameters(resources: Resources, time_min: int, name: str, throttle: int) -> dict[str, object]:
    """Parameters of submitit's executor."""
    wanted = {
        "job_name": name,
        "time": time_min,
        # submitit takes a warning for the end of the time only in the last fifth, or ten minutes.
        "signal_delay_s": min(_WARNING_S, time_min * 60 // 5),
        "array_parallelism": throttle,
        "cpus_per_task": resources.cpus,
        "mem": None if resources.memory_gb is None else f"{round(resources.memory_gb * 1e9 / 2**20)}M",
        "gpus_per_node": resources.gpus or None,
        "partition": resources.partition,
        "additional_parameters": {"requeue": True, **resources.sbatch},
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _states() -> dict[str, str] | None:
    """State of each job of this user that Slurm remembers; None when it does not answer."""
    fields = "JobArrayID:40,State:40"
    answer = _run("squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", f"--Format={fields}")
    return None if answer is None else dict(_pairs(answer.splitlines()))


def _pairs(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        job, state = line.split()[:2]
        yield job, state


def _run(*command: str) -> str | None:
    """What a command of Slurm's prints; None when it fails, as it does while the controller restarts."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
