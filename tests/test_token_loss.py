"""The loss with logits at the learnt tokens alone, against the loss that the network computes itself."""

from __future__ import annotations

import pytest
import torch

from harness import catalog, methods
from harness.measure.flops import FlopCounter
from harness.models.load import load
from harness.objectives.token_loss import learnt_positions, token_loss
from harness.objectives.training import own_loss
from harness.tasks.logprobs import IGNORED

TRAINED = [name for name, entry in catalog.METHODS.items() if entry.trains]


def prompts_and_completions() -> dict[str, torch.Tensor]:
    """Three rows of twelve tokens: prompts of 8, 5 and 5, the second row padded by 3."""
    ids = torch.randint(3, 250, (3, 12), generator=torch.Generator().manual_seed(0))
    mask, labels = torch.ones_like(ids), ids.clone()
    labels[0, :8] = labels[1:, :5] = IGNORED
    mask[1, 9:], labels[1, 9:] = 0, IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def test_positions_are_the_labels_that_count_and_never_the_first_token() -> None:
    labels = torch.tensor([[5, 6, IGNORED, 7], [IGNORED, IGNORED, IGNORED, 8]])
    rows, columns = learnt_positions(labels)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (0, 3), (1, 3)]


@pytest.mark.parametrize("method", TRAINED)
def test_loss_and_gradients_are_those_of_the_full_logits(method: str) -> None:
    tuned = methods.apply(method, load("tiny-llama", device="cpu"))
    batch, found = prompts_and_completions(), []
    tuned.model.train()
    for loss in (own_loss, token_loss):
        tuned.model.zero_grad()
        value = loss(tuned.model, batch)[0]
        value.backward()
        found.append((value.detach(), {n: p.grad.clone() for n, p in tuned.trainable.items() if p.grad is not None}))
    (whole, reference), (selected, gradients) = found
    torch.testing.assert_close(selected, whole, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == reference.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, reference[name], rtol=1e-4, atol=1e-6, msg=name)


def test_only_the_learnt_tokens_reach_the_vocabulary() -> None:
    tuned = methods.apply("full", load("tiny-llama", device="cpu"))
    batch = prompts_and_completions()
    flops = []
    for loss in (own_loss, token_loss):
        with FlopCounter() as counter:
            loss(tuned.model, batch)
        flops.append(counter.flops)
    learnt = int((batch["labels"] != IGNORED).sum())
    width, vocabulary = tuned.model.lm_head.weight.shape[::-1]
    assert flops[0] - flops[1] == 2 * (batch["labels"].numel() - learnt) * width * vocabulary


def test_the_network_is_left_as_it_was() -> None:
    tuned = methods.apply("full", load("tiny-llama", device="cpu"))
    batch = prompts_and_completions()
    before = tuned.model(input_ids=batch["input_ids"]).logits
    token_loss(tuned.model, batch)
    with pytest.raises(RuntimeError):
        token_loss(tuned.model, {**batch, "input_ids": batch["input_ids"].float()})
    assert torch.equal(tuned.model(input_ids=batch["input_ids"]).logits, before)
