"""The models, tasks and methods of a sweep: found by name or path, told apart by short names, named in its filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from harness import catalog
from harness.errors import InputError, unknown
from harness.sources import own_files
from harness.sources.own_files import Aliases
from harness.sweeps import own_methods
from harness.sweeps.spec import Sweep


class ModelSpec(Protocol):
    """What planning needs to know about a model."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def address(self) -> str: ...
    def revision(self) -> str | None: ...


class TaskSpec(Protocol):
    """What planning needs to know about a task."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def address(self) -> str: ...
    def full_version(self) -> str: ...


S = TypeVar("S", ModelSpec, TaskSpec, covariant=True)


@dataclass(frozen=True)
class Entry(Generic[S]):
    """A model or task of a sweep."""

    spec: S
    version: str | None
    """A model's revision or a task's version: what is compared where two have the same name."""

    @property
    def path(self) -> str | None:
        """What finds it where its name does not: the absolute path of an own file, or a hub's model at its commit."""
        return self.spec.address if self.spec.address != self.spec.name else None


@dataclass(frozen=True)
class Axes:
    """The models, tasks and methods of one sweep, in its order."""

    models: Sequence[Entry[ModelSpec]]
    tasks: Sequence[Entry[TaskSpec]]
    methods: Mapping[str, catalog.Method]
    """By the names that trials give them."""
    aliases: Aliases


def load(sweep: Sweep) -> Axes:
    """The models, tasks and methods of ``sweep``.

    A revision of the hub that may move is looked up here, once: trials hold the commit. Raises :class:`InputError` for
    a name or path that leads nowhere, for a file that is not valid, where the hub refuses or cannot be reached, and
    where two different ones have the same short name.
    """
    from harness.models.spec import load_spec as load_model
    from harness.tasks.spec import load_spec as load_task

    models: list[Entry[ModelSpec]] = _entries(
        sweep, "model", lambda name: load_model(name).pinned(), lambda model: model.revision()
    )
    tasks: list[Entry[TaskSpec]] = _entries(sweep, "task", load_task, lambda task: task.full_version())
    own: dict[str, Sequence[Entry[Any]]] = {"model": models, "task": tasks}
    short_names = {
        axis: {Path(entry.path): entry.spec.name for entry in entries if entry.path is not None}
        for axis, entries in own.items()
    }
    methods = own_methods.load(sweep)
    short_names["method"] = {Path(m.file): name for name, m in methods.items() if m.file is not None}
    return Axes(models, tasks, methods, Aliases(sweep.folder, short_names))


def check_names(sweep: Sweep, axes: Axes) -> None:
    """Names inside ``overrides`` and ``exclude`` must exist: a typing error there would silently match nothing."""
    from harness.models.spec import names as model_names
    from harness.tasks.spec import names as task_names

    valid: dict[str, set[str]] = {
        "method": {*catalog.METHODS, *axes.methods},
        "objective": set(catalog.OBJECTIVES),
        "model": {*model_names(), *(entry.spec.name for entry in axes.models), *sweep.models},
        "task": {*task_names(), *(entry.spec.name for entry in axes.tasks), *sweep.tasks},
    }
    matches: list[tuple[str, Mapping[str, Any]]] = []
    for position, entry in enumerate(sweep.overrides):
        where = f"{sweep.where}: overrides.{position}"
        for axis in entry.match:
            if axis not in ("model", "task", "objective"):
                raise unknown(f"{where}.match", axis, ("model", "task", "objective"))
        for name in entry.methods:
            if axes.aliases.short("method", name) not in valid["method"]:
                raise unknown(f"{where}.methods", name, valid["method"])
        matches.append((f"overrides.{position}.match", entry.match))
    matches += [(f"exclude.{position}", entry) for position, entry in enumerate(sweep.exclude)]
    for place, match in matches:
        for axis in match.keys() & valid.keys():
            value = match[axis]
            for name in value if isinstance(value, list) else [value]:
                if not isinstance(name, str):
                    raise InputError(
                        f"{sweep.where}: {place}.{axis}: must be a name, or a list of names (given: {name})"
                    )
                if axes.aliases.short(axis, name) not in valid[axis]:
                    raise unknown(f"{sweep.where}: {place}.{axis}", name, valid[axis])


def _entries(
    sweep: Sweep, axis: Literal["model", "task"], load_spec: Callable[[str], Any], version: Callable[[Any], str | None]
) -> list[Any]:
    entries: dict[str, Entry[Any]] = {}
    written_entries = []
    for written in sweep.models if axis == "model" else sweep.tasks:
        try:
            spec = load_spec(_address(sweep, axis, written))
            entry: Entry[Any] = Entry(spec, version(spec))
        except InputError as error:
            as_hub = own_files.address(axis, written, sweep.folder) == own_files.HUB + written
            missing = f"there is no folder '{written}'; " if as_hub else ""
            raise InputError(f"{sweep.where}: {axis}s: {missing}{error}") from error
        first = entries.setdefault(spec.name, entry)
        if first.spec.address != spec.address and not _equal(first, entry):
            raise _same_name(sweep, axis, first, entry)
        written_entries.append(entry)
    return written_entries


def _equal(one: Entry[Any], other: Entry[Any]) -> bool:
    """Whether two entries are copies of the same own files."""
    return one.path is not None and other.path is not None and one.version == other.version


def _address(sweep: Sweep, axis: str, written: str) -> str:
    """What finds the model or task from any folder. Raises :class:`InputError` where a path leads nowhere."""
    address = own_files.address(axis, written, sweep.folder)
    path = Path(address)
    if path.is_absolute() and not path.exists():
        here = own_files.absolute(written)
        also = "" if here == path else f", nor {here}"
        if axis == "task":
            raise InputError(f"task: '{written}': there is no file {path}{also}")
        raise InputError(f"model: '{written}' is not the name of a known model, and there is no folder {path}{also}")
    return address


def _same_name(sweep: Sweep, axis: str, one: Entry[Any], other: Entry[Any]) -> InputError:
    both = " and ".join(entry.path or f"the {axis} that comes along" for entry in (one, other))
    mend = "rename one of the folders" if axis == "model" else "give one of them another 'name'"
    return InputError(f"{sweep.where}: {axis}s: {both} would both be called '{one.spec.name}'; {mend}")
