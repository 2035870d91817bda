"""Objectives: which loss trains the parameters. One file each, ``fit(tuned, data, settings, **args) -> History``."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from harness import arguments, catalog
from harness.errors import InputError, unknown

if TYPE_CHECKING:
    from harness.networks.tuned import Tuned
    from harness.tasks.data import TaskData
    from harness.training.trainer import History, Settings


def fit(name: str, tuned: Tuned, data: TaskData, settings: Settings, **args: Any) -> History:
    """Train with the objective called ``name``.

    Raises :class:`harness.errors.InputError` if there is none, for an unknown argument or an invalid value, and for a
    method whose own loss ignores the objective.
    """
    module = importlib.import_module(f"harness.objectives.{catalog.objective(name).name}")
    known = inspect.signature(module.fit).parameters
    for argument in args:
        if argument not in known:
            raise unknown(f"{name}: argument", argument, known)
    arguments.check_all("objectives", name, args)
    if tuned.own_loss is not None:
        method = catalog.method_of_row(tuned.method)
        if name not in method.objectives:
            raise InputError(
                f"objective: '{name}' cannot train '{method.name}': {method.objectives_because}; "
                f"valid are {', '.join(method.objectives)}"
            )
    history: History = module.fit(tuned, data, settings, **args)
    return history
