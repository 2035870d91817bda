"""Shared by objectives that learn from their own answers: sampling with the KV cache, and a frozen policy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from harness.networks.tuned import Tuned
from harness.tasks.decoding import answer_text
from harness.tasks.encode import Encoded, cut_prompt, free_answer_tokens
from harness.tasks.evaluate import stop_ids
from harness.tasks.logprobs import padded

#: From prompts and their answers to one reward each, of shape (answers,).
Reward = Callable[[Sequence[str], Sequence[str]], torch.Tensor]


@dataclass(frozen=True)
class Sample:
    """One sampled answer."""

    prompt: str
    ids: Encoded
    """The ids of the prompt and of the answer, with the end token if the answer reached it."""
    text: str
    """The answer without special tokens and outer white space."""


@torch.no_grad()
def sample(
    tuned: Tuned,
    prompts: Sequence[str],
    max_new_tokens: int,
    max_length: int,
    temperature: float = 1.0,
    batch_size: int = 64,
) -> list[Sample]:
    """One answer to each prompt from the policy's own distribution: no top-k, no top-p, no penalty.

    Random numbers are torch's own; seed them. Prompts are cut as in training.
    """
    tokenizer, device = tuned.base.tokenizer, tuned.base.device
    tuned.model.eval()
    ends, room = stop_ids(tuned), free_answer_tokens(max_new_tokens, max_length)
    samples: list[Sample] = []
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        rows = [cut_prompt(tokenizer, prompt, max_length, room) for prompt in part]
        ids, mask = padded(rows, tokenizer.pad_token_id, device, side="left")
        output = tuned.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )
        for prompt, row, answer in zip(part, rows, output[:, ids.shape[1] :].tolist(), strict=True):
            first_end = next((place for place, token in enumerate(answer) if token in ends), len(answer))
            answer = answer[: first_end + 1]
            samples.append(Sample(prompt, Encoded(tuple(row), tuple(answer)), answer_text(tokenizer, answer)))
    return samples


class Reference:
    """The policy at the time of creation, for later questions: a copy of its trained parameters.

    The copy is lent to the same network, so every method shares all frozen weights. With an adapter the copy has the
    adapter's size; with full fine-tuning it is as large as a second network.
    """

    def __init__(self, tuned: Tuned, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """``weights``: the trainable parameters of the past, by name; None: those of now."""
        self._parameters = tuned.trainable
        source = self._parameters if weights is None else weights
        self._copies = {name: source[name].detach().clone() for name in self._parameters}

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Make the network answer as it did, within the block; gradients must neither be kept nor taken there."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._copies[name] = self._copies[name], parameter.data
