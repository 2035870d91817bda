"""Known answers about RLHF: the mathematics by hand, and a policy that finds what is rewarded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import bitsandbytes
import pytest
import torch
from helpers import toy_tasks as toy
from hypothesis import given
from hypothesis import strategies as st

from harness import methods
from harness.objectives import best_of_n, ppo
from harness.tasks.data import Example
from harness.tasks.logprobs import completion_batch
from harness.training import advantages
from harness.training.rollouts import Reference, sample
from harness.training.trainer import History

pytestmark = pytest.mark.slow

OPTIONS = ppo.Options(
    updates=1,
    minibatch_size=None,
    gamma=1.0,
    lam=0.95,
    clip=0.2,
    value_clip=0.2,
    value_weight=0.1,
    whiten_rewards=False,
    temperature=1.0,
)
PROMPTS: list[Example] = [toy.example(f"{word}:", "-", "+") for word in ("ant", "bee", "cow", "dog")]


def test_advantages_equal_a_hand_computed_example() -> None:
    """Two answers of three and of two tokens; gamma 0.5, lambda 0.5."""
    rewards = torch.tensor([[0.0, 0.0, 1.0], [2.0, 1.0, 9.0]])
    values = torch.tensor([[0.2, 0.4, 0.6], [0.0, 1.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    # First answer: deltas 0 + 0.5*0.4 - 0.2 = 0, 0 + 0.5*0.6 - 0.4 = -0.1, 1 - 0.6 = 0.4.
    #   A3 = 0.4; A2 = -0.1 + 0.25 * 0.4 = 0; A1 = 0 + 0.25 * 0 = 0.
    # Second: deltas 2 + 0.5*1 - 0 = 2.5, 1 - 1 = 0. A2 = 0; A1 = 2.5.
    found, returns = advantages.gae(rewards, values, mask, 0.5, 0.5)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 0.4], [2.5, 0.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[0.2, 0.4, 1.0], [2.5, 1.0, 0.0]]))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.floats(0.1, 1))
def test_with_lambda_one_returns_are_discounted_sums_whatever_the_critic_says(
    rewards: list[float], gamma: float
) -> None:
    values = torch.linspace(-1, 1, len(rewards), dtype=torch.float64).unsqueeze(0)
    mask = torch.ones_like(values, dtype=torch.bool)
    _, returns = advantages.gae(torch.tensor([rewards], dtype=torch.float64), values, mask, gamma, 1.0)
    expected = [sum(gamma ** (i - t) * rewards[i] for i in range(t, len(rewards))) for t in range(len(rewards))]
    torch.testing.assert_close(returns, torch.tensor([expected], dtype=torch.float64))


def test_clipped_losses_by_hand() -> None:
    ratio, advantage = torch.tensor([1.5, 0.5, 1.5, 0.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    # A gain is cut at 1.2 and at 0.8; a loss is never made smaller by clipping.
    assert advantages.policy_loss(ratio, advantage, 0.2).tolist() == pytest.approx([-1.2, -0.5, 1.5, 0.8])
    values, old, returns = torch.tensor([1.0, 0.1]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
    # The first value moved by 1 and is cut to 0.2: half of 0.8 squared counts, not 0.
    assert advantages.value_loss(values, old, returns, 0.2).tolist() == pytest.approx([0.32, 0.405])


def test_whitening_keeps_the_mean_when_asked_to() -> None:
    values = torch.tensor([[1.0, 3.0, 100.0]])
    mask = torch.tensor([[True, True, False]])
    assert advantages.whiten(values, mask).tolist()[0] == pytest.approx([-1, 1, 0], abs=1e-6)
    assert advantages.whiten(values, mask, shift_mean=False).tolist()[0] == pytest.approx([1, 3, 0], abs=1e-6)


def test_the_kl_coefficient_follows_its_target() -> None:
    assert advantages.adapted(0.1, kl=6.0, target=None) == 0.1
    assert advantages.adapted(0.1, kl=6.0, target=6.0) == pytest.approx(0.1)
    assert advantages.adapted(0.1, kl=6.6, target=6.0) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert advantages.adapted(0.1, kl=60.0, target=6.0) == pytest.approx(0.1 * 1.02)  # the error is cut at 20 %
    assert advantages.adapted(0.1, kl=0.0, target=6.0) == pytest.approx(0.1 * 0.98)


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "bitfit"])
def test_the_reference_shares_the_network_and_remembers_it(method: str) -> None:
    tuned = methods.apply(method, toy.base())
    batch = completion_batch([sample(tuned, ["ant:"], 3, 32)[0].ids], 0)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    reference = Reference(tuned)
    with torch.no_grad():
        before = tuned.model(**inputs).logits
        for parameter in tuned.trainable.values():
            parameter += 0.1
        after = tuned.model(**inputs).logits
        with reference():
            remembered = tuned.model(**inputs).logits
        assert torch.equal(remembered, before)
        assert not torch.equal(after, before)
        assert torch.equal(tuned.model(**inputs).logits, after), "the policy is not back"


def bandit(method: str, learning_rate: float = 3e-3, epochs: int = 1, **args: float) -> History:
    """A policy that says one of eight letters; 'y' is rewarded."""
    tuned = methods.apply(method, toy.base())
    odds = torch.full((259,), -30.0)
    odds[tuned.base.tokenizer.convert_tokens_to_ids(list("abcdefxy"))] = 0.0
    tuned.model.get_output_embeddings().bias = torch.nn.Parameter(odds, requires_grad=False)

    def wanted(prompts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
        return torch.tensor([float(answer == "y") for answer in answers])

    data = toy.data("preference", PROMPTS * 16, max_new_tokens=1)
    return ppo.fit(tuned, data, toy.settings(learning_rate, batch_size=32, epochs=epochs), wanted, **args)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_first_update_starts_at_the_reference(method: str) -> None:
    history = bandit(method)
    assert history.curve("kl")[0] == pytest.approx(0, abs=1e-5)
    assert history.curve("ratio")[0] == pytest.approx(1, abs=1e-5)
    assert len(history.steps) == 2
    assert all(size is not None and size > 0 for size in (history.gradients_bytes, history.optimizer_bytes))
    assert history.activations_bytes


def test_it_finds_the_rewarded_letter_and_pays_for_it_in_kl() -> None:
    history = bandit("full", epochs=8, kl_coefficient=0.0)
    assert history.curve("reward")[0] < 0.4
    assert history.curve("reward")[-1] > 0.9
    # Certainty costs as many nats as the letter was unlikely at first.
    assert history.curve("kl")[-1] > 1
    held = bandit("full", epochs=8, kl_coefficient=10.0)
    assert held.curve("reward")[-1] < 0.5
    assert held.curve("kl")[-1] < 0.2


def test_what_a_method_adds_to_a_loss_is_added_to_the_policys() -> None:
    """AdaLoRA's orthogonality at weight 0.5, against the same training at weight 0."""
    added, losses = [], []
    for weight in (0.0, 0.5):
        config = {"init_r": 4, "target_r": 2, "orth_reg_weight": weight}
        tuned = methods.apply("peft", toy.base(), peft_type="ADALORA", config=config, train_steps=8)
        assert tuned.loss_term is not None
        added.append(float(tuned.loss_term().detach()))
        data = toy.data("preference", PROMPTS, max_new_tokens=1)
        history = ppo.fit(tuned, data, toy.settings(), lambda _, answers: torch.ones(len(answers)), updates=1)
        losses.append(history.losses[0])
    assert added[0] == 0 and added[1] > 0.1
    assert losses[1] - losses[0] == pytest.approx(added[1], rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit"])
def test_the_policy_is_trained_by_the_methods_optimiser(optimizer: str) -> None:
    tuned = methods.apply("qlora", toy.base(), optimizer=optimizer)
    learner = ppo._Learner(tuned, toy.settings(), OPTIONS, steps=2)
    kind, paged = type(learner.optimizer), getattr(learner.optimizer, "is_paged", False)
    assert kind is (torch.optim.AdamW if optimizer == "adamw_torch_fused" else bitsandbytes.optim.AdamW)
    assert paged == optimizer.startswith("paged")
    if kind is bitsandbytes.optim.AdamW:
        assert learner.optimizer.args.optim_bits == (8 if optimizer.endswith("8bit") else 32)


def test_ppo_hands_on_its_options_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ppo.Options(
        updates=2,
        minibatch_size=3,
        gamma=0.9,
        lam=0.8,
        clip=0.2,
        value_clip=0.5,
        value_weight=0.3,
        whiten_rewards=True,
        temperature=0.7,
    )

    class Made(Exception):
        """Ends the call before it trains."""

    def made(*given: object) -> None:
        raise Made(given[2])

    monkeypatch.setattr(ppo, "_Learner", made)
    data = toy.data("preference", PROMPTS)
    with pytest.raises(Made) as told:
        ppo.fit(methods.apply("bitfit", toy.base()), data, toy.settings(), lambda *_: torch.zeros(4), **vars(asked))
    assert told.value.args == (asked,)


def seeded(
    objective: Any, drawn_before: int, seed: int = 0, lengths: Sequence[int] = (3, 3, 3, 3), **args: Any
) -> History:
    """A short training with as many random numbers drawn before it; an answer is worth what its letters are.

    The prompts have these lengths: alike by default, so that their order, which is seeded too, changes nothing.
    """

    def worth(_prompts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
        return torch.tensor([float(sum(map(ord, answer)) % 997) for answer in answers])

    prompts = [toy.example("p" * length, "-") for length in lengths]
    data = toy.data("preference", prompts, max_new_tokens=4)
    tuned = methods.apply("bitfit", toy.base())
    torch.manual_seed(5)
    torch.rand(drawn_before)
    settings = dataclasses.replace(toy.settings(max_length=16), seed=seed)
    history: History = objective.fit(tuned, data, settings, worth, **args)
    return history


@pytest.mark.parametrize(("objective", "args"), [(ppo, {"updates": 1}), (best_of_n, {"n": 2})])
def test_a_seed_gives_the_same_rewards_whatever_was_drawn_before(objective: Any, args: dict[str, Any]) -> None:
    first, again = (seeded(objective, drawn, **args) for drawn in (0, 3))
    assert again.curve("reward") == first.curve("reward")
    assert again.losses == first.losses
    assert seeded(objective, 0, seed=1, **args).curve("reward") != first.curve("reward")


def test_prompts_that_ppo_reads_in_part_are_counted() -> None:
    """Of 16 tokens, 4 are for the answer: prompts of 13 and 15 lose some, those of 3 and 12 do not."""
    assert seeded(ppo, 0, lengths=(3, 12, 13, 15), updates=1).cut_share == 2 / 4


def test_samples_end_with_the_end_token_or_at_the_limit() -> None:
    torch.manual_seed(0)
    tuned = methods.apply("full", toy.base())
    for answer in sample(tuned, ["ant:", "a longer prompt:"] * 8, max_new_tokens=6, max_length=48):
        *inner, last = answer.ids.completion
        assert tuned.base.tokenizer.eos_token_id not in inner
        assert last == tuned.base.tokenizer.eos_token_id or len(answer.ids.completion) == 6
        assert math.isfinite(len(answer.text))
