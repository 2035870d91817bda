"""Open the tasks of a sweep before the first trial: a mistake in the data is one line, not one failure per trial."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness import catalog
from harness.errors import InputError
from harness.sources import fetch, here, hub
from harness.sources.fetch import HubSource, LocalSource
from harness.tasks import data
from harness.tasks.spec import TaskSpec, load_spec
from harness.tasks.usable import Notice
from harness.trial import Trial


def tasks(trials: Iterable[Trial], must_be_here: bool = False) -> dict[str, tuple[Notice, ...]]:
    """The notices about the data of each task of ``trials`` that is on this machine, by the name of the task.

    It opens each task once, and downloads nothing: data that is not here yet is left to ``tunebench fetch`` and the
    trials; ``must_be_here`` refuses what no download brings. Of the package's tasks, only the rows that are left out
    are told. Raises :class:`harness.errors.InputError` for an own file that is missing, for data that is unreadable or
    does not fit its task, for a dialogue with an unknown speaker, for a training split smaller than the budget, and for
    a file of whose rows more than ``reader.max_left_out`` would be left out, and for a revision of the hub that can
    move.
    """
    wanted: dict[str, int] = {}
    for trial in trials:
        needed = trial.budget.train_examples if catalog.method_of_row(trial.method).trains else 0
        wanted[trial.address("task")] = max(needed, wanted.get(trial.address("task"), 0))
    said = {}
    for address, train_examples in wanted.items():
        spec = load_spec(address)
        _check_pinned(spec)
        if is_here(spec):
            seen = _looked_at(spec, train_examples)
            said[spec.name] = seen if spec.file is not None else tuple(notice for notice in seen if notice.lost)
        elif must_be_here and isinstance(spec.source, LocalSource):
            fetch.resolve(spec.source)  # it says what is missing
    return said


def taken_for(trials: Iterable[Trial]) -> dict[str, str]:
    """What the data of each task was taken for, by its name; only of tasks whose file leaves that to the data."""
    return {spec.name: spec.taken_for for spec in _specs(trials) if spec.taken_for is not None}


def not_here(trials: Iterable[Trial]) -> tuple[str, ...]:
    """The names of the tasks whose data a download has yet to bring, in the order of ``trials``."""
    return tuple(spec.name for spec in _specs(trials) if not is_here(spec))


def _specs(trials: Iterable[Trial]) -> Iterator[TaskSpec]:
    """The tasks of ``trials``, each once."""
    return map(load_spec, dict.fromkeys(trial.address("task") for trial in trials))


def is_here(spec: TaskSpec) -> bool:
    """Whether a task's data can be opened without a download; an own local file counts, though it may be missing."""
    return here.is_here(spec.source) or (spec.file is not None and isinstance(spec.source, LocalSource))


def _check_pinned(spec: TaskSpec) -> None:
    """Raise :class:`InputError` for data whose revision is no commit; the version of a task would not cover it."""
    source = spec.source
    if not isinstance(source, HubSource) or source.is_pinned:
        return
    where = f"task '{spec.name}': source.revision"
    listing = hub.look(source.hub, source.revision, source.repository, where)
    now = "" if listing is None else f"; it is {listing.commit} now"
    raise InputError(f"{where}: '{source.revision}' can move, and then rows do not compare; write a commit{now}")


def _looked_at(spec: TaskSpec, train_examples: int) -> tuple[Notice, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is returned
        task = data.load(spec.address)
    for file in {notice.file for notice in task.notices}:
        _check_left_out(spec, [notice for notice in task.notices if notice.file == file and notice.lost])
    # Of a corpus, an example of the budget is a block of tokens, not a text.
    if train_examples > len(task.train) and not spec.is_corpus:
        raise InputError(
            f"budget.train_examples: {train_examples} are asked for, and task '{spec.name}' has "
            f"{len(task.train)} to train on{data.because(task.notices)}; set it to {len(task.train)} or less, or draw "
            "fewer for other splits"
        )
    return task.notices


def _check_left_out(spec: TaskSpec, lost: Sequence[Notice]) -> None:
    rows = sum(notice.rows for notice in lost)
    if lost and rows > spec.reader.max_left_out * lost[0].of_rows:
        raise InputError(
            f"task '{spec.name}': {'; '.join(map(str, lost))}; {spec.reader.max_left_out:.0%} may be left out at most: "
            "mend the rows, name fields that may be empty in 'optional', or raise reader.max_left_out"
        )


def lines(said: Mapping[str, Iterable[Notice]]) -> Iterator[str]:
    """One line for each notice of each task."""
    return (f"task '{name}': {notice}" for name, notices in said.items() for notice in notices)
