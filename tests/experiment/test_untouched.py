"""What no trial changes is evaluated once: the cache says what an evaluation says, and another question asks anew."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy

from harness import files, methods
from harness.experiment import Experiment, untouched
from harness.models.load import Base
from harness.networks.tuned import Tuned
from harness.sources.fetch import LocalSource
from harness.tasks import data as tasks
from harness.tasks.data import TaskData
from harness.tasks.evaluate import Evaluation, evaluate
from harness.trial import Budget

pytestmark = pytest.mark.slow

GREETINGS = toy.data("generation", [], [toy.example(f"a{n}:", "b" * (n + 1)) for n in range(3)],
                     metrics=["bleu", "exact_match"])  # fmt: skip


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Base]:
    """A cache of its own; the base of each evaluation that was not in it."""
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path / "cache"))
    bases: list[Base] = []

    def counted(tuned: Tuned, *rest: Any) -> Evaluation:
        bases.append(tuned.base)
        return evaluate(tuned, *rest)

    monkeypatch.setattr(untouched, "evaluate", counted)
    return bases


def by_example(evaluation: Evaluation) -> list[dict[str, list[float]]]:
    """What two scores are not compared by: values and statistics."""
    return [{name: list(values) for name, values in score.by_example.items()} for score in evaluation.scores]


def of_kind(kind: str) -> TaskData:
    if kind == "corpus":
        return toy.data("corpus", [], [toy.example("", text) for text in ("some words", "and others of them")],
                        metrics=["perplexity", "bits_per_byte"])  # fmt: skip
    if kind == "preference":
        return toy.data("preference", [], [toy.example("a:", "b", "c"), toy.example("d:", "e", "ff")],
                        metrics=["accuracy", "rouge_l"])  # fmt: skip
    return GREETINGS


@pytest.mark.parametrize("kind", ["generation", "corpus", "preference"])
def test_the_cache_says_what_an_evaluation_says(asked: list[Base], kind: str) -> None:
    base, data = toy.base(), of_kind(kind)
    plain = evaluate(methods.apply("baseline", base), data, "test", 48)
    first, second = (untouched.evaluation(base, data, "test", 48) for _ in range(2))
    assert len(asked) == 1
    assert first == second == plain and plain.primary.n
    assert by_example(first) == by_example(second) == by_example(plain)


def other_questions(folder: Path) -> dict[str, Callable[[], Evaluation]]:
    """Ways to ask something else than toy.base() on GREETINGS."""
    base, data, ask = toy.base(), GREETINGS, untouched.evaluation
    other_text = dataclasses.replace(data, test=(*data.test[:-1], toy.example("z:", "b")))
    other_right = dataclasses.replace(data, test=(*data.test[:-1], toy.example("a2:", "c")))
    shorter = dataclasses.replace(data, spec=data.spec.model_copy(update={"max_new_tokens": 2}))
    weights, tuned = folder / "weights", folder / "tuned"
    shutil.copytree(str(base.checkpoint), weights)
    (weights / "config.json").write_text((weights / "config.json").read_text() + "\n")
    tuned.mkdir()
    (tuned / "delta").write_text("1")

    def ask_tuned() -> Evaluation:
        return ask(base, data, "test", 48, lambda: methods.apply("baseline", base), tuned)

    def ask_retuned() -> Evaluation:
        (tuned / "delta").write_text("2")
        return ask_tuned()

    return {
        "an example": lambda: ask(base, other_text, "test", 48),
        "a right answer": lambda: ask(base, other_right, "test", 48),
        "the task": lambda: ask(base, shorter, "test", 48),
        "the split": lambda: ask(base, data, "validation", 48),
        "the length": lambda: ask(base, data, "test", 47),
        "the number format": lambda: ask(toy.base(dtype=torch.bfloat16), data, "test", 48),
        "the rounding of products": lambda: ask(toy.base(tf32=True), data, "test", 48),
        "the attention": lambda: ask(toy.base(attention="eager"), data, "test", 48),
        "the weights": lambda: ask(toy.base(checkpoint=weights), data, "test", 48),
        "a checkpoint": ask_tuned,
        "its content": ask_retuned,
    }


def test_another_question_asks_anew(asked: list[Base], tmp_path: Path) -> None:
    untouched.evaluation(toy.base(), GREETINGS, "test", 48)
    for number, (what, ask) in enumerate(other_questions(tmp_path).items(), start=2):
        ask()
        ask()
        assert len(asked) == number, what


def test_a_changed_file_of_the_package_and_another_number_of_threads_ask_anew(
    asked: list[Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched.evaluation(toy.base(), GREETINGS, "test", 48)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    untouched.evaluation(toy.base(), GREETINGS, "test", 48)
    monkeypatch.setattr(untouched, "source_digest", lambda rooms: "another")
    untouched.evaluation(toy.base(), GREETINGS, "test", 48)
    assert len(asked) == 3


def test_the_source_of_a_room_is_all_that_is_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "__file__", str(tmp_path / "files.py"))
    (tmp_path / "kitchen" / "cupboard").mkdir(parents=True)
    digests = set()
    for name in ("kitchen/stove.py", "kitchen/cupboard/cup.py", "cellar.py"):
        (tmp_path / name).write_text(name)
        files.source_digest.cache_clear()
        digests.add(files.source_digest(("kitchen",)))
    files.source_digest.cache_clear()
    assert len(digests) == 2, "the cellar is no part of the kitchen"


def test_seeds_share_what_weights_of_a_checkpoint_answer_and_not_what_drawn_ones_do(asked: list[Base]) -> None:
    stored = toy.base().spec.model_copy(update={"source": LocalSource(local="toy")})
    for seed in (1, 2):
        untouched.evaluation(toy.base(seed=seed, spec=stored), GREETINGS, "test", 48)
    assert len(asked) == 1
    for seed in (1, 2):
        untouched.evaluation(toy.base(seed=seed), GREETINGS, "test", 48)
    assert len(asked) == 3


def test_a_trial_asks_the_base_once_and_records_nothing_of_it(
    asked: list[Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "load", lambda *_: GREETINGS)
    monkeypatch.setattr("harness.experiment.experiment.models.load", lambda *_args, **_kwargs: toy.base())
    budget = Budget(train_examples=1, max_length=48).model_dump()
    runs = [Experiment("toy", "toy", "sft", budget, learning_rate=1e-2) for _ in range(2)]
    first, second = (run.evaluate_base() for run in runs)
    assert first == second and len(asked) == 1
    assert (runs[0].evaluations, runs[0].eval_s, runs[0].peak_inference_bytes) == ({}, None, None)


def test_what_fails_leaves_nothing_behind(asked: list[Base], tmp_path: Path) -> None:
    def broken() -> Tuned:
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError, match="no network"):
        untouched.evaluation(toy.base(), GREETINGS, "test", 48, broken)
    assert [file.suffix for file in (tmp_path / "cache" / "untouched").iterdir()] == [".lock"]
    untouched.evaluation(toy.base(), GREETINGS, "test", 48)
    assert len(asked) == 1
