"""Execute one notebook with papermill, and say truthfully how that ended.

Papermill alone is not enough. It marks a cell as completed when its kernel is killed or its time is up, only warns of
an unknown parameter, writes its output in place, and limits the time of each cell instead of the run.

This module adds a kernel of this very interpreter, a limit on the whole run, the exit code of a dead kernel, streams of
bounded length, and an output that gets its name only when it is complete.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from harness.files import write_atomically
from harness.processes.guarded import Guarded
from harness.processes.kernels import GuardedKernel, guarded_kernel
from harness.results import ownership
from harness.runner import endings
from harness.runner import kernel as kernels
from harness.runner.endings import Ending
from harness.runner.limits import LimitEnforcer
from harness.sweeps.spec import Limits

#: How many times a kernel is started in all if it dies before it answers. A start sometimes fails when many kernels
#: start at once; no cell has run by then.
STARTS = 3
_START_TIMEOUT_S = 120


class Run:
    """One execution of one notebook into one folder; :meth:`kill` may be called from any thread."""

    def __init__(self, source: Path, folder: Path, log: IO[str]) -> None:
        self._source = source
        self._folder = folder
        self._log = log
        self._kernel: GuardedKernel | None = None
        self._cell: Any = None

    def execute(self, parameters: Mapping[str, Any], limits: Limits) -> Ending:
        """Run all cells with ``parameters``, within ``limits``.

        Whatever was executed is saved as ``notebook.ipynb``, which says truthfully how the run ended.
        """
        part = self._folder / "notebook.part.ipynb"
        try:
            with LimitEnforcer(limits, self._pid, self.kill) as enforcer:
                ending = self._attempts(parameters, part, enforcer)
            if part.exists() and ending != endings.OK:
                tell_the_truth(part, ending, self._cell and self._cell.get("id"))
            return ending
        finally:
            self.kill()
            if part.exists():
                part.replace(self._folder / "notebook.ipynb")

    def _attempts(self, parameters: Mapping[str, Any], part: Path, enforcer: LimitEnforcer) -> Ending:
        for start in range(1, STARTS + 1):
            ending = self._attempt(parameters, part)
            if enforcer.broken is not None and ending != endings.OK:
                return replace(enforcer.broken, failed_cell=self._cell_index())
            if ending is not None:
                return ending
            self._say(f"the kernel did not start (attempt {start} of {STARTS})")
        return Ending("failed", f"the kernel did not start in {STARTS} attempts; see log.txt")

    def kill(self) -> None:
        """Kill the kernel, if there is one."""
        if self._kernel is not None:
            self._kernel.kill()

    def _pid(self) -> int | None:
        """Process id of the kernel's guard; None while there is none."""
        return None if self._kernel is None else self._kernel.guarded.pid

    def _attempt(self, parameters: Mapping[str, Any], part: Path) -> Ending | None:
        """Run the notebook in a new kernel; None if the kernel failed before the first cell."""
        self._cell = None
        quiet = {name: os.environ.get(name, value) for name, value in kernels.QUIET.items()}
        environment = {**quiet, ownership.VARIABLE: str(self._folder)}
        guarded = kernels.take() or Guarded.waiting(self._log)
        kernel = self._kernel = guarded_kernel(guarded, "harness.runner.kernel", environment)
        try:
            return self._papermill(kernel, parameters, part)
        finally:
            kernel.end()

    def _papermill(self, kernel: GuardedKernel, parameters: Mapping[str, Any], part: Path) -> Ending | None:
        # When jsonschema finds this package it compiles a grammar of IRIs, a second in which nothing happens;
        # without it, it leaves out a check that notebooks do not need.
        sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
        import papermill
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError

        from harness.runner import streams

        kills_before = endings.memory_kills()
        try:
            papermill.execute_notebook(
                str(self._source),
                str(part),
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=str(self._folder),
                engine_name=streams.ENGINE,
                stdout_file=self._log,
                start_timeout=_START_TIMEOUT_S,
                km=kernel,
                on_cell_start=self._cell_started,
            )
        except PapermillExecutionError as error:
            return endings.of_exception(error.ename, error.evalue, self._cell_index())
        except (DeadKernelError, RuntimeError) as error:
            if self._cell is None:
                self._say(f"{type(error).__name__}: {error}")
                return None
            if not isinstance(error, DeadKernelError):
                raise
            struck = kills_before is not None and (endings.memory_kills() or 0) > kills_before
            return endings.of_death(kernel.end(), self._cell_index(), struck)
        return endings.OK

    def _cell_started(self, cell: Any, cell_index: int) -> None:
        if cell.cell_type == "code":
            self._cell = cell

    def _cell_index(self) -> int | None:
        """Index of the last cell that ran in the source notebook; papermill adds cells to its copy."""
        if self._cell is None:
            return None
        cells = json.loads(self._source.read_text(encoding="utf-8"))["cells"]
        return next((n for n, cell in enumerate(cells) if cell.get("id") == self._cell.get("id")), None)

    def _say(self, text: str) -> None:
        self._log.write(f"[tunebench] {text}\n")
        self._log.flush()


def tell_the_truth(path: Path, ending: Ending, cell_id: str | None) -> None:
    """Write into an executed notebook how it ended; papermill marks the cell of a killed kernel as completed.

    ``cell_id`` is the last cell that ran. An incomplete notebook stays unchanged.
    """
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        cell = next((cell for cell in book["cells"] if cell.get("id") == cell_id), None)
    except (ValueError, KeyError):
        return
    book["metadata"].setdefault("papermill", {})["exception"] = True
    book["metadata"]["tunebench"] = {"status": ending.status, "reason": ending.reason}
    if cell is not None:
        cell["metadata"].setdefault("papermill", {}).update(status="failed", exception=True)
        if not any(output["output_type"] == "error" for output in cell["outputs"]):
            text = f"{ending.status}: {ending.reason}\n"
            cell["outputs"].append({"output_type": "stream", "name": "stderr", "text": text})
    write_atomically(path, json.dumps(book, indent=1, ensure_ascii=False) + "\n")
