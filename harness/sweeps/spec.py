"""A sweep: a matrix of trials as data. This file reads the YAML; :mod:`harness.sweeps.expand` makes the trials.

How the file is read:

* A list is an axis: ``r: [4, 8]`` plans both. Where the notebook's own default is a list, a plain list is one value
  and a list of lists is an axis.
* A method without a learning rate, there or in ``defaults``, ``objectives`` or ``overrides``, gets the three of
  :mod:`harness.sweeps.grids`. So ``methods: [lora, bitfit]`` is a fair comparison.
* ``budget.train_examples`` may be a list, an axis too: ``[32, 64, 128]`` runs everything on the first 32 examples of a
  seed, on its first 64 and on its first 128.
* ``search: {seeds: 1}`` tries the settings on the first seed, and runs the best one on all (protocol, rule 2).
* ``defaults`` holds ``dtype``, ``device``, and any parameter that every notebook which declares it should get; a
  method's own arguments win over it.
* ``execution`` says how every trial trains (:class:`harness.execution.Execution`); its lists are axes. It is no part of
  a method: what trains nothing runs once, in the usual way.
* ``overrides`` change budget and arguments where they match; later entries win::

      overrides:
        - match: {task: trec, model: [a, b]}      # every name must match; a list means any of its names
          budget: {train_examples: 512}
          methods: {full: {learning_rate: 1e-4}}

* What is set on the command line replaces the same key, in the file and in its ``overrides``.
* A model, a task or a method may be a path (:mod:`harness.sources.own_files`), relative to the file's folder, or, where
  nothing is there, to the current one. ``overrides`` and ``exclude`` may name it by its path or its short name. A
  method's path is that of a Python file with ``apply(base, ...)`` (:mod:`harness.sweeps.own_methods`).
* The name of a group of tasks (:mod:`harness.tasks.groups`) stands for all of its tasks, wherever tasks are named.
* A model may be one of the hub: ``hub:ORG/NAME[@REVISION]``, or ``ORG/NAME`` where no such folder exists.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    PrivateAttr,
    TypeAdapter,
    field_validator,
    model_validator,
)

from harness import notebooks, specfile
from harness.errors import InputError, cut, hint, nearest, unknown
from harness.sources import own_files
from harness.sources.own_files import Aliases
from harness.sweeps.executions import ExecutionAxes
from harness.tasks import groups
from harness.trial import Budget, Frozen

Arguments = dict[str, JsonValue]
Names = Annotated[list[str], Field(min_length=1)]


def _one_line(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("must be one line of text, and not empty")
    return text


def _option(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ValueError("must be the name of an option without its dashes, such as account")
    return name


OneLine = Annotated[str, AfterValidator(_one_line)]


class Limits(Frozen):
    """When a trial is stopped."""

    time_s: float | None = Field(None, gt=0, description="wall seconds of one trial, kernel start included")
    memory_gb: float | None = Field(
        None, gt=0, description="10⁹ bytes of main memory of one trial's kernel and what it started"
    )


class Resources(Frozen):
    """What each trial is given. Every executor takes what it has a use for."""

    gpus: NonNegativeInt | None = Field(None, description="GPUs that no other trial uses; null: all, to share")
    processes: PositiveInt | None = Field(
        None, description="that train together and share the model's layers (FSDP); null: one for each of its GPUs"
    )
    cpus: PositiveInt | None = Field(None, description="cores (ray, slurm)")
    memory_gb: float | None = Field(None, gt=0, description="main memory, in 10^9 bytes (ray, slurm)")
    time_min: PositiveInt | None = Field(None, description="wall minutes after which the cluster ends a job (slurm)")
    partition: OneLine | None = Field(None, description="partition, or several with commas (slurm)")
    sbatch: dict[Annotated[str, AfterValidator(_option)], OneLine | int] = Field(
        default_factory=dict, description="further options of sbatch (slurm)"
    )
    address: OneLine | None = Field(None, description="of a running cluster, such as 'auto' (ray); null: a local one")

    @property
    def together(self) -> int:
        """How many processes train a trial together."""
        return self.processes or max(1, self.gpus or 1)


_SIZE: TypeAdapter[int] = TypeAdapter(Annotated[int, *Budget.model_fields["train_examples"].metadata])


def _sizes(value: Any) -> Any:
    """A number of examples, or a list of them that is not empty and names none twice."""
    if not isinstance(value, list):
        return _SIZE.validate_python(value, strict=True)
    sizes = [_SIZE.validate_python(size, strict=True) for size in value]
    if not sizes:
        raise ValueError("an empty list is no axis; give a number, or a list of numbers")
    if len(set(sizes)) < len(sizes):
        raise ValueError("a value is given twice")
    return sizes


class SweepBudget(Budget):
    """The budget of a sweep, the same for every method."""

    train_examples: Annotated[Any, AfterValidator(_sizes)] = Field(
        Budget.model_fields["train_examples"].default,
        description="examples drawn from the training split; a list is an axis, and the smaller sets lie in the larger",
    )


class Search(Frozen):
    """Settings first, seeds second (:mod:`harness.sweeps.search`)."""

    seeds: PositiveInt = Field(1, description="the first ones of the sweep try every setting; the best runs on all")


class Override(Frozen):
    """Other settings for a part of the matrix."""

    match: dict[str, str | Names] = Field(description="model, task or objective -> a name, or a list of names")
    budget: dict[str, JsonValue] = Field(default_factory=dict)
    methods: dict[str, Arguments] = Field(default_factory=dict)

    def matches(self, **names: str) -> bool:
        """Whether this entry is about the cell with these names (model, task, objective)."""
        return all(
            names[axis] in (wanted if isinstance(wanted, list) else [wanted]) for axis, wanted in self.match.items()
        )


class Sweep(Frozen):
    """The matrix, as read."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="also the folder under results/")
    description: str = ""
    models: list[str] = Field(min_length=1)
    tasks: list[str] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(default=[0], min_length=1)
    budget: SweepBudget = SweepBudget()
    search: Search | None = Field(None, description="null: every setting runs on every seed")
    defaults: Arguments = Field(default_factory=dict)
    methods: dict[str, Arguments] = Field(min_length=1)
    objectives: dict[str, Arguments] | None = Field(
        None, min_length=1, description="null: the natural one of each task"
    )
    probes: list[str] = Field(
        default_factory=list, description="suites that every trial is asked before and after training: retention"
    )
    exclude: list[Annotated[Arguments, Field(min_length=1)]] = Field(default_factory=list)
    overrides: list[Override] = Field(default_factory=list)
    execution: ExecutionAxes = Field(ExecutionAxes(), description="how trials train: attention, packing, optimiser, …")
    limits: Limits = Limits()
    resources: Resources = Resources()
    keep_artifacts: bool = False

    _where: str = PrivateAttr("sweep")
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @field_validator("methods", "objectives", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        """A list of names is a mapping without arguments, and so is a name with nothing behind it."""
        if isinstance(value, list):
            for name in value:
                if not isinstance(name, str):
                    raise ValueError(f"must be a list of names, or a mapping of names to arguments (given: {name})")
            if double := next((name for name in value if value.count(name) > 1), None):
                raise ValueError(f"'{double}' is given twice")
            return {name: {} for name in value}
        if isinstance(value, dict):
            return {name: {} if args is None else args for name, args in value.items()}
        return value

    @model_validator(mode="after")
    def _once(self) -> Self:
        for axis in ("models", "tasks", "seeds"):
            values = getattr(self, axis)
            if len(set(values)) < len(values):
                raise ValueError(f"{axis}: a value is given twice")
        return self

    @property
    def where(self) -> str:
        """The file, for messages."""
        return self._where

    @property
    def folder(self) -> Path:
        """The file's folder: what paths are relative to."""
        return self._folder

    def with_groups_expanded(self) -> Self:
        """The sweep with the tasks of a group in the place of its name, in ``overrides`` and ``exclude`` too."""
        overrides = [o.model_copy(update={"match": _tasks_of_groups(o.match)}) for o in self.overrides]
        exclude = [_tasks_of_groups(match) for match in self.exclude]
        tasks = groups.expanded(self.tasks)
        return self.model_copy(update={"tasks": tasks, "overrides": overrides, "exclude": exclude})

    def with_short_names(self, aliases: Aliases) -> Self:
        """The sweep with short names in its methods and filters, where own files were named by their paths."""

        def shortened(methods: dict[str, Arguments]) -> dict[str, Arguments]:
            return {aliases.short("method", name): args for name, args in methods.items()}

        overrides = [
            o.model_copy(update={"match": aliases.in_match(o.match), "methods": shortened(o.methods)})
            for o in self.overrides
        ]
        exclude = [aliases.in_match(match) for match in self.exclude]
        return self.model_copy(update={"methods": shortened(self.methods), "overrides": overrides, "exclude": exclude})

    def to_yaml(self) -> str:
        """The sweep as YAML, with everything from the command line in it; paths are absolute, to plan from anywhere."""
        document = self.model_dump(mode="json", exclude_defaults=True)
        document |= {f"{axis}s": self._located(axis, document[f"{axis}s"]) for axis in ("model", "task")}
        overrides, own = document.get("overrides", ()), ("model", "task", "method")
        for match in (*(entry["match"] for entry in overrides), *document.get("exclude", ())):
            match |= {axis: self._located(axis, match[axis]) for axis in own if axis in match}
        for entry in (document, *overrides):
            if "methods" in entry:
                entry["methods"] = {self._located("method", name): args for name, args in entry["methods"].items()}
        text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        return text

    def _located(self, axis: str, value: Any) -> Any:
        """``value`` with absolute paths for the relative ones in it."""
        if isinstance(value, list):
            return [self._located(axis, item) for item in value]
        return own_files.address(axis, value, self._folder) if isinstance(value, str) else value


def _tasks_of_groups(match: Mapping[str, Any]) -> dict[str, Any]:
    """``match`` with the tasks of a group where it names one."""
    wanted = match.get("task")
    names = [wanted] if isinstance(wanted, str) else wanted
    known = groups.names()
    if not isinstance(names, list) or not any(name in known for name in names):
        return dict(match)
    return {**match, "task": groups.expanded(names)}


def root() -> Path:
    """The folder of the sweeps that have names, the first of these that there is.

    1. ``$TUNEBENCH_SWEEPS``.
    2. ``sweeps/`` of the current folder, if that is a :func:`harness.notebooks.workspace`.
    3. What comes along: a checkout's own, or those in the wheel.
    """
    if named := os.environ.get("TUNEBENCH_SWEEPS"):
        return Path(named)
    here = notebooks.workspace()
    return here / "sweeps" if here is not None and (here / "sweeps").is_dir() else notebooks.shipped("sweeps")


def names() -> list[str]:
    """The sweeps under :func:`root`, such as 'quick' and 'paper/hu2021'."""
    return sorted(path.relative_to(root()).with_suffix("").as_posix() for path in root().rglob("*.yaml"))


def find(name: str | Path) -> Path:
    """The file of a sweep, given as a path or as one of :func:`names`. Raises :class:`InputError` if there is none."""
    path = Path(name)
    for candidate in (path, root() / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    shown = f"sweep: {cut(os.path.normpath(path))}"
    if path.exists():
        raise InputError(f"{shown} is no file; give a sweep's YAML file or its name; {hint(path.stem, names())}")
    if path.suffix in (".yaml", ".yml"):
        beside = [str(other) for other in sorted(path.parent.glob("*.y*ml"))[:100]]
        meant = hint(path.stem, names()) if nearest(path.stem, names()) else hint(str(name), [*names(), *beside])
        raise InputError(f"{shown} does not exist: there is no such file; {meant}")
    raise InputError(f"sweep: unknown name '{cut(str(name))}', and there is no such file; {hint(name, names())}")


def load(name: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep, given as a path or by name; ``overrides`` are ``KEY=VALUE`` with a dotted key and a YAML value.

    Raises :class:`InputError`, in one line, for whatever is wrong with the file or the overrides.
    """
    path = find(name)
    document = specfile.read_yaml(path)
    if not isinstance(document, dict):
        raise InputError(f"{path}: a sweep is a mapping with name, models, tasks and methods")
    for text in overrides:
        _set(document, text)
    sweep = specfile.parse(Sweep, document, str(path)).with_groups_expanded()
    sweep._where = str(path)
    sweep._folder = path.absolute().parent
    return sweep


def _set(document: dict[str, Any], text: str) -> None:
    """Apply one ``KEY=VALUE``, and take the same key out of ``overrides``, which would hide it."""
    where = f"--set {cut(text)}"
    key, separator, value = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not (all(parts) or "./" in key):  # a path is a key, too
        raise InputError(f"{where}: write KEY=VALUE, such as budget.train_examples=64")
    if parts[0] not in Sweep.model_fields:
        raise unknown("--set", parts[0], Sweep.model_fields)
    if isinstance(entries := document.get("overrides"), list):
        document["overrides"] = [_without(entry, parts) for entry in entries]
    _put(document, parts, specfile.parse_yaml(value, where), where)


def _split(node: Any, parts: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The key of ``node`` that ``parts`` begin with, and the rest of them; a key may be a path with dots in it."""
    known = node if isinstance(node, dict) else ()
    for length in range(len(parts), 1, -1):
        if (key := ".".join(parts[:length])) in known:
            return key, parts[length:]
    return parts[0], parts[1:]


def _put(node: Any, parts: Sequence[str], value: Any, where: str) -> None:
    first, rest = _split(node, parts)
    place: Any = first
    if isinstance(node, list):
        if not first.isdecimal() or int(first) >= len(node):
            raise InputError(f"{where}: '{first}' is no position in a list of {len(node)}")
        place = int(first)
    elif not isinstance(node, dict):
        raise InputError(f"{where}: there is nothing below '{node}' to set '{first}' in")
    if not rest:
        node[place] = value
        return
    inner = node[place] if isinstance(node, list) or node.get(place) is not None else {}
    node[place] = copy.copy(inner)  # an alias of YAML may be another place of the same mapping
    _put(node[place], rest, value, where)


def _without(node: Any, parts: Sequence[str]) -> Any:
    """``node`` without the key that ``parts`` lead to; itself where there is none."""
    first, rest = _split(node, parts)
    if not isinstance(node, dict) or first not in node:
        return node
    if rest:
        return {**node, first: _without(node[first], rest)}
    return {key: value for key, value in node.items() if key != first}
