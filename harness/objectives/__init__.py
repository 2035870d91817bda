"""Objectives: which loss trains the parameters. One file each, ``fit(tuned, data, settings, **args) -> History``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harness import catalog

if TYPE_CHECKING:
    from harness.networks.tuned import Tuned
    from harness.tasks.data import TaskData
    from harness.training.trainer import History, Settings


def fit(name: str, tuned: Tuned, data: TaskData, settings: Settings, **args: Any) -> History:
    """Train with the objective called ``name``; :class:`harness.errors.InputError` if there is none."""
    module = importlib.import_module(f"harness.objectives.{catalog.objective(name).name}")
    history: History = module.fit(tuned, data, settings, **args)
    return history
