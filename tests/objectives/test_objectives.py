"""Known answers about the objectives, on a tiny random network: losses by hand, gradients in closed form."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import toy_tasks as toy
from helpers.lengths import long_after

from harness import catalog, methods, notebooks, objectives
from harness.errors import InputError
from harness.networks.tuned import Tuned
from harness.objectives import best_of_n, dpo, grpo, kto, orpo, reward, rloo, rrhf
from harness.tasks.encode import Encoded
from harness.tasks.logprobs import IGNORED, completion_batch, from_logits, sequence_logprobs
from harness.tasks.pairs import encode_pair
from harness.training.pairs import PairCollator

pytestmark = pytest.mark.slow

METHODS = ["full", "lora", "qlora"]


def test_catalog_files_and_notebooks_agree() -> None:
    for entry in catalog.OBJECTIVES.values():
        module = importlib.import_module(f"harness.objectives.{entry.name}")
        assert module.__doc__
        arguments = set(inspect.signature(module.fit).parameters) - {"tuned", "data", "settings", "reward"}
        if entry.notebook is not None:
            declared = notebooks.parameters(entry.notebook)
            assert declared["objective"] == entry.name
            assert {"method", "method_args", "artifact_dir", "trial_dir"} <= declared.keys()
            assert ("parent_dirs" in declared) == bool(entry.parents)
            reserved = {*notebooks.COMMON, *notebooks.RUNNER, *notebooks.METHOD}
            assert declared.keys() - reserved <= arguments, "a parameter that the objective does not take"
        for parent in entry.parents:
            assert set(entry.task_kinds) <= set(catalog.objective(str(parent.objective)).task_kinds)


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
    pair = encode_pair(tokenizer, toy.example("a long prompt of many bytes", "ok", "a much longer answer"), 44, 22)
    assert pair.chosen.prompt == pair.rejected.prompt
    assert len(pair.rejected.prompt) + len(pair.rejected.completion) == 44
    assert pair.chosen.completion[-1] == pair.rejected.completion[-1] == tokenizer.eos_token_id


# --- reward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", long_after(1, METHODS))
def test_a_reward_model_separates_a_separable_set(method: str) -> None:
    tuned = methods.apply(method, toy.base(scalar=True))
    history = reward.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(1e-2, batch_size=8, epochs=12))
    score = reward.scorer(tuned, max_length=48, max_new_tokens=24)
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


@pytest.mark.parametrize("method", long_after(1, METHODS))
def test_dpo_starts_at_log_two_and_learns_the_preference(method: str) -> None:
    tuned = methods.apply(method, toy.base())
    before = preference(tuned)
    history = dpo.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(5e-3, batch_size=8, epochs=6))
    assert preference(tuned) > before + 0.01
    assert history.losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert history.curve("reward_margin")[0] == pytest.approx(0, abs=1e-5)
    assert history.curve("reward_margin")[-1] > 0.01
    assert history.curve("reward_accuracy")[-1] == 1.0
    apart = history.curve("chosen_reward")[-1] - history.curve("rejected_reward")[-1]
    assert history.curve("reward_margin")[-1] == pytest.approx(apart, abs=1e-5)


def test_hinge_starts_at_one_and_ipo_at_its_squared_target() -> None:
    for loss, start in (("hinge", 1.0), ("ipo", (1 / (2 * 0.1)) ** 2)):
        tuned = methods.apply("lora", toy.base())
        data = toy.data("preference", toy.PAIRS)
        history = objectives.fit("dpo", tuned, data, toy.settings(batch_size=8), loss=loss)
        assert history.losses[0] == pytest.approx(start, abs=1e-4), loss


def test_the_gradient_of_dpo_is_the_closed_form_of_the_paper() -> None:
    """Rafailov et al. 2023, section 4: -beta sigma(r_l - r_w) (grad log pi(y_w) - grad log pi(y_l))."""
    beta, model = 0.3, toy.base().build()
    pair = encode_pair(toy.base().tokenizer, toy.PAIRS[0], 48, 24)
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


@pytest.mark.parametrize("loss", list(dpo.LOSSES))
def test_losses_equal_those_of_trl_on_the_same_batch(loss: str, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    reference, policy = toy.base().build(), toy.base().build()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(
                0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    arguments = {"beta": 0.2, "loss_type": [loss], "per_device_train_batch_size": 4, "max_length": 48, "use_cpu": True}
    off = {"bf16": False, "gradient_checkpointing": False, "report_to": []}
    rows = [{"prompt": e.prompt, "chosen": e.completion, "rejected": e.rejected} for e in toy.PAIRS]
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(output_dir=str(tmp_path), **arguments, **off),
        train_dataset=Dataset.from_list(rows),
        processing_class=toy.base().tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = float(trainer.compute_loss(policy, batch))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
    scores = []
    for model in (toy.base().build(), reference):
        if model is not reference:
            model.load_state_dict(policy.state_dict())
        total, tokens = sequence_logprobs(model, inputs)
        scores.append(total / tokens if loss == "ipo" else total)
    chosen, rejected = (scores[0] - scores[1]).chunk(2)
    assert float(dpo.LOSSES[loss](chosen - rejected, 0.2).mean()) == pytest.approx(theirs, rel=1e-3)


def test_an_unknown_loss_names_the_nearest() -> None:
    tuned, data = methods.apply("lora", toy.base()), toy.data("preference", toy.PAIRS)
    with pytest.raises(InputError, match=r"^dpo.loss: unknown name 'sigmoidal'; did you mean 'sigmoid'"):
        objectives.fit("dpo", tuned, data, toy.settings(), loss="sigmoidal")


def test_preferences_need_pairs() -> None:
    only = toy.data("generation", [toy.example("a", "b")] * 4)
    with pytest.raises(InputError, match="preference task"):
        dpo.fit(methods.apply("lora", toy.base()), only, toy.settings())


def test_the_ranking_loss_of_rrhf_by_hand() -> None:
    scores = torch.tensor([[-1.0, -3.0, -2.0], [-1.0, -2.0, -3.0]])
    rewards = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    # First row: (0 < 1) -1 - -3 = 2; (0 < 2) -1 - -2 = 1; (1 < 2) -3 - -2 < 0. The second is in order already.
    assert rrhf.rank_loss(scores, rewards).tolist() == [3.0, 0.0]


@pytest.mark.parametrize("method", long_after(1, METHODS))
@pytest.mark.parametrize("objective", [kto, orpo, rrhf])
def test_relatives_learn_to_prefer_the_chosen_answer(objective: ModuleType, method: str) -> None:
    tuned = methods.apply(method, toy.base())
    before = preference(tuned)
    dtypes = {name: p.dtype for name, p in tuned.trainable.items()}
    history = objective.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(1e-2, batch_size=8, epochs=4))
    assert preference(tuned) > before + 0.1
    assert len(history.steps) == 4
    assert history.steps[0].tokens > 0
    assert {name: p.dtype for name, p in tuned.trainable.items()} == dtypes, "what trains has changed"


@pytest.mark.parametrize("method", long_after(1, ["prompt", "prefix"]))
@pytest.mark.parametrize("objective", [kto, orpo])
def test_virtual_tokens_do_not_shift_what_trl_reads(objective: ModuleType, method: str) -> None:
    tuned = methods.apply(method, toy.base(), num_virtual_tokens=4)
    before = preference(tuned)
    objective.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(1e-1, batch_size=8, epochs=8))
    assert preference(tuned) > before
    assert not tuned.model._forward_hooks, "nothing of the trainer's is left on the network"


@pytest.mark.parametrize("method", long_after(2, ["full", "bitfit", "lora", "llama_adapter"]))
def test_kto_starts_at_half(method: str) -> None:
    """With policy and reference alike every value is sigmoid(0)."""
    tuned = methods.apply(method, toy.base())
    history = kto.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(batch_size=8))
    assert history.losses[0] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("objective", [dpo, orpo, rrhf])
def test_what_a_method_adds_to_a_loss_is_added_to_that_of_preferences(objective: ModuleType) -> None:
    """AdaLoRA's orthogonality at weight 0.5, against the same training at weight 0."""
    added, losses = [], []
    for weight in (0.0, 0.5):
        config = {"init_r": 4, "target_r": 2, "orth_reg_weight": weight}
        tuned = methods.apply("peft", toy.base(), peft_type="ADALORA", config=config, train_steps=8)
        assert tuned.loss_term is not None
        added.append(float(tuned.loss_term().detach()))
        losses.append(objective.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(batch_size=8)).losses[0])
    assert added[0] == 0 and added[1] > 0.1
    assert losses[1] - losses[0] == pytest.approx(added[1], rel=1e-3)


def test_kto_refuses_an_adapter_that_cannot_be_its_own_reference() -> None:
    config = {"init_r": 4, "target_r": 2}
    tuned = methods.apply("peft", toy.base(), peft_type="ADALORA", config=config, train_steps=8)
    with pytest.raises(InputError, match=r"^objective 'kto': PEFT has one ADALORA adapter in a network at most, "):
        kto.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(batch_size=8))


@pytest.mark.parametrize("objective", ["dpo", "orpo", "ppo"])
def test_a_method_with_a_loss_of_its_own_is_refused_in_one_line(objective: str) -> None:
    tuned = dataclasses.replace(methods.apply("full", toy.base()), method="bitdelta", own_loss=lambda *_: None)
    with pytest.raises(InputError, match=f"'{objective}' cannot train 'bitdelta': its scales learn.*valid are.* sft$"):
        objectives.fit(objective, tuned, toy.data("preference", toy.PAIRS), toy.settings())


# --- rewards of the policy's own answers -----------------------------------------------------------------------------


def early(prompts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
    """Reward 1 for an answer with a character of the first half of ASCII."""
    return torch.tensor([float(any(c < "P" for c in answer)) for answer in answers])


@pytest.mark.parametrize("objective", [rloo, grpo])
def test_online_objectives_reach_for_the_reward(objective: ModuleType) -> None:
    tuned = methods.apply("full", toy.base())
    data = toy.data("preference", toy.PAIRS, max_new_tokens=1)
    history = objective.fit(tuned, data, toy.settings(5e-2, batch_size=8, epochs=10), early, beta=0.0, samples=8)
    rewards = history.curve("reward")
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.3


@pytest.mark.parametrize("method", long_after(1, ["lora", "qlora", "llama_adapter"]))
@pytest.mark.parametrize("objective", [rloo, grpo])
def test_online_objectives_train_the_adapter_and_leave_no_other(objective: ModuleType, method: str) -> None:
    tuned = methods.apply(method, toy.base())
    before = {name: p.detach().clone() for name, p in tuned.trainable.items()}
    data = toy.data("preference", toy.PAIRS, max_new_tokens=2)
    history = objective.fit(tuned, data, toy.settings(1e-2, batch_size=4), early, beta=0.1, samples=4)
    assert len(history.steps) == 2
    assert set(tuned.model.peft_config) == {"default"}
    assert {name: p.dtype for name, p in tuned.trainable.items()} == {name: p.dtype for name, p in before.items()}
    assert any(not torch.equal(p, before[name]) for name, p in tuned.trainable.items())


def test_best_of_n_in_expectation_equals_all_subsets() -> None:
    rewards = torch.tensor([[3.0, 1.0, 2.0, 5.0]], dtype=torch.float64)
    for n in range(1, 5):
        subsets = [max(s) for s in itertools.combinations(rewards[0].tolist(), n)]
        assert float(best_of_n.expected_best(rewards, n)) == pytest.approx(sum(subsets) / len(subsets))
    assert best_of_n.kl_bound(1) == 0


def test_rejection_sampling_learns_the_best_of_its_own_answers() -> None:
    tuned = methods.apply("lora", toy.base())

    def longest(prompts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
        return torch.tensor([float(len(answer)) for answer in answers])

    history = best_of_n.fit(tuned, toy.data("preference", toy.PAIRS), toy.settings(batch_size=8), longest, n=4)
    assert history.curve("best_reward")[0] > history.curve("reward")[0]
    assert len(history.steps) == 1


@torch.no_grad()
def preference(tuned: Tuned) -> float:
    """Mean log-probability per token of the chosen answers above the rejected ones."""
    pairs = [encode_pair(tuned.base.tokenizer, e, 48, 24) for e in toy.PAIRS]
    total, tokens = sequence_logprobs(tuned.model.eval(), PairCollator(0)([{"pair": pair} for pair in pairs]))
    chosen, rejected = (total / tokens).chunk(2)
    return float((chosen - rejected).mean())
