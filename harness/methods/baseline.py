"""No training: what the model can do as it comes, zero-shot or with examples in context (Brown et al. 2020,
arXiv:2005.14165)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from harness.arguments import Natural
from harness.errors import InputError
from harness.models.load import Base
from harness.models.whole_texts import padding_behind_text
from harness.networks.pooling import mean_pooled
from harness.networks.structure import body
from harness.networks.tuned import Tuned
from harness.tasks.data import Example, TaskData
from harness.tasks.encode import cut_text, free_answer_tokens, text_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LabelSimilarity(nn.Module):
    """Zero-shot classification with an encoder: the label whose words are nearest to the text.

    Logits of shape (batch, labels): cosine of the mean-pooled last hidden states of text and label
    (Yin et al. 2019, arXiv:1909.00161).
    """

    def __init__(self, encoder: nn.Module, labels: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        padding_behind_text(self)
        with torch.no_grad():
            self.register_buffer("labels", self._embed(**labels))

    def _embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
        return nn.functional.normalize(mean_pooled(self.encoder, input_ids, attention_mask), dim=-1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        """Logits of each label; token ids and mask of shape (batch, tokens)."""
        return SequenceClassifierOutput(logits=self._embed(input_ids, attention_mask) @ self.labels.T)


class NoOpinion(nn.Module):
    """An encoder that was not trained to say a number: 0 for every text, which stands for the mean of training.

    Logits of shape (batch, 1).
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        """Zeros, after the work that a head's body does; token ids and mask of shape (batch, tokens)."""
        return SequenceClassifierOutput(logits=mean_pooled(self.encoder, input_ids, attention_mask)[:, :1] * 0)


def zero_shot(base: Base, model: nn.Module) -> nn.Module:
    """``model``, frozen, as it answers untrained: an encoder by the similarity of text and label, or not at all."""
    if base.learns_number:
        return NoOpinion(body(model)).eval().requires_grad_(False)
    if base.has_head and base.labels:
        words = base.tokenizer(list(base.labels), padding=True, return_tensors="pt").to(base.device)
        model = LabelSimilarity(body(model), dict(words)).eval()
    return model.requires_grad_(False)


def apply(base: Base, shots: Natural = 0) -> Tuned:
    """The model itself, with nothing trainable.

    ``shots`` examples go before every prompt, which changes the data and not the model: see :func:`in_context`. Raises
    :class:`harness.errors.InputError` for an encoder with shots, because it reads no examples.
    """
    if shots and base.kind == "encoder":
        raise InputError(f"baseline.shots: {shots} on '{base.spec.name}' ({base.kind}); examples need a decoder")
    return Tuned(base, zero_shot(base, base.build()))


def in_context(
    data: TaskData, shots: int, tokenizer: PreTrainedTokenizerBase | None = None, max_length: int = 0
) -> TaskData:
    """``data`` with the same ``shots`` solved training examples before every prompt of validation and test.

    They are the first examples of the training split, in its order. In a classification task the classes take turns, so
    that no class is missing by chance. Blank lines stand between the examples (Brown et al. 2020, section 2.4). With a
    ``tokenizer`` they have at most ``max_length`` tokens each, on average: where they are longer, each is cut to that,
    so that they take nothing of the room of the question behind them.
    """
    if not shots:
        return data
    examples = _taking_turns(data)[:shots]
    shown = _solved(examples)
    if tokenizer is not None and len(text_ids(tokenizer, shown)) > shots * max_length:
        shown = _solved([_shortened(tokenizer, e, max_length, data.spec.max_new_tokens) for e in examples])

    def prompted(split: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(replace(e, prompt=shown + e.prompt) for e in split)

    return replace(data, validation=prompted(data.validation), test=prompted(data.test))


def _solved(examples: Sequence[Example]) -> str:
    """The prompts of ``examples`` with their answers."""
    return "".join(f"{e.prompt.rstrip()} {e.completion}\n\n" for e in examples)


def _shortened(tokenizer: PreTrainedTokenizerBase, example: Example, max_length: int, max_new_tokens: int) -> Example:
    """``example`` whose prompt and answer have ``max_length`` tokens; a label stays whole."""
    ids_of = partial(text_ids, tokenizer)
    free = max(free_answer_tokens(max_new_tokens, max_length), 1)
    answer = example.completion if example.candidates else cut_text(tokenizer, example.completion, free, ids_of)
    room = max(max_length - len(ids_of(f" {answer}\n\n")), 1)
    return replace(example, prompt=cut_text(tokenizer, example.prompt, room, ids_of), completion=answer)


def _taking_turns(data: TaskData) -> list[Example]:
    """The training examples; in a classification task one of each class, then the next of each, and so on."""
    seen: Counter[int | None] = Counter()
    turns: list[int] = []
    for example in data.train:
        turns.append(seen[example.label] if data.kind == "classification" else 0)
        seen[example.label] += 1
    order = sorted(range(len(turns)), key=lambda i: turns[i])
    return [data.train[i] for i in order]
