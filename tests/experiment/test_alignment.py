"""What alignment trials measure: preferences, perplexity, rewards, distances and wins, on a tiny network."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from helpers import toy_tasks as toy

from harness import methods
from harness.experiment import Experiment, alignment, chain
from harness.models.spec import ModelSpec
from harness.objectives import clm, reward
from harness.tasks.evaluate import Answer, Evaluation, evaluate
from harness.tasks.likelihood import blocks, prefers_chosen, text_nats
from harness.tasks.metrics import Score
from harness.training.rollouts import Reference

pytestmark = pytest.mark.slow


def test_a_language_model_and_a_reward_model_judge_pairs() -> None:
    data = toy.data("preference", toy.PAIRS)
    judge = methods.apply("full", toy.base(scalar=True))
    reward.fit(judge, data, toy.settings(1e-2, batch_size=8, epochs=12))
    found = evaluate(judge, data, "test", 48)
    assert found.primary.metric == "accuracy" and found.primary.value == 1.0
    # The better answers of a data set that says the opposite are the worse ones here.
    opposite = [toy.example(e.prompt, e.rejected or "", e.completion) for e in toy.PAIRS]
    assert not any(prefers_chosen(judge, opposite, 48, 24))


@pytest.mark.parametrize("metrics", [["accuracy", "rouge_1"], ["accuracy"]])
def test_a_language_model_answers_the_prompts_of_pairs(metrics: list[str]) -> None:
    """Its own words, whatever the metrics are: what a reward model judges are answers, not the pairs themselves."""
    data = toy.data("preference", toy.PAIRS, metrics=metrics)
    spoken = evaluate(methods.apply("full", toy.base()), data, "test", 48)
    assert [s.metric for s in spoken.scores] == metrics
    assert len(spoken.answers) == len(toy.PAIRS)
    known = {answer for pair in toy.PAIRS for answer in (pair.completion, pair.rejected)}
    assert not known & {answer.output for answer in spoken.answers}


@pytest.mark.parametrize(("objective", "metric"), [("sft", "rouge_1"), ("reward", "accuracy")])
def test_the_row_names_the_metric_of_its_scores(objective: str, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs whose primary metric is one of text; a reward model gives no text and has its accuracy."""
    budget = {"train_examples": 4, "batch_size": 2, "max_length": 64, "eval_examples": 4, "max_new_tokens": 4}
    run = Experiment("tiny-llama", "factual_preference", objective, budget, learning_rate=1e-3)
    changes = {"metrics": ("accuracy", "rouge_1"), "primary_metric": "rouge_1"}
    run.data = dataclasses.replace(run.data, spec=run.data.spec.model_copy(update=changes))
    run.apply("lora", r=2)
    run.evaluate()
    monkeypatch.setattr(ModelSpec, "is_random", False)  # of random weights no score is recorded
    row, scores = run.record().columns, {score.metric: score.value for score in run.evaluations["test"].scores}
    assert (row["primary_metric"], row["test_score"]) == (metric, scores[metric])


def test_the_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary() -> None:
    tuned = methods.apply("full", toy.base())
    with torch.no_grad():
        tuned.model.lm_head.weight.zero_()
    data = toy.data(
        "corpus", [toy.example("", "some words " * 9), toy.example("", "others")], prompt="", completion="{c}"
    )
    found = evaluate(tuned, data, "test", 16)
    assert found.primary.metric == "perplexity"
    assert found.primary.value == pytest.approx(259, rel=1e-4)


def test_texts_are_read_in_blocks_and_no_token_is_lost() -> None:
    tuned = methods.apply("full", toy.base())
    nats, tokens = text_nats(tuned, ["abcdefghij", "k"], max_length=4)
    # Ten letters and the end token are blocks of 4, 4 and 3; the first of each is only read.
    assert tokens == [8, 1]
    assert all(n > 0 for n in nats)
    tokenizer = tuned.base.tokenizer
    first, second = blocks(tokenizer, ["abc", "de", "f"], 4)  # 4 + 3 + 2 tokens; the last one fills no block
    assert len(first) == len(second) == 4
    assert first[3] == tokenizer.eos_token_id


def test_continued_pretraining_lowers_the_perplexity_of_its_domain() -> None:
    texts = [toy.example("", "the quick brown fox " * 6)] * 8
    data = toy.data("corpus", texts, prompt="", completion="{c}")
    tuned = methods.apply("full", toy.base())
    before = evaluate(tuned, data, "test", 32).primary.value
    history = clm.fit(tuned, data, toy.settings(1e-2, train_examples=16, max_length=32))
    assert evaluate(tuned, data, "test", 32).primary.value < 0.5 * before
    assert len(history.steps) == 4
    assert all(step.tokens == 4 * 32 for step in history.steps), "a block holds no padding"


def test_the_kl_to_itself_is_zero_and_grows_with_the_distance() -> None:
    tuned = methods.apply("lora", toy.base())
    reference = Reference(tuned)
    prompts = [e.prompt for e in toy.PAIRS]
    same = alignment.kl_to_reference(tuned, reference, prompts, 4, 48)
    assert same.value == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        for name, parameter in tuned.trainable.items():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    far = alignment.kl_to_reference(tuned, reference, prompts * 4, 4, 48)
    assert far.value > 0.1
    assert far.n == len(prompts) * 4


def test_the_distance_is_that_of_the_same_answers_whatever_was_drawn_before() -> None:
    tuned = methods.apply("lora", toy.base())
    reference = Reference(tuned)
    with torch.no_grad():
        for parameter in tuned.trainable.values():
            parameter.add_(0.1)
    found = []
    for drawn_before, seed in ((0, 0), (3, 0), (0, 1)):
        torch.manual_seed(5)
        torch.rand(drawn_before)
        found.append(alignment.kl_to_reference(tuned, reference, ["a:", "b:"], 4, 48, seed).value)
    assert found[0] == found[1] != found[2]


def test_a_reward_is_given_for_a_prompt_and_its_answer() -> None:
    found = alignment.mean_reward(
        lambda prompts, answers: torch.tensor([10.0 * len(p) + len(a) for p, a in zip(prompts, answers, strict=True)]),
        ["pp", "p"],
        ["aaa", "aaaaa"],
    )
    assert (found.metric, found.value, found.n) == ("reward", (23 + 15) / 2, 2)


def test_win_rate_counts_a_tie_half() -> None:
    def answers(*outputs: str) -> Evaluation:
        return Evaluation("test", (), tuple(Answer(str(n), output, ("right",)) for n, output in enumerate(outputs)))

    ours, theirs = answers("right", "right", "wrong", "wrong"), answers("wrong", "right", "right", "wrong")
    found = alignment.win_rate("exact_match", ours, theirs)
    assert found.value == pytest.approx((1 + 0.5 + 0 + 0.5) / 4)
    assert found.stderr == pytest.approx(math.sqrt((0.25 + 0 + 0.25 + 0) / 3) / 2)
    assert alignment.win_rate("exact_match", answers("right"), answers("wrong")).stderr is None, "of one example"
    one_prompt = Evaluation(
        "test", (), tuple(Answer(str(n // 2), a.output, ("right",)) for n, a in enumerate(ours.answers))
    )
    # Two prompts, with mean wins of 3/4 and 1/4: a standard error of sd / sqrt(2).
    assert alignment.win_rate("exact_match", one_prompt, theirs).stderr == pytest.approx(0.25)


def _comparison(folder: Path) -> tuple[Experiment, chain.Comparison]:
    budget = {"train_examples": 4, "batch_size": 2, "max_length": 64, "eval_examples": 4, "max_new_tokens": 4}
    run = Experiment("tiny-llama", "factual_preference", "dpo", budget, learning_rate=1e-3)
    run.apply("lora", r=2).save(folder / "opponent")
    methods.apply("lora", dataclasses.replace(run.base, scalar=True), r=2).save(folder / "judge")
    return run, chain.Comparison(run, folder / "judge", folder / "opponent")


def test_a_policy_that_has_not_moved_is_neither_better_nor_elsewhere(tmp_path: Path) -> None:
    run, against = _comparison(tmp_path)
    against.record()
    (before,) = run.scores["base"]
    accuracy, wins, kl, after = run.scores["test"]
    assert (accuracy.metric, accuracy.n) == ("reward_accuracy", 4)
    assert (wins.metric, wins.value) == ("win_rate", 0.5)
    assert (kl.metric, kl.value) == ("kl", pytest.approx(0, abs=1e-5))
    assert (after.metric, after.value) == ("reward", pytest.approx(before.value))
    assert before.metric == "reward"


@pytest.mark.long
def test_wins_are_counted_by_the_task_s_own_metric_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    monkeypatch.setattr(alignment, "win_rate", lambda metric, *_: counted.append(metric) or Score(metric, 1.0, 0.0, 4))
    for metrics in (("accuracy", "chrf", "rouge_l"), ("rouge_2",), ("accuracy",)):
        run, against = _comparison(tmp_path)
        run.data = dataclasses.replace(run.data, spec=run.data.spec.model_copy(update={"metrics": metrics}))
        against.record()
    assert counted == ["chrf", "rouge_2"], "and where there is none, not at all"
