"""Groups of tasks, such as GLUE: a name for all of them in a sweep, and the average that its paper reports."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pydantic import Field

from harness import specfile
from harness.errors import unknown
from harness.trial import Frozen


class Member(Frozen):
    """What counts once in the average: the mean of some metrics of a task, or of tasks that the paper takes as one."""

    tasks: tuple[str, ...] = Field(min_length=1)
    metrics: tuple[str, ...] = Field(min_length=1)

    @property
    def name(self) -> str:
        """Its tasks, such as 'mnli and mnli_mismatched'."""
        return " and ".join(self.tasks)


class TaskGroup(Frozen):
    """Tasks with one average: the mean over the members."""

    name: str
    description: str
    citation: str
    notes: str | None = Field(None, description="what a reader of the average has to know")
    members: tuple[Member, ...] = Field(min_length=2)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of all members, in their order."""
        return tuple(task for member in self.members for task in member.tasks)


def names() -> tuple[str, ...]:
    """Names of the groups."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.yaml")))


@cache
def load_group(name: str) -> TaskGroup:
    """The group called ``name``; :class:`harness.errors.InputError` with the nearest name if there is none."""
    if name not in names():
        raise unknown("group", name, names())
    return specfile.read(TaskGroup, Path(__file__).parent / f"{name}.yaml")


def expanded(tasks: Iterable[str]) -> list[str]:
    """``tasks`` with the tasks of a group in the place of its name, each once."""
    known = names()
    return list(dict.fromkeys(one for name in tasks for one in (load_group(name).tasks if name in known else (name,))))
