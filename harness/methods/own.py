"""The function of a method: that of the package, or the one in a user's own file.

A user's own file runs here and nowhere else, in the process of a trial or of an estimate. What goes wrong in it is told
in one line with the method's name, and the traceback of a trial shows where.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import arguments, catalog
from harness.errors import InputError
from harness.files import version_of

if TYPE_CHECKING:
    from harness.networks.checkpoint import Description


def function(method: catalog.Method) -> Callable[..., Any]:
    """The function ``apply`` of ``method``. Raises :class:`InputError` for an own file that cannot be used."""
    if method.file is None:
        apply: Callable[..., Any] = importlib.import_module(f"harness.methods.{method.name}").apply
        return apply
    arguments.own(method.file)  # it tells what is wrong with the file's form in the words of a plan
    return _guarded(_from_file(method, Path(method.file).expanduser()), method)


def named(description: Description, folder: str | Path) -> str:
    """What finds the method of the checkpoint in ``folder``: its name, or the path of an own file.

    Raises :class:`InputError` if that file is gone, or is no longer the one that the checkpoint was trained with.
    """
    if description.file is None:
        return description.method
    file = Path(description.file)
    if not file.is_file():
        raise InputError(f"{folder}: its method was the file {file}, which is not there any more; put it back")
    if version_of(file) != description.version:
        raise InputError(f"{folder}: its method, {file}, has changed since; run its trial again, or put the file back")
    return description.file


def _from_file(method: catalog.Method, file: Path) -> Callable[..., Any]:
    name = f"tunebench_own_{file.stem.replace('-', '_')}_{version_of(file)}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # noqa: S101  (the name ends in .py)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, among others, look there for what their annotations mean
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"{method.name}: {file} cannot be imported: {_said(error)}") from error
    apply: Callable[..., Any] = module.apply
    return apply


def _guarded(apply: Callable[..., Any], method: catalog.Method) -> Callable[..., Any]:
    """``apply``, whose mistakes and whose answers of another kind are :class:`InputError`."""

    @functools.wraps(apply)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        from harness.networks.tuned import Tuned

        try:
            tuned = apply(*args, **kwargs)
        except (InputError, NotImplementedError):  # the latter: it needs values, and an estimate has none
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"{method.name}: apply: {_said(error)}") from error
        if not isinstance(tuned, Tuned):
            raise InputError(f"{method.name}: apply must return Tuned(base, model), not {type(tuned).__name__}")
        if not tuned.trainable:
            raise InputError(f"{method.name}: apply leaves no parameter that trains; see train_only")
        return tuned

    return guarded


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
