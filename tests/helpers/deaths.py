"""A test helper: commands that are killed, and who and what is left of them a second later.

Every process of a command carries a mark: in its environment, or, where a program was started without one, on its
command line. The command's temporary files lie in a folder of their own.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from helpers import tiny_models as tiny

MARK = "TUNEBENCH_TEST_MARK"

#: Children of all kinds: a plain one, one with a session of its own, a daemon, one without the environment; and files.
SPAWN = f"""\
import os, subprocess, sys, tempfile, time
from pathlib import Path

def spawn(*before, **settings):
    subprocess.Popen([*before, 'sleep', f"86400.{{os.environ['{MARK}']}}"], **settings)

spawn()
spawn(start_new_session=True)
spawn('setsid', '--fork')
spawn(env={{}}, start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
if os.fork() == 0:
    time.sleep(600)
Path(tempfile.mkdtemp(), 'file').write_text('left')
Path(trial_dir, 'spawned').touch()
"""


TUNEBENCH = ("-m", "harness.cli")


class Command:
    """One started command of TuneBench, or another ``program`` of Python, with the standard streams in a file."""

    def __init__(self, folder: Path, *arguments: str, program: tuple[str, ...] = TUNEBENCH, **environment: str) -> None:
        self.mark = str(10**9 + secrets.randbelow(10**9))
        self.folder = folder
        self.temporary = folder / f"tmp-{self.mark}"
        self.temporary.mkdir()
        self.output = folder / f"output-{self.mark}"
        with self.output.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                cwd=folder,
                env={
                    **os.environ,
                    "TUNEBENCH_NOTEBOOKS": str(folder / "notebooks"),
                    "TMPDIR": str(self.temporary),
                    MARK: self.mark,
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def text(self) -> str:
        """What it printed."""
        return self.output.read_text()

    def when(self, condition: Callable[[], object], seconds: float = 300) -> None:
        """Wait until ``condition`` holds while the command runs."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.text()}"
            assert time.monotonic() < end, self.text()
            time.sleep(0.005)

    def die(self, number: int, seconds: float = 60) -> int:
        """Send it the signal; its exit code, a second after its death."""
        self.process.send_signal(number)
        code = self.process.wait(seconds)
        time.sleep(1.0)
        return code

    def alive(self) -> list[str]:
        """Command lines of its processes that live."""
        lines = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                marked = process.environ().get(MARK) == self.mark or f"86400.{self.mark}" in line
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    lines.append(line)
            except psutil.Error:
                continue
        return lines

    def left(self) -> list[str]:
        """Its temporary files and folders."""
        return sorted(entry.name for entry in self.temporary.iterdir())


def bench(folder: Path, *last: str, **changes: object) -> None:
    """A sweep whose notebooks spawn, and then end or go on as the code ``last`` says."""
    tiny.bench(folder, **changes)
    tiny.notebook(folder / "notebooks" / "methods" / "full.ipynb", cells=(SPAWN, *last))
