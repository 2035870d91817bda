"""What ``tunebench recommend`` says: the choice, what it rests on, and where that ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from harness.cli.fresh import follow_records
from harness.errors import InputError
from harness.judgement.nearest import Basis, nearest
from harness.judgement.quantities import QUANTITIES
from harness.judgement.recommendation import GOALS, GOOD, Choice, Costs, choose, names
from harness.judgement.timings import why_untimed
from harness.judgement.verdicts import Comparison, Verdict, is_trained
from harness.results.files import read


@dataclass(frozen=True)
class Answer:
    """A headline, a table with remarks below it, and the same content as a JSON document."""

    headline: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    remarks: Sequence[str]
    document: dict[str, Any]


@dataclass(frozen=True)
class _Peaks:
    """Bytes that training each row takes on the wanted model, and where that is from."""

    source: str
    by_row: dict[int, float | None]
    refused: dict[int, str] = field(default_factory=dict)
    """Why there is no estimate of some rows."""


def answer(folders: Sequence[Path], model: str, task: str, memory_bytes: int | None, goal: str) -> Answer:
    """The recommendation for ``goal``. Raises :class:`InputError` where no row says anything about model and task."""
    basis = _basis(folders, model, task)
    peaks = _measured(basis) if basis.same_model else _estimated(basis, model)
    choice = choose(basis.comparison, Costs(basis.comparison, basis.tables), goal, memory_bytes, peaks.by_row)
    called = names(basis.comparison)
    remarks = _remarks(basis, choice, peaks, called, model, task, memory_bytes)
    best = None if choice.best is None else called[choice.best]
    within = "" if memory_bytes is None else f" within {_gb(memory_bytes)} GB"
    headline = f"for {goal}, {model} on {task}{within}: {best or 'nothing to recommend'}"
    shown = [*choice.considered, *choice.unmeasured, *choice.not_good, *choice.too_large, *choice.unknown]
    lines = [_line(place, basis, choice, peaks, called) for place in dict.fromkeys(shown)]
    document = {
        "model": model,
        "task": task,
        "goal": goal,
        "memory_bytes": memory_bytes,
        "recommended": best,
        "not_told_apart": [called[place] for place in choice.tied],
        "does_not_fit": [called[place] for place in choice.too_large],
        "memory_unknown": [called[place] for place in choice.unknown],
        "not_measured": [called[place] for place in choice.unmeasured],
        "not_good_enough": [called[place] for place in choice.not_good],
        "better_than_untrained": choice.is_shown,
        "basis": {
            "folder": basis.folder,
            "model": basis.model,
            "task": basis.task,
            "rows": len(basis.comparison.rows),
            "seeds": basis.seeds,
            "memory": peaks.source,
            "extrapolates": not (basis.same_model and basis.same_task),
        },
        "rows": lines,
        "remarks": remarks,
    }
    table = [tuple("" if value is None else _cell(name, value) for name, value in line.items()) for line in lines]
    return Answer(headline, tuple(lines[0]) if lines else (), table, remarks, document)


def _basis(folders: Sequence[Path], model: str, task: str) -> Basis:
    from harness.models import spec as models
    from harness.tasks import spec as tasks

    for folder in folders:
        follow_records(folder)
    tables = {str(folder): read(folder) for folder in folders}
    trials = pd.concat([one["trials"][["model", "task", "model_params", "task_kind"]] for one in tables.values()])
    of_task = trials[trials.task == task].task_kind.dropna()
    kind = str(of_task.iloc[0]) if len(of_task) else tasks.load_spec(task).kind
    of_model = trials[trials.model == model].model_params.dropna()
    spec = None if len(of_model) else models.at_path(model)
    params = float(of_model.iloc[0]) if len(of_model) else spec.params if spec is not None else None
    kinds = {name: models.load_spec(name).kind for name in trials.model.unique() if name in models.names()}
    wanted = spec.kind if spec is not None else kinds.get(model)

    def same_kind(name: str) -> bool:
        return wanted is None or kinds.get(name, wanted) == wanted

    found = nearest(tables, model, task, task_kind=kind, params=params, same_kind=same_kind)
    if found is None:
        where = ", ".join(map(str, folders))
        what = f"no scored row of a trained {wanted or 'model'} on {task} or another {kind} task"
        raise InputError(f"{where}: {what}; run a sweep first")
    return found


def _rows(basis: Basis) -> dict[int, Any]:
    return {place: row for place, row in enumerate(basis.comparison.listed) if is_trained(row)}


def _measured(basis: Basis) -> _Peaks:
    peaks = {place: row.peak_train_bytes for place, row in _rows(basis).items()}
    device = basis.comparison.rows.device.iloc[0]
    known = {place: None if pd.isna(peak) else float(peak) for place, peak in peaks.items()}
    return _Peaks(f"measured on {device}", known)


def _estimated(basis: Basis, model: str) -> _Peaks:
    """Peaks of the wanted model by the estimator, with the arguments, batch and format of the rows."""
    import json

    from harness.estimate.start import quick_start

    peaks: dict[int, float | None] = {}
    refused = {}
    with quick_start():
        from harness.estimate.estimate import estimate

        for place, row in _rows(basis).items():
            settings = {"batch_size": int(row.batch_size), "length": int(row.max_length), "dtype": row.dtype}
            try:
                found = estimate(model, row.method, json.loads(row.method_args), optimizer_dtype=None, **settings)
                peaks[place] = float(found.total_bytes)
            except InputError as error:
                peaks[place], refused[place] = None, str(error)
    return _Peaks("estimated", peaks, refused)


def _line(place: int, basis: Basis, choice: Choice, peaks: _Peaks, called: Sequence[str]) -> dict[str, Any]:
    row = basis.comparison.rows.iloc[place]
    line: dict[str, Any] = {
        "method": called[place],
        "learning_rate": _number(row.learning_rate),
        "score": _number(row.test_score),
        "low": _number(row.ci_low),
        "high": _number(row.ci_high),
        "seeds": int(row.seeds),
        "peak_bytes": peaks.by_row.get(place),
    }
    if choice.goal != "score":
        line[GOALS[choice.goal]] = None if choice.values is None else choice.values.get(place)
    return {**line, "": _standing(place, choice)}


def _standing(place: int, choice: Choice) -> str:
    if place == choice.best:
        return "recommended"
    for places, said in (
        (choice.tied, "not told apart"),
        (choice.too_large, "does not fit"),
        (choice.unknown, "memory not known"),
        (choice.not_good, "does not score well enough"),
        (choice.unmeasured, "not measured"),
    ):
        if place in places:
            return said
    return "costs more" if choice.goal != "score" else "scores worse"


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value / 1e9:.3g} GB" if name == "peak_bytes" else f"{value:.4g}"
    return str(value)


def _remarks(
    basis: Basis, choice: Choice, peaks: _Peaks, called: Sequence[str], model: str, task: str, memory: int | None
) -> list[str]:
    rows = basis.comparison.rows
    seeds_of = {place: int(row.seeds) for place, row in basis.comparison.policies.items()}
    most = max(seeds_of.values())
    seeds = "one seed" if most == 1 else f"{basis.seeds} to {most} seeds" if most > basis.seeds else f"{most} seeds"
    said = [
        f"rests on {len(rows)} rows of {basis.model} on {basis.task}, {seeds}, {rows.primary_metric.iloc[0]}, "
        f"from {basis.folder}; memory is {peaks.source}",
        *_extrapolation(basis, model, task),
        *_without_a_score(basis),
    ]
    if basis.others:
        said.append(f"{basis.others} more comparisons, as near as this one, were not used; name a folder to choose")
    if most == 1:
        said.append("one seed says nothing of the spread between runs, so no method can be told from another")
    elif basis.seeds == 1:
        who = _listed([place for place, count in seeds_of.items() if count == 1], called)
        said.append(f"one seed says nothing of the spread between runs, so these cannot be told from others: {who}")
    if memory is not None:
        said += _of_memory(choice, peaks, called, memory)
    if choice.not_good:
        rule = f"keeps less than {GOOD:.0%} of the best one's gain over the untrained model"
        if not _has_gain(basis.comparison):
            rule = "scores less than the best one, where no gain over the untrained model is known"
        said.append(f"{rule}: {_listed(choice.not_good, called)}")
    return [*said, *_of_times(basis, choice), *_of_choice(basis, choice, called)]


def _without_a_score(basis: Basis) -> list[str]:
    """Methods that ran on the same model and task, or should have, none of whose trials has a score."""
    trials = basis.tables["trials"]
    here = trials[(trials.model == basis.model) & (trials.task == basis.task)]
    lost = here[~here.method.isin(here.method[here.test_score.notna()])]
    ended = lost.status.where(lost.status != "ok", "not scored").groupby(lost.method, sort=False)
    said = [f"{method} ({', '.join(dict.fromkeys(how))})" for method, how in ended]
    return [f"without a score, so not compared: {', '.join(said)}"] if said else []


def _has_gain(comparison: Comparison) -> bool:
    """Whether the best method is known to score better than the untrained model, by the means."""
    best = next(iter(comparison.policies.values()))
    sign = 1.0 if comparison.higher_is_better else -1.0
    return bool(sign * (best.test_score - best.base_score) > 0)


def _of_times(basis: Basis, choice: Choice) -> list[str]:
    """Why times of the rows do not count, where the goal is a time and they do not."""
    if choice.goal not in _TIMED:
        return []
    ids = {trial_id for several in basis.comparison.rows.trial_ids for trial_id in several}
    trials = basis.tables["trials"]
    doubt = why_untimed(trials[trials.trial_id.isin(ids)], "")
    return [doubt] if doubt else []


#: Goals that are about how long something takes.
_TIMED = ("speed", "latency")


def _extrapolation(basis: Basis, model: str, task: str) -> list[str]:
    said = []
    if not basis.same_model:
        sizes = [f"{size / 1e6:,.0f} million" for size in (basis.model_params, basis.wanted_params) if size]
        apart = f" ({sizes[0]} parameters against {sizes[1]})" if len(sizes) == 2 else ""
        said.append(
            f"extrapolates: there are no rows of {model} on such a task; scores and costs are those of {basis.model}, "
            f"the nearest in size{apart}"
        )
    if not basis.same_task:
        said.append(f"extrapolates: there are no rows of {task}; {basis.task} is a task of the same kind")
    return said


def _of_memory(choice: Choice, peaks: _Peaks, called: Sequence[str], memory: int) -> list[str]:
    said = []
    if choice.too_large:
        sizes = [f"{called[place]} ({_gb(peaks.by_row[place] or 0)} GB)" for place in choice.too_large]
        said.append(f"does not fit in {_gb(memory)} GB: {', '.join(sizes)}")
    reasons = [f"{called[place]} ({peaks.refused.get(place, 'not measured')})" for place in choice.unknown]
    return [*said, *([f"memory not known, so not recommended: {', '.join(reasons)}"] if reasons else [])]


def _of_choice(basis: Basis, choice: Choice, called: Sequence[str]) -> list[str]:
    if choice.best is None:
        return ["no method that fits has what the goal needs"]
    what = "score" if choice.goal == "score" else QUANTITIES[GOALS[choice.goal]].text
    said = []
    equal = [place for place in choice.tied if choice.goal == "score" and _is_equal(basis, choice.best, place)]
    untold = [place for place in choice.tied if place not in equal]
    if choice.ahead:
        who = _listed(choice.ahead, called)
        said.append(f"{called[choice.best]} has the best mean, and is worse on the seeds that it shares with: {who}")
    if equal:
        said.append(f"as good as {called[choice.best]} in {what}, within the margin: {_listed(equal, called)}")
    if untold:
        said.append(f"cannot be told from {called[choice.best]} in {what}: {_listed(untold, called)}")
    if basis.comparison.zero_shot is None:
        said.append("the untrained model was not scored, so it is not known whether training gains anything")
    elif not choice.is_shown:
        said.append(f"{called[choice.best]} is not shown to be better than the untrained model")
    return said


def _is_equal(basis: Basis, one: int, other: int) -> bool:
    return basis.comparison.pair(one, other).verdict is Verdict.EQUIVALENT


def _listed(places: Sequence[int], called: Sequence[str]) -> str:
    return ", ".join(called[place] for place in places)


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g}"
