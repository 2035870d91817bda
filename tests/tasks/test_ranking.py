"""Answers ranked with the prompt read once: the log-probabilities of each answer behind its prompt, read alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import checkpoints
from helpers import toy_tasks as toy

from harness import methods
from harness.models.load import load
from harness.networks.tuned import Tuned
from harness.tasks import ranking
from harness.tasks.ranking import answer_logprobs

pytestmark = pytest.mark.slow

PROMPTS = [[40 + i for i in range(length)] for length in (5, 17, 1, 11)]
ANSWERS = [[[70], [71, 72, 73, 74]], [[75, 76]], [[77], [78], [79, 80, 81]], [[82, 83, 84], [85]]]
METHODS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "bitfit": {},
    "adapter": {"bottleneck": 4},
    "prompt": {"num_virtual_tokens": 3},
    "p_tuning": {"num_virtual_tokens": 3, "encoder_hidden_size": 8},
    "prefix": {"num_virtual_tokens": 3},
    "llama_adapter": {"adapter_len": 3},
    "lora": {"r": 2},
    "ia3": {},
    "qlora": {"r": 2},
}


@torch.no_grad()
def alone(tuned: Tuned, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """The whole text in one pass, without padding, company or cache."""
    logprobs = tuned.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
    return sum(float(logprobs[i - len(answer) - 1, token]) for i, token in enumerate(answer))


def assert_each_is_right(tuned: Tuned) -> None:
    """Where prompts begin alike as well: their beginning is then read once."""
    for shared in ([], list(range(90, 100))):
        assert_with(tuned, [shared + prompt for prompt in PROMPTS])


def assert_with(tuned: Tuned, prompts: list[list[int]]) -> None:
    for prompt, several, ranked in zip(prompts, ANSWERS, answer_logprobs(tuned, prompts, ANSWERS), strict=True):
        assert [float(one) for one in ranked] == pytest.approx([alone(tuned, prompt, one) for one in several], abs=2e-4)


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_is_as_likely_as_it_is_alone(method: str) -> None:
    tuned = methods.apply(method, toy.base(), **METHODS[method])
    torch.manual_seed(0)
    for parameter in tuned.trainable.values():  # what starts as nothing would hide a mistake
        parameter.data += 0.1 * torch.randn_like(parameter)
    tuned.model.eval()
    assert_each_is_right(tuned)


@pytest.mark.parametrize("family", [*checkpoints.DECODERS, "mamba"])
def test_in_every_family(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mamba keeps no keys and values, so it reads the prompt again."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 272, "state_size": 4}
    monkeypatch.setitem(checkpoints.SHAPES, "mamba", shape)
    folder = checkpoints.save(tmp_path / family, family, transformers.AutoModelForCausalLM)
    tuned = methods.apply("baseline", load(str(folder), dtype="float32", device="cpu", seed=0))
    tuned.model.eval()
    assert_each_is_right(tuned)


def test_padding_takes_no_place_in_a_sliding_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints.save(tmp_path / "m", "gemma3_text", transformers.AutoModelForCausalLM, sliding_window=8)
    tuned = methods.apply("baseline", load(str(folder), dtype="float32", device="cpu", seed=0))
    tuned.model.eval()
    texts = [chr(97 + i) * length for i, length in enumerate((3, 12, 12, 9, 4))]
    answers = ("yes", "no", "a", "perhaps so")

    def ids(_tokenizer: Any, text: str, *_: Any) -> Any:
        return tuned.base.tokenizer(text)["input_ids"]

    monkeypatch.setattr(ranking, "cut_prompt", ids)
    monkeypatch.setattr(ranking, "completion_ids", lambda tokenizer, _, answer, *__: ids(tokenizer, answer))
    likelihoods = [[alone(tuned, ids(None, text), ids(None, one)) for one in answers] for text in texts]
    expected = [several.index(max(several)) for several in likelihoods]
    examples = [dataclasses.replace(toy.example(text, ""), candidates=answers) for text in texts]
    batches = list(ranking._batches(tuned, [[0] * len(text) for text in texts], [[[1] * 10]] * 5, 48))
    assert batches == [[0], [4], [3], [1, 2]]
    assert ranking.rank_labels(tuned, examples, 64) == expected


def test_the_prompt_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = methods.apply("baseline", toy.base())
    tuned.model.eval()
    read: list[int] = []
    logits: list[int] = []
    tuned.model.model.register_forward_hook(
        lambda _m, _a, inputs, _o: read.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    tuned.model.lm_head.register_forward_hook(lambda _m, _a, output: logits.append(output.shape[:-1].numel()))
    answer_logprobs(tuned, [[40] * 20, [41] * 20], [[[50, 51, 52], [53, 54]], [[55]]])
    # Two prompts of 20 tokens, then the first two tokens of three answers.
    assert read == [40, 6]
    # One position for each prompt, and each token behind a first one.
    assert logits == [2, 3]


def test_what_all_prompts_begin_with_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever batches they come: 16 bytes of an instruction, then what each prompt has of its own."""
    tuned = methods.apply("baseline", toy.base())
    tuned.model.eval()
    read: list[tuple[int, ...]] = []
    tuned.model.model.register_forward_hook(
        lambda _m, _a, inputs, _o: read.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    examples = [
        dataclasses.replace(toy.example(f"an instruction: {own}", ""), candidates=("y", "n"))
        for own in ("abc", "b", "cd", "d")
    ]
    ranking.likelihoods(tuned, examples, 64, batch_size=4)
    prompts = [shape for shape in read if shape[0] < 4]
    assert prompts == [(1, 16), (2, 1), (2, 3)]


def test_batches_have_prompts_of_similar_length() -> None:
    tuned = methods.apply("baseline", toy.base())
    prompts = [[0] * length for length in (9, 1, 5, 2, 7)]
    assert list(ranking._batches(tuned, prompts, [[[1]] * 4] * 5, 8)) == [[1, 3], [2, 4], [0]]
    assert list(ranking._batches(tuned, prompts, [[[1]] * 9] * 5, 8)) == [[1], [3], [2], [4], [0]]
