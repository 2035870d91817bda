"""What a sweep gives for the arguments of notebooks: names that they take, and values that their functions allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache as once
from typing import Annotated, Any

from pydantic import JsonValue, ValidationError

from harness import arguments, catalog, notebooks, specfile
from harness.errors import InputError, unknown
from harness.execution import FIELDS
from harness.sweeps.spec import Arguments, Sweep
from harness.tasks import probes
from harness.trial import Budget, Trial

#: Arguments of a method that are fields of the trial.
TRIAL_FIELDS = ("learning_rate", "dtype", "device")
#: Parameters of a notebook that are no arguments of a method or objective.
RESERVED = frozenset((*notebooks.COMMON, *notebooks.RUNNER, *notebooks.METHOD)) - frozenset(TRIAL_FIELDS)
_EXECUTION = tuple(f"execution.{name}" for name in FIELDS)
_AXES = ("method", "objective", "model", "task", "seed", "train_examples", *TRIAL_FIELDS, *_EXECUTION)


@once
def _trial_kinds() -> Mapping[str, Any]:
    fields = {name: Trial.model_fields[name] for name in TRIAL_FIELDS}
    return {name: Annotated[field.annotation, field] for name, field in fields.items()}


def kinds(method: str | None = None, objective: str | None = None) -> Mapping[str, Any]:
    """Argument -> type, of a method, of an objective, or of both together."""
    of_objective = {} if objective is None else arguments.declared("objectives", objective)
    return {**of_objective, **({} if method is None else arguments.declared("methods", method)), **_trial_kinds()}


def parameters(method: catalog.Method) -> dict[str, Any]:
    """Parameter -> default of the method's notebook, with the arguments of a file of one's own."""
    own = {} if method.file is None else arguments.own(method.file)
    return {**notebooks.parameters(method.notebook), **{name: argument.default for name, argument in own.items()}}


def of_objective(objective: catalog.Objective) -> dict[str, Any]:
    """Parameter -> default of what a sweep may give under the name of ``objective``.

    Without a notebook of its own it takes the :data:`TRIAL_FIELDS` alone: what its methods take stands under theirs.
    """
    return dict.fromkeys(TRIAL_FIELDS) if objective.notebook is None else notebooks.parameters(objective.notebook)


def _check_objectives(sweep: Sweep) -> None:
    """Also those that nothing in the sweep trains with."""
    for name, args in (sweep.objectives or {}).items():
        objective, where = catalog.objective(name), f"{sweep.where}: objectives.{name}"
        for argument in args:
            if objective.notebook is None and argument in arguments.declared("objectives", name):
                by_hand = f"notebooks/objectives/{name}.ipynb does, run by hand ('tunebench lab')"
                instead = f"write execution.{argument}" if argument in FIELDS else by_hand
                raise InputError(f"{where}.{argument}: a sweep does not set it here; {instead}")
        as_axes(args, of_objective(objective), kinds(objective=name), where)
        _check_numbers(args, where)


def as_axes(
    given: Arguments, declared: Mapping[str, Any], kinds: Mapping[str, Any], where: str
) -> dict[str, list[JsonValue]]:
    """The arguments ``given``, each as the list of its values.

    ``declared`` are the parameters of the notebook with their defaults, ``kinds`` the types of the arguments. Raises
    :class:`InputError`, which begins with ``where``, for a name or a value that is not valid.
    """
    axes: dict[str, list[JsonValue]] = {}
    for name, value in given.items():
        if name not in declared or name in RESERVED:
            raise unknown(where, name, (n for n in declared if n not in RESERVED))
        values = _axis(value, declared[name])
        if not values:
            raise InputError(f"{where}.{name}: an empty list is no axis; give a value, or a list of values")
        axes[name] = [_conformed(one, declared[name], kinds.get(name), f"{where}.{name}") for one in values]
    return axes


def _axis(given: JsonValue, default: Any) -> list[JsonValue]:
    """A list is an axis; where the notebook's default is a list, only a list of lists is."""
    if not isinstance(given, list):
        return [given]
    if isinstance(default, list) and not (given and all(isinstance(item, list) for item in given)):
        return [given]
    return given


def _conformed(value: JsonValue, default: Any, kind: Any, where: str) -> JsonValue:
    """``value`` if it is of its ``kind``; a number becomes one of the default's type where that is the same number."""
    if kind is None:
        return notebooks.conform(value, default, where)
    arguments.check(value, kind, where)
    if isinstance(value, int | float) and type(default) in (int, float) and type(default)(value) == value:
        number: int | float = type(default)(value)
        return number
    return value


def budget(merged: Mapping[str, Any], where: str) -> Budget:
    """The budget of these fields. Raises :class:`InputError`, which begins with ``where``."""
    try:
        whole = Budget(**merged)
        probes.check(whole.probes, f"{where}.probes")
        return whole
    except ValidationError as error:
        details = error.errors(include_url=False)
        first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
        if first["type"] == "extra_forbidden":
            raise unknown(where, first["loc"][0], Budget.model_fields) from error
        raise specfile.mistake(f"{where}.{first['loc'][0]}", [first]) from error


def budgets(merged: Mapping[str, Any], where: str) -> list[Budget]:
    """The budget of these fields for each number of training examples. Raises :class:`InputError` as :func:`budget`."""
    sizes = merged.get("train_examples", [Budget().train_examples])
    if not isinstance(sizes, list):
        sizes = [sizes]
    if not sizes:
        raise InputError(f"{where}.train_examples: an empty list is no axis; give a number, or a list of numbers")
    if any(sizes.count(size) > 1 for size in sizes):
        raise InputError(f"{where}.train_examples: a value is given twice")
    return [budget({**merged, "train_examples": size}, where) for size in sizes]


def check(sweep: Sweep, methods: Mapping[str, catalog.Method]) -> None:
    """Check what no trial of ``sweep`` may come to use: ``objectives``, ``defaults``, ``exclude`` and ``overrides``.

    ``methods`` are those of the sweep by their names.

    Raises :class:`InputError` for an argument that an objective does not take, for a default that no notebook takes,
    for a filter by what no trial has, and for an override with an invalid value.
    """
    probes.check(sweep.probes, f"{sweep.where}: probes")
    _check_objectives(sweep)
    books = {book for name in sweep.objectives or () if (book := catalog.OBJECTIVES[name].notebook)}
    taken = {name for book in books for name in notebooks.parameters(book)}
    taken = {*taken, *(name for method in methods.values() for name in parameters(method))} - RESERVED
    _check_names(sweep.defaults, taken, f"{sweep.where}: defaults")
    _check_numbers(sweep.defaults, f"{sweep.where}: defaults")
    for name, own in sweep.methods.items():
        _check_rate(methods[name], own, f"{sweep.where}: methods.{name}")
    for position, match in enumerate(sweep.exclude):
        where = f"{sweep.where}: exclude.{position}"
        _check_names(match, {*_AXES, *taken}, where)
        for name, value in match.items():
            if value in ([], {}):
                raise InputError(f"{where}.{name}: must be a value, or a list of values; it is empty")
    for position, entry in enumerate(sweep.overrides):
        where = f"{sweep.where}: overrides.{position}"
        budgets(entry.budget, f"{where}.budget")
        for name, given in entry.methods.items():
            method = methods.get(name) or catalog.METHODS[name]
            as_axes(given, parameters(method), kinds(method=method.address), f"{where}.methods.{name}")
            _check_rate(method, given, f"{where}.methods.{name}")


def _check_rate(method: catalog.Method, given: Arguments, where: str) -> None:
    """Refuse a learning rate where nothing trains, and none where something does.

    One of ``defaults`` is for the other methods.
    """
    if "learning_rate" not in given:
        return
    if not method.trains and given["learning_rate"] is not None:
        raise InputError(f"{where}.learning_rate: {method.name} trains nothing; leave it out")
    if method.trains:
        _check_numbers(given, where)


def _check_numbers(given: Arguments, where: str) -> None:
    """Refuse null as a learning rate: it is no other way to ask for the usual ones."""
    rate = given.get("learning_rate", 0)
    if None in (rate if isinstance(rate, list) else [rate]):
        raise InputError(
            f"{where}.learning_rate: must be a number or a list of numbers; leave it out for the usual ones"
        )


def _check_names(given: Iterable[str], valid: set[str], where: str) -> None:
    for name in given:
        if name not in valid:
            raise unknown(where, name, valid)
