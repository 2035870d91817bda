"""Tasks: data that cannot leak, splits that cannot drift, and files of a user's own."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.sources.fetch import HubSource, LocalSource, PackageSource
from harness.tasks import check, data
from harness.tasks.spec import TaskSpec, load_spec, names
from harness.tasks.templates import placeholders
from harness.trial import Budget, Trial

TICKETS = [{"body": f"ticket number {i}", "team": "billing" if i % 3 else "tech"} for i in range(60)]

OWN_TASK: dict[str, Any] = {
    "name": "tickets",
    "kind": "classification",
    "source": {"local": "tickets.csv"},
    "prompt": "Ticket: {body}\nTeam:",
    "label": "team",
    "labels": {"billing": "billing", "tech": "technical"},
    "splits": {"validation": 10, "test": 15},
}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def own(folder: Path, rows: list[dict[str, Any]] | None = None, **changes: Any) -> str:
    """A user's task in ``folder``: a CSV file and a YAML file; returns the path of the latter."""
    write_csv(folder / "tickets.csv", TICKETS if rows is None else rows)
    path = folder / "tickets.yaml"
    path.write_text(yaml.safe_dump({**OWN_TASK, **changes}), encoding="utf-8")
    return str(path)


def inputs(examples: tuple[data.Example, ...]) -> set[str]:
    return {data.normalise(example.prompt) for example in examples}


# --- a user's own task -----------------------------------------------------------------------------------------------


def test_a_csv_file_and_ten_lines_of_yaml_are_a_task(tmp_path: Path) -> None:
    task = data.load(own(tmp_path))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [35, 10, 15]
    assert task.label_words == ("billing", "technical")
    assert (task.spec.primary_metric, task.spec.higher_is_better) == ("accuracy", True)
    example = next(e for e in task.train if e.label == 1)
    assert example.completion == "technical" and example.references == ("technical",)
    assert example.prompt == f"Ticket: {example.fields['body']}\nTeam:"


@pytest.mark.parametrize("ending", ["json", "jsonl", "jsonl.gz", "parquet", "arrow", "tsv"])
def test_every_format_gives_the_same_examples(tmp_path: Path, ending: str) -> None:
    table = pa.Table.from_pylist(TICKETS)
    lines = "\n".join(map(json.dumps, TICKETS)).encode()
    path = tmp_path / f"rows.{ending}"
    match ending:
        case "json":
            path.write_text(json.dumps(TICKETS))
        case "jsonl":
            path.write_bytes(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines))
        case "parquet":
            pq.write_table(table, path)
        case "arrow":
            with pa.ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table)
        case "tsv":
            path.write_text("body\tteam\n" + "".join(f"{r['body']}\t{r['team']}\n" for r in TICKETS))
    expected = data.load(own(tmp_path))
    found = data.load(own(tmp_path, source={"local": path.name}))
    assert (found.train, found.validation, found.test) == (expected.train, expected.validation, expected.test)


def test_fields_are_renamed_and_extracted(tmp_path: Path) -> None:
    task = own(
        tmp_path,
        fields={"text_of_it": "body"},
        extract={"text_of_it": r"number (?P<number>\d+)"},
        prompt="Ticket {number}:",
    )
    assert all(e.prompt == f"Ticket {e.fields['body'].split()[-1]}:" for e in data.load(task).test)


# --- splits ----------------------------------------------------------------------------------------------------------

ROWS = st.lists(
    st.fixed_dictionaries(
        {"q": st.sampled_from(["a", "A", " a ", "b", "c", "d", "e", "ｆ", "f"]), "a": st.sampled_from("xyz")}
    ),
    min_size=12,
    max_size=40,
)


@settings(deadline=None, max_examples=40)
@given(rows=ROWS, kind=st.sampled_from(["generation", "classification"]), salt=st.integers(0, 3))
def test_no_input_stands_in_two_splits(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], kind: str, salt: int
) -> None:
    labels = (
        {"label": "a", "labels": {"x": "x", "y": "y", "z": "z"}}
        if kind == "classification"
        else {"label": None, "labels": {}}
    )
    completion = "{label_word}" if kind == "classification" else "{a}"
    path = own(
        tmp_path_factory.mktemp("task"),
        rows,
        kind=kind,
        prompt="{q}",
        completion=completion,
        splits={"validation": 1, "test": 1},
        split_seed=salt,
        **labels,
    )
    if len({data.normalise(row["q"]) for row in rows}) < 3:
        with pytest.raises(InputError, match="splits"):
            data.load(path)
        return
    task = data.load(path)
    splits = [inputs(split) for split in (task.train, task.validation, task.test)]
    assert not any(one & other for one, other in itertools.combinations(splits, 2))
    assert set.union(*splits) == {data.normalise(row["q"]) for row in rows}
    # Every right answer in the data is a reference (of a class, the first).
    for example in task.test:
        answers = [row["a"] for row in rows if data.normalise(row["q"]) == data.normalise(example.prompt)]
        assert example.references == (tuple(dict.fromkeys(answers)) if kind == "generation" else (answers[0],))


def test_splits_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(TICKETS, len(TICKETS))  # noqa: S311
    one, other = data.load(own(tmp_path)), data.load(own(tmp_path, shuffled))
    assert (one.train, one.validation, one.test) == (other.train, other.validation, other.test)


@pytest.mark.slow
def test_splits_do_not_depend_on_pythons_hash(tmp_path: Path) -> None:
    code = "import sys; from harness.tasks import data; print([e.prompt for e in data.load(sys.argv[1]).train])"
    path = own(tmp_path)
    found = {
        subprocess.check_output([sys.executable, "-c", code, path], env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_the_split_seed_moves_the_splits(tmp_path: Path) -> None:
    assert inputs(data.load(own(tmp_path)).test) != inputs(data.load(own(tmp_path, split_seed=1)).test)


def test_official_splits_keep_what_they_share(tmp_path: Path) -> None:
    """What stands in several files is taken from training first, then from validation."""
    for name, numbers in {"train": range(30), "dev": range(20, 40), "test": range(25, 45)}.items():
        write_csv(tmp_path / f"{name}.csv", [TICKETS[i] for i in numbers])
    files = {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}
    task = data.load(own(tmp_path, source={"local": "."}, splits=files))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [20, 5, 20]
    drawn = data.load(own(tmp_path, source={"local": "."}, splits={**files, "validation": 5}))
    assert [len(split) for split in (drawn.train, drawn.validation, drawn.test)] == [20, 5, 20]
    assert inputs(drawn.test) == inputs(task.test)
    assert not inputs(drawn.validation) & inputs(drawn.train)


# --- budget ----------------------------------------------------------------------------------------------------------


def test_training_examples_follow_from_task_and_seed_alone(tmp_path: Path) -> None:
    path = own(tmp_path)
    small, large = Budget(train_examples=8, eval_examples=4), Budget(train_examples=16)
    first = data.load(path, small, seed=0)
    assert len(first.train) == 8 and first.train == data.load(path, small, seed=0).train
    assert first.train == data.load(path, large, seed=0).train[:8], "a larger budget begins with the smaller one"
    other = data.load(path, small, seed=1)
    assert first.train != other.train
    assert (first.validation, first.test) == (other.validation, other.test)
    assert first.test == data.load(path, large).test[:4] == data.load(path).test[:4]
    assert first.validation == data.load(path).validation[:4] != first.test


def test_a_budget_may_shorten_the_answers(tmp_path: Path) -> None:
    path = own(tmp_path)
    assert data.load(path, Budget(max_new_tokens=3)).spec.max_new_tokens == 3
    assert data.load(path, Budget()).spec.max_new_tokens == data.load(path).spec.max_new_tokens


def test_a_budget_beyond_the_data_gets_all_of_it_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="task 'tickets': the budget allows 256 training examples, there are 35"):
        assert len(data.load(own(tmp_path), Budget()).train) == 35


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lable": "team"}, "unknown name 'lable'; did you mean 'label'"),
        ({"label": "tema"}, "tickets.csv: unknown name 'tema'; did you mean 'team'"),
        ({"labels": {"billing": "b", "tecs": "t"}}, "field 'team': unknown name 'tech'; did you mean 'tecs'"),
        ({"labels": {"billing": "same", "tech": "same"}}, "two labels have the same word"),
        ({"label": None}, "needs 'label'"),
        ({"prompt": "{body.__class__}"}, "only plain fields"),
        ({"prompt": "{body!r}"}, "only plain fields"),
        ({"prompt": "{0}"}, "only plain fields"),
        ({"prompt": "{body"}, "prompt"),
        ({"metrics": ["acuracy"]}, "unknown name 'acuracy'; did you mean 'accuracy'"),
        ({"metrics": ["accuracy"], "primary_metric": "macro_f1"}, "primary_metric"),
        ({"metrics": []}, "metrics"),
        ({"splits": {"validation": 30, "test": 40}}, "splits.validation: 30 inputs are asked for, 20 are left"),
        ({"splits": {"validation": 30, "test": 30}}, "splits.train: no input is left"),
        ({"splits": {"validation": 0, "test": 1}}, "validation: 0 is not a number of inputs above 0"),
        (
            {"splits": {"validation": "dev.csv", "test": 1}},
            "tickets.csv, which has no file 'dev.csv' in it; give its folder",
        ),
        ({"source": {"local": "none.csv"}}, "none.csv does not exist"),
        ({"source": {"local": "."}}, "is a folder; name the file"),
        ({"source": {"path": "x"}}, "package, parts, hub, local"),
        ({"reader": {"format": "jsonl"}}, "cannot be read as jsonl"),
        ({"reader": {"format": "lines"}}, "'pattern' belongs to format 'lines'"),
        ({"reader": {"encoding": "utf-99"}}, "unknown encoding"),
        ({"rejected": "{body}"}, "'rejected' belongs to kind 'preference'"),
        ({"extract": {"body": "("}}, "not a regular expression"),
        ({"answer_pattern": "x+"}, "in parentheses"),
        ({"kind": "generation", "label": None, "labels": {}}, "a task without labels needs one"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as told:
        data.load(own(tmp_path, **changes))
    assert message in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("trek", "task: unknown name 'trek'; did you mean 'trec'"), ("no/such.yaml", "there is no file")],
)
def test_a_task_that_does_not_exist(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_spec(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"body,team\n\xff,tech\n", "byte 10 is not utf-8; set reader.encoding"),
        (b"body,team\nx,tech,more\n", "line 2 has more values than columns"),
        (b'body,team\n"x,tech\n', "unexpected end of data"),
    ],
)
def test_broken_files_are_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = own(tmp_path)
    (tmp_path / "tickets.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"tickets.csv: .*{message}"):
        data.load(path)


def test_rows_without_a_field_are_left_out(tmp_path: Path) -> None:
    rows = [*TICKETS, {"body": "no team", "team": ""}, {"body": "  ", "team": "tech"}]
    assert data.load(own(tmp_path, rows)).train == data.load(own(tmp_path)).train


@pytest.mark.slow
@given(st.text(max_size=20))
def test_a_value_with_braces_is_only_text(value: str) -> None:
    assert placeholders("{a} and {{b}} and {c}") == ("a", "c")
    assert "{a}".format_map({"a": "{b}" + value}) == "{b}" + value


def test_the_scored_part_of_an_answer(tmp_path: Path) -> None:
    spec = load_spec("gsm8k")
    assert spec.scored_part("2 + 2 = 4\n#### 1,234") == "1234"
    assert spec.scored_part("#### 3\nno, #### -4.5.") == "-4.5"
    assert spec.scored_part("four") == ""
    assert load_spec("trec").scored_part("all of it") == "all of it"


# --- the tasks that come with the package ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_every_task_says_what_it_is(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec.description and spec.citation and spec.language and spec.license
    assert isinstance(spec.source, PackageSource) == (spec.license.package is not None), (
        "a package has a licence of its own"
    )


@pytest.mark.slow
def test_planning_imports_no_torch() -> None:
    code = (
        "import sys, harness.sources.fetch, harness.models.spec, harness.tasks.data\n"
        "print([name for name in ('torch', 'evaluate', 'transformers') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


SIZES = {
    "boolq": (11197, 500, 1000),
    "cola": (8024, 500, 527),
    "e2e_nlg": (4014, 60, 630),
    "lambada": (3651, 500, 1000),
    "mmlu": (1042, 300, 1500),
    "novels_corpus": (3651, 500, 1000),
    "spider": (303, 60, 200),
    "factual_preference": (229, 42, 100),
    "film_sentiment": (9103, 500, 1000),
    "arc_challenge": (89, 60, 150),
    "arc_easy": (170, 100, 300),
    "asdiv": (1604, 200, 500),
    "commonsense_qa": (671, 150, 400),
    "copa": (30, 20, 50),
    "factual_summary": (195, 26, 54),
    "gsm8k": (7173, 300, 1319),
    "hellaswag": (7519, 500, 2000),
    "openbookqa": (149, 100, 250),
    "piqa": (1002, 200, 600),
    "sciq": (500, 100, 400),
    "social_iqa": (1130, 200, 600),
    "winogrande": (567, 200, 500),
    "news_corpus": (699, 100, 200),
    "hh_harmless": (1707, 200, 401),
    "reuters_r8": (4919, 500, 2176),
    "rotten_tomatoes": (11251, 500, 1000),
    "self_instruct": (100, 25, 50),
    "sms_spam": (3011, 500, 1000),
    "sst2": (6909, 872, 1821),
    "trec": (4380, 500, 500),
    "xsum": (699, 100, 200),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if not isinstance(load_spec(name).source, HubSource)])
def test_the_real_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are part of a task's version: whoever changes them raises it."""
    spec = load_spec(name)
    monkeypatch.setattr(data, "load", cache(data.load))  # reading ten thousand rows takes seconds
    if isinstance(spec.source, LocalSource):
        folder = os.environ.get("TUNEBENCH_DATA")
        if not folder or not (Path(folder) / spec.source.local).exists():
            pytest.skip(f"TUNEBENCH_DATA has no {spec.source.local}")
    # As every plan opens it, which refuses what loses too many rows.
    check.tasks([Trial(notebook="methods/baseline", method="baseline", objective="sft", model="m", task=name)])
    task = data.load(name)
    assert (len(task.train), len(task.validation), len(task.test)) == SIZES[name]

    def key(example: data.Example) -> tuple[str, ...]:
        return tuple(data.normalise(example.fields[field]) for field in spec.input_fields)

    splits = [{key(e) for e in split} for split in (task.train, task.validation, task.test)]
    assert not any(one & other for one, other in itertools.combinations(splits, 2))
    if task.kind == "classification":
        assert {e.label for e in task.test} == set(range(len(task.label_words)))
    if task.kind == "multiple_choice":
        # No place is right much more often than another one, which would let a constant answer look clever.
        places = Counter(e.label for e in task.test)
        assert len(places) >= min(len(e.candidates) for e in task.test)
        assert max(places.values()) < 1.6 * len(task.test) / len(places)
    if spec.answer_pattern:
        assert all(spec.scored_part(e.completion) for e in task.test)


def test_a_specification_survives_json() -> None:
    for name in names():
        spec = load_spec(name)
        assert TaskSpec.model_validate_json(spec.model_dump_json()) == spec
