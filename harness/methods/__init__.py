"""Methods: which parameters train. One file each, ``apply(base, ...) -> Tuned``; names in :mod:`harness.catalog`.

A method's file knows neither its name nor its arguments: :func:`apply` notes both, and :func:`load` builds the network
again from them. An argument called ``parent`` is a place on this machine, not a setting, so it is not noted.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import arguments as kinds
from harness import catalog
from harness.errors import InputError, unknown

if TYPE_CHECKING:
    from harness.models.load import Base
    from harness.networks.tuned import Tuned


#: What to do about a parent that is not where an executed notebook says.
_WHERE_ELSE = (
    "set parent_dirs to where the parent's checkpoint lies now, or to {} to train a parent in the notebook "
    "(a sweep with 'keep_artifacts: true' keeps all checkpoints)"
)


def arguments(name: str) -> Mapping[str, inspect.Parameter]:
    """The arguments of the method called ``name``, without the base; InputError if there is no such method."""
    return dict(list(inspect.signature(_module(name).apply).parameters.items())[1:])


def apply(name: str, base: Base, /, *, train_steps: int | None = None, **args: Any) -> Tuned:
    """Apply the method called ``name`` to a fresh network of ``base``.

    ``train_steps`` is the length of the training; methods with a schedule take it. Raises
    :class:`harness.errors.InputError` for an unknown method or argument, and for an invalid value.
    """
    from harness.networks.precision import hold_master_weights

    function = _module(name).apply
    known = arguments(name)
    if train_steps is not None and "train_steps" in known:
        args = {"train_steps": train_steps, **args}
    for argument in args:
        if argument not in known:
            raise unknown(f"{name}: argument", argument, known)
    kinds.check_all("methods", name, args)
    bound = inspect.signature(function).bind(base, **args)
    bound.apply_defaults()
    try:
        tuned: Tuned = function(*bound.args, **bound.kwargs)
    except InputError as error:
        if str(error).startswith(name):
            raise
        raise InputError(f"{name}: {error}") from error
    hold_master_weights(tuned)
    own_args = {argument: bound.arguments[argument] for argument in known if argument != "parent"}
    return replace(tuned, method=name, args=own_args)


def load(base: Base, folder: str | Path) -> Tuned:
    """Rebuild the network that :meth:`harness.networks.tuned.Tuned.save` wrote in ``folder``, from ``base``.

    Raises :class:`harness.errors.InputError` if the folder holds no checkpoint, such as that of a parent whose results
    have moved, and ValueError if it belongs to another model, or lacks a tensor.
    """
    from harness.networks.checkpoint import Description, restore
    from harness.networks.precision import hold_master_weights

    try:
        description = Description.read(Path(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"there is no folder with a checkpoint at {folder}; {_WHERE_ELSE}") from error
    if description.model != base.spec.name:
        raise ValueError(f"{folder} was trained on {description.model}, not on {base.spec.name}")
    return hold_master_weights(restore(apply(description.method, base, **description.args), Path(folder)))


def _module(name: str) -> Any:
    return importlib.import_module(f"harness.methods.{catalog.method(name).name}")
