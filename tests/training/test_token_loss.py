"""The loss with logits at the learnt tokens alone, against the loss that the network computes itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy

from harness import catalog, methods
from harness.measure.flops import FlopCounter
from harness.models.load import load
from harness.networks.tuned import Tuned
from harness.objectives import sft
from harness.tasks.logprobs import IGNORED
from harness.training.packing import PackingCollator, packed_loss
from harness.training.token_loss import learnt_positions, token_loss
from harness.training.trainer import loss_of, network_loss, train

pytestmark = pytest.mark.slow

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
    for loss in (network_loss, token_loss):
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
    for loss in (network_loss, token_loss):
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


ADALORA: dict[str, Any] = {
    "peft_type": "ADALORA",
    "config": {"init_r": 4, "target_r": 2, "orth_reg_weight": 0.5},
    "train_steps": 8,
}


def orthogonality(tuned: Tuned) -> float:
    """Equation 4 of Zhang et al. 2023 (arXiv:2303.10512) as a mean over the matrices, each by its Frobenius norm."""
    found = []
    for name, p in tuned.model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            square = p @ p.T if "lora_A" in name else p.T @ p
            found.append(float((square - torch.eye(len(square))).norm().detach()))
    return sum(found) / len(found)


@pytest.mark.parametrize("packing", [False, True])
def test_adalora_adds_its_orthogonality_to_the_objectives_loss(packing: bool) -> None:
    tuned = methods.apply("peft", toy.base(), **ADALORA)
    rows = [{"input_ids": [5, 6, 7, 8 + n], "labels": [IGNORED, IGNORED, 7, 8 + n]} for n in range(4)]
    collate, loss = (PackingCollator(), packed_loss) if packing else (sft.CompletionCollator(0), token_loss)
    cross_entropy = float(token_loss(tuned.model, sft.CompletionCollator(0)(rows))[0].detach())
    term = orthogonality(tuned)
    assert term > 0.1
    history = train(tuned, rows, collate, toy.settings(train_examples=4), loss=loss)
    assert history.losses[0] == pytest.approx(cross_entropy + 0.5 * term, rel=1e-5)


def test_the_term_is_there_once_where_the_network_computes_the_loss() -> None:
    tuned = methods.apply("peft", load("tiny-bert", labels=("a", "b"), device="cpu"), **ADALORA)
    rows = [{"input_ids": [5, 6, 7], "labels": n % 2} for n in range(4)]
    batch = {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")}
    logits = tuned.model(input_ids=batch["input_ids"]).logits
    expected = float(torch.nn.functional.cross_entropy(logits, batch["labels"]).detach()) + 0.5 * orthogonality(tuned)
    found = loss_of(tuned, network_loss)(tuned.model, batch)[0]
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_other_methods_add_nothing() -> None:
    for method in ("lora", "full", "prompt", "llama_adapter"):
        tuned = methods.apply(method, load("tiny-llama", device="cpu"))
        assert loss_of(tuned, token_loss) is token_loss
