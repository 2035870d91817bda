"""Who may write into the results: the process that runs a trial, and nobody who runs its notebook again.

An executed notebook names the folders of its trial. Whoever opens it and runs it once more, in place, from a copy or
after the results have moved, computes everything and changes nothing: what was measured stays as it was recorded.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.files import ARTIFACTS_DIR, TRIALS_DIR

#: In the environment of a trial's kernel, and of nothing else: the folder of that trial.
VARIABLE = "TUNEBENCH_TRIAL"


def own(folder: str | Path | None) -> Path | None:
    """``folder``, of a trial or of its artefact, if this process may write there; None if it may not.

    It may if it runs that trial, and if the folder is not one of a sweep's results.
    """
    if not folder:
        return None
    path = Path(folder).absolute()
    if path.parent.name not in (TRIALS_DIR, ARTIFACTS_DIR):
        return path
    runs = Path(os.environ.get(VARIABLE, ""))
    return path if (path.parents[1], path.name) == (runs.parent.parent, runs.name) else None


def place_of_record(trial_dir: str | Path | None) -> Path | None:
    """Where to record a run: :func:`own`. It tells a person who runs a trial's notebook that nothing is recorded."""
    place = own(trial_dir)
    if trial_dir and place is None:
        print(f"run by hand: {trial_dir} stays as it was recorded")
    return place
