"""Methods that find their places by structure, on every family of architectures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from harness import methods
from harness.methods.adapter import VARIANTS
from harness.models.load import Base
from harness.models.spec import ModelSpec
from harness.networks.structure import blocks, final_norm
from harness.networks.tuned import Tuned

pytestmark = pytest.mark.slow

_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 259,
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {**_SHAPE, "num_key_value_heads": 2},
    "mistral": {**_SHAPE, "num_key_value_heads": 2},
    "gemma3_text": {**_SHAPE, "head_dim": 8, "num_key_value_heads": 2},
    "qwen2": {**_SHAPE, "num_key_value_heads": 2},
    "gpt_neox": _SHAPE,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "vocab_size": 259},
    "bert": _SHAPE,
    "roberta": _SHAPE,
    "deberta-v2": {**_SHAPE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pooler_hidden_size": 32},
    "t5": {
        "d_model": 32,
        "num_layers": 2,
        "num_heads": 4,
        "d_kv": 8,
        "d_ff": 48,
        "vocab_size": 259,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
    },
}
_ENCODERS = ("bert", "roberta", "deberta-v2")


@dataclass(frozen=True)
class _Seq2Seq(Base):
    """An encoder-decoder: the methods work on it, the harness's objectives do not yet."""

    def build(self, **load_args: Any) -> nn.Module:
        torch.manual_seed(self.seed)
        return transformers.AutoModelForSeq2SeqLM.from_config(self.spec.transformers_config()).eval()


@pytest.fixture(params=SHAPES)
def base(request: pytest.FixtureRequest) -> Base:
    name = request.param
    kind = "encoder" if name in _ENCODERS else "encoder_decoder" if name == "t5" else "decoder"
    source = {"random": True}
    spec = ModelSpec(name=name, family=name, architecture=name, kind=kind, config=SHAPES[name], source=source)
    cls = _Seq2Seq if name == "t5" else Base
    return cls(
        spec=spec,
        tokenizer=transformers.ByT5Tokenizer(extra_ids=0),
        checkpoint=None,
        dtype=torch.float32,
        device=torch.device("cpu"),
        seed=0,
        labels=("a", "b") if kind == "encoder" else None,
    )


def forward(model: nn.Module, base: Base) -> Any:
    ids = torch.randint(3, 250, (2, 7), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1]) if base.has_head else ids
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)


@torch.no_grad()
def logits(tuned: Tuned) -> torch.Tensor:
    found: torch.Tensor = forward(tuned.model, tuned.base).logits
    return found


@pytest.mark.parametrize(
    ("method", "args"),
    [
        *[("adapter", {"variant": variant, "bottleneck": 4}) for variant in VARIANTS],
        ("ia3", {}),
        ("lora", {"r": 2}),
        ("dora", {"r": 2}),
        ("bitfit", {}),
    ],
    ids=lambda value: str(value.get("variant", "")) if isinstance(value, dict) else value,
)
def test_nothing_changes_at_first_and_everything_declared_learns(base: Base, method: str, args: dict[str, Any]) -> None:
    untouched = logits(Tuned(base, base.build()))
    tuned = methods.apply(method, base, **args)
    torch.testing.assert_close(logits(tuned), untouched, rtol=0, atol=2e-6)
    before = {name: p.detach().clone() for name, p in tuned.trainable.items()}
    optimizer = torch.optim.AdamW(tuned.trainable.values(), lr=1e-2)
    tuned.model.train()
    for _ in range(2):
        optimizer.zero_grad()
        forward(tuned.model, base).loss.backward()
        optimizer.step()
    still = [name for name, p in tuned.trainable.items() if torch.equal(p, before[name])]
    # The bias of a key shifts all scores of a query alike, so softmax forgets it: rounding errors move it, or nothing.
    assert [name for name in still if ".key" not in name and "k_proj" not in name] == []
    tuned.model.eval()
    assert not torch.equal(logits(tuned), untouched)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layer_gets_its_adapters(base: Base, variant: str) -> None:
    tuned = methods.apply("adapter", base, variant=variant, bottleneck=4)
    found = sum(name.endswith(".adapter") for name, _ in tuned.model.named_modules())
    # T5's decoder layers attend twice: to themselves and to the encoder.
    layers, crossing = (4, 2) if base.kind == "encoder_decoder" else (2, 0)
    assert found == (2 * layers + crossing if variant == "houlsby" else layers)


def test_the_last_layer_and_its_norm_are_found(base: Base) -> None:
    model = base.build()
    norm = final_norm(model)
    assert (norm is None) == (base.kind == "encoder")
    tuned = methods.apply("full_top_k", base, k=1)
    *_, last = blocks(tuned.model)
    expected = sum(p.numel() for p in last.module.parameters()) + (
        sum(p.numel() for p in norm.parameters()) if norm else 0
    )
    # DeBERTa's pooler stands outside its body: no checkpoint of a body has it.
    head = sum(p.numel() for name, p in tuned.trainable.items() if name.startswith(("classifier", "pooler")))
    assert tuned.trainable_params == expected + head
