"""Methods: which parameters train. One file each, ``apply(base, ...) -> Tuned``; names in :mod:`harness.catalog`.

A method of a user's own is a file of the same form, and goes by its path.

A method's file knows neither its name nor its arguments: :func:`apply` notes both, and :func:`load` builds the network
again from them. An argument called ``parent`` is a place on this machine, not a setting, so it is not noted.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import arguments as kinds
from harness import catalog
from harness.errors import InputError, unknown
from harness.methods import own

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
    return dict(list(inspect.signature(own.function(catalog.method(name))).parameters.items())[1:])


def apply(name: str, base: Base, /, *, train_steps: int | None = None, **args: Any) -> Tuned:
    """Apply the method called ``name``, or that in a user's own file, to a fresh network of ``base``.

    ``train_steps`` is the length of the training; methods with a schedule take it. Raises
    :class:`harness.errors.InputError` for an unknown method or argument, for an invalid value, and for whatever goes
    wrong in a user's own file.
    """
    from harness.networks.precision import hold_master_weights

    method = catalog.method(name)
    function = own.function(method)
    known = arguments(name)
    if train_steps is not None and "train_steps" in known:
        args = {"train_steps": train_steps, **args}
    for argument in args:
        if argument not in known:
            raise unknown(f"{method.name}: argument", argument, known)
    kinds.check_all("methods", name, args)
    bound = inspect.signature(function).bind(base, **args)
    bound.apply_defaults()
    try:
        tuned: Tuned = function(*bound.args, **bound.kwargs)
    except InputError as error:
        if str(error).startswith(method.name):
            raise
        raise InputError(f"{method.name}: {error}") from error
    hold_master_weights(tuned)
    own_args = {argument: bound.arguments[argument] for argument in known if argument != "parent"}
    return replace(tuned, method=method.name, args=own_args, file=method.file)


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
    return hold_master_weights(restore(apply(own.named(description, folder), base, **description.args), Path(folder)))
