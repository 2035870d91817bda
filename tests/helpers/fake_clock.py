"""A test helper: a clock that tests wind, in place of the time that passes."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from types import SimpleNamespace as Namespace

import pytest


@dataclass
class Clock:
    """Seconds pass when somebody waits for work that was queued, as on an accelerator."""

    now: float = 0.0
    queued: float = 0.0

    def work(self, seconds: float) -> None:
        """Queue work: the caller goes on at once."""
        self.queued += seconds

    def wait(self, _device: object) -> None:
        """Stands for ``synchronize``: the queued work is done."""
        self.now, self.queued = self.now + self.queued, 0.0

    def put_into(self, module: ModuleType, patch: pytest.MonkeyPatch) -> None:
        """Let ``module`` read this clock, and wait for this clock's work."""
        patch.setattr(module, "time", Namespace(perf_counter=lambda: self.now, process_time=lambda: self.now))
        patch.setattr(module, "synchronize", self.wait)
