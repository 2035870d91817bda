"""Chains of trials: the parents of a trial, found where a plan left them, or trained here; and what came of them."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import catalog, methods, objectives
from harness.experiment import Experiment, alignment
from harness.methods import load
from harness.models.load import Base
from harness.networks.tuned import Tuned
from harness.objectives.reward import scorer
from harness.tasks.answer_display import SHOWN_ANSWERS, first_reference, html_lines, html_table, shortened
from harness.tasks.evaluate import Evaluation, evaluate
from harness.tasks.metrics import Score
from harness.training.rollouts import Reference
from harness.training.trainer import Settings

#: Whose answers a comparison shows.
_SIDES = ("before", "after", "better")


def parent(
    run: Experiment,
    objective: str,
    method: str,
    args: Mapping[str, Any],
    parent_dirs: Mapping[str, str] | None,
    learning_rate: float,
) -> Path:
    """The folder of the parent with the role ``objective``.

    A runner hands over ``parent_dirs``. When a person runs the notebook there is none: then the parent is trained here,
    with the method, data and budget of ``run`` and the ``learning_rate`` given, into a temporary folder.
    """
    if parent_dirs and objective in parent_dirs:
        return Path(parent_dirs[objective])
    tuned = methods.apply(method, _base(run, objective), **{"train_steps": run.budget.train_steps, **args})
    objectives.fit(objective, tuned, run.data, Settings(run.budget, learning_rate, run.seed))
    folder = Path(tempfile.mkdtemp(prefix=f"tunebench-{objective}-"))
    tuned.save(folder)
    return folder


def load_parent(run: Experiment, objective: str, folder: str | Path) -> Tuned:
    """The parent's network, such as a reward model, in evaluation mode."""
    return load(_base(run, objective), folder)


class Comparison:
    """A policy against the SFT model whose evaluation on test is ``before``, with the reward model ``judge`` over both.

    Made after :meth:`Experiment.apply` and before the training: the policy as it is now is the reference. Records at
    once the mean reward of the SFT model's answers (split ``base``), and as ``reward_accuracy`` the share of the test
    pairs that the reward model has in the right order.
    """

    def __init__(self, run: Experiment, judge: Tuned, before: Evaluation) -> None:
        self.before = before
        self.after: Evaluation | None = None
        self.reward = scorer(judge, run.budget.max_length, run.data.spec.max_new_tokens)
        self.prompts = [example.prompt for example in run.data.test]
        self._run = run
        self._tuned = run.applied()
        self._reference = Reference(self._tuned)
        of_pairs = evaluate(judge, run.data, "test", run.budget.max_length).primary
        run.add_scores("base", self._mean_reward(before))
        run.add_scores("test", dataclasses.replace(of_pairs, metric="reward_accuracy"))

    def record(self) -> Evaluation:
        """Evaluate the policy, and record how it compares on test: win rate, KL and mean reward.

        The win rate is under the first of the task's metrics of text, and is left out where the task has none.
        """
        run, spec = self._run, self._run.data.spec
        evaluation = self.after = run.evaluate()
        if of_text := spec.metrics_of_text:
            run.add_scores("test", alignment.win_rate(of_text[0], evaluation, self.before))
        run.add_scores(
            "test",
            alignment.kl_to_reference(
                self._tuned, self._reference, self.prompts, spec.max_new_tokens, run.budget.max_length
            ),
            self._mean_reward(evaluation),
        )
        return evaluation

    def __repr__(self) -> str:
        """Scores before and, once recorded, after, with the first answers side by side."""
        answers = [
            "\n" + "\n".join(f"{name + ':':<8} {shortened(text)}" for name, text in zip(_SIDES, row, strict=True))
            for row in self._answers()
        ]
        return "\n".join([*self._scores(), *answers])

    def _repr_html_(self) -> str:
        """The same for Jupyter."""
        rows = self._answers()
        return html_lines(self._scores()) + (html_table(_SIDES, rows) if rows else "")

    def _scores(self) -> list[str]:
        recorded = self._run.scores
        before = [f"SFT model, {score}" for score in (*self.before.scores, *recorded["base"])]
        after = [str(score) for score in (*(self.after.scores if self.after else ()), *recorded["test"])]
        return before + after

    def _answers(self) -> list[tuple[str, str, str]]:
        if self.after is None:
            return []
        pairs = list(zip(self.before.answers, self.after.answers, strict=True))[:SHOWN_ANSWERS]
        return [(old.output, new.output, first_reference(new.references)) for old, new in pairs]

    def _mean_reward(self, evaluation: Evaluation) -> Score:
        return alignment.mean_reward(self.reward, self.prompts, [answer.output for answer in evaluation.answers])


def _base(run: Experiment, objective: str) -> Base:
    return dataclasses.replace(run.base, scalar=catalog.objective(objective).scalar)
