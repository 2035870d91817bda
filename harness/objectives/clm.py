r"""Continued pre-training: next-token prediction on plain text (Gururangan et al. 2020, arXiv:2004.10964).

.. math:: \mathcal{L} = -\frac{1}{T} \sum_t \log p_\theta(x_t \mid x_{<t})

On text of a domain it is called DAPT, on the unlabelled text of the task itself TAPT; only the corpus differs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from harness.errors import InputError
from harness.networks.tuned import Tuned
from harness.objectives.sft import CompletionCollator
from harness.tasks.data import TaskData
from harness.tasks.likelihood import blocks
from harness.training.head_loss import head_loss
from harness.training.packing import PackingCollator, by_example, packed_loss
from harness.training.token_loss import token_loss
from harness.training.trainer import History, Settings, network_loss, train


def fit(tuned: Tuned, data: TaskData, settings: Settings) -> History:
    """Train a decoder in place on the texts, joined by end tokens and cut into blocks of ``max_length``.

    An example of the budget is one block. The number of steps is therefore that of any other objective, and no token is
    padding. Raises :class:`harness.errors.InputError` if the texts do not fill one block.
    """
    tokenizer, budget = tuned.base.tokenizer, settings.budget
    token_blocks = blocks(tokenizer, [e.completion for e in data.train], budget.max_length)[: budget.train_examples]
    if not token_blocks:
        raise InputError(
            f"budget.max_length: the texts of the task do not fill one block of {budget.max_length} tokens"
        )
    examples = [{"input_ids": block, "labels": block} for block in token_blocks]
    at_head = head_loss(tuned.model, settings.execution.loss)
    about: dict[str, Any] = {"cut": [False] * len(examples), "token_loss": settings.execution.loss}
    if settings.execution.packing:
        with by_example(tuned, budget.max_length):
            return train(tuned, examples, PackingCollator(), settings, partial(packed_loss, at_head=at_head), **about)
    loss = network_loss if at_head is None else partial(token_loss, at_head=at_head)
    return train(tuned, examples, CompletionCollator(tokenizer.pad_token_id), settings, loss, **about)
