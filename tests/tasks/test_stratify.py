"""Splits and budgets of classification hold every label in proportion, and smaller ones lie in larger ones."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.tasks import data
from harness.tasks.stratify import stratified
from harness.trial import Budget

LABELS = st.lists(st.sampled_from("aaaaaabbbcd"), max_size=80)


def worst(order: list[str], of: list[str]) -> float:
    """By how many items some beginning of ``order`` misses its share of some label of ``of`` at most."""
    shares = {label: count / len(of) for label, count in Counter(of).items()}
    counts = [Counter(order[:n]) for n in range(1, len(order) + 1)]
    return max((abs(c[label] - n * p) for n, c in enumerate(counts, 1) for label, p in shares.items()), default=0.0)


@given(LABELS)
def test_every_beginning_holds_every_label_within_one_of_its_share(labels: list[str]) -> None:
    items = list(enumerate(labels))
    order = stratified(items, lambda item: item[1])
    assert sorted(order) == items
    assert worst([label for _, label in order], labels) < 1
    for label in set(labels):
        numbers = [number for number, of in order if of == label]
        assert numbers == sorted(numbers), "those of one label keep their order"


def test_without_labels_the_order_stays() -> None:
    assert stratified([3, 1, 2], lambda _: None) == [3, 1, 2]
    assert stratified(list("aabb"), lambda letter: letter) == list("abab")


def own(folder: Path, labels: list[str], **splits: int) -> str:
    rows = "".join(f"text {number},{label}\n" for number, label in enumerate(labels))
    (folder / "own.csv").write_text("body,label\n" + rows, encoding="utf-8")
    spec = {
        **{"name": "own", "kind": "classification", "source": {"local": "own.csv"}, "prompt": "{body}"},
        **{"label": "label", "labels": {letter: letter for letter in "abcd"}, "splits": splits},
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return str(folder / "own.yaml")


@settings(max_examples=15, deadline=None)
@given(labels=st.lists(st.sampled_from("aaabbcd"), min_size=24, max_size=60), seed=st.integers(0, 9))
def test_splits_and_budgets_hold_the_labels_in_proportion(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], seed: int
) -> None:
    path = own(tmp_path_factory.mktemp("own"), labels, validation=7, test=9)
    task = data.load(path, seed=seed)
    words = {split: ["abcd"[e.label or 0] for e in getattr(task, split)] for split in ("test", "validation", "train")}
    assert {split: len(of) for split, of in words.items()} == {"test": 9, "validation": 7, "train": len(labels) - 16}
    assert worst(words["test"], labels) < 1
    assert worst(words["validation"], words["validation"] + words["train"]) < 1, "of what the test split leaves"
    assert worst(words["train"], words["train"]) < 1
    smaller = [data.load(path, Budget(train_examples=n, eval_examples=n), seed) for n in (4, 6)]
    for cut, n in zip(smaller, (4, 6), strict=True):
        assert (cut.train, cut.test, cut.validation) == (task.train[:n], task.test[:n], task.validation[:n])


def test_another_seed_draws_other_examples_in_the_same_proportion(tmp_path: Path) -> None:
    path = own(tmp_path, list("ab" * 30), validation=10, test=10)
    drawn = [data.load(path, Budget(train_examples=10), seed).train for seed in (0, 1)]
    assert {e.prompt for e in drawn[0]} != {e.prompt for e in drawn[1]}
    assert [Counter(e.label for e in some) for some in drawn] == [{0: 5, 1: 5}] * 2
    first = {data.load(path, seed=seed).train[0].label for seed in range(8)}
    assert first == {0, 1}, "which label comes first is the seed's"


@pytest.mark.slow
def test_sizes_of_a_series_lie_in_each_other_on_real_data() -> None:
    series = [data.load("trec", Budget(train_examples=n), seed=3).train for n in (32, 64, 128)]
    assert [len(some) for some in series] == [32, 64, 128]
    for small, large in itertools.pairwise(series):
        assert large[: len(small)] == small
    all_of_it = Counter(example.label for example in data.load("trec", seed=3).train)
    share = {label: 32 * count / all_of_it.total() for label, count in all_of_it.items()}
    counts = Counter(example.label for example in series[0])
    assert all(abs(counts[label] - wanted) < 1 for label, wanted in share.items())
