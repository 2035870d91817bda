"""The parts of a transformer are found by structure, in every family."""

from __future__ import annotations

import pytest
import torch
import transformers

from harness.networks.structure import blocks, layer_norms

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 64}


def build(family: str) -> torch.nn.Module:
    configs = {
        "llama": transformers.LlamaConfig(**SMALL),
        "gemma3_text": transformers.Gemma3TextConfig(**SMALL, head_dim=8, num_key_value_heads=2),
        "qwen2": transformers.Qwen2Config(**SMALL),
        "gpt_neox": transformers.GPTNeoXConfig(**SMALL),
        "gpt2": transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_inner=48, vocab_size=64),
        "bert": transformers.BertConfig(**SMALL),
        "roberta": transformers.RobertaConfig(**SMALL),
        "t5": transformers.T5Config(d_model=32, num_layers=2, num_heads=4, d_kv=8, d_ff=48, vocab_size=64),
    }
    auto = transformers.AutoModelForSeq2SeqLM if family == "t5" else transformers.AutoModelForCausalLM
    if family in ("bert", "roberta"):
        auto = transformers.AutoModelForSequenceClassification
    return auto.from_config(configs[family])


EXPECTED = {
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "gemma3_text": ("self_attn.o_proj", "mlp.down_proj"),
    "qwen2": ("self_attn.o_proj", "mlp.down_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "bert": ("attention.output.dense", "output.dense"),
    "roberta": ("attention.output.dense", "output.dense"),
}


@pytest.mark.parametrize("family", EXPECTED)
def test_projections_back_to_the_residual_stream(family: str) -> None:
    found = list(blocks(build(family)))
    assert len(found) == 2
    for block in found:
        names = {id(module): name for name, module in block.module.named_modules()}
        attention, feed_forward = EXPECTED[family]
        assert [names[id(m)] for m in block.attention_out] == [attention]
        assert names[id(block.feed_forward_out)] == feed_forward


def test_t5_decoder_layers_attend_twice() -> None:
    found = list(blocks(build("t5")))
    assert [len(block.attention_out) for block in found] == [1, 1, 2, 2]


@pytest.mark.parametrize("family", EXPECTED)
def test_layer_norms_are_all_found(family: str) -> None:
    model = build(family)
    expected = {id(p) for name, p in model.named_parameters() if "norm" in name.lower() or "ln_" in name.lower()}
    assert {id(p) for norm in layer_norms(model) for p in norm.parameters()} == expected


def test_a_network_without_layers_is_refused() -> None:
    model = torch.nn.Linear(4, 4)
    model.config = transformers.LlamaConfig(**SMALL)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="no transformer layers found in Linear"):
        list(blocks(model))
