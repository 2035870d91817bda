"""How a trial trains changes no number that it learns, and a row never names a way in which it did not train."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import sys
import types
from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy

from harness import methods, objectives
from harness.execution import Execution, NotActive
from harness.tasks.data import Example
from harness.training import accumulation, compiling, head_loss
from harness.training.trainer import History

pytestmark = pytest.mark.slow

#: Answers of one to eight tokens: no two parts of a batch learn equally many.
UNEQUAL = tuple(toy.example(f"say {letter}:", letter * size, "n" * size) for size, letter in enumerate("abcdefgh", 1))

TEXTS = tuple(toy.example("", letter * 60) for letter in "abcdefgh")

SAME = [
    {"packing": True},
    {"loss": "chunked"},
    {"gradient_checkpointing": True},
    {"accumulation": 2},
    {"accumulation": 4},
    {"attention": "eager"},
    {"packing": True, "loss": "chunked", "gradient_checkpointing": True, "accumulation": 2},
    {"packing": True, "shared_prompts": True},
    {"packing": True, "shared_prompts": True, "loss": "chunked", "gradient_checkpointing": True, "accumulation": 2},
]


@dataclasses.dataclass
class Run:
    """Two steps of training, the parameters behind them, and the gradients of the first one."""

    history: History
    parameters: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]


def trained(
    objective: str = "sft",
    method: str = "full",
    rate: float = 1e-2,
    examples: tuple[Example, ...] = UNEQUAL,
    dtype: torch.dtype = torch.float32,
    **execution: Any,
) -> Run:
    """Train the toy network for two steps."""
    how = Execution(**execution)
    settings = dataclasses.replace(toy.settings(rate), execution=how)
    tuned = methods.apply(method, toy.base(attention=how.attention, dtype=dtype))
    gradients: dict[str, torch.Tensor] = {}

    def keep(step: int) -> None:
        if step == 1:
            gradients.update({n: p.grad.clone() for n, p in tuned.trainable.items() if p.grad is not None})

    kind, examples = ("corpus", TEXTS) if objective == "clm" else ("preference", examples)
    watched = dataclasses.replace(tuned, after_step=keep)
    history = objectives.fit(objective, watched, toy.data(kind, examples), settings)
    return Run(history, {name: p.detach().clone() for name, p in tuned.trainable.items()}, gradients)


@functools.cache
def plain(objective: str = "sft", method: str = "full", **changes: Any) -> Run:
    """The usual training, once."""
    return trained(objective, method, **changes)


def alike(one: Run, other: Run) -> None:
    """Losses, gradients and parameters differ in their last digits alone."""
    assert one.history.losses == pytest.approx(other.history.losses, rel=1e-5)
    assert [step.tokens for step in one.history.steps] == [step.tokens for step in other.history.steps]
    assert one.gradients.keys() == other.gradients.keys() and len(one.gradients) > 10
    for name, gradient in one.gradients.items():
        torch.testing.assert_close(gradient, other.gradients[name], rtol=1e-4, atol=1e-6, msg=name)
    for name, parameter in one.parameters.items():
        torch.testing.assert_close(parameter, other.parameters[name], rtol=0, atol=2e-4, msg=name)


def proven(history: History) -> dict[str, Any]:
    assert history.proof is not None
    return dict(history.proof.active)


def named(how: dict[str, Any]) -> str:
    return " ".join(how)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of seven tokens, so that a batch has several and a last one that is not full."""
    monkeypatch.setattr(head_loss, "CHUNK", 7)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("how", SAME, ids=named)
def test_losses_gradients_and_updates_are_those_of_plain_training(how: dict[str, Any]) -> None:
    run = trained(**how)
    alike(run, plain())
    usual = {**dict(Execution()), "attention": "sdpa", "dtype": "float32"}
    assert proven(plain().history) == usual
    assert proven(run.history) == {**usual, **how}


def test_checkpointing_changes_no_bit_keeps_less_and_repeats_the_layers() -> None:
    run, usual = trained(gradient_checkpointing=True), plain()
    assert all(torch.equal(run.parameters[name], usual.parameters[name]) for name in run.parameters)
    kept, usually_kept = run.history.activations_bytes, usual.history.activations_bytes
    assert kept is not None and usually_kept is not None and kept < usually_kept / 3
    assert usual.history.first_step_repeated_flops == 0
    flops, usual_flops = run.history.first_step_flops, usual.history.first_step_flops
    assert flops is not None and usual_flops is not None
    assert run.history.first_step_repeated_flops == flops - usual_flops > 0
    assert run.history.proof is not None
    assert run.history.proof.evidence["gradient_checkpointing"] == "2 layers computed again"


def test_chunks_hold_the_logits_of_few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    summed = head_loss._summed
    monkeypatch.setattr(head_loss, "CHUNK", 3)

    def noted(head: torch.nn.Module, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(targets))
        return summed(head, states, targets)

    monkeypatch.setattr(head_loss, "_summed", noted)
    head, states = torch.nn.Linear(4, 9), torch.randn(10, 4, requires_grad=True)
    targets = torch.arange(10) % 9
    loss = head_loss.chunked(head, states, targets)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(head(states), targets))
    assert seen == [3, 3, 3, 1]
    loss.backward()
    assert seen == [3, 3, 3, 1, 1, 3, 3, 3], "the backward pass computes each once more, the last one first"


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("objective", "method", "how"),
    [
        ("clm", "full", {"packing": True, "loss": "chunked", "accumulation": 2}),
        ("dpo", "full", {"accumulation": 4, "gradient_checkpointing": True}),
        ("sft", "lora", {"packing": True, "loss": "chunked", "accumulation": 2}),
    ],
)
def test_other_objectives_and_methods_train_as_usual_too(objective: str, method: str, how: dict[str, Any]) -> None:
    run = trained(objective, method, **how)
    alike(run, plain(objective, method))
    assert {name: proven(run.history)[name] for name in how} == how


def test_16_bits_compute_in_16_bits_every_way() -> None:
    run = trained(dtype=torch.bfloat16, packing=True, loss="chunked", gradient_checkpointing=True)
    assert run.history.losses == pytest.approx(plain(dtype=torch.bfloat16).history.losses, rel=2e-2)
    assert run.history.losses != pytest.approx(plain().history.losses, rel=1e-6)
    assert {parameter.dtype for parameter in run.parameters.values()} == {torch.float32}


def test_a_last_batch_that_is_not_full_counts_what_it_has() -> None:
    run = trained(examples=UNEQUAL[:6], accumulation=4)
    alike(run, trained(examples=UNEQUAL[:6]))
    assert len(run.history.steps) == 2


def test_the_share_of_a_part_is_what_it_learns() -> None:
    labels = [torch.tensor([[5, -100, 6, 7]]), torch.tensor([[-100, 1, 2, 3], [1, 1, 1, 1]])]
    shares = accumulation.shares([{"labels": one} for one in labels], accumulation.learnt)
    assert shares.tolist() == pytest.approx([2 / 8, 6 / 8])
    heads = [{"labels": torch.tensor([0])}, {"labels": torch.tensor([1, 0, 1])}]
    assert accumulation.shares(heads, accumulation.learnt).tolist() == [0.25, 0.75]


# --- what ran is what was asked for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "seen", "bytes_of_state"),
    [
        ("adamw", "torch AdamW", (8.0, 8.1)),
        ("lion", "bitsandbytes Lion", (4.0, 4.1)),
        ("adafactor", "Adafactor", (0, 1)),
    ],
)
def test_an_optimiser_is_known_by_its_class_and_its_states(
    optimizer: str, seen: str, bytes_of_state: tuple[float, float]
) -> None:
    history = trained(optimizer=optimizer).history
    assert proven(history)["optimizer"] == optimizer
    evidence = history.proof.evidence["optimizer"]  # type: ignore[union-attr]
    assert seen in evidence
    assert bytes_of_state[0] <= float(evidence.split(", ")[1].split()[0]) <= bytes_of_state[1]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"optimizer": "adamw_8bit"}, '"adamw_8bit" was asked for, and "adamw" was active .* bytes of state'),
        ({"optimizer": "paged_adamw_8bit"}, '"paged_adamw_8bit" was asked for'),
        ({"attention": "flash_attention_2"}, "flash_attention_2 cannot run here: "),
        ({"attention": "flex_attention"}, "flex_attention cannot run here: on a CPU it has no backward pass"),
        ({"loss": "liger"}, "liger needs the package liger-kernel, which is not installed"),
        ({"shared_prompts": True}, r"true was asked for, and false was active \(no packed row\)"),
    ],
)
def test_what_is_asked_for_and_not_active_ends_the_training(
    how: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this network almost all tensors are too small for 8 bits, and a CPU has nothing to page to."""
    present = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name in ("liger_kernel", "flash_attn") else present(name, *a),
    )
    with pytest.raises(NotActive, match=rf"^execution\.{next(iter(how))}: {reason}"):
        trained(**how)


def test_a_method_with_an_optimiser_of_its_own_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = methods.apply
    monkeypatch.setattr(methods, "apply", lambda *a, **b: dataclasses.replace(apply(*a, **b), optimizer="adagrad"))
    with pytest.raises(NotActive, match="'full' trains with an optimiser of its own, adagrad"):
        trained(optimizer="lion")


def test_a_loss_that_would_leave_out_what_the_model_does_to_its_logits_is_refused() -> None:
    tuned = methods.apply("full", toy.base())
    tuned.model.config.final_logit_softcapping = 30.0
    with pytest.raises(NotActive, match="chunked leaves out what this model does to its logits"):
        head_loss.head_loss(tuned.model, "chunked")


def test_liger_gets_the_weight_of_the_output_layer_and_the_states(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fused:
        def __call__(self, weight: torch.Tensor, states: torch.Tensor, targets: torch.Tensor, bias: Any) -> Any:
            assert bias is None
            return torch.nn.functional.cross_entropy(states @ weight.T, targets)

    package, module = types.ModuleType("liger_kernel"), types.ModuleType("liger_kernel.transformers")
    module.LigerFusedLinearCrossEntropyLoss = Fused  # type: ignore[attr-defined]
    package.__spec__ = importlib.util.spec_from_loader("liger_kernel", None)
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", module)
    history = trained(loss="liger").history
    assert history.losses == pytest.approx(plain().history.losses, rel=1e-5)
    assert proven(history)["loss"] == "liger"


@pytest.mark.long
def test_compiled_layers_read_packed_rows() -> None:
    how: dict[str, Any] = {"packing": True, "shared_prompts": True, "compile": True}
    run = trained(**how)
    alike(run, plain())
    assert {name: proven(run.history)[name] for name in how} == how


@pytest.mark.long
def test_compiled_layers_train_as_usual_and_their_graphs_are_counted() -> None:
    run = trained(compile=True)
    alike(run, plain())
    assert proven(run.history)["compile"] is True
    assert run.history.compile_s is not None and run.history.compile_s > 0
    assert run.history.proof is not None
    # One graph for all layers: a cache of keys and values would need one for each.
    assert run.history.proof.evidence["compile"] == "1 graphs compiled for 2 layers before the first step"
    assert plain().history.compile_s is None
    assert run.history.first_step_flops == plain().history.first_step_flops


def test_a_layer_that_would_run_uncompiled_past_the_limit_of_graphs_ends_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first layer of a frozen network reads what needs no gradient, so LoRA takes two graphs."""
    # As fast as can be: what a graph becomes does not matter here.
    monkeypatch.setattr(torch.nn.Module, "compile", functools.partialmethod(torch.nn.Module.compile, backend="eager"))
    with torch._dynamo.config.patch(recompile_limit=1), pytest.raises(NotActive, match="FailOnRecompileLimitHit"):
        trained(method="lora", compile=True)


def test_no_pass_of_a_training_fills_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the probe of memory nor a step; evaluation finds the setting as it was."""
    tuned = methods.apply("full", toy.base())
    assert tuned.model.config.use_cache
    seen: list[bool] = []
    keep = tuned.model.register_forward_pre_hook(lambda model, _inputs: seen.append(model.config.use_cache))
    objectives.fit("sft", tuned, toy.data("preference", UNEQUAL), toy.settings(1e-2))
    keep.remove()
    assert len(seen) >= 3 and not any(seen) and tuned.model.config.use_cache


def test_what_cannot_be_compiled_is_not_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "layer_classes", lambda model: [])
    with pytest.raises(NotActive, match="no layer of this network was compiled"):
        trained(compile=True)
