r"""RRHF: rank answers by likelihood as they are ranked by reward (Yuan et al. 2023, arXiv:2304.05302).

With the mean log-probability per token :math:`p_i` of each answer :math:`y_i` and its reward :math:`r_i`:

.. math:: \mathcal{L} = \sum_{r_i < r_j} \max(0, p_i - p_j) - \sum_t \log p_\theta(y_{best,t} \mid x, y_{best,<t})

No reference, no critic, no sampling while it trains. Here the answers of a prompt are the chosen and the rejected one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import relu

from harness.arguments import Weight
from harness.networks.tuned import Tuned
from harness.tasks.data import TaskData
from harness.tasks.logprobs import Batch, sequence_logprobs
from harness.training.pairs import PairCollator, about, halves, training_pairs
from harness.training.trainer import History, Settings, train


def rank_loss(scores: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """Equation 2 of the paper: how far each worse answer is above each better one; (n, answers) -> (n,)."""
    worse = rewards.unsqueeze(2) < rewards.unsqueeze(1)
    return (relu(scores.unsqueeze(2) - scores.unsqueeze(1)) * worse).sum((1, 2))


def fit(tuned: Tuned, data: TaskData, settings: Settings, sft_weight: Weight = 1.0) -> History:
    """Train in place on pairs; ``sft_weight`` weighs the likelihood of the best answer.

    That likelihood is the mean over the tokens, where the paper sums, so that long answers do not drown the ranking.
    Curves: ``rank_loss``, ``sft_loss``, ``reward_accuracy``.
    """

    def objective(model: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        total, tokens = sequence_logprobs(model, batch)
        chosen, rejected = halves(total / tokens)
        scores = torch.stack([chosen, rejected], 1)
        rank = rank_loss(scores, torch.tensor([[1.0, 0.0]], device=scores.device)).mean()
        best = -chosen.mean()
        return rank + sft_weight * best, {
            "rank_loss": rank.detach(),
            "sft_loss": best.detach(),
            "reward_accuracy": (chosen > rejected).float().mean(),
        }

    tokenizer = tuned.base.tokenizer
    examples = training_pairs(tokenizer, data, settings.budget.max_length)
    return train(tuned, examples, PairCollator(tokenizer.pad_token_id), settings, objective, **about(examples))
