"""BitDelta: the paper's equations, the size of its file, and what it makes of a real fine-tune of a tiny model."""

from __future__ import annotations

import csv
import json
import math
import struct
from pathlib import Path

import pytest
import torch
from helpers import toy_tasks as toy
from helpers.lengths import long_after
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from harness import methods
from harness.errors import InputError
from harness.estimate.meta import meta_base
from harness.methods import bitdelta, load
from harness.methods.bitdelta import OneBitDelta, delta_size, pack_signs, unpack_signs
from harness.models.load import Base
from harness.models.load import load as load_base
from harness.models.spec import load_spec
from harness.networks.tuned import Tuned
from harness.objectives import sft
from harness.tasks.logprobs import IGNORED
from harness.training.packing import PackingCollator, packed_loss
from harness.training.token_loss import token_loss
from harness.training.trainer import train

pytestmark = pytest.mark.slow

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "liu2024_bitdelta.csv"

matrices = arrays.arrays(
    "float32",
    st.tuples(st.integers(1, 9), st.integers(1, 21)),
    elements=st.floats(-10, 10, width=32, allow_subnormal=False),
).map(torch.from_numpy)


@pytest.fixture(scope="module", params=["tiny-llama", "tiny-bert"])
def base(request: pytest.FixtureRequest) -> Base:
    labels = ("a", "b", "c") if request.param == "tiny-bert" else None
    return load_base(request.param, labels=labels, device="cpu", seed=3)


def batch(base: Base) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 2]) if base.has_head else ids}


@torch.no_grad()
def logits(model: torch.nn.Module, base: Base) -> torch.Tensor:
    found: torch.Tensor = model(**{name: value for name, value in batch(base).items() if name != "labels"}).logits
    return found


@pytest.fixture(scope="module")
def parent(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full fine-tune: a few steps on one batch."""
    tuned = methods.apply("full", base)
    optimizer = torch.optim.AdamW(tuned.trainable.values(), lr=1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        tuned.model(**batch(base)).loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp(base.spec.name)
    tuned.save(folder)
    return folder


# --- the equations ---------------------------------------------------------------------------------------------------


@given(matrices)
def test_signs_survive_packing_and_zero_is_negative(matrix: torch.Tensor) -> None:
    packed = pack_signs(matrix)
    rows, columns = matrix.shape
    assert packed.dtype == torch.uint8 and packed.shape == (rows, math.ceil(columns / 8))
    assert torch.equal(unpack_signs(packed, columns), torch.where(matrix > 0, 1.0, -1.0))


@given(matrices, st.floats(0, 20))
def test_the_mean_absolute_delta_minimises_the_error_for_the_signs(matrix: torch.Tensor, other: float) -> None:
    delta = OneBitDelta(*matrix.shape, torch.device("cpu"))
    delta.set(matrix)
    assert float(delta.alpha) == pytest.approx(float(matrix.abs().mean()), rel=1e-5)
    signs = unpack_signs(delta.signs, matrix.shape[1], torch.float64)

    def error(alpha: float) -> float:
        return float((matrix.double() - alpha * signs).square().sum())

    assert error(float(delta.alpha)) <= error(other) * (1 + 1e-6) + 1e-9


def test_eight_signs_make_one_byte_lowest_bit_first() -> None:
    row = torch.tensor([[1.0, -1, 2, 0, -3, 1, 1, -1, 5]])
    assert pack_signs(row).tolist() == [[0b01100101, 1]]


def test_the_packed_product_and_its_gradients_are_those_of_the_dense_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = OneBitDelta(5, 11, torch.device("cpu"))
    delta.set(torch.randn(5, 11, generator=generator))
    x, weights = torch.randn(2, 3, 11, generator=generator), torch.randn(2, 3, 5, generator=generator)
    packed, dense = x.clone().requires_grad_(), x.clone().requires_grad_()
    (delta(packed) * weights).sum().backward()
    by_scale, delta.log_alpha.grad = delta.log_alpha.grad, None
    (torch.nn.functional.linear(dense, delta.matrix()) * weights).sum().backward()
    torch.testing.assert_close(packed.grad, dense.grad)
    torch.testing.assert_close(by_scale, delta.log_alpha.grad)


# --- on a fine-tune --------------------------------------------------------------------------------------------------


def test_every_matrix_is_base_plus_scaled_signs_and_the_rest_is_the_fine_tunes(base: Base, parent: Path) -> None:
    tuned = methods.apply("bitdelta", base, parent=str(parent))
    fine, plain = load(base, parent).model.state_dict(), base.build().state_dict()
    layers = bitdelta.deltas(tuned.model)
    assert tuned.merge is not None
    with tuned.merge() as folded:
        state = folded.state_dict()
        for name, tensor in fine.items():
            layer = name.removesuffix(".weight")
            if layer in layers:
                delta = tensor - plain[name]
                expected = plain[name] + delta.abs().mean() * torch.where(delta > 0, 1.0, -1.0)
                torch.testing.assert_close(state[name], expected, rtol=0, atol=1e-7)
            else:
                assert torch.equal(state[name], tensor), name


def test_folded_answers_as_packed_and_is_undone(base: Base, parent: Path) -> None:
    tuned = methods.apply("bitdelta", base, parent=str(parent))
    packed, state = logits(tuned.model, base), {k: v.clone() for k, v in tuned.model.state_dict().items()}
    assert tuned.merge is not None
    with tuned.merge() as folded:
        torch.testing.assert_close(logits(folded, base), packed, rtol=0, atol=1e-5)
    assert all(torch.equal(v, state[k]) for k, v in tuned.model.state_dict().items())
    assert torch.equal(logits(tuned.model, base), packed)


def test_the_delta_is_nearer_to_the_fine_tune_than_the_base_and_distillation_brings_it_nearer(
    base: Base, parent: Path
) -> None:
    fine = logits(load(base, parent).model, base)
    tuned = methods.apply("bitdelta", base, parent=str(parent))
    assert all(name.endswith("delta.log_alpha") for name in tuned.trainable)

    def distance(model: torch.nn.Module) -> float:
        return float((logits(model, base) - fine).square().mean())

    assert distance(tuned.model) < 0.5 * distance(base.build())
    optimizer = torch.optim.AdamW(tuned.trainable.values(), lr=1e-2)
    losses = []
    assert tuned.own_loss is not None
    for _ in range(10):
        optimizer.zero_grad()
        loss = tuned.own_loss(tuned.model, batch(base))
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
    assert losses[-1] < losses[0]


def test_the_loss_is_the_squared_distance_of_the_logits_padding_left_out(base: Base, parent: Path) -> None:
    tuned = methods.apply("bitdelta", base, parent=str(parent))
    squared = (logits(tuned.model, base) - logits(load(base, parent).model, base)).square().mean(-1)
    mask = batch(base)["attention_mask"]
    expected = squared.mean() if base.has_head else (squared * mask).sum() / mask.sum()
    assert tuned.own_loss is not None
    torch.testing.assert_close(tuned.own_loss(tuned.model, batch(base)).detach(), expected)
    inputs = {name: value for name, value in batch(base).items() if name != "labels"}
    assert bitdelta.distance(tuned, inputs) == pytest.approx(float(expected))
    bitdelta.release_teacher(tuned)
    with pytest.raises(RuntimeError, match="released"):
        bitdelta.distance(tuned, inputs)


def test_without_its_teacher_the_model_still_answers(base: Base, parent: Path) -> None:
    tuned = methods.apply("bitdelta", base, parent=str(parent))
    before = logits(tuned.model, base)
    bitdelta.release_teacher(tuned)
    assert torch.equal(logits(tuned.model, base), before)


@pytest.mark.parametrize("packing", long_after(1, [False, True]))
def test_supervised_fine_tuning_distils_whatever_the_answers_are(tmp_path: Path, packing: bool) -> None:
    """The scales learn from the fine-tune: other labels at the same places leave every bit of them as it was."""
    base = toy.base()
    fine = methods.apply("full", base)
    with torch.no_grad():
        for parameter in fine.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02)
    fine.save(tmp_path)
    fine.model.eval()
    answers = [[8, 9, 10 + n, 11, 12][: 3 + n % 3] for n in range(8)]
    examples = [{"input_ids": [5, 6, 7, *answer], "labels": [IGNORED] * 3 + answer} for answer in answers]
    other = [
        {**e, "labels": [IGNORED] * 3 + [30 + n] * len(a)}
        for n, (e, a) in enumerate(zip(examples, answers, strict=True))
    ]
    collate, loss = (PackingCollator(), packed_loss) if packing else (sft.CompletionCollator(0), token_loss)
    scales, first = [], []
    for rows in (examples, other):
        tuned = methods.apply("bitdelta", base, parent=str(tmp_path))
        # By hand, one text at a time: prompts count as answers do, and there is no padding to leave out.
        texts = [torch.tensor([row["input_ids"]]) for row in rows[:4]]
        squared = [(tuned.model(text).logits - fine.model(text).logits).square().mean(-1).flatten() for text in texts]
        expected = float(torch.cat(squared).mean().detach())
        history = train(tuned, rows, collate, toy.settings(1e-2, batch_size=4), loss=loss, ordered=True)
        scales.append({name: parameter.detach().clone() for name, parameter in tuned.trainable.items()})
        first.append(history.losses[0])
        assert history.losses[0] == pytest.approx(expected, rel=1e-4)
    assert first[0] == first[1]
    assert all(torch.equal(scales[0][name], scales[1][name]) for name in scales[0])
    assert any(
        not torch.equal(scales[0][n], p)
        for n, p in methods.apply("bitdelta", base, parent=str(tmp_path)).trainable.items()
    )


@pytest.mark.parametrize("embeddings", [True, False])
def test_saved_and_reloaded_without_the_parent(base: Base, parent: Path, tmp_path: Path, embeddings: bool) -> None:
    tuned = methods.apply("bitdelta", base, parent=str(parent), embeddings=embeddings)
    stored = tuned.save(tmp_path)
    assert torch.equal(logits(load(base, tmp_path).model, base), logits(tuned.model, base))
    # Eight bytes say how long the header is; the tensors after it take what arithmetic says.
    file = (tmp_path / "trained.safetensors").read_bytes()
    (header,) = struct.unpack("<Q", file[:8])
    assert stored == len(file)
    assert len(file) - 8 - header == delta_size(base.build(), embeddings).total
    assert {entry["dtype"] for name, entry in json.loads(file[8 : 8 + header]).items() if name.endswith("signs")} == {
        "U8"
    }


def test_where_the_parent_lay_is_not_kept(base: Base, parent: Path, tmp_path: Path) -> None:
    """The checkpoint stands for itself: the folder of the fine-tune may be gone, or on another machine."""
    tuned = methods.apply("bitdelta", base, parent=str(parent))
    tuned.save(tmp_path)
    assert tuned.args == {"embeddings": True}
    assert json.loads((tmp_path / "method.json").read_text())["args"] == {"embeddings": True}


def test_only_a_full_fine_tune_of_the_same_base_is_a_parent(base: Base, tmp_path: Path) -> None:
    methods.apply("lora", base).save(tmp_path)
    with pytest.raises(InputError, match="a 'full' fine-tune is needed"):
        methods.apply("bitdelta", base, parent=str(tmp_path))
    with pytest.raises(InputError, match="there is no folder"):
        methods.apply("bitdelta", base, parent=str(tmp_path / "nowhere"))


# --- sizes -----------------------------------------------------------------------------------------------------------


def _published(model: str) -> dict[str, float]:
    with REFERENCE.open() as file:
        rows = [r for r in csv.DictReader(file) if r["table"] == "compression" and r["model"] == model]
    return {row["metric"]: float(row["value"]) for row in rows}


@pytest.mark.parametrize(
    ("published", "shape"),
    [
        ("llama-2-7b", "llama-2-7b"),
        ("llama-2-13b", "llama-2-13b"),
        ("llama-2-70b", "llama-2-70b"),
        ("mistral-7b-v0.1", "mistral-7b"),
    ],
)
def test_sizes_are_the_papers(published: str, shape: str) -> None:
    """The paper gives the checkpoint in 10^9 bytes and the delta in 2^30 bytes; its factor divides the two."""
    model = meta_base(load_spec(shape), "bfloat16").build()
    size = delta_size(model)
    paper = _published(published)
    checkpoint = 2 * sum(p.numel() for p in model.parameters())
    assert round(checkpoint / 1e9, 2) == paper["checkpoint_gb"]
    assert round(size.total / 2**30, 2) == paper["delta_gb"]
    assert paper["checkpoint_gb"] / paper["delta_gb"] == pytest.approx(paper["compression_factor"], abs=0.01)
    assert checkpoint / size.total < paper["compression_factor"]
    smaller = delta_size(model, embeddings=False)
    assert (smaller.signs, smaller.scales) == (size.signs, size.scales)
    sides = 2 * sum(e.weight.numel() for e in (model.get_input_embeddings(), model.get_output_embeddings()))
    assert size.rest - smaller.rest == sides


def test_a_delta_belongs_to_no_parameter_of_the_base(base: Base) -> None:
    empty = methods.apply("bitdelta", base)
    torch.testing.assert_close(logits(empty.model, base), logits(base.build(), base), rtol=0, atol=0)
    assert isinstance(empty, Tuned) and empty.trainable_params == len(bitdelta.deltas(empty.model))
