"""The methods of a sweep: those of the package by their names, and a user's own by the path of a Python file.

A sweep is multiplied out from the source of that file, without running it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness import arguments, catalog
from harness.errors import InputError
from harness.files import version_of
from harness.sources import own_files
from harness.sweeps.spec import Sweep


def load(sweep: Sweep) -> Mapping[str, catalog.Method]:
    """The methods of ``sweep`` by the names that its trials give them, in its order.

    A relative path is relative to the sweep's file or, where nothing is there, to the current folder. Raises
    :class:`harness.errors.InputError` for an unknown name, for a file that is no method, and for two of one name.
    """
    where = f"{sweep.where}: methods"
    methods: dict[str, catalog.Method] = {}
    for written in sweep.methods:
        method = catalog.method(own_files.address("method", written, sweep.folder), where)
        if method.file is not None:
            _check(method.file, where)
        first = methods.setdefault(method.name, method)
        if first is not method:
            both = "is given twice" if first.file == method.file else f"is the name of {first.file} and {method.file}"
            raise InputError(f"{where}: '{method.name}' {both}; rename one of the files, or leave one out")
    return methods


def version(method: catalog.Method) -> str | None:
    """12 digits of the SHA-256 of a method's own file, wherever it lies; None for one of the package."""
    return None if method.file is None else version_of(Path(method.file))


def _check(file: str, where: str) -> None:
    try:
        arguments.own(file)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
