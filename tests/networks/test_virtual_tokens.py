"""Virtual tokens before the text of an encoder: the head reads the text, in every family and on every path."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import toy_tasks as toy
from torch import nn

from harness import methods
from harness.measure.latency import prediction_latency
from harness.methods import load
from harness.models.load import Base
from harness.models.spec import ModelSpec
from harness.networks.tuned import Tuned
from harness.objectives import classification
from harness.tasks.evaluate import predict_labels

pytestmark = pytest.mark.slow

VIRTUAL = 5
_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 259,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
_DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pooler_hidden_size": 32}
_WITHOUT_SPECIAL = {"bos_token_id": 1, "eos_token_id": 1, "cls_token_id": 1, "sep_token_id": 1}
#: Where each pools: in the body or behind it, the first token or a mean, a module or a slice.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", _SHAPE),
    "albert": ("albert", {**_SHAPE, "embedding_size": 16}),
    "mpnet": ("mpnet", _SHAPE),
    "nomic": ("nomic_bert", _SHAPE),
    "roberta": ("roberta", _SHAPE),
    "xlm-roberta": ("xlm-roberta", _SHAPE),
    "electra": ("electra", {**_SHAPE, "embedding_size": 16}),
    "distilbert": ("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 259}),
    "deberta": ("deberta", {**_SHAPE, **_DEBERTA}),
    "deberta-v2": ("deberta-v2", {**_SHAPE, **_DEBERTA}),
    "modernbert": ("modernbert", {**_SHAPE, **_WITHOUT_SPECIAL, "classifier_pooling": "cls"}),
    "modernbert-mean": ("modernbert", {**_SHAPE, **_WITHOUT_SPECIAL, "classifier_pooling": "mean"}),
    "eurobert-mean": ("eurobert", {**_SHAPE, **_WITHOUT_SPECIAL, "classifier_pooling": "mean"}),
}
TEXTS = ("a short one", "and another, which is longer")


def encoder(family: str = "bert") -> Base:
    architecture, config = FAMILIES[family]
    spec = ModelSpec(
        name=family,
        family=family,
        architecture=architecture,
        kind="encoder",
        config=config,
        source={"random": True},
    )
    tokenizer = transformers.ByT5Tokenizer(extra_ids=0)
    device = torch.device("cpu")
    return Base(spec, tokenizer, None, torch.float32, device, seed=0, labels=("a", "b", "c"))


def prompted(method: str = "prompt", family: str = "bert") -> Tuned:
    return methods.apply(method, encoder(family), num_virtual_tokens=VIRTUAL)


def inputs(base: Base, *texts: str) -> dict[str, torch.Tensor]:
    batch = base.tokenizer(list(texts), padding=True, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@torch.no_grad()
def logits(tuned: Tuned, *texts: str) -> torch.Tensor:
    found: torch.Tensor = tuned.model(**inputs(tuned.base, *texts)).logits
    return found


@torch.no_grad()
def let_no_token_see_another(network: nn.Module) -> None:
    """Attention adds nothing and all positions are alike: then what a token becomes depends on itself alone."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and ("attention" in name or "attn" in name):
            for parameter in module.parameters():
                parameter.zero_()
        if isinstance(module, nn.Embedding) and "position" in name:
            module.weight.zero_()


@pytest.mark.parametrize("method", ["prompt", "p_tuning"])
@pytest.mark.parametrize("family", FAMILIES)
def test_where_no_token_sees_another_virtual_ones_change_nothing(family: str, method: str) -> None:
    tuned = prompted(method, family)
    let_no_token_see_another(tuned.model.get_base_model())
    with torch.no_grad():
        plain = tuned.model.get_base_model()(**inputs(tuned.base, *TEXTS)).logits
    torch.testing.assert_close(logits(tuned, *TEXTS), plain)


@pytest.mark.parametrize("method", ["prompt", "p_tuning"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_see_the_virtual_tokens_and_train_them(family: str, method: str) -> None:
    tuned = prompted(method, family)
    with torch.no_grad():
        plain = tuned.model.get_base_model()(**inputs(tuned.base, *TEXTS)).logits
    assert (logits(tuned, *TEXTS) - plain).abs().max() > 1e-4
    tuned.model(**inputs(tuned.base, *TEXTS), labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tuned.model.prompt_encoder.parameters())


def in_training(tuned: Tuned) -> None:
    examples = [replace(toy.example(text, "a"), label=label) for label, text in enumerate(TEXTS)]
    data = toy.data("classification", examples, label="l", labels={"a": "a", "b": "b"}, metrics=["accuracy"])
    classification.fit(tuned, data, toy.settings())


def in_evaluation(tuned: Tuned) -> None:
    predict_labels(tuned, [toy.example(text, "a") for text in TEXTS], 48)


def in_latency(tuned: Tuned) -> None:
    prediction_latency(tuned.model, tuned.base.device, 259, repeats=1)


@pytest.mark.parametrize("path", [in_training, in_evaluation, in_latency])
@pytest.mark.parametrize("reloaded", [False, True])
def test_berts_pooler_reads_the_state_behind_the_virtual_tokens(
    path: Callable[[Tuned], None], reloaded: bool, tmp_path: Path
) -> None:
    tuned = prompted()
    if reloaded:
        tuned.save(tmp_path)
        tuned = load(tuned.base, tmp_path)
    bert = tuned.model.get_base_model().bert
    given: list[torch.Tensor] = []
    read: list[torch.Tensor] = []
    bert.encoder.layer[-1].register_forward_hook(lambda _m, _i, output: given.append(output[:, VIRTUAL].detach()))
    bert.pooler.register_forward_pre_hook(lambda _m, args: read.append(args[0][:, 0].detach()))
    path(tuned)
    assert len(read) == len(given) > 0
    assert all(torch.equal(*pair) for pair in zip(read, given, strict=True))


@pytest.mark.parametrize("method", ["prompt", "p_tuning"])
def test_saved_and_reloaded_gives_the_same_logits(method: str, tmp_path: Path) -> None:
    tuned = prompted(method)
    in_training(tuned)
    tuned.model.eval()
    tuned.save(tmp_path)
    torch.testing.assert_close(logits(load(tuned.base, tmp_path), *TEXTS), logits(tuned, *TEXTS))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_alone_gets_the_logits_that_it_gets_in_a_batch(family: str) -> None:
    tuned = prompted(family=family)
    alone = torch.cat([logits(tuned, text) for text in TEXTS])
    torch.testing.assert_close(logits(tuned, *TEXTS), alone, rtol=1e-4, atol=1e-5)


def hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_a_copy_reads_its_own_prompt_and_the_network_below_is_left_as_it_was() -> None:
    tuned = prompted()
    network = tuned.model.get_base_model()
    before, plain = logits(tuned, *TEXTS), network(**inputs(tuned.base, *TEXTS)).logits
    copied = copy.deepcopy(tuned.model)
    with torch.no_grad():
        copied.prompt_encoder["default"].embedding.weight.normal_()
        changed = copied(**inputs(tuned.base, *TEXTS)).logits
    assert (changed - before).abs().max() > 1e-3
    torch.testing.assert_close(logits(tuned, *TEXTS), before)
    untouched = tuned.base.build()
    torch.testing.assert_close(plain, untouched(**inputs(tuned.base, *TEXTS)).logits)
    assert hooks(network) == hooks(untouched)
