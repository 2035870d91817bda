"""Chains of trials: the parent that a trial starts from, found where a plan left it, or trained here by hand."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from harness import catalog, methods, objectives
from harness.experiment import Experiment
from harness.methods.tuned import Tuned, load
from harness.models.load import Base
from harness.objectives.training import Settings


def parent(
    run: Experiment,
    objective: str,
    method: ModuleType,
    args: Mapping[str, Any],
    parent_dirs: Mapping[str, str] | None,
    learning_rate: float,
) -> Path:
    """The folder of the parent with the role ``objective``.

    A runner hands over ``parent_dirs``. When a person runs the notebook there is none: then the parent is trained here,
    with the method, data and budget of ``run`` and the ``learning_rate`` given, into a temporary folder.
    """
    if parent_dirs and objective in parent_dirs:
        return Path(parent_dirs[objective])
    tuned = methods.apply_for(run.budget.train_steps, method, _base(run, objective), **args)
    objectives.fit(objective, tuned, run.data, Settings(run.budget, learning_rate, run.seed))
    folder = Path(tempfile.mkdtemp(prefix=f"tunebench-{objective}-"))
    tuned.save(folder)
    return folder


def load_parent(run: Experiment, objective: str, folder: str | Path) -> Tuned:
    """The parent's network, such as a reward model, in evaluation mode."""
    return load(_base(run, objective), folder)


def _base(run: Experiment, objective: str) -> Base:
    return dataclasses.replace(run.base, scalar=catalog.objective(objective).scalar)
