"""What the lab may save: anything but what a trial has recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError

from harness.files import (
    LOG_FILE,
    NOTEBOOK_FILE,
    OUTCOME_FILE,
    PLAN_FILE,
    PROGRESS_FILE,
    RECORD_FILE,
    SWEEP_FILE,
    TRIAL_FILE,
    TRIALS_DIR,
)

_OF_A_TRIAL = {TRIAL_FILE, RECORD_FILE, OUTCOME_FILE, PROGRESS_FILE, NOTEBOOK_FILE, LOG_FILE}
_OF_A_SWEEP = {SWEEP_FILE, PLAN_FILE}


class ResultsStay(AsyncLargeFileManager):
    """Files of this machine, of which results are read-only: JupyterLab saves what is open without being asked."""

    def is_writable(self, path: str) -> bool:
        """Whether the file may change. A copy under another name may."""
        return not _is_result(Path(self._get_os_path(path))) and bool(super().is_writable(path))

    async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
        """Raises HTTPError (403) for results."""
        if _is_result(Path(self._get_os_path(path))):
            raise HTTPError(403, f"{path}: results stay as they were recorded; save it under another name")
        saved: dict[str, Any] = await super().save(model, path)
        return saved

    async def list_checkpoints(self, path: str) -> list[dict[str, Any]]:
        """Earlier versions of a file: none of results, for which a look would already leave a folder beside them."""
        if _is_result(Path(self._get_os_path(path))):
            return []
        known: list[dict[str, Any]] = await super().list_checkpoints(path)
        return known


def _is_result(file: Path) -> bool:
    if file.parent.parent.name == TRIALS_DIR:
        return file.name in _OF_A_TRIAL
    return file.name in _OF_A_SWEEP and (file.parent / TRIALS_DIR).is_dir()
