"""Chains of trials: where the parents of a trial come from, and how the trial compares with them."""

from __future__ import annotations

import dataclasses
import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from harness import catalog, methods, objectives
from harness.experiment import Experiment, alignment, untouched
from harness.methods import load
from harness.models.load import Base
from harness.networks.tuned import Tuned
from harness.objectives.reward import scorer
from harness.tasks.answer_display import SHOWN_ANSWERS, first_reference, html_lines, html_table, shortened
from harness.tasks.evaluate import Evaluation
from harness.tasks.metrics import Score
from harness.training.rollouts import Reference, Reward
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
    role: str | None = None,
) -> Path:
    """The folder of the parent with that ``role``, by default the role named like its ``objective``.

    A runner passes ``parent_dirs``. A person who runs the notebook has none; the parent is then trained here into a
    temporary folder, with the method, data and budget of ``run`` and the given ``learning_rate``.
    """
    role = role or objective
    if parent_dirs and role in parent_dirs:
        return Path(parent_dirs[role])
    tuned = methods.apply(method, _base(run, objective), **{"train_steps": run.budget.train_steps, **args})
    objectives.fit(objective, tuned, run.data, Settings(run.budget, learning_rate, run.seed))
    folder = Path(tempfile.mkdtemp(prefix=f"tunebench-{objective}-"))
    tuned.save(folder)
    return folder


def load_parent(run: Experiment, objective: str, folder: str | Path) -> Tuned:
    """The parent's network, such as a reward model, in evaluation mode."""
    return load(_base(run, objective), folder)


class Comparison:
    """A policy against an SFT model, the ``opponent``, with the reward model ``judge`` over both; both are folders.

    Create it after :meth:`Experiment.apply` and before the training: the present policy becomes the reference. It
    records two scores at once: the mean reward of the opponent's answers (split ``base``), and ``reward_accuracy``, the
    share of test pairs that the reward model orders correctly.

    None of the three is in memory while the policy trains, unless the objective asks for the :attr:`reward`.
    """

    def __init__(self, run: Experiment, judge: str | Path, opponent: str | Path) -> None:
        self.after: Evaluation | None = None
        self.prompts = [example.prompt for example in run.data.test]
        self._run = run
        self._tuned = run.applied()
        self._reference = _ReferenceOnDisk(self._tuned)
        self._judge = _Judge(run, judge)
        self.before = self._once("sft", opponent, partial(load_parent, run, "sft", opponent))
        run.add_scores("base", self._mean_reward(self.before))
        of_pairs = self._once("reward", judge, self._judge.network).primary
        run.add_scores("test", dataclasses.replace(of_pairs, metric="reward_accuracy"))
        self.release_judge()

    @property
    def reward(self) -> Reward:
        """The judge as a reward for training; its network stays in memory until :meth:`release_judge`."""
        self._judge.network()
        return self._judge

    def release_judge(self) -> None:
        """Free the memory of the reward model until the next judgement."""
        self._judge.release()

    def record(self) -> Evaluation:
        """Evaluate the policy, and record its comparison on test: win rate, KL and mean reward.

        The win rate uses the task's first text metric. A task without one has no win rate.
        """
        self.release_judge()
        run, spec = self._run, self._run.data.spec
        evaluation = self.after = run.evaluate()
        if of_text := spec.metrics_of_text:
            run.add_scores("test", alignment.win_rate(of_text[0], evaluation, self.before))
        reference, length = self._reference.load(), run.budget.max_length
        run.add_scores(
            "test",
            alignment.kl_to_reference(self._tuned, reference, self.prompts, spec.max_new_tokens, length),
            self._mean_reward(evaluation),
        )
        self.release_judge()
        return evaluation

    def __repr__(self) -> str:
        """Scores before training and, once recorded, after it, with the first answers side by side."""
        answers = [
            "\n" + "\n".join(f"{name + ':':<8} {shortened(text)}" for name, text in zip(_SIDES, row, strict=True))
            for row in self._answers()
        ]
        return "\n".join([*self._scores(), *answers])

    def _repr_html_(self) -> str:
        """The same for Jupyter."""
        rows = self._answers()
        return html_lines(self._scores()) + (html_table(_SIDES, rows) if rows else "")

    def _once(self, objective: str, folder: str | Path, network: Callable[[], Tuned]) -> Evaluation:
        """What a parent answers on test; it is evaluated for the first of the trials that share it."""
        base, length = _base(self._run, objective), self._run.budget.max_length
        return untouched.evaluation(base, self._run.data, "test", length, network, Path(folder))

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
        return alignment.mean_reward(self._judge, self.prompts, [answer.output for answer in evaluation.answers])


class _Judge:
    """A reward model as a :data:`Reward`; its network is loaded at the first judgement and stays until its release."""

    def __init__(self, run: Experiment, folder: str | Path) -> None:
        self._run, self._folder = run, folder
        self._network: Tuned | None = None

    def network(self) -> Tuned:
        if self._network is None:
            self._network = load_parent(self._run, "reward", self._folder)
        return self._network

    def release(self) -> None:
        self._network = None
        gc.collect()  # networks hold themselves by their hooks

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
        max_length, max_new_tokens = self._run.budget.max_length, self._run.data.spec.max_new_tokens
        return scorer(self.network(), max_length, max_new_tokens)(prompts, answers)


class _ReferenceOnDisk:
    """A copy of the present policy on disk: in memory it would be a second network during a full fine-tune."""

    def __init__(self, tuned: Tuned) -> None:
        self._tuned = tuned
        self._folder = tempfile.TemporaryDirectory(prefix="tunebench-reference-")
        self._file = Path(self._folder.name) / "weights.safetensors"
        save_file({name: p.detach().contiguous() for name, p in tuned.trainable.items()}, self._file)

    def load(self) -> Reference:
        """The policy as it was, in memory."""
        return Reference(self._tuned, load_file(self._file, device=str(self._tuned.base.device)))


def _base(run: Experiment, objective: str) -> Base:
    return dataclasses.replace(run.base, scalar=catalog.objective(objective).scalar)
