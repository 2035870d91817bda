"""Check a user's own tasks before the first trial: a mistake in the data is one line, not one failure per trial."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness import catalog
from harness.errors import InputError
from harness.sources.fetch import LocalSource
from harness.tasks import data
from harness.tasks.spec import TaskSpec, load_spec
from harness.tasks.usable import Notice
from harness.trial import Trial


def own_tasks(trials: Iterable[Trial]) -> dict[str, tuple[Notice, ...]]:
    """The notices about the data of each own task of ``trials``, by the name of the task.

    It opens neither the tasks of the package nor data that would have to be downloaded. Raises
    :class:`harness.errors.InputError` for data that is unreadable or does not fit its task, for a training split
    smaller than the budget, and for a file of whose rows more than ``reader.max_left_out`` would be left out.
    """
    wanted: dict[str, int] = {}
    for trial in trials:
        if "task" in trial.paths:
            needed = trial.budget.train_examples if catalog.METHODS[trial.method].trains else 0
            wanted[trial.paths["task"]] = max(needed, wanted.get(trial.paths["task"], 0))
    said = {}
    for path, train_examples in wanted.items():
        spec = load_spec(path)
        if isinstance(spec.source, LocalSource):
            said[spec.name] = _looked_at(spec, path, train_examples)
    return said


def _looked_at(spec: TaskSpec, path: str, train_examples: int) -> tuple[Notice, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is returned
        task = data.load(path)
    for file in {notice.file for notice in task.notices}:
        _check_left_out(spec, [notice for notice in task.notices if notice.file == file and notice.lost])
    if train_examples > len(task.train):
        raise InputError(
            f"budget.train_examples: {train_examples} are asked for, and task '{spec.name}' has {len(task.train)} to "
            f"train on{data.because(task.notices)}; set it to {len(task.train)} or less, or draw fewer for other splits"
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
