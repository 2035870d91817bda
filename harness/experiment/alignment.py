"""The extra metrics of alignment trials, each with its standard error over the examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.networks.tuned import Tuned
from harness.tasks.evaluate import Evaluation
from harness.tasks.metrics import Score, mean_score, score
from harness.training.online import kl_of_answers
from harness.training.rollouts import Reference, Reward, sample


def mean_reward(reward: Reward, prompts: Sequence[str], answers: Sequence[str]) -> Score:
    """Mean reward of the answers, in the unit of the reward model; compare it under one reward model only."""
    return mean_score("reward", reward(prompts, answers).tolist(), clusters=prompts)


def kl_to_reference(
    tuned: Tuned, reference: Reference, prompts: Sequence[str], max_new_tokens: int, max_length: int, seed: int = 0
) -> Score:
    """KL from the reference to the policy, in nats per answer, estimated on one sampled answer to each prompt.

    The estimate is unbiased; a single value may be negative.
    """
    torch.manual_seed(seed)
    answers = sample(tuned, prompts, max_new_tokens, max_length)
    kl = kl_of_answers(tuned, reference, [answer.ids for answer in answers]).tolist()
    return mean_score("kl", kl, clusters=prompts)


def win_rate(metric: str, ours: Evaluation, theirs: Evaluation) -> Score:
    """Share of examples on which our answer has the higher value of ``metric``; a tie counts half."""

    def values(evaluation: Evaluation) -> list[float]:
        scores = [score(metric, [answer.output], [answer.references]).value for answer in evaluation.answers]
        return [0.0 if value is None else value for value in scores]  # without a value, neither answer is ahead

    pairs = zip(values(ours), values(theirs), strict=True)
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]
    return mean_score("win_rate", wins, clusters=[answer.prompt for answer in ours.answers])
