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


def apply_for(train_steps: int, method: ModuleType, base: Base, /, **args: Any) -> Tuned:
    """Apply ``method``'s module; one that asks how long the training is (``train_steps``) is told."""
    if "train_steps" in inspect.signature(method.apply).parameters:
        args = {"train_steps": train_steps, **args}
    tuned: Tuned = method.apply(base, **args)
    return tuned


def apply(name: str, base: Base, **args: Any) -> Tuned:
    """Apply the method called ``name``; :class:`harness.errors.InputError` if there is none."""
    tuned: Tuned = module(name).apply(base, **args)
    return tuned
