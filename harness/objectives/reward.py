r"""Reward model: one number for an answer, learnt from pairs (Ouyang et al. 2022, arXiv:2203.02155).

.. math:: \mathcal{L} = -\log\sigma\big(r_\phi(x, y_w) - r_\phi(x, y_l)\big)

This is the model of paired comparisons of Bradley & Terry 1952. The base is loaded with a single fresh output
(``scalar``) that reads the last token; any method trains it and what is below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from harness.arguments import Weight
from harness.errors import InputError
from harness.networks.tuned import Tuned
from harness.tasks.data import TaskData
from harness.tasks.encode import encode, free_answer_tokens
from harness.tasks.logprobs import Batch, completion_batches
from harness.training.pairs import PairCollator, about, halves, training_pairs
from harness.training.rollouts import Reward
from harness.training.trainer import History, Settings, train


def fit(tuned: Tuned, data: TaskData, settings: Settings, center: Weight = 0.0) -> History:
    """Train in place on pairs; ``center`` weighs the squared sum of a pair's rewards, which pulls their mean to 0.

    Curves: ``reward_accuracy``, ``reward_margin``. Raises :class:`harness.errors.InputError` when the network has no
    scalar output.
    """
    if not tuned.base.scalar:
        raise InputError("objective 'reward': the base must be loaded with a scalar output")
    collate = PairCollator(tuned.base.tokenizer.pad_token_id)

    def objective(model: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        chosen, rejected = halves(rewards(model, batch))
        margin = chosen - rejected
        loss = -logsigmoid(margin).mean() + center * ((chosen + rejected) ** 2).mean()
        return loss, {
            "reward_margin": margin.detach().mean(),
            "reward_accuracy": (margin.detach() > 0).float().mean(),
        }

    examples = training_pairs(tuned.base.tokenizer, data, settings.budget.max_length)
    return train(tuned, examples, collate, settings, objective, **about(examples))


def rewards(model: Any, batch: Batch) -> torch.Tensor:
    """Rewards of a batch, of shape (rows,)."""
    logits: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits.float().squeeze(-1)


def scorer(tuned: Tuned, max_length: int, max_new_tokens: int, batch_size: int = 32) -> Reward:
    """The trained reward model as a function of texts, in evaluation mode and without gradients.

    As in training, prompts are cut, and the end token closes answers.
    """
    room = free_answer_tokens(max_new_tokens, max_length)
    tokenizer, device = tuned.base.tokenizer, tuned.base.device

    def reward(prompts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
        tuned.model.eval()
        texts = zip(prompts, answers, strict=True)
        rows = [encode(tokenizer, prompt, answer, max_length, room) for prompt, answer in texts]
        batch_rewards = []
        for batch in completion_batches(rows, tokenizer.pad_token_id, device, batch_size):
            with torch.no_grad():
                batch_rewards.append(rewards(tuned.model, batch))
        return torch.cat(batch_rewards)

    return reward
