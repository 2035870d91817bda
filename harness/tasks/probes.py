"""Probes: a small, fixed suite of other tasks that a sweep may ask about beside its own (``probes: [retention]``).

The examples, their number and their length belong to the suite and not to the budget, so that two sweeps with different
budgets give numbers of the same questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import unknown


@dataclass(frozen=True)
class Suite:
    """Tasks that are asked before and after training."""

    name: str
    description: str
    version: int
    """Raised whenever what is asked changes."""
    text: str
    """The corpus whose loss tells how much a model forgets."""
    choices: tuple[str, ...]
    """Multiple-choice tasks."""
    examples: int
    """Test examples of each task."""
    max_length: int
    """Tokens of a text or of a prompt with its answer."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task, the text first."""
        return (self.text, *self.choices)


#: Every suite by name.
SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "retention",
            "what a language model forgets: the loss on passages of novels, and questions of science and daily life",
            version=1,
            text="novels_corpus",
            choices=("arc_easy", "piqa", "sciq"),
            examples=24,
            max_length=256,
        ),
    )
}


def check(names: Iterable[str], where: str) -> None:
    """Raise :class:`harness.errors.InputError`, which begins with ``where``, for a name that no suite has."""
    for name in names:
        if name not in SUITES:
            raise unknown(where, name, SUITES)
