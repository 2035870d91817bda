"""Known answers about the objectives, on a tiny random network: losses by hand, gradients in closed form."""

from __future__ import annotations

import math

import pytest
import torch
import toy

from harness import methods
from harness.errors import InputError
from harness.objectives import dpo, reward
from harness.objectives.preference import PairCollator
from harness.tasks.encode import Encoded
from harness.tasks.logprobs import completion_batch, from_logits, sequence_logprobs
from harness.tasks.pairs import encode_pair

METHODS = ["full", "lora", "qlora"]


# --- log-probabilities -----------------------------------------------------------------------------------------------


def test_log_probabilities_are_those_of_the_completion_alone() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]]))
    labels = torch.tensor([[-100, 1, 2]])  # the first token is the prompt
    values, mask = from_logits(logits, labels)
    assert mask.tolist() == [[True, True]]
    torch.testing.assert_close(values, torch.log(torch.tensor([[0.25, 0.7]])))
    hot, _ = from_logits(logits, labels, temperature=2.0)
    torch.testing.assert_close(hot[0, 0].exp(), torch.tensor(0.5 / (0.5 + 0.5 + math.sqrt(0.5))))


def test_padding_and_company_leave_log_probabilities_alone() -> None:
    model = toy.base().build()
    short, long = Encoded((5, 6), (7, 1)), Encoded((5, 6, 9, 9), (7, 8, 9, 9, 1))
    alone, _ = sequence_logprobs(model, completion_batch([short], 0))
    both, tokens = sequence_logprobs(model, completion_batch([short, long], 0))
    torch.testing.assert_close(both[0], alone[0], rtol=1e-5, atol=1e-5)
    assert tokens.tolist() == [2, 5]


def test_both_answers_of_a_pair_follow_the_same_prompt_even_when_it_is_cut() -> None:
    tokenizer = toy.base().tokenizer
    pair = encode_pair(tokenizer, toy.example("a long prompt of many bytes", "ok", "a much longer answer"), 32)
    assert pair.chosen.prompt == pair.rejected.prompt
    assert len(pair.rejected.prompt) + len(pair.rejected.completion) <= 32
    assert pair.chosen.completion[-1] == pair.rejected.completion[-1] == tokenizer.eos_token_id


# --- reward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_reward_model_separates_a_separable_set(method: str) -> None:
    tuned = methods.apply(method, toy.base(scalar=True))
    history = reward.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(1e-2, batch_size=8, epochs=12))
    score = reward.scorer(tuned, max_length=48)
    prompts = [e.prompt for e in toy.PAIRS]
    chosen = score(prompts, [e.completion for e in toy.PAIRS])
    rejected = score(prompts, [e.rejected or "" for e in toy.PAIRS])
    assert bool((chosen > rejected).all())
    assert history.curve("reward_accuracy")[-1] == 1.0
    assert history.losses[-1] < history.losses[0]


def test_the_loss_of_a_reward_model_that_cannot_tell_is_log_two() -> None:
    tuned = methods.apply("full", toy.base(scalar=True))
    with torch.no_grad():
        tuned.model.score.weight.zero_()
    history = reward.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(batch_size=8))
    assert history.losses[0] == pytest.approx(math.log(2), abs=1e-6)


def test_a_reward_needs_a_scalar_output() -> None:
    with pytest.raises(InputError, match="scalar output"):
        reward.fit(methods.apply("lora", toy.base()), toy.data("preference", toy.PAIRS), toy.settings())


# --- preferences without a reward model ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("sigmoid", [math.log(1 + math.exp(-0.5 * 2)), math.log(1 + math.exp(0.5 * 1)), math.log(2)]),
        ("hinge", [0.0, 1.5, 1.0]),
        ("ipo", [(2 - 1) ** 2, (-1 - 1) ** 2, 1.0]),
    ],
)
def test_losses_of_pairs_by_hand(loss: str, expected: list[float]) -> None:
    h = torch.tensor([2.0, -1.0, 0.0])
    assert dpo.LOSSES[loss](h, 0.5).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_dpo_starts_at_log_two_and_learns_the_preference(method: str) -> None:
    tuned = methods.apply(method, toy.base())
    history = dpo.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(5e-3, batch_size=8, epochs=6))
    assert history.losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert history.curve("reward_margin")[0] == pytest.approx(0, abs=1e-5)
    assert history.curve("reward_margin")[-1] > 0.01
    assert history.curve("reward_accuracy")[-1] == 1.0


def test_hinge_starts_at_one_and_ipo_at_its_squared_target() -> None:
    for loss, start in (("hinge", 1.0), ("ipo", (1 / (2 * 0.1)) ** 2)):
        tuned = methods.apply("lora", toy.base())
        history = dpo.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(batch_size=8), loss=loss)
        assert history.losses[0] == pytest.approx(start, abs=1e-4), loss


def test_the_gradient_of_dpo_is_the_closed_form_of_the_paper() -> None:
    """Rafailov et al. 2023, section 4: -beta sigma(r_l - r_w) (grad log pi(y_w) - grad log pi(y_l))."""
    beta, model = 0.3, toy.base().build()
    pair = encode_pair(toy.base().tokenizer, toy.PAIRS[0], 48)
    batch = PairCollator(0)([{"pair": pair}])
    reference = torch.tensor([-9.0, -7.0])
    weight = model.model.layers[0].self_attn.q_proj.weight

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, weight, retain_graph=True)[0]

    (chosen, rejected), _ = sequence_logprobs(model, batch)
    h = (chosen - reference[0]) - (rejected - reference[1])
    expected = -beta * torch.sigmoid(-beta * h) * (gradient(chosen) - gradient(rejected))
    torch.testing.assert_close(gradient(dpo.LOSSES["sigmoid"](h, beta)), expected)
    assert expected.abs().max() > 0


def test_an_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'sigmoid'"):
        dpo.fit(methods.apply("lora", toy.base()), toy.data("preference", toy.PAIRS), toy.settings(), loss="sigmoidal")


def test_preferences_need_pairs() -> None:
    only = toy.data("generation", [toy.example("a", "b")] * 4)
    with pytest.raises(InputError, match="preference task"):
        dpo.fit(methods.apply("lora", toy.base()), only, toy.settings())
