"""Methods: which parameters train. One file each, ``apply(base, ...) -> Tuned``; names in :mod:`harness.catalog`."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness import catalog

if TYPE_CHECKING:
    from harness.methods.tuned import Tuned
    from harness.models.load import Base


def module(name: str) -> ModuleType:
    """The module of the method called ``name``; :class:`harness.errors.InputError` if there is none."""
    return importlib.import_module(f"harness.methods.{catalog.method(name).name}")


def schedule(method: ModuleType, train_steps: int) -> dict[str, int]:
    """The argument ``train_steps`` for a method whose module asks how long the training is; nothing for others."""
    return {"train_steps": train_steps} if "train_steps" in inspect.signature(method.apply).parameters else {}


def apply(name: str, base: Base, **args: Any) -> Tuned:
    """Apply the method called ``name``; :class:`harness.errors.InputError` if there is none."""
    tuned: Tuned = module(name).apply(base, **args)
    return tuned
