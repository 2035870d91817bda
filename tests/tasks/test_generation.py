"""A prompt gets the same answer alone, in a padded batch, and from plain forward passes, whatever the method."""

from __future__ import annotations

import pytest
import torch

from harness import catalog, methods
from harness.models.load import load
from harness.networks.tuned import Tuned
from harness.tasks.evaluate import generate_ids

NEW_TOKENS = 8


def shaken(method: str) -> Tuned:
    """A tiny model with weights and trained parameters large enough for answers to differ."""
    tuned = methods.apply(method, load("tiny-llama", device="cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.model.parameters():
            if parameter.ndim == 2 and parameter.is_floating_point():
                parameter.mul_(6)
        for parameter in tuned.trainable.values():
            parameter.normal_(std=0.5, generator=generator)
    return tuned


@torch.no_grad()
def by_forward_passes(tuned: Tuned, prompt: list[int]) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + NEW_TOKENS:
        batch = torch.tensor([ids])
        best = int(tuned.model(input_ids=batch, attention_mask=torch.ones_like(batch)).logits[0, -1].argmax())
        if best == tuned.base.tokenizer.eos_token_id:
            break
        ids.append(best)
    return ids[len(prompt) :]


@pytest.mark.parametrize("method", ["baseline", "full", "bitfit", "adapter", "prompt", "prefix", "lora"])
def test_the_same_answer_in_a_padded_batch_alone_and_by_forward_passes(method: str) -> None:
    assert method in catalog.METHODS
    tuned = shaken(method)
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, 250, (length,), generator=generator).tolist() for length in (20, 1, 37, 7)]
    expected = [by_forward_passes(tuned, prompt) for prompt in prompts]
    assert len({tuple(answer) for answer in expected}) > 1, "all answers alike would prove nothing"
    assert generate_ids(tuned, prompts, NEW_TOKENS, batch_size=4) == expected
    assert [generate_ids(tuned, [prompt], NEW_TOKENS)[0] for prompt in prompts] == expected
