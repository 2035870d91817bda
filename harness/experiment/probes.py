"""What a trial's model answers to the suites of its budget, against the untouched base: retention and forgetting.

The change of a text's loss is the sum over texts of (nats after - nats before), over their tokens; that of a
multiple-choice task is the mean of (right after - right before). Both are ratios R = sum(d) / sum(w), where w counts
tokens, or is 1 for a question. An example adds R + (d - R w) / mean(w), the linear part of R: their mean is R, and
their spread gives its standard error (Cochran 1977, Sampling Techniques, section 2.11). Each example is compared with
itself, so how hard it is does not count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from functools import cache as once
from typing import Any

from harness import methods
from harness.experiment import untouched
from harness.models.load import Base
from harness.networks.tuned import Tuned
from harness.tasks import data as tasks
from harness.tasks.evaluate import evaluate
from harness.tasks.metrics import Score, mean_score
from harness.tasks.probes import SUITES, Suite, check
from harness.tasks.spec import TaskSpec, load_spec
from harness.trial import Budget

#: The scores of each task that was asked, by its name, the primary metric first.
Answers = dict[str, list[Score]]


class Probes:
    """The suites of one trial. Call :meth:`before` before training and :meth:`after` behind it."""

    def __init__(self, names: Sequence[str], base: Base, own: TaskSpec) -> None:
        """``own`` is the trial's task: what has its data is not asked, because the model trains on it.

        Raises :class:`harness.errors.InputError` for a name that no suite has.
        """
        self.remarks: list[str] = []
        self._base = base
        self._before: dict[str, Answers] = {}
        self._after: dict[str, Answers] = {}
        self._data: dict[str, tasks.TaskData] = {}
        check(names, "budget.probes")
        self._suites = [SUITES[name] for name in names]
        if names and (reason := _unable(base)) is not None:
            self._suites = []
            self.remarks.append(f"forgetting has no value: {reason}")
        asked = dict.fromkeys(task for suite in self._suites for task in suite.tasks)
        self._shared = frozenset(task for task in asked if load_spec(task).source == own.source)
        for task in sorted(self._shared):
            self.remarks.append(f"no probe asks '{task}', whose data is that of the trial's own task")

    def before(self) -> None:
        """Ask the untouched base, unless an earlier trial with the same base did: its answers are in the cache."""
        for suite in self._suites:
            self._before[suite.name] = self._of_base(suite)
        if self._suites:
            untouched.release(self._base.device)

    def after(self, tuned: Tuned) -> None:
        """Ask the trial's model, once."""
        if self._after:
            return
        self._after = {suite.name: self._answers(suite, tuned, leave_out=self._shared) for suite in self._suites}
        for _, task, score in self._changes():
            if score.reason is not None:
                self.remarks.append(f"the change of {task}.{score.metric} has no value: {score.reason}")

    @property
    def columns(self) -> dict[str, float | None]:
        """``forgetting`` and its standard error, in nats per token of the suite's text; empty if nothing was asked."""
        if not self._after:
            return {}
        texts = {suite.text for suite in self._suites}
        score = next((score for _, task, score in self._changes() if task in texts), None)
        return {
            "forgetting": None if score is None else score.value,
            "forgetting_stderr": None if score is None else score.stderr,
        }

    def before_and_after(self, metric: str) -> Iterator[tuple[str, float | None, float | None]]:
        """Task and its values of ``metric`` before and after training, for each task that was asked and has it."""
        for suite, answers in self._after.items():
            for task, several in answers.items():
                for old, new in zip(self._before[suite][task], several, strict=True):
                    if new.metric == metric:
                        yield task, old.value, new.value

    def scores(self) -> Iterator[tuple[str, Score]]:
        """Split and score: after training, before it, and the change, each metric as 'TASK.METRIC'."""
        for suffix, answers in (("", self._after), ("_before", self._before)):
            for suite, of_tasks in answers.items():
                for task, several in of_tasks.items():
                    yield from ((suite + suffix, _named(task, score)) for score in several)
        for suite, task, score in self._changes():
            yield f"{suite}_change", _named(task, score)

    def example_scores(self) -> Iterator[dict[str, Any]]:
        """Rows of what each example adds to a change."""
        for suite, task, score in self._changes():
            ids = tasks.example_ids(self._examples(SUITES[suite], task))
            for example, value in zip(ids, score.values, strict=bool(score.values)):
                metric = f"{task}.{score.metric}"
                yield {"split": f"{suite}_change", "example": example, "metric": metric, "value": value}

    def _changes(self) -> Iterator[tuple[str, str, Score]]:
        """Suite, task and change of its primary metric, of which a text's is the loss."""
        for suite, answers in self._after.items():
            for task, after in answers.items():
                examples = self._examples(SUITES[suite], task)
                yield suite, task, change(self._before[suite][task][0], after[0], tasks.clusters(examples))

    def _examples(self, suite: Suite, task: str) -> Sequence[tasks.Example]:
        return self._task(suite, task).test

    def _task(self, suite: Suite, task: str) -> tasks.TaskData:
        if task not in self._data:
            self._data[task] = tasks.load(task, Budget(train_examples=1, eval_examples=suite.examples))
        return self._data[task]

    def _answers(self, suite: Suite, tuned: Tuned, leave_out: Collection[str] = ()) -> Answers:
        return {
            task: list(evaluate(tuned, self._task(suite, task), "test", suite.max_length).scores)
            for task in suite.tasks
            if task not in leave_out
        }

    def _of_base(self, suite: Suite) -> Answers:
        @once
        def network() -> Tuned:
            return methods.apply("baseline", self._base)

        asked = {task: self._task(suite, task) for task in suite.tasks}
        return {
            task: list(untouched.evaluation(self._base, data, "test", suite.max_length, network).scores)
            for task, data in asked.items()
        }


def change(before: Score, after: Score, clusters: Sequence[str] | None = None) -> Score:
    """``after`` minus ``before`` on the same examples, paired; of a perplexity, the change of its loss per token.

    Without a value where one of the two has none.
    """
    is_text = "nats" in {*before.statistics, *after.statistics}
    metric = "nats_per_token" if is_text else after.metric
    if before.value is None or after.value is None:
        return Score(metric, None, None, after.n, before.reason or after.reason)
    of_before, of_after = (one.statistics["nats"] if is_text else one.values for one in (before, after))
    differences = [new - old for new, old in zip(of_after, of_before, strict=True)]
    weights = after.statistics["tokens"] if is_text else [1.0] * after.n
    total = sum(weights)
    ratio = sum(differences) / total
    added = [ratio + (d - ratio * w) * len(weights) / total for d, w in zip(differences, weights, strict=True)]
    return mean_score(metric, added, clusters)


def _named(task: str, score: Score) -> Score:
    return dataclasses.replace(score, metric=f"{task}.{score.metric}")


def _unable(base: Base) -> str | None:
    """Why a network of ``base`` answers no probe; None if it does."""
    if base.spec.is_random:
        return "random weights know nothing that they could forget"
    if base.kind != "decoder":
        return f"the probes ask language models, and '{base.spec.name}' is {base.kind}"
    return "a model with one number as its output predicts no text" if base.scalar else None
