"""A prompt gets the same answer alone, in a padded batch, and from plain forward passes, whatever the method."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import checkpoints

from harness import catalog, methods
from harness.models.load import load
from harness.networks.tuned import Tuned
from harness.tasks.decoding import _batches, answer_text, greedy
from harness.tasks.evaluate import generate_ids

NEW_TOKENS = 8


def shaken(method: str) -> Tuned:
    """A tiny model with weights and trained parameters large enough for answers to differ."""
    tuned = methods.apply(method, load("tiny-llama", device="cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.model.parameters():
            if parameter.ndim == 2 and parameter.is_floating_point():
                parameter.mul_(6)
        for parameter in tuned.trainable.values():
            parameter.normal_(std=0.5, generator=generator)
    return tuned


@torch.no_grad()
def by_forward_passes(tuned: Tuned, prompt: list[int]) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + NEW_TOKENS:
        batch = torch.tensor([ids])
        best = int(tuned.model(input_ids=batch, attention_mask=torch.ones_like(batch)).logits[0, -1].argmax())
        if best == tuned.base.tokenizer.eos_token_id:
            break
        ids.append(best)
    return ids[len(prompt) :]


def drawn(*lengths: int, seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 250, (length,), generator=generator).tolist() for length in lengths]


METHODS = ["baseline", "full", "bitfit", "adapter", "prompt", "prefix", "llama_adapter", "lora"]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shared", [0, 12])
def test_the_same_answer_in_a_padded_batch_alone_and_by_forward_passes(method: str, shared: int) -> None:
    """Also where the prompts begin alike, and their beginning is read once."""
    assert method in catalog.METHODS
    tuned = shaken(method)
    (beginning,) = drawn(shared, seed=2)
    prompts = [beginning + own for own in drawn(20, 1, 37, 7)]
    expected = [by_forward_passes(tuned, prompt) for prompt in prompts]
    assert len({tuple(answer) for answer in expected}) > 1, "all answers alike would prove nothing"
    assert generate_ids(tuned, prompts, NEW_TOKENS, batch_size=4) == expected
    assert [generate_ids(tuned, [prompt], NEW_TOKENS)[0] for prompt in prompts] == expected


def watched(tuned: Tuned) -> list[tuple[int, int]]:
    """The rows and columns that the network reads in each pass, as they come."""
    read: list[tuple[int, int]] = []
    tuned.model.register_forward_hook(
        lambda _m, _a, inputs, _o: read.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    return read


def test_what_prompts_begin_with_is_read_once_and_finished_answers_leave() -> None:
    tuned = shaken("baseline")
    (beginning,) = drawn(12, seed=2)
    prompts = [beginning + own for own in drawn(3, 4, 5, 6, 2)]
    free = greedy(tuned, prompts, 4, ends=[])
    read = watched(tuned)
    stopped = greedy(tuned, prompts, 4, ends=[free[1][1], free[3][0]], batch_size=3)
    ends = {free[1][1], free[3][0]}
    expected = [list(itertools.takewhile(lambda token: token not in ends, answer)) for answer in free]
    assert stopped == expected and len(set(map(len, expected))) > 1
    assert read[0] == (1, 12), "the beginning"
    assert [shape for shape in read if shape[1] > 1] == [(1, 12), (3, 4), (2, 6)], "and then what is each prompt's own"
    steps = sum(rows for rows, width in read if width == 1)
    assert steps == sum(min(len(answer), 3) for answer in expected), "one token for each that an answer goes on from"


def test_answers_of_many_prompts_and_of_few_at_once() -> None:
    """Twenty prompts are read eight at a time and answered together, as far as memory goes."""
    tuned = shaken("baseline")
    prompts = drawn(*range(1, 21))
    expected = [greedy(tuned, [prompt], 4, ends=[])[0] for prompt in prompts]
    read = watched(tuned)
    assert greedy(tuned, prompts, 4, ends=[]) == expected
    assert read == [(8, 8), (8, 16), (4, 20), (20, 1), (20, 1), (20, 1)]
    assert list(_batches([[0] * 8188] * 3, 4, 64)) == [[0, 1], [2]]
    end = expected[3][1]
    stopped = [list(itertools.takewhile(lambda token: token != end, answer)) for answer in expected]
    assert 0 < sum(len(answer) < 4 for answer in stopped) < 5, "too few to leave, so they stay and say no more"
    assert greedy(tuned, prompts, 4, ends=[end]) == stopped


def test_a_window_that_is_long_enough_holds_padding_too(tmp_path: Path) -> None:
    folder = checkpoints.save(tmp_path / "m", "gemma3_text", transformers.AutoModelForCausalLM, sliding_window=40)
    tuned = methods.apply("baseline", load(str(folder), dtype="float32", device="cpu", seed=0))
    tuned.model.eval()
    prompts = drawn(*range(1, 11))
    read = watched(tuned)
    answers = generate_ids(tuned, prompts, NEW_TOKENS)
    assert read[:2] == [(8, 8), (2, 10)]
    assert answers == [by_forward_passes(tuned, prompt) for prompt in prompts]


@pytest.mark.parametrize(("family", "shape"), [("gemma3_text", {"sliding_window": 16}), ("mamba", {})])
def test_where_padding_would_count_transformers_generates(
    family: str, shape: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short window would lose text to padding; a recurrent model keeps no keys and values."""
    mamba = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 272, "state_size": 4}
    monkeypatch.setitem(checkpoints.SHAPES, "mamba", mamba)
    folder = checkpoints.save(tmp_path / family, family, transformers.AutoModelForCausalLM, **shape)
    tuned = methods.apply("baseline", load(str(folder), dtype="float32", device="cpu", seed=0))
    tuned.model.eval()
    (beginning,) = drawn(12, seed=2)
    prompts = [beginning + own for own in drawn(1, 9)]
    assert generate_ids(tuned, prompts, NEW_TOKENS) == [by_forward_passes(tuned, prompt) for prompt in prompts]


def test_tokens_beyond_the_tokenizer_stand_for_no_text() -> None:
    """The network of a random 7B model has 32,000 rows, and its tokenizer reads bytes: two of these are letters."""
    tokenizer = transformers.ByT5Tokenizer(extra_ids=0)
    assert len(tokenizer) == 259
    assert answer_text(tokenizer, [259, 100, 31_999, 101, tokenizer.eos_token_id]) == "ab"
