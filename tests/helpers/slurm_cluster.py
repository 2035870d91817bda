"""A test helper: a real Slurm of one node on this machine, in a folder of its own, for the length of a test module."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from harness.processes.lifetime import die_with

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")
#: Debian keeps the daemons where a user's PATH may not lead.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])

_CONFIGURATION = """\
ClusterName=tunebench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=10
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class NotStarted(Exception):
    """Slurm is here and does not come up; with the ends of its logs."""


def missing() -> str | None:
    """Why no Slurm can be started here; null if one can."""
    if sys.platform != "linux":
        return "Slurm needs Linux"
    lacking = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    return f"Slurm is not installed (no {', '.join(lacking)}); on Debian: slurm-wlm and munge" if lacking else None


@contextmanager
def running(folder: Path) -> Iterator[Mapping[str, str]]:
    """Start munge, a controller and a node, all on loopback; yields the environment that Slurm's commands need.

    Raises :class:`NotStarted` when the node does not come up.
    """
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
    _configure(folder)
    daemons: list[subprocess.Popen[bytes]] = []

    def start(name: str, *command: str) -> None:
        with (folder / f"{name}.log").open("ab") as log:
            tied = partial(die_with, os.getpid())
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, preexec_fn=tied))

    try:
        munge = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        options = [f"--{option}={folder / name}" for option, name in munge.items()]
        start("munged", "munged", "--foreground", "--force", *options)
        _wait(folder, (folder / "munge.socket").exists)
        start("slurmctld", "slurmctld", "-D", "-c")
        start("slurmd", "slurmd", "-D", "-c", "-N", socket.gethostname())
        _wait(folder, lambda: _is_idle(environment))
        yield environment
    finally:
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", f"--user={getpass.getuser()}", "--signal=KILL"], env=environment, timeout=10)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _configure(folder: Path) -> None:
    folder.chmod(0o755)  # munge refuses a socket that others cannot reach
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    controller, node = _free_ports(2)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname(),
            user=getpass.getuser(),
            controller=controller,
            node=node,
            cpus=os.cpu_count(),
            memory_mb=memory,
        )
    )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def _is_idle(environment: Mapping[str, str]) -> bool:
    asked = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False)
    return asked.stdout.strip() == "idle"


def _wait(folder: Path, condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = {path.name: path.read_text(errors="replace")[-600:] for path in folder.glob("*.log")}
            raise NotStarted(str(logs))
        time.sleep(0.1)
