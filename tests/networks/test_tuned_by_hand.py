"""What a tuned network counts, folds and stores, and where its virtual tokens stand when it generates."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy
from torch import nn

from harness import methods
from harness.models.load import Base
from harness.networks.peft_network import with_peft
from harness.networks.structure import Block, blocks, final_norm, in_features, out_features
from harness.networks.tuned import Tuned, train_only


@pytest.fixture(scope="module")
def base() -> Base:
    return toy.base()


def chain() -> nn.Sequential:
    """12 + 4 numbers, then 8 + 2."""
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def test_what_trains_is_counted_and_so_is_everything(base: Base) -> None:
    tuned = Tuned(base, chain())
    train_only(tuned.model, [tuned.model[1].weight], base)
    assert set(tuned.trainable) == {"1.weight"}
    assert (tuned.trainable_params, tuned.total_params) == (8, 26)
    assert repr(tuned) == "8 of 26 parameters train (30.77 %)"


def test_a_packed_weight_counts_what_it_stands_for(base: Base) -> None:
    model = chain()
    model[0].weight = nn.Parameter(torch.zeros(6, 1, dtype=torch.uint8), requires_grad=False)
    model[0].weight.quant_state = Namespace(shape=(4, 3))
    assert Tuned(base, model).total_params == 26


def test_tied_weights_train_and_count_once(base: Base) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert (Tuned(base, model).trainable_params, Tuned(base, model).total_params) == (9, 9)


def test_a_small_share_is_told_to_one_digit(base: Base) -> None:
    model = nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.Linear(50, 1, bias=False))
    train_only(model, model[1].parameters(), base)
    assert repr(Tuned(base, model, note="a note")) == "50 of 1,000,050 parameters train (5e-03 %)\na note"


def test_frozen_tensors_that_belong_to_the_task_are_stored_too(base: Base, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    train_only(model, [model[0].bias], base)
    plain = Tuned(base, model)
    assert set(plain.stored) == {"0.bias"}
    more = Tuned(base, model, also_stored=("1.running_mean", "0.weight"))
    assert set(more.stored) == {"0.bias", "0.weight", "1.running_mean"}
    small, large = plain.save(tmp_path / "plain"), more.save(tmp_path / "more")
    assert small == (tmp_path / "plain" / "trained.safetensors").stat().st_size
    assert large > small >= 4 * 4
    assert plain.save(tmp_path / "plain") == small, "whatever an earlier attempt left there"
    frozen = nn.Linear(3, 4).requires_grad_(False)
    assert Tuned(base, frozen).save(tmp_path / "frozen") == 0


def test_a_checkpoint_has_the_hash_of_each_file(base: Base, tmp_path: Path) -> None:
    Tuned(base, nn.Linear(3, 4)).save(tmp_path)
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True).returncode == 0
    named = {line.split("  ")[1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines()}
    assert named == {"trained.safetensors", "method.json"}


def test_the_seed_of_an_adapter_is_the_bases(base: Base) -> None:
    from peft import LoraConfig

    def first(of: Base) -> torch.Tensor:
        torch.manual_seed(99)
        tuned = with_peft(of, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
        return next(p for name, p in tuned.trainable.items() if "lora_A" in name)

    assert torch.equal(first(base), first(base))
    assert not torch.equal(first(base), first(toy.base(seed=5)))


class Layer(nn.Module):
    """An attention part and a gated feed-forward part, which comes back to the model's width on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.attention = type("Attention", (nn.Sequential,), {})(nn.Linear(4, 6), nn.Linear(6, 4))
        self.gate, self.up, self.narrow = nn.Linear(4, 9), nn.Linear(4, 9), nn.Linear(9, 4)
        self.wide, self.down = nn.Linear(4, 9), nn.Linear(9, 4)


class Network(nn.Module):
    """Two layers between a norm that is not theirs and one that closes the stack."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Namespace(hidden_size=4)
        self.embedding_norm = nn.LayerNorm(4)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.closing_norm = nn.LayerNorm(4)


def test_the_places_of_a_network_by_its_structure() -> None:
    network = Network()
    assert list(blocks(network)) == [
        Block(layer, (layer.attention[1],), layer.gate, layer.down) for layer in network.layers
    ]
    assert final_norm(network) is network.closing_norm
    del network.closing_norm
    assert final_norm(network) is None


def test_a_transposed_matrix_has_its_widths_the_other_way_round() -> None:
    from transformers.pytorch_utils import Conv1D

    for layer in (nn.Linear(3, 5), Conv1D(5, 3)):
        assert (in_features(layer), out_features(layer)) == (3, 5)
    assert in_features(nn.LayerNorm(3)) is None and out_features(nn.LayerNorm(3)) is None


@torch.no_grad()
def test_generation_puts_the_virtual_tokens_between_padding_and_text(base: Base) -> None:
    tuned = methods.apply("prompt", base, num_virtual_tokens=2, init="text", text="ab")
    virtual = tuned.model.prompt_encoder["default"].embedding.weight
    table = tuned.model.get_input_embeddings().weight
    network: Any = tuned.model.get_base_model()
    seen: dict[str, torch.Tensor] = {}

    def answer(inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, **settings: Any) -> torch.Tensor:
        seen.update(embeds=inputs_embeds, mask=attention_mask, **settings)
        return torch.tensor([[7], [8]])

    network.generate = answer
    ids, mask = torch.tensor([[0, 0, 70, 71], [80, 81, 82, 83]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    output = tuned.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=torch.tensor(1))
    assert output.tolist() == [[0, 0, 70, 71, 7], [80, 81, 82, 83, 8]]
    assert seen["mask"].tolist() == [[0, 0, 1, 1, 1, 1], [1] * 6]
    torch.testing.assert_close(seen["embeds"][0], torch.stack([table[0], table[0], *virtual, table[70], table[71]]))
    torch.testing.assert_close(seen["embeds"][1], torch.cat([virtual, table[80:84]]))
    assert int(seen["max_new_tokens"]) == 1
