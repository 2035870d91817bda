"""Layers that a checkpoint lacks train, are stored and stay whole with every method, and PEFT alone loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import checkpoints
from peft import PeftModel
from torch import nn

from harness import methods
from harness.errors import InputError
from harness.estimate.counts import trainable_params
from harness.estimate.meta import meta_base
from harness.models.load import Base, load
from harness.models.spec import load_spec
from harness.networks.fresh import fresh_modules, full_precision_modules
from harness.networks.peft_network import place_virtual_tokens
from harness.networks.tuned import Tuned

pytestmark = pytest.mark.slow

LABELS = ("a", "b", "c")
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "full_top_k": {"k": 1},
    "head": {"pooling": "model"},
    "bitfit": {},
    "adapter": {"bottleneck": 4},
    "lora": {"r": 2},
    "dora": {"r": 2},
    "ia3": {},
    "prompt": {"num_virtual_tokens": 3},
    "p_tuning": {"num_virtual_tokens": 3, "encoder_hidden_size": 8},
    "prefix": {"num_virtual_tokens": 3},
    "llama_adapter": {"adapter_len": 3},
    "qlora": {"r": 2},
    "peft": {"peft_type": "LN_TUNING", "config": {"target_modules": ".*[nN]orm.*"}},
}
#: Saved by the class, as people save them; what the checkpoint then lacks for three labels.
LACKING: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "bert": ("bert", transformers.AutoModel, ("classifier",)),
    "bert-of-masks": ("bert", transformers.AutoModelForMaskedLM, ("classifier", "bert.pooler.dense")),
    "roberta": ("roberta", transformers.AutoModelForMaskedLM, ("classifier",)),
    "distilbert": ("distilbert", transformers.AutoModel, ("pre_classifier", "classifier")),
    "deberta-v2": ("deberta-v2", transformers.AutoModel, ("pooler", "classifier")),
    "albert-of-masks": ("albert", transformers.AutoModelForMaskedLM, ("classifier", "albert.pooler")),
    "electra": ("electra", transformers.AutoModel, ("classifier",)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("checkpoints")
    saved = {name: checkpoints.save(place / name, family, auto) for name, (family, auto, _) in LACKING.items()}
    saved["llama"] = checkpoints.save(place / "llama", "llama")
    saved["gpt_neox"] = checkpoints.save(place / "gpt_neox", "gpt_neox")
    return saved


def classifier(folders: dict[str, Path], name: str) -> Base:
    return load(str(folders[name]), labels=LABELS, device="cpu")


def applied(method: str, base: Base) -> Tuned:
    try:
        return methods.apply(method, base, **METHODS[method])
    except InputError as error:
        if "adaption prompt" not in str(error) and "keys and values" not in str(error):
            raise
        pytest.skip(str(error))


def batch(base: Base) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(0))
    labels = {"labels": torch.tensor([0, 2])} if base.labels else {} if base.scalar else {"labels": ids}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **labels}


def train(tuned: Tuned, steps: int = 2) -> None:
    tuned.model.train()
    optimizer = torch.optim.AdamW(tuned.trainable.values(), lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        output = tuned.model(**batch(tuned.base))
        (output.logits.sum() if tuned.base.scalar else output.loss).backward()
        optimizer.step()
    tuned.model.eval()


@torch.no_grad()
def logits(model: nn.Module, base: Base) -> torch.Tensor:
    found: torch.Tensor = model(**{name: t for name, t in batch(base).items() if name != "labels"}).logits
    return found


def values(tuned: Tuned) -> dict[str, torch.Tensor]:
    """The fresh layers' tensors that are in use, by their names in the plain network."""
    network = tuned.model.get_base_model() if isinstance(tuned.model, PeftModel) else tuned.model
    inside = tuple(f"{module}." for module in fresh_modules(tuned.base, network))
    return {
        name.replace(".modules_to_save.default", ""): p.detach().clone()
        for name, p in network.named_parameters()
        if name.startswith(inside) and ".original_module." not in name
    }


@pytest.mark.parametrize("name", LACKING)
def test_what_is_fresh(folders: dict[str, Path], name: str) -> None:
    base = classifier(folders, name)
    assert set(fresh_modules(base, base.build())) == set(LACKING[name][2])
    assert set(full_precision_modules(base)) == set(LACKING[name][2])


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((name, method) for name in ("deberta-v2", "distilbert") for method in METHODS),
        *((name, method) for name in ("bert-of-masks", "roberta") for method in ("full", "head", "lora", "prompt")),
        *((name, method) for name in ("albert-of-masks", "electra") for method in ("bitfit", "ia3", "p_tuning")),
    ],
)
def test_fresh_layers_train_and_are_stored_with_every_method(
    folders: dict[str, Path], name: str, method: str, tmp_path: Path
) -> None:
    base = classifier(folders, name)
    tuned = applied(method, base)
    before = values(tuned)
    train(tuned)
    after = values(tuned)
    assert before and all(not torch.equal(before[key], after[key]) for key in before), "one did not move"
    tuned.save(tmp_path)
    reloaded = methods.load(base, tmp_path)
    torch.testing.assert_close(values(reloaded), after, rtol=0, atol=0)
    torch.testing.assert_close(logits(reloaded.model, base), logits(tuned.model, base), rtol=0, atol=2e-6)
    assert not [key for key, p in reloaded.trainable.items() if "original_module" in key]


@pytest.mark.parametrize("method", ["full", "head", "bitfit", "lora", "prefix", "llama_adapter", "qlora"])
def test_a_fresh_reward_trains_and_is_stored(folders: dict[str, Path], method: str, tmp_path: Path) -> None:
    base = load(str(folders["llama"]), scalar=True, device="cpu")
    tuned = applied(method, base)
    before = values(tuned)
    train(tuned)
    assert list(before) == ["score.weight"] and not torch.equal(before["score.weight"], values(tuned)["score.weight"])
    tuned.save(tmp_path)
    again = methods.load(base, tmp_path)
    torch.testing.assert_close(logits(again.model, base), logits(tuned.model, base), rtol=0, atol=2e-6)


@pytest.mark.parametrize("method", ["bitfit", "adapter", "lora", "prompt", "qlora"])
def test_the_output_projection_of_a_decoder_saved_without_it_is_fresh(
    folders: dict[str, Path], method: str, tmp_path: Path
) -> None:
    base = load(str(folders["gpt_neox"]), device="cpu")
    assert fresh_modules(base, base.build()) == ("lm_head",)
    tuned = applied(method, base)
    before = values(tuned)
    train(tuned)
    assert not torch.equal(before["lm_head.weight"], values(tuned)["lm_head.weight"])
    tuned.save(tmp_path)
    again = methods.load(base, tmp_path)
    torch.testing.assert_close(logits(again.model, base), logits(tuned.model, base), rtol=0, atol=2e-6)


@pytest.mark.parametrize("method", ["lora", "ia3", "prompt", "p_tuning"])
@pytest.mark.parametrize("name", ["deberta-v2", "distilbert", "bert-of-masks"])
def test_peft_alone_loads_an_adapter_that_answers_the_same(
    folders: dict[str, Path], name: str, method: str, tmp_path: Path
) -> None:
    tuned = applied(method, classifier(folders, name))
    train(tuned)
    tuned.save(tmp_path)
    torch.manual_seed(11)  # what it makes anew is not what was trained
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folders[name], num_labels=3)
    alone = PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    # PEFT's own forward lets the head read a virtual token; what is stored is complete all the same.
    place_virtual_tokens(alone, tuned.base)
    torch.testing.assert_close(logits(alone, tuned.base), logits(tuned.model, tuned.base), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["deberta-v2", "distilbert"])
def test_no_low_rank_update_lies_on_a_fresh_layer(folders: dict[str, Path], name: str) -> None:
    from bitsandbytes.nn import Linear4bit

    model = applied("qlora", classifier(folders, name)).model
    adapted = {key.split(".")[2] for key, _ in model.named_parameters() if "lora_A" in key}
    packed = {key.split(".")[2] for key, module in model.named_modules() if isinstance(module, Linear4bit)}
    assert adapted == packed == {name.removesuffix("-v2")}


def test_a_head_for_another_number_of_labels_is_made_anew(folders: dict[str, Path], tmp_path: Path) -> None:
    two = load(str(folders["distilbert"]), labels=("a", "b"), device="cpu")
    trained = two.build()
    trained.save_pretrained(tmp_path)
    two.tokenizer.save_pretrained(tmp_path)
    base = load(str(tmp_path), labels=LABELS, device="cpu")
    assert base.missing_keys == {"classifier.weight", "classifier.bias"}
    model = base.build()
    assert model.classifier.out_features == 3
    torch.testing.assert_close(model.pre_classifier.weight, trained.pre_classifier.weight)


@pytest.mark.parametrize("name", ["deberta-v2", "distilbert", "roberta"])
@pytest.mark.parametrize("method", ["lora", "bitfit", "qlora"])
def test_the_estimate_counts_fresh_layers_as_trainable(folders: dict[str, Path], name: str, method: str) -> None:
    estimated = methods.apply(method, meta_base(load_spec(str(folders[name])), "float32", LABELS), **METHODS[method])
    real = applied(method, classifier(folders, name))
    assert estimated.trainable_params == real.trainable_params
    assert estimated.total_params == real.total_params


def test_published_counts_leave_the_fresh_layers_out(folders: dict[str, Path]) -> None:
    # 2 layers, a rank of 2 on two matrices of 32 x 32.
    args = {"r": 2, "target_modules": ["query_proj", "value_proj"]}
    assert trainable_params(str(folders["deberta-v2"]), "lora", args) == 2 * 2 * 2 * (32 + 32)
