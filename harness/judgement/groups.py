"""The average of a method over a group of tasks, such as GLUE's: from the selected setting of each task."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import pandas as pd

from harness.judgement.statistics import select
from harness.results.files import Tables, where
from harness.results.selection import CELL
from harness.tasks.groups import Member, TaskGroup, load_group, names

#: What rows of one average share. Tasks may have budgets, objectives and learning rates of their own.
KEY = ["sweep", "model", "model_revision", "method", "method_args", "dtype", "device", "protocol_version"]


@dataclass(frozen=True)
class GroupAverage:
    """One method on the tasks of one group."""

    group: str
    row: pd.Series
    """The columns of :data:`KEY`."""
    average: float | None
    """The mean over the members, each the mean of its metrics on test; None where a member has no score."""
    seeds: int
    """Seeds on which every member was scored: those of the average."""
    seed_stderr: float | None
    """Standard error of the average over the seeds; None with fewer than two."""
    scored: int
    """Members with a score."""
    members: int
    reason: str | None
    """Why there is no average; None if there is one."""


def group_averages(tables: Tables) -> list[GroupAverage]:
    """The averages of all groups of which the tables hold at least two tasks, the best of each group and model first.

    Tasks are those of the package: a task of a user's own may have the name of one of them.
    """
    chosen = select(tables["trials"])
    chosen = chosen[~chosen.task_version.astype("string").str.contains("+", regex=False, na=False)]
    groups = [load_group(name) for name in names()]
    averages = [
        _average(group, frame, tables)
        for group in groups
        if chosen.task[chosen.task.isin(group.tasks)].nunique() > 1
        for _, frame in chosen[chosen.task.isin(group.tasks)].groupby(KEY, dropna=False, sort=False)
    ]
    return sorted(averages, key=lambda one: (one.group, one.row.model, one.average is None, -(one.average or 0.0)))


def _average(group: TaskGroup, frame: pd.DataFrame, tables: Tables) -> GroupAverage:
    scores = [_by_seed(member, frame, tables) for member in group.members]
    known = [one for one in scores if isinstance(one, dict)]
    lacking = [one for one in scores if isinstance(one, str)]
    seeds = sorted(set.intersection(*map(set, known))) if known and not lacking else []
    if not lacking and not seeds:
        lacking = ["no seed has a score in every member"]
    by_seed = [statistics.fmean(one[seed] for one in known) for seed in seeds]
    return GroupAverage(
        group=group.name,
        row=frame[KEY].iloc[0],
        average=statistics.fmean(by_seed) if by_seed else None,
        seeds=len(seeds),
        seed_stderr=statistics.stdev(by_seed) / math.sqrt(len(seeds)) if len(seeds) > 1 else None,
        scored=len(known),
        members=len(group.members),
        reason="; ".join(lacking) or None,
    )


def _by_seed(member: Member, frame: pd.DataFrame, tables: Tables) -> dict[int, float] | str:
    """Seed -> the mean of the member's tasks and metrics on test; or what it lacks."""
    parts: list[dict[int, float]] = []
    for task in member.tasks:
        trials = frame[frame.task == task]
        if trials.empty:
            return f"{task} is missing"
        if (count := len(trials[CELL].drop_duplicates())) > 1:
            return f"{task} has {count} rows"
        rows = where(tables, "scores", trials.trial_id, split="test")
        seed_of = dict(zip(trials.trial_id, trials.seed, strict=True))
        for metric in member.metrics:
            of_metric = rows[(rows.metric == metric) & rows.value.notna()]
            if of_metric.empty:
                return f"{task} has no {metric}"
            values = zip(of_metric.trial_id, of_metric.value, strict=True)
            parts.append({int(seed_of[trial]): float(value) for trial, value in values})
    return {seed: statistics.fmean(one[seed] for one in parts) for seed in set.intersection(*map(set, parts))}
