r"""Best of n: sample n answers, keep the one with the highest reward (Stiennon et al. 2020, arXiv:2009.01325).

Without training it is a way to answer; learnt by supervised fine-tuning it is rejection sampling (Touvron et al. 2023,
arXiv:2307.09288, section 3.2.3). Its distance to the sampling policy is known without measuring:
:math:`KL \le \log n - \frac{n-1}{n}`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from harness.arguments import Count, Positive
from harness.networks.tuned import Tuned
from harness.objectives import sft
from harness.tasks.data import TaskData
from harness.training.rollouts import Reward, Sample, sample
from harness.training.trainer import History, Point, Settings


@dataclass(frozen=True)
class Candidates:
    """Answers to each prompt, with their rewards."""

    answers: tuple[tuple[Sample, ...], ...]
    """By prompt, then by sample."""
    rewards: torch.Tensor
    """Shape (prompts, samples)."""

    @property
    def best(self) -> list[Sample]:
        """The answer with the highest reward to each prompt."""
        return [row[int(i)] for row, i in zip(self.answers, self.rewards.argmax(-1), strict=True)]


def candidates(
    tuned: Tuned,
    prompts: Sequence[str],
    reward: Reward,
    n: int,
    max_new_tokens: int,
    max_length: int,
    temperature: float = 1.0,
) -> Candidates:
    """``n`` samples to each prompt, scored."""
    repeated = [prompt for prompt in prompts for _ in range(n)]
    answers = sample(tuned, repeated, max_new_tokens, max_length, temperature)
    scores = reward(repeated, [answer.text for answer in answers]).float().cpu().view(len(prompts), n)
    rows = tuple(tuple(answers[i * n : (i + 1) * n]) for i in range(len(prompts)))
    return Candidates(rows, scores)


def expected_best(rewards: torch.Tensor, n: int) -> torch.Tensor:
    r"""Expected highest reward among ``n`` of the N samples of each prompt, drawn without replacement; (prompts,).

    Unbiased, from all N: :math:`\sum_i r_{(i)} \binom{i-1}{n-1} / \binom{N}{n}` over the rewards in ascending order.
    """
    total = rewards.shape[-1]
    weights = [math.comb(i, n - 1) / math.comb(total, n) for i in range(total)]
    return rewards.sort(-1).values @ torch.tensor(weights, dtype=rewards.dtype)


def kl_bound(n: int) -> float:
    """KL of the best of ``n`` to the sampling policy, at most; in nats per answer (Beirami et al. 2024, 2401.01879)."""
    return math.log(n) - (n - 1) / n


def fit(
    tuned: Tuned,
    data: TaskData,
    settings: Settings,
    reward: Reward,
    n: Count = 4,
    temperature: Positive = 1.0,
    after_sampling: Callable[[], None] | None = None,
) -> History:
    """Sample ``n`` answers to every training prompt, keep the best, and fine-tune on them in place.

    ``after_sampling`` is called after the last reward, for example to free the reward model.

    Curves: ``reward`` and ``best_reward``, the means over all samples and over the best ones, at step 1. Sampling is
    part of ``train_s``, but of no step.
    """
    start = time.perf_counter()
    torch.manual_seed(settings.seed)
    samples = candidates(
        tuned,
        [e.prompt for e in data.train],
        reward,
        n,
        data.spec.max_new_tokens,
        settings.budget.max_length,
        temperature,
    )
    best_examples = [
        replace(example, completion=best.text, references=(best.text,))
        for example, best in zip(data.train, samples.best, strict=True)
        if best.text
    ]
    if after_sampling is not None:
        after_sampling()
    sampling_s = time.perf_counter() - start
    history = sft.fit(tuned, replace(data, train=tuple(best_examples)), settings)
    before = (
        Point(1, "reward", float(samples.rewards.mean())),
        Point(1, "best_reward", float(samples.rewards.max(-1).values.mean())),
    )
    return replace(history, train_s=sampling_s + history.train_s, curves=(*before, *history.curves))
