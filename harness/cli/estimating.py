"""What is shown while a plan's memory is estimated: a count on a terminal, a line before and one behind elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from harness.cli.output import say

if TYPE_CHECKING:
    from rich.progress import Progress


class Estimating:
    """Watches :func:`harness.estimate.planned.judge`, and tells it on the standard error stream.

    It says nothing if the cache lacks nothing, and has no lines for a single setting, which takes seconds.
    """

    def __init__(self) -> None:
        self._settings = 0
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __call__(self, estimated: int, of: int) -> None:
        """``estimated`` settings are done; any thread may say so."""
        if not estimated:
            self._settings = of
            if sys.stderr.isatty():
                self._bar = _bar(of)
            elif of > 1:
                say(f"estimating the memory of {of} settings, once", sys.stderr)
        elif self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=estimated)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from harness.runner.display import clock

        if self._bar is not None:
            self._bar.stop()
        if self._settings > 1 and error is None:
            say(
                f"estimated the memory of {self._settings} settings in {clock(time.monotonic() - self._began)}",
                sys.stderr,
            )


def _bar(settings: int) -> Progress:
    """A count in place, with the time that it has taken; nothing of it stays."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), "estimating memory, setting by setting, once:", MofNCompleteColumn())
    bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
    bar.add_task("", total=settings)
    bar.start()
    return bar
