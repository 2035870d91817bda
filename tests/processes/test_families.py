"""Guards and ties: who ends with whom, from the first moment on, and what becomes of temporary files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.processes.guard import descendants
from harness.processes.guarded import Guarded
from harness.processes.lifetime import light
from harness.processes.tied import tied

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone knows who belongs to whom")

#: Leaves a daemon, whose process id it writes, and ends as told.
DAEMON = "setsid --fork sh -c 'echo $$ > daemon; exec sleep 86400'; while ! [ -s daemon ]; do sleep 0.01; done; "


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    with (tmp_path / "log").open("w") as log:
        return Guarded.waiting(log)


def start(guarded: Guarded, folder: Path, script: str) -> None:
    guarded.start(["sh", "-c", script], dict(os.environ), str(folder))


@pytest.mark.parametrize(("end", "code"), [("exit 3", 3), ("kill -9 $$", -9), ("true", 0)])
def test_a_guard_ends_as_its_process_after_its_whole_family(
    tmp_path: Path, guarded: Guarded, end: str, code: int
) -> None:
    start(guarded, tmp_path, f"{DAEMON} touch $TMPDIR/file; ls -d $TMPDIR; {end}")
    assert guarded.wait(60) == code
    assert gone(int((tmp_path / "daemon").read_text()))
    assert (tmp_path / "log").read_text() == f"{guarded.folder}\n", "its temporary files lie there"
    assert not guarded.folder.exists()


def test_a_family_ends_when_told_and_not_by_a_signal_to_its_guard(tmp_path: Path, guarded: Guarded) -> None:
    start(guarded, tmp_path, f"{DAEMON} sleep 86400")
    wait_for(lambda: (tmp_path / "daemon").exists())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(guarded.pid, number)
    family = descendants(guarded.pid)
    assert len(family) >= 2 and guarded.poll() is None and guarded.folder.exists()
    guarded.end()
    guarded.end()
    assert guarded.wait(60) == -signal.SIGKILL
    assert all(map(gone, family)) and not guarded.folder.exists()


def test_a_guard_without_an_order_ends_and_takes_none(tmp_path: Path, guarded: Guarded) -> None:
    assert guarded.folder.is_dir() and guarded.folder.stat().st_mode & 0o777 == 0o700
    guarded.end()
    assert guarded.wait(60) == 0 and not guarded.folder.exists()
    with pytest.raises(RuntimeError, match="the guard of the process is dead"):
        start(guarded, tmp_path, "true")


def test_a_tied_program_ends_with_its_parent() -> None:
    program = (
        "import subprocess, sys, time\nfrom harness.processes.tied import tied\n"
        "print(subprocess.Popen(tied(['sleep', '86400'])).pid, flush=True)\ntime.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())  # it may not have tied itself yet, and has to see that by itself
    parent.kill()
    parent.wait()
    wait_for(lambda: gone(child))


def test_a_tied_program_is_itself_and_does_not_start_for_a_parent_that_is_gone() -> None:
    command = tied([sys.executable, "-c", "import os, sys; print(os.getppid(), *sys.argv[1:])", "a b"])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{os.getpid()} a b\n"
    orphan = subprocess.run(light("harness.processes.tied", "1", "echo", "no"), capture_output=True, check=False)
    assert (orphan.returncode, orphan.stdout) == (1, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2])
def test_a_command_ends_although_a_library_swallows_exceptions(tmp_path: Path, number: signal.Signals) -> None:
    # Short naps: a signal between the interpreter's last look and the nap is answered only after it.
    program = (
        "import tempfile, time\nfrom harness.processes.lifetime import ended_by_signals\n"
        "with ended_by_signals(130, 'interrupted'):\n    folder = tempfile.TemporaryDirectory()\n"
        "    print('ready', flush=True)\n    while True:\n        try:\n            time.sleep(0.05)\n"
        "        except BaseException:\n            pass"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None and command.stdout.readline() == "ready\n"
    command.send_signal(number)
    _, err = command.communicate(timeout=60)
    assert (command.returncode, err, list(tmp_path.iterdir())) == (130, "interrupted\n", [])
