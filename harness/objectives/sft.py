r"""Supervised fine-tuning (Ouyang et al. 2022, arXiv:2203.02155, step 1).

.. math:: \mathcal{L} = -\frac{1}{|y|} \sum_t \log p_\theta(y_t \mid x, y_{<t})

The loss is on the completion :math:`y` alone; the prompt :math:`x` is read but not learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from peft import PeftModel

from harness.arguments import Count, Word
from harness.errors import InputError, unknown
from harness.execution import NotActive
from harness.networks.tuned import Tuned
from harness.tasks import data as tasks
from harness.tasks.data import Example, TaskData
from harness.tasks.dialogue import dialogue_within
from harness.tasks.encode import Encoded
from harness.tasks.kept_tokens import encode_once
from harness.tasks.logprobs import IGNORED, completion_batch
from harness.tasks.turns import parse_turns
from harness.training.head_loss import head_loss
from harness.training.mixing import mix
from harness.training.packing import PackingCollator, by_example, packed_loss
from harness.training.token_loss import token_loss
from harness.training.trainer import History, Settings, train


class CompletionCollator:
    """Pads on the right and labels the completion's tokens only; tensors of shape (batch, longest)."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad = pad_token_id

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Token ids, mask and labels of one batch."""
        width = max(len(e["input_ids"]) for e in examples)

        def padded(name: str, fill: int) -> torch.Tensor:
            return torch.tensor([[*e[name], *[fill] * (width - len(e[name]))] for e in examples])

        mask = torch.tensor([[1] * len(e["input_ids"]) + [0] * (width - len(e["input_ids"])) for e in examples])
        return {
            "input_ids": padded("input_ids", self._pad),
            "attention_mask": mask,
            "labels": padded("labels", IGNORED),
        }


def training_example(encoded: Encoded) -> dict[str, Any]:
    """Token ids, labels without those of the prompt, and whether tokens were cut."""
    return {
        "input_ids": [*encoded.prompt, *encoded.completion],
        "labels": [IGNORED] * len(encoded.prompt) + list(encoded.completion),
        "cut": encoded.cut,
    }


def fit(
    tuned: Tuned,
    data: TaskData,
    settings: Settings,
    packing: bool = False,
    dialogue_field: Word | None = None,
    mix_with: Sequence[Word] = (),
    mix_cap: Count | None = None,
    staged: bool = False,
) -> History:
    """Train a decoder, or an encoder-decoder, on prompt and completion, in place.

    ``packing`` joins the examples of a batch instead of padding them. ``dialogue_field`` names the field with the turns
    as JSON; every turn of the assistant is then learnt (:mod:`harness.tasks.dialogue`).

    ``mix_with`` names tasks whose training examples are mixed in, in proportion to their sizes, each counted up to
    ``mix_cap``; the number of examples stays the budget's. ``staged`` trains on these tasks first and on the task
    itself last. Raises :class:`harness.errors.InputError` for an unknown task or field, for packing with virtual
    tokens, and for packing or dialogues on an encoder-decoder, and :class:`harness.execution.NotActive` where the
    execution cannot be what the settings ask for.
    """
    tokenizer, budget, apart = tuned.base.tokenizer, settings.budget, tuned.base.reads_apart
    packing = packing or settings.execution.packing
    if packing and isinstance(tuned.model, PeftModel) and tuned.model.active_peft_config.is_prompt_learning:
        raise InputError(f"packing: '{tuned.method}' puts virtual tokens before a row, not before each example in it")

    if data.spec.name in mix_with:
        raise InputError(f"mix_with: '{data.spec.name}' is the task itself; name others")
    if apart and (packing or dialogue_field is not None):
        name = "packing" if packing else "dialogue_field"
        raise InputError(f"{name}: '{tuned.base.spec.name}' reads prompts and answers apart; it needs a decoder")

    mixed_in = {name: tasks.load(name, budget, settings.seed) for name in mix_with}

    def encoded(part: TaskData) -> Sequence[Any]:
        if dialogue_field is not None:
            answer = part.spec.max_new_tokens
            return [_dialogue_example(tokenizer, e, dialogue_field, budget.max_length, answer) for e in part.train]
        rows = encode_once(tokenizer, part.train, budget.max_length, part.spec.max_new_tokens, apart)
        return rows if apart else [training_example(row) for row in rows]

    rows = encoded(data)
    if mix_with:
        others = {name: encoded(part) for name, part in mixed_in.items()}
        rows = mix({**others, data.spec.name: rows}, len(rows), mix_cap, staged)
    about_rows: dict[str, Any] = {
        "ordered": bool(mix_with) and staged,
        # One label's examples may be longer than another's (:mod:`harness.training.batches`).
        "lengths": None if data.spec.has_one_answer else [len(row if apart else row["input_ids"]) for row in rows],
        "cut": [row.cut if apart else row["cut"] for row in rows],
    }
    at_head = head_loss(tuned.model, settings.execution.loss)
    about_rows["token_loss"] = settings.execution.loss
    if packing:
        shared = settings.execution.shared_prompts
        if shared and tuned.own_loss is not None:
            raise NotActive(f"execution.shared_prompts: '{tuned.method}' has a loss of its own, also of the prompts")
        with by_example(tuned, budget.max_length, shared):
            loss = partial(packed_loss, at_head=at_head)
            return train(tuned, rows, PackingCollator(shared), settings, loss=loss, **about_rows)
    collate: Any = CompletionCollator(tokenizer.pad_token_id)
    if apart:
        collate = partial(completion_batch, pad_token_id=tokenizer.pad_token_id, start=tuned.base.decoder_start_id)
    return train(tuned, rows, collate, settings, loss=partial(token_loss, at_head=at_head), **about_rows)


def _dialogue_example(
    tokenizer: Any, example: Example, field: str, max_length: int, max_new_tokens: int
) -> dict[str, Any]:
    if field not in example.fields:
        raise unknown("dialogue_field", field, example.fields)
    ids, learnt, cut = dialogue_within(tokenizer, parse_turns(example.fields[field]), max_length, max_new_tokens)
    return {
        "input_ids": ids,
        "labels": [token if learn else IGNORED for token, learn in zip(ids, learnt, strict=True)],
        "cut": cut,
    }
