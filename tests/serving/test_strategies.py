"""Every strategy answers as each tenant alone: the same logits to 1e-5, in whatever order and company rows come."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
import torch
from helpers.tenants import alone, trained
from torch import Tensor, nn

from harness.errors import InputError
from harness.models.load import Base
from harness.networks.tuned import Tuned
from harness.serving.serve import Strategy, begin, serve
from harness.serving.strategies import Batched, Copies, OneAdapter, PeftMixed, Swapped, merge, peft_model
from harness.serving.tenant import Tenant, tenant_of

pytestmark = pytest.mark.slow

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
STEPS = 3


def prompts(rows: int, tokens: int = 6) -> Tensor:
    return torch.randint(3, 250, (rows, tokens), generator=torch.Generator().manual_seed(rows))


@torch.inference_mode()
def logits(strategy: Strategy, tenants: Sequence[int | None], ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """(rows, steps, vocabulary) of greedy decoding."""
    out: dict[int, Tensor] = {}
    for rows in strategy.passes(tenants):
        running = begin(strategy, [tenants[row] for row in rows], ids[rows], None if mask is None else mask[rows])
        steps = [running.logits]
        for _ in range(STEPS - 1):
            running.step(running.logits.argmax(-1))
            steps.append(running.logits)
        out |= dict(zip(rows, torch.stack(steps, 1), strict=True))
    return torch.stack([out[row] for row in range(len(ids))])


def one_by_one(tuned: Sequence[Tuned], network: nn.Module, tenants: Sequence[int | None], ids: Tensor) -> Tensor:
    models = [network if tenant is None else tuned[tenant].model for tenant in tenants]
    return torch.stack([alone(model, row, STEPS) for model, row in zip(models, ids, strict=True)])


def test_every_kind_in_one_batch_answers_as_it_does_alone(
    tuned: list[Tuned], tenants: list[Tenant], network: nn.Module
) -> None:
    rows = [3, None, *range(len(tenants)), 0, 9, None, 4]
    ids = prompts(len(rows))
    served = logits(Batched(network, tenants, "all"), rows, ids)
    torch.testing.assert_close(served, one_by_one(tuned, network, rows, ids), **CLOSE)
    base_row, same = served[1], begin(Batched(network, tenants, "all"), [None] * 2, ids[1:3]).logits[0]
    assert torch.equal(base_row[0].argmax(), same.argmax())


def test_the_order_of_rows_and_their_company_do_not_matter(tenants: list[Tenant], network: nn.Module) -> None:
    strategy = Batched(network, tenants, "all")
    rows = [*range(len(tenants)), None]
    ids = prompts(len(rows))
    served = logits(strategy, rows, ids)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).tolist()
    shuffled = logits(strategy, [rows[place] for place in order], ids[order])
    torch.testing.assert_close(shuffled, served[order], **CLOSE)
    for row in (0, 5, 9):
        torch.testing.assert_close(logits(strategy, [rows[row]], ids[row : row + 1])[0], served[row], **CLOSE)


def test_texts_of_different_length_are_padded_on_the_left(
    tuned: list[Tuned], tenants: list[Tenant], network: nn.Module
) -> None:
    rows, lengths = [0, 4, 5, 6, None], [6, 3, 6, 2, 4]
    ids = prompts(len(rows))
    mask = torch.stack([torch.arange(6) >= 6 - length for length in lengths]).long()
    served = logits(Batched(network, tenants, "all"), rows, ids * mask, mask)
    for row, (tenant, length) in enumerate(zip(rows, lengths, strict=True)):
        model = network if tenant is None else tuned[tenant].model
        torch.testing.assert_close(served[row], alone(model, ids[row, -length:], STEPS), **CLOSE)


def test_rows_of_the_base_keep_every_bit(tenants: list[Tenant], network: nn.Module) -> None:
    """A row without a tenant gets what the base gives for the same batch."""
    rows: list[int | None] = [0, None, 2, 9, None, 8]
    ids = prompts(len(rows))
    served = begin(Batched(network, tenants, "all"), rows, ids).logits
    base = begin(Batched(network, tenants, "all"), [None] * len(rows), ids).logits
    assert torch.equal(served[[1, 4]], base[[1, 4]])
    assert not torch.allclose(served[[0, 2, 3, 5]], base[[0, 2, 3, 5]], atol=1e-3)


STRATEGIES: dict[str, Callable[[Base, nn.Module, list[Tenant]], Strategy]] = {
    "copies": lambda base, _network, tenants: Copies([merge(base.build(), tenant) for tenant in tenants]),
    "swapped": lambda base, _network, tenants: Swapped(base.build(), tenants),
    "one adapter": lambda _base, network, tenants: OneAdapter(peft_model(network, tenants)),
    "peft mixed": lambda _base, network, tenants: PeftMixed(peft_model(network, tenants)),
    "batched": lambda _base, network, tenants: Batched(network, tenants, "batched LoRA"),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_of_lora_gives_the_tokens_of_each_tenant_alone(
    name: str, base: Base, network: nn.Module, tuned: list[Tuned], tenants: list[Tenant]
) -> None:
    strategy = STRATEGIES[name](base, network, tenants[:2])
    rows: list[int | None] = [1, 0, 1, 1, 0]
    ids = prompts(len(rows))
    for _ in range(2):  # a second batch finds everything as the first did
        served = logits(strategy, rows, ids)
        torch.testing.assert_close(served, one_by_one(tuned, network, rows, ids), **CLOSE)
    answered = serve(strategy, rows, ids, STEPS)
    assert torch.equal(answered.tokens, served.argmax(-1))
    assert len(answered.swap_s) == (2 if name in ("copies", "swapped", "one adapter") else 1)
    assert len(answered.steps_s) == STEPS - 1 and min(answered.steps_s) > 0
    assert answered.prefill_s >= sum(answered.swap_s)
    # 2 layers, keys and values, 2 heads of 16, float32, 5 rows of 6 + 2 tokens
    assert answered.cache_bytes == 2 * 2 * 2 * 16 * 4 * 5 * (6 + STEPS - 1)


def test_the_clock_of_a_prefill_starts_before_the_swap(
    base: Base, tenants: list[Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that moves by a second whenever it is read: getting ready, the first token, and each step take one."""
    seconds = itertools.count()
    monkeypatch.setattr("harness.serving.serve.time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))
    answered = serve(Swapped(base.build(), tenants), [0, 0, 1], prompts(3), new_tokens=3)
    assert (answered.swap_s, answered.prefill_s, answered.steps_s) == ([1.0, 1.0], 4.0, [2.0, 2.0])


@pytest.mark.parametrize("name", ["swapped", "one adapter", "peft mixed", "batched"])
def test_the_base_is_served_too(name: str, base: Base, network: nn.Module, tenants: list[Tenant]) -> None:
    strategy = STRATEGIES[name](base, network, tenants[:2])
    ids = prompts(3)
    served = logits(strategy, [1, None, 0], ids)
    torch.testing.assert_close(served[1], alone(network, ids[1], STEPS), **CLOSE)


def test_there_is_no_copy_of_the_base(network: nn.Module) -> None:
    with pytest.raises(InputError, match="no copy of the base"):
        Copies([network]).ready([None])


def test_a_swap_leaves_no_trace(base: Base, network: nn.Module, tenants: list[Tenant]) -> None:
    strategy = Swapped(base.build(), tenants[:2])
    for tenant in (0, 1, 0, None):
        strategy.ready([tenant])
    for (name, swapped), plain in zip(strategy.network.named_parameters(), network.parameters(), strict=True):
        assert torch.equal(swapped, plain), name


def test_a_tenant_takes_the_place_of_another(base: Base, network: nn.Module, tenants: list[Tenant]) -> None:
    for strategy in (Batched(network, tenants, "all"), Swapped(base.build(), tenants[:2])):
        coming = tenant_of(trained(base, "lora", 77, r=1), network, "new")
        strategy.ready([0])
        strategy.replace(0, coming)
        ids = prompts(1)
        there = logits(Batched(network, [coming], "one"), [0], ids)
        torch.testing.assert_close(logits(strategy, [0], ids), there, **CLOSE)
    with pytest.raises(InputError, match="rank 6 does not fit; valid: at most 5"):
        Batched(network, tenants, "all").replace(1, tenant_of(trained(base, "lora", 1, r=6), network, "wide"))


def test_what_was_gathered_for_a_tenant_goes_with_it(base: Base, network: nn.Module, tenants: list[Tenant]) -> None:
    rows, ids = [0, 0, 1], prompts(3)[:, :1]  # of single tokens, each row gets matrices of its own
    strategy = Batched(network, tenants[:2], "both")
    coming = tenant_of(trained(base, "lora", 77, r=1), network, "new")
    before = logits(strategy, rows, ids)
    strategy.replace(0, coming)
    after = logits(strategy, rows, ids)
    torch.testing.assert_close(after, logits(Batched(network, [coming, tenants[1]], "fresh"), rows, ids), **CLOSE)
    assert not torch.allclose(after[:2], before[:2])


def test_a_quantised_base_carries_lora_too(base: Base, network: nn.Module) -> None:
    rows = [1, 0]
    tuned = [trained(base, "qlora", seed, r=rank) for seed, rank in enumerate((2, 4))]
    tenants = [tenant_of(one, network, str(place)) for place, one in enumerate(tuned)]
    held = tuned[0].model.unload()
    ids = prompts(2)
    served = logits(Batched(held, tenants, "NF4"), rows, ids)
    again = [trained(base, "qlora", seed, r=rank) for seed, rank in enumerate((2, 4))]
    torch.testing.assert_close(served, one_by_one(again, network, rows, ids), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="the base is quantised"):
        Swapped(held, tenants)


@pytest.mark.parametrize(
    ("method", "args", "said"),
    [
        ("full", {}, "cannot be served beside others"),
        ("dora", {}, "DoRA cannot be served"),
        ("lora", {"init": "pissa"}, "init 'pissa', which changes the base,"),
        ("adapter", {"variant": "parallel"}, "valid: houlsby, pfeiffer"),
        ("ia3", {}, "of ia3 cannot be served"),
        ("bitdelta", {}, "'embeddings: false'"),
    ],
)
def test_what_cannot_be_served_whole_is_refused(
    method: str, args: dict[str, object], said: str, base: Base, network: nn.Module
) -> None:
    with pytest.raises(InputError, match=said):
        tenant_of(trained(base, method, 0, **args), network, "x")
