"""Averages over groups of tasks: worked out by hand, and the reason where a member is missing."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import command_line
from helpers.trials_table import trials

from harness.errors import InputError
from harness.judgement.groups import GroupAverage, group_averages
from harness.report import sections
from harness.sweeps import spec as sweeps
from harness.tasks import groups
from harness.tasks.groups import load_group
from harness.tasks.spec import load_spec, names

GLUE = load_group("glue_no_wnli")


Scores = dict[tuple[str, str, int], dict[str, float | None]]


def tables(scores: Scores, **columns: object) -> dict[str, pd.DataFrame]:
    """(task, method, seed) -> metric -> score on test; every trial ended well."""
    rows, long = [], []
    for number, ((task, method, seed), values) in enumerate(scores.items()):
        rows.append(
            {"trial_id": f"t{number}", "task": task, "method": method, "seed": seed, "valid_score": 0.5, **columns}
        )
        long += [
            {"trial_id": f"t{number}", "split": split, "metric": metric, "value": value + shift}
            for metric, value in values.items()
            if value is not None
            for split, shift in (("test", 0.0), ("validation", 0.4))
        ]
    return {"trials": trials(*rows), "scores": pd.DataFrame(long, columns=["trial_id", "split", "metric", "value"])}


def whole(method: str = "lora", seeds: int = 2) -> Scores:
    """A score of every metric of every task of GLUE: 0.1, 0.2, ... in their order, 0.02 more with each seed."""
    return {
        (task, method, seed): {
            metric: 0.1 * (n + 1) + 0.02 * seed + 0.01 * m for m, metric in enumerate(member.metrics)
        }
        for seed in range(seeds)
        for n, member in enumerate(GLUE.members)
        for task in member.tasks
    }


def only(found: list[GroupAverage], group: str = "glue_no_wnli") -> GroupAverage:
    (one,) = [average for average in found if average.group == group]
    return one


def test_the_average_is_that_of_members_whose_metrics_and_tasks_are_averaged_first() -> None:
    scores = whole()
    scores["mnli_mismatched", "lora", 0] = {"accuracy": 0.2}
    scores["mnli_mismatched", "lora", 1] = {"accuracy": 0.2}
    found = only(group_averages(tables(scores)))
    by_seed = []
    for seed in (0, 1):
        of_member = [0.1 * (n + 1) + 0.02 * seed for n in range(8)]
        for n in (2, 3, 4):  # two metrics each
            of_member[n] += 0.005
        of_member[5] = (0.6 + 0.02 * seed + 0.2) / 2  # mnli and its mismatched half
        by_seed.append(statistics.fmean(of_member))
    assert found.average == pytest.approx(statistics.fmean(by_seed))
    assert found.seed_stderr == pytest.approx(statistics.stdev(by_seed) / math.sqrt(2))
    assert (found.seeds, found.scored, found.members, found.reason) == (2, 8, 8, None)


def test_one_seed_has_an_average_and_no_error() -> None:
    found = only(group_averages(tables(whole(seeds=1))))
    assert found.average is not None and (found.seeds, found.seed_stderr) == (1, None)


def test_only_seeds_that_every_member_has_count() -> None:
    scores = whole(seeds=3)
    del scores["rte", "lora", 2]
    expected = only(group_averages(tables(whole(seeds=2))))
    assert only(group_averages(tables(scores))).average == pytest.approx(expected.average)
    for seed in (0, 1):
        del scores["rte", "lora", seed]
    scores["rte", "lora", 7] = {"accuracy": 0.5}
    found = only(group_averages(tables(scores)))
    assert (found.average, found.scored, found.reason) == (None, 8, "no seed has a score in every member")


def test_what_is_missing_is_the_reason() -> None:
    scores = whole(seeds=1)
    del scores["cola", "lora", 0]
    scores["stsb", "lora", 0] = {"pearson": None, "spearman": 0.5}
    found = only(group_averages(tables(scores)))
    assert (found.average, found.seeds, found.scored) == (None, 0, 6)
    assert found.reason == "cola is missing; stsb has no pearson"
    assert only(group_averages(tables(whole())), "glue").reason == "wnli is missing"


def test_two_rows_of_a_task_are_no_average() -> None:
    made = tables(whole(seeds=1))
    twice = made["trials"][made["trials"].task == "rte"].assign(trial_id="again", max_length=17)
    made["trials"] = pd.concat([made["trials"], twice], ignore_index=True)
    assert only(group_averages(made)).reason == "rte has 2 rows"


def test_the_best_stands_first_and_those_without_an_average_last() -> None:
    better: Scores = {key: {m: (v or 0) + 0.05 for m, v in values.items()} for key, values in whole("full", 1).items()}
    short = whole("head", 1)
    del short["cola", "head", 0]
    found = [
        one for one in group_averages(tables({**short, **whole(seeds=1), **better})) if one.group == "glue_no_wnli"
    ]
    assert [one.row.method for one in found] == ["full", "lora", "head"]


def test_one_task_alone_and_tasks_of_a_users_own_are_no_group() -> None:
    assert group_averages(tables({("rte", "lora", 0): {"accuracy": 0.5}})) == []
    assert group_averages(tables(whole(), task_version="1+0123456789ab")) == []
    assert group_averages({"trials": trials().iloc[:0], "scores": pd.DataFrame()}) == []


def test_the_report_shows_averages_and_reasons() -> None:
    text = sections.groups(tables(whole(seeds=1))).text
    assert "<h3>glue_no_wnli</h3>" in text and "wnli is missing" in text and "8 of 8" in text


# --- groups in a sweep -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", groups.names())
def test_a_group_names_tasks_and_metrics_that_there_are(name: str) -> None:
    group = load_group(name)
    assert group.name == name and len(set(group.tasks)) == len(group.tasks)
    for member in group.members:
        for task in member.tasks:
            assert task in names() and set(member.metrics) <= set(load_spec(task).metrics), task
    assert name not in names(), "a sweep could not tell them apart"


def test_an_unknown_group_is_told() -> None:
    with pytest.raises(InputError, match="group: unknown name 'glu'; did you mean 'glue'"):
        load_group("glu")


def test_a_sweep_names_a_group_wherever_it_names_tasks(tmp_path: Path) -> None:
    document = {
        "name": "g",
        "models": ["minilm-l6-22m"],
        "tasks": ["rte", "glue"],
        "methods": {"lora": {}},
        "exclude": [{"task": ["glue_no_wnli", "trec"], "method": "lora"}, {"method": "head"}],
        "overrides": [{"match": {"task": "superglue"}, "budget": {"max_length": 64}}],
    }
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(document))
    sweep = sweeps.load(tmp_path / "g.yaml")
    assert sweep.tasks == ["rte", *(task for task in load_group("glue").tasks if task != "rte")]
    assert sweep.exclude == [{"task": [*GLUE.tasks, "trec"], "method": "lora"}, {"method": "head"}]
    assert sweep.overrides[0].match == {"task": list(load_group("superglue").tasks)}
    assert sweeps.load(tmp_path / "g.yaml", ["tasks=[glue_no_wnli]"]).tasks == list(GLUE.tasks)


def test_the_groups_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command_line.run(monkeypatch, capsys, "list", "groups")
    assert code == 0 and all(name in out for name in groups.names())
