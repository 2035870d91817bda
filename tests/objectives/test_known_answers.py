"""Objectives recomputed by hand on a few rows: what one batch of experience, one update, one loss must be."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy

from harness import methods
from harness.networks.tuned import Tuned
from harness.objectives import best_of_n, clm, dpo, grpo, kto, ppo, reward, rloo, rrhf, sft
from harness.tasks.data import Example
from harness.tasks.encode import Encoded, encode, encode_examples
from harness.tasks.logprobs import completion_batch, from_logits, sequence_logprobs, token_logprobs
from harness.training import advantages, online, through_trl
from harness.training.pairs import PairCollator, training_pairs
from harness.training.rollouts import Reference, Sample, sample

pytestmark = pytest.mark.slow

OPTIONS = ppo.Options(
    updates=3,
    minibatch_size=2,
    gamma=0.9,
    lam=0.8,
    clip=0.2,
    value_clip=0.2,
    value_weight=0.1,
    whiten_rewards=False,
    temperature=1.0,
)
ROWS = [Encoded((5, 6, 7), (8, 9, 1)), Encoded((5, 9), (7, 1)), Encoded((9, 9, 9), (4, 5, 6)), Encoded((4,), (8, 1))]
ANSWERS = [Sample("", row, "") for row in ROWS]
SCORES = torch.tensor([1.0, -2.0, 0.5, 3.0])


def moved(tuned: Tuned, by: float = 0.05) -> None:
    """Change every parameter that trains, each by another amount."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in tuned.trainable.values():
            parameter += by * torch.randn(parameter.shape, generator=generator)


def learner(options: ppo.Options = OPTIONS, **changes: Any) -> tuple[Tuned, Any, Any]:
    """A policy that has left its reference, its learner with a critic that says something, and the network before."""
    tuned = methods.apply("full", toy.base())
    before = copy.deepcopy(tuned.model)
    made = ppo._Learner(tuned, toy.settings(**changes), options, steps=10)
    moved(tuned)
    with torch.no_grad():
        made.actor.value.weight += 0.02
        made.actor.value.bias += 0.3
    return tuned, made, before


# --- PPO -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@torch.no_grad()
def test_the_experience_of_ppo_by_hand(temperature: float) -> None:
    tuned, made, before = learner(dataclasses.replace(OPTIONS, temperature=temperature))
    batch = completion_batch(ROWS, 0)
    seen, experience = made.experience(ANSWERS, SCORES, 0.3)

    now, mask = token_logprobs(tuned.model, batch, temperature)
    then, _ = token_logprobs(before, batch, temperature)
    torch.testing.assert_close(experience.logprobs, now)
    hidden = tuned.model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    values = (hidden[:, :-1].sum(-1) * 0.02 + 0.3) * mask
    torch.testing.assert_close(experience.values, values, rtol=1e-4, atol=1e-5)
    # Every token pays for leaving the reference; the score comes with the last one.
    rewards = -0.3 * (now - then)
    for row, (tokens, score) in enumerate(zip(ROWS, SCORES, strict=True)):
        rewards[row, len(tokens.prompt) + len(tokens.completion) - 2] += score
    raw, returns = advantages.gae(rewards, values, mask, 0.9, 0.8)
    torch.testing.assert_close(experience.returns, returns, rtol=1e-4, atol=1e-5)
    kept = raw[mask]
    torch.testing.assert_close(experience.advantages[mask], (kept - kept.mean()) / kept.std(unbiased=False))
    assert seen["reward"] == pytest.approx(float(SCORES.mean()))
    assert seen["kl"] == pytest.approx(float((now - then).sum(-1).mean()), abs=1e-5) != 0
    assert seen["answer_tokens"] == pytest.approx(10 / 4)


@torch.no_grad()
def test_rewards_of_unit_variance_and_the_same_mean_when_asked_for() -> None:
    _, made, _ = learner(dataclasses.replace(OPTIONS, gamma=1.0, lam=1.0, whiten_rewards=True))
    _, experience = made.experience(ANSWERS, SCORES * 100, 0.0)
    given = torch.tensor([0, 0, 100.0, 0, -200.0, 0, 0, 50.0, 0, 300.0])
    expected = (given - given.mean()) / given.std(unbiased=False) + given.mean()
    last = [4, 2, 4, 1]
    torch.testing.assert_close(experience.returns[range(4), last], expected[[2, 4, 7, 9]], rtol=1e-4, atol=1e-4)


def test_the_updates_of_ppo_by_hand() -> None:
    """Two minibatches of two answers, three times over: six updates of policy and critic, and one of the schedule."""
    tuned, made, _ = learner()
    _, experience = made.experience(ANSWERS, SCORES, 0.3)
    weights = {name: p.detach().clone() for name, p in tuned.trainable.items()}
    critic = made.actor.value.weight.detach().clone()
    rate = made.schedule.get_last_lr()
    learnt = made.learn(experience)
    assert made._updates == 6
    assert all(state["step"] == 6 for state in made.optimizer.state.values())
    assert made.schedule.get_last_lr() != rate
    assert any(not torch.equal(p, weights[name]) for name, p in tuned.trainable.items())
    assert not torch.equal(made.actor.value.weight, critic)
    assert float(learnt["ratio"]) == pytest.approx(1, abs=1e-5)
    assert float(learnt["loss"]) == pytest.approx(
        float(learnt["policy_loss"]) + 0.1 * float(learnt["value_loss"]), rel=1e-5
    )


def test_the_first_losses_of_ppo_are_those_of_its_experience() -> None:
    _, made, _ = learner(dataclasses.replace(OPTIONS, updates=1, minibatch_size=None))
    _, experience = made.experience(ANSWERS, SCORES, 0.3)
    learnt = made.learn(experience)
    mask = experience.mask
    assert float(learnt["policy_loss"]) == pytest.approx(-float(experience.advantages[mask].mean()), abs=1e-5)
    error = 0.5 * (experience.values - experience.returns) ** 2
    assert float(learnt["value_loss"]) == pytest.approx(float(error[mask].mean()), rel=1e-4)
    assert float(learnt["clipped"]) == 0


def test_policy_and_values_have_a_clip_each() -> None:
    """Ten tokens whose ratios go from 0.6 to 1.4, and whose values have moved by -0.9 to 0.9."""
    _, made, _ = learner(dataclasses.replace(OPTIONS, updates=1, minibatch_size=None, clip=0.2, value_clip=0.5))
    _, experience = made.experience(ANSWERS, SCORES, 0.3)
    mask, ratio, shift = experience.mask, torch.linspace(0.6, 1.4, 10), torch.linspace(-0.9, 0.9, 10)
    logprobs, values = experience.logprobs.clone(), experience.values.clone()
    logprobs[mask] -= ratio.log()
    values[mask] -= shift
    learnt = made.learn(dataclasses.replace(experience, logprobs=logprobs, values=values))

    advantages_, returns = experience.advantages[mask], experience.returns[mask]
    policy = torch.max(-ratio * advantages_, -ratio.clamp(0.8, 1.2) * advantages_).mean()
    near = values[mask] + shift.clamp(-0.5, 0.5)
    value = 0.5 * torch.max((experience.values[mask] - returns) ** 2, (near - returns) ** 2).mean()
    assert float(learnt["policy_loss"]) == pytest.approx(float(policy), rel=1e-4)
    assert float(learnt["value_loss"]) == pytest.approx(float(value), rel=1e-4)
    assert float(learnt["clipped"]) == pytest.approx(6 / 10)


def test_the_gradient_norm_of_a_step_is_that_of_its_last_update(monkeypatch: pytest.MonkeyPatch) -> None:
    _, made, _ = learner()
    norms: list[float] = []
    clip = torch.nn.utils.clip_grad_norm_

    def watched(*given: Any) -> torch.Tensor:
        norms.append(float(clip(*given)))
        return torch.tensor(norms[-1])

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    learnt = made.learn(made.experience(ANSWERS, SCORES, 0.3)[1])
    assert len(set(norms)) == 6
    assert float(learnt["grad_norm"]) == pytest.approx(norms[-1], rel=1e-6)


def test_gradients_of_ppo_are_clipped_at_norm_one() -> None:
    _, made, _ = learner(dataclasses.replace(OPTIONS, updates=1, minibatch_size=None, value_weight=100.0))
    stepped: list[float] = []
    step = made.optimizer.step

    def watched() -> None:
        gradients = [p.grad for group in made.optimizer.param_groups for p in group["params"] if p.grad is not None]
        stepped.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        step()

    made.optimizer.step = watched
    learnt = made.learn(made.experience(ANSWERS, SCORES * 10, 0.3)[1])
    assert float(learnt["grad_norm"]) > 1
    assert stepped == [pytest.approx(1, rel=1e-3)]


def test_ppo_hands_its_options_to_sampling_and_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    scored: list[list[str]] = []

    def drawn(_tuned: Any, prompts: Sequence[str], *rest: Any) -> list[Sample]:
        asked.append((len(prompts), *rest))
        return [Sample(prompt, ROWS[0], prompt.upper()) for prompt in prompts]

    def rewarded(prompts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
        scored.extend([prompts, answers])  # type: ignore[list-item]
        return torch.zeros(len(prompts))

    monkeypatch.setattr(ppo, "sample", drawn)
    data = toy.data("preference", toy.PAIRS[:6], max_new_tokens=3)
    history = ppo.fit(methods.apply("lora", toy.base()), data, toy.settings(), rewarded, temperature=0.7, updates=1)
    assert asked == [(4, 3, 48, 0.7), (2, 3, 48, 0.7)]
    assert list(scored[1]) == [prompt.upper() for prompt in scored[0]]
    assert sorted(scored[0] + scored[2]) == sorted(e.prompt for e in toy.PAIRS[:6])
    assert len(history.steps) == 2


def test_the_price_of_distance_follows_its_target_from_step_to_step() -> None:
    """The first answers are the reference's own: a KL of 0 lowers the coefficient by the most, 2 %."""
    data = toy.data("preference", toy.PAIRS, max_new_tokens=2)

    def nothing(prompts: Sequence[str], _answers: Sequence[str]) -> torch.Tensor:
        return torch.zeros(len(prompts))

    tuned = methods.apply("lora", toy.base())
    history = ppo.fit(tuned, data, toy.settings(), nothing, kl_coefficient=0.5, kl_target=1.0, updates=1)
    assert history.curve("kl_coefficient") == pytest.approx([0.5, 0.5 * 0.98])
    history = ppo.fit(tuned, data, toy.settings(), nothing, kl_coefficient=0.5, updates=1)
    assert history.curve("kl_coefficient") == [0.5, 0.5]


# --- preferences -----------------------------------------------------------------------------------------------------


def first_loss(objective: Any, **options: Any) -> tuple[float, Tuned]:
    """The loss of the first step on all pairs at once, by an untouched network."""
    tuned = methods.apply("full", toy.base())
    data = toy.data("preference", toy.PAIRS)
    return objective.fit(tuned, data, toy.settings(1e-9, batch_size=8), **options).losses[0], tuned


@torch.no_grad()
def pair_logprobs(model: Any, pairs: Sequence[Example] = toy.PAIRS) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean log-probability of a token of each chosen and each rejected answer, each answer read by itself."""
    rows = []
    for example in pairs:
        assert example.rejected is not None
        for answer in (example.completion, example.rejected):
            changed = dataclasses.replace(example, completion=answer)
            (encoded,) = encode_examples(toy.base().tokenizer, [changed], 48, 4)
            total, tokens = sequence_logprobs(model, completion_batch([encoded], 0))
            rows.append(total / tokens)
    table = torch.cat(rows).view(-1, 2)
    return table[:, 0], table[:, 1]


def test_the_loss_of_rrhf_by_hand() -> None:
    found, tuned = first_loss(rrhf, sft_weight=0.5)
    chosen, rejected = pair_logprobs(tuned.model)
    expected = (rejected - chosen).clamp(min=0).mean() - 0.5 * chosen.mean()
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_the_curves_of_rrhf_by_hand() -> None:
    """The network rates every 'y' above every 'n': of pairs of which two are the other way round, 3/4 are right."""
    tuned = methods.apply("full", toy.base())
    turned = [toy.example(e.prompt, e.rejected or "", e.completion) for e in toy.PAIRS[6:]]
    pairs = [*toy.PAIRS[:6], *turned]
    history = rrhf.fit(tuned, toy.data("preference", pairs), toy.settings(1e-9, batch_size=8))
    chosen, rejected = pair_logprobs(tuned.model, pairs)
    rank = float((rejected - chosen).clamp(min=0).mean())
    assert rank > 0 and history.curve("rank_loss") == pytest.approx([rank], rel=1e-3)
    assert history.curve("sft_loss") == pytest.approx([-float(chosen.mean())], rel=1e-4)
    assert history.curve("reward_accuracy") == [6 / 8]


@pytest.mark.parametrize(("desirable", "undesirable"), [(1.0, 1.0), (2.0, 1.0), (1.0, 4.0)])
def test_kto_starts_at_half_of_its_weights(desirable: float, undesirable: float) -> None:
    """The policy is its reference: the value of every answer is half of its weight (equation 8 of the paper)."""
    found, _ = first_loss(kto, desirable_weight=desirable, undesirable_weight=undesirable)
    assert found == pytest.approx((desirable + undesirable) / 4, abs=1e-3)


def test_the_margin_of_dpo_is_measured_from_the_policy_before_training() -> None:
    """After a step that moved the policy, the curves of a second training start at 0 again."""
    tuned = methods.apply("full", toy.base())
    data = toy.data("preference", toy.PAIRS)
    dpo.fit(tuned, data, toy.settings(1e-2, batch_size=8, epochs=3))
    again = dpo.fit(tuned, data, toy.settings(1e-2, batch_size=8, epochs=3), beta=0.5)
    assert again.curve("chosen_reward")[0] == pytest.approx(0, abs=1e-5)
    assert again.curve("reward_margin")[-1] > again.curve("reward_margin")[0]


# --- answers of the policy's own -------------------------------------------------------------------------------------


def test_online_rewards_pay_for_the_distance_to_the_policy_before(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = methods.apply("full", toy.base())
    before = copy.deepcopy(tuned.model)
    caught: dict[str, Any] = {}
    monkeypatch.setattr(through_trl, "fit", lambda *_args, **kwargs: caught.update(kwargs, args=_args))
    data = toy.data("preference", toy.PAIRS, max_new_tokens=4)

    def rewarded(prompts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
        assert list(prompts) == [toy.PAIRS[5].prompt, toy.PAIRS[2].prompt]
        assert list(answers) == ["first", "second"]
        return torch.tensor([1.0, 2.0])

    rloo.fit(tuned, data, toy.settings(), rewarded, beta=0.5, samples=4, temperature=0.7)
    moved(tuned)
    ids = [[8, 9, 1], [7, 1]]
    found = caught["reward_funcs"](["", ""], [" first", "second "], ids, example=[5, 2])

    rows = [
        Encoded(encode_examples(tuned.base.tokenizer, [toy.PAIRS[place]], 48, 4)[0].prompt, tuple(answer))
        for place, answer in zip((5, 2), ids, strict=True)
    ]
    with torch.no_grad():
        batch = completion_batch(rows, 0)
        distance = sequence_logprobs(tuned.model, batch)[0] - sequence_logprobs(before, batch)[0]
    assert found == pytest.approx((torch.tensor([1.0, 2.0]) - 0.5 * distance).tolist(), abs=1e-4)
    assert distance.abs().min() > 1e-3
    settings = caught["args"][5]
    assert settings["num_generations"] == 4 and settings["per_device_train_batch_size"] == 4 * 4
    assert settings["temperature"] == 0.7 and settings["max_completion_length"] == 4 and settings["beta"] == 0.0


def test_the_distance_of_answers_is_none_at_first_and_is_signed() -> None:
    tuned = methods.apply("full", toy.base())
    reference = Reference(tuned)
    assert online.kl_of_answers(tuned, reference, ROWS).tolist() == pytest.approx([0] * 4, abs=1e-5)
    batch = completion_batch(ROWS, 0)
    with torch.no_grad():
        before = sequence_logprobs(tuned.model, batch)[0]
        moved(tuned)
        after = sequence_logprobs(tuned.model, batch)[0]
    found = online.kl_of_answers(tuned, reference, ROWS, batch_size=2)
    torch.testing.assert_close(found, after - before, rtol=1e-4, atol=1e-4)


def test_the_best_of_n_is_the_one_with_the_highest_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"a:": ["p", "q", "r"], "b:": ["s", "t", ""]}
    worth = {"p": 1.0, "q": 3.0, "r": 2.0, "s": 9.0, "t": -1.0, "": 0.0}

    def drawn(_tuned: Any, prompts: Sequence[str], *rest: Any) -> list[Sample]:
        assert list(prompts) == ["a:"] * 3 + ["b:"] * 3 and rest == (4, 48, 0.7)
        return [Sample(p, ROWS[0], texts[p][place % 3]) for place, p in enumerate(prompts)]

    trained: list[Any] = []
    history = sft.fit(methods.apply("lora", toy.base()), toy.data("generation", toy.PAIRS[:2]), toy.settings())
    monkeypatch.setattr(best_of_n, "sample", drawn)

    def learnt(_tuned: Any, data: Any, _settings: Any) -> Any:
        trained.append(data)
        return history

    monkeypatch.setattr("harness.objectives.best_of_n.sft.fit", learnt)
    data = toy.data("generation", [toy.example("a:", "gold"), toy.example("b:", "gold")])
    found = best_of_n.fit(
        methods.apply("lora", toy.base()),
        data,
        toy.settings(),
        lambda _, answers: torch.tensor([worth[answer] for answer in answers]),
        n=3,
        temperature=0.7,
    )
    assert [(e.prompt, e.completion, e.references) for e in trained[0].train] == [
        ("a:", "q", ("q",)),
        ("b:", "s", ("s",)),
    ]
    assert found.curve("reward") == [pytest.approx(14 / 6)] and found.curve("best_reward") == [pytest.approx(6)]
    assert found.train_s > history.train_s


def test_the_distance_of_the_best_of_n_is_known_without_measuring() -> None:
    assert best_of_n.kl_bound(1) == 0
    assert best_of_n.kl_bound(4) == pytest.approx(1.3863 - 0.75, abs=1e-4)


# --- likelihood ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", [False, True])
def test_the_loss_of_sft_is_the_mean_over_the_tokens_of_the_answers(packing: bool) -> None:
    examples = [toy.example("one:", "first"), toy.example("a longer prompt:", "second answer")]
    tuned = methods.apply("full", toy.base())
    found = sft.fit(tuned, toy.data("generation", examples), toy.settings(1e-9), packing=packing).losses[0]
    rows = encode_examples(tuned.base.tokenizer, examples, 48, 4)
    total, tokens = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = tuned.model(input_ids=torch.tensor([[*row.prompt, *row.completion]])).logits[0].log_softmax(-1)
        for place, token in enumerate(row.completion, start=len(row.prompt)):
            total -= float(logits[place - 1, token])
            tokens += 1
    assert found == pytest.approx(total / tokens, rel=1e-4)


def test_the_loss_of_continued_pretraining_is_the_mean_over_all_tokens_but_the_first() -> None:
    tuned = methods.apply("full", toy.base())
    data = toy.data("corpus", [toy.example("", "abcdefg"), toy.example("", "hijklmn")], metrics=["perplexity"])
    settings = toy.settings(1e-9, max_length=8)
    found = clm.fit(tuned, data, settings).losses[0]
    expected = []
    for text in ("abcdefg</s>", "hijklmn</s>"):
        ids = torch.tensor([tuned.base.tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            logprobs = tuned.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        expected += (-logprobs.gather(-1, ids[0, 1:, None])).flatten().tolist()
    assert len(expected) == 14
    assert found == pytest.approx(sum(expected) / 14, rel=1e-4)


# --- what the pieces hand on -----------------------------------------------------------------------------------------


def test_the_temperature_divides_the_logits() -> None:
    logits, labels = torch.tensor([[[1.0, 3.0], [5.0, 1.0], [0.0, 0.0]]]), torch.tensor([[-100, 1, 0]])
    values, mask = from_logits(logits, labels, temperature=2.0)
    first = math.exp(1.5) / (math.exp(0.5) + math.exp(1.5))
    second = math.exp(2.5) / (math.exp(2.5) + math.exp(0.5))
    expected = [math.log(first), math.log(second)]
    assert values.flatten().tolist() == pytest.approx(expected)
    assert mask.tolist() == [[True, True]]


def test_centred_rewards_by_hand() -> None:
    tuned = methods.apply("full", toy.base(scalar=True))
    with torch.no_grad():
        batch = PairCollator(0)(training_pairs(tuned.base.tokenizer, toy.data("preference", toy.PAIRS), 48))
        chosen, rejected = reward.rewards(tuned.model, batch).chunk(2)
    expected = (-torch.nn.functional.logsigmoid(chosen - rejected) + 0.5 * (chosen + rejected) ** 2).mean()
    data = toy.data("preference", toy.PAIRS)
    history = reward.fit(tuned, data, toy.settings(1e-9, batch_size=8), center=0.5)
    assert history.losses[0] == pytest.approx(float(expected), rel=1e-4)
    assert history.curve("reward_margin")[0] == pytest.approx(float((chosen - rejected).mean()), abs=1e-5)


def test_a_reward_model_reads_as_in_training_and_drops_nothing_out() -> None:
    """Of 16 tokens a prompt leaves 4 for an answer of so many; the longer prompt keeps 12."""
    tuned = methods.apply("lora", toy.base(scalar=True), dropout=0.5)
    moved(tuned)
    prompts, answers = ["p:", "a long prompt of one line:"], ["yes", "no"]
    score = reward.scorer(tuned, max_length=16, max_new_tokens=4)
    tuned.model.train()
    found = score(prompts, answers)
    rows = [encode(tuned.base.tokenizer, *texts, 16, 4) for texts in zip(prompts, answers, strict=True)]
    assert [len(row.prompt) for row in rows] == [2, 12]
    tuned.model.eval()
    with torch.no_grad():
        expected = torch.cat([reward.rewards(tuned.model, completion_batch([row], 0)) for row in rows])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_grpo_standardises_within_the_samples_of_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(through_trl, "fit", lambda *args, **_kwargs: asked.append(args))
    grpo.fit(methods.apply("lora", toy.base()), toy.data("preference", toy.PAIRS), toy.settings(), lambda *_: None)
    assert asked[0][5]["loss_type"] == "grpo" and asked[0][5]["scale_rewards"] == "group"


def test_samples_are_drawn_from_the_policys_own_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = methods.apply("full", toy.base())
    asked: dict[str, Any] = {}

    def generate(input_ids: torch.Tensor, **settings: Any) -> torch.Tensor:
        asked.update(settings)
        return torch.cat([input_ids, torch.tensor([[100, 1, 101]] * len(input_ids))], 1)

    monkeypatch.setattr(tuned.model, "generate", generate)
    (answer,) = sample(tuned, ["x:"], 3, 40, temperature=0.7)
    assert answer.ids.completion == (100, 1) and answer.text == "a"
    expected = {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
    assert {name: asked[name] for name in expected} == expected


@pytest.mark.parametrize(("loss", "per_token"), [("sigmoid", False), ("hinge", False), ("ipo", True)])
def test_the_loss_of_a_policy_that_has_left_its_reference(
    loss: Any, per_token: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = methods.apply("full", toy.base())
    caught: list[Any] = []
    monkeypatch.setattr(dpo, "train", lambda *args, **_: caught.extend(args))
    dpo.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(batch_size=3), beta=0.2, loss=loss)
    _, examples, collate, _, objective = caught
    rows = training_pairs(tuned.base.tokenizer, toy.data("preference", toy.PAIRS), 48)
    with torch.no_grad():
        plain = PairCollator(0)(rows)
        before, tokens = sequence_logprobs(tuned.model, plain)
        moved(tuned)
        after, _ = sequence_logprobs(tuned.model, plain)
        moves = (after - before) / (tokens if per_token else 1)
        chosen, rejected = moves.chunk(2)
        value, seen = objective(tuned.model, collate(examples))
    h = chosen - rejected
    expected = {
        "sigmoid": -torch.nn.functional.logsigmoid(0.2 * h),
        "hinge": (1 - 0.2 * h).clamp(min=0),
        "ipo": (h - 2.5) ** 2,
    }[loss].mean()
    assert float(value) == pytest.approx(float(expected), rel=1e-3)
    assert float(seen["reward_margin"]) == pytest.approx(0.2 * float(h.mean()), abs=1e-4)
    assert float(seen["reward_accuracy"]) == float((h > 0).float().mean())
    assert float(seen["chosen_reward"]) == pytest.approx(0.2 * float(chosen.mean()), abs=1e-4)
    assert float(seen["rejected_reward"]) == pytest.approx(0.2 * float(rejected.mean()), abs=1e-4)
