"""The gate's answer as text, Markdown, JUnit and JSON, and through the command line."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest
from helpers import command_line
from helpers.fake_records import records
from helpers.runs import METHODS, run

from harness.judgement.gate import Gate, gate
from harness.report import gate as shown
from harness.results import tables

EVIL = "<b>x</b> | `y` \x1b[2J @all [z](http://h)"


@pytest.fixture(scope="module")
def answer() -> Gate:
    candidate = run(2, METHODS[:3], change={"peak_train_bytes": 1.2, "processor": "B", "checkpoint_bytes": 0.5})
    baseline = run(1)
    baseline["trials"]["processor"] = "A"
    return gate(baseline, candidate)


def test_the_lines_say_what_where_and_how_much(answer: Gate) -> None:
    said = list(shown.lines(answer))
    assert said[0].startswith("regressed: t · m · lora: peak memory: +2")
    assert re.search(r"\[\+\d+\.\d %, \+\d+\.\d %\], [78]\d\d MB, now 9\d\d MB, p < 0.001$", said[0])
    assert said[1] == "disappeared: t · m · head: ending: only in the baseline; ok (seed 0, 1, 2)"
    assert said[2] == "improved: t · m · lora: checkpoint size: -50.0 %, 2 MB, now 1 MB, p < 0.001"
    assert said[3] == "not judged: 1 check: step time: measured on another machine: processor A, now B"
    assert said[-3] == "differs: processor A, now B"
    assert (
        said[-1] == "28 checks of 4 cells: 1 regressed, 1 disappeared, 1 improved, 3 not judged, 22 no regression seen"
    )


def test_junit_has_a_case_per_cell_and_quantity(answer: Gate) -> None:
    root = ET.fromstring(shown.in_junit(answer))  # noqa: S314 - our own text
    (suite,) = root.findall("testsuite")
    cases = suite.findall("testcase")
    assert root.attrib["tests"] == suite.attrib["tests"] == str(len(cases)) == "28"
    assert len({(case.attrib["classname"], case.attrib["name"]) for case in cases}) == 28
    assert suite.attrib["failures"] == str(len(suite.findall("testcase/failure"))) == "2"
    assert suite.attrib["skipped"] == str(len(suite.findall("testcase/skipped"))) == "3"
    (grown, gone) = suite.findall("testcase/failure")
    assert grown.attrib["message"].startswith("regressed: +2") and gone.attrib["type"] == "disappeared"
    # What the schema of the Jenkins plug-in asks of a case.
    assert all(float(case.attrib["time"]) == 0 and case.attrib["name"] for case in cases)


def test_json_holds_every_number(answer: Gate) -> None:
    told = json.loads(json.dumps(shown.document(answer), allow_nan=False))
    assert told["passes"] is False and len(told["checks"]) == 28
    (memory,) = [check for check in told["checks"] if check["outcome"] == "regressed"]
    assert memory["low"] < memory["change"] < memory["high"] and memory["spec"]["method"] == "lora"
    assert memory["candidate"] / memory["baseline"] - 1 == pytest.approx(memory["change"], abs=0.01)


def test_markdown_shows_names_of_others_as_text() -> None:
    old, new = run(1), run(1)
    for one in (old, new):
        one["trials"] = one["trials"].assign(model=EVIL)
    new["trials"] = new["trials"].assign(status="failed", reason=EVIL)
    said = shown.in_markdown(gate(old, new))
    assert said.startswith("### TuneBench: 4 checks failed\n")
    assert not re.search(r"(?<!\\)`|<b>|\x1b|@all|(?<!\\)\]\(", said)
    table = [line for line in said.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}
    ET.fromstring(shown.in_junit(gate(old, new)))  # noqa: S314


def test_a_long_answer_fits_into_a_comment() -> None:
    names = [f"method{n}" for n in range(150)]
    said = shown.in_markdown(gate(run(1, names, 1, 2), run(1, ["other"], 1, 2)))
    assert "And 111 more." in said
    assert len(said) < 65_536


def test_names_tell_cells_apart() -> None:
    frame = gate(run(1), run(1)).cells.iloc[[0, 0, 1, 1]].reset_index(drop=True)
    frame["learning_rate"] = [1e-3, 1e-4, 1e-3, 1e-3]
    assert [name for _, name in shown.names(frame)] == [
        "full, lr 1e-3",
        "full, lr 1e-4",
        "lora, lr 1e-3",
        "lora, lr 1e-3 #2",
    ]
    assert shown.names(frame.head(0)) == []


def test_the_command_fails_on_a_regression_and_on_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, methods in (("old", 3), ("new", 2)):
        (tmp_path / name).mkdir()
        tables.write(records(n_methods=methods, seeds=2, rates=1, curve_steps=2), tmp_path / name)
    old, new = str(tmp_path / "old"), str(tmp_path / "new" / "tables")
    files = ["--junit", str(tmp_path / "j.xml"), "--markdown", str(tmp_path / "m.md")]
    code, out, err = command_line.run(monkeypatch, capsys, "compare", old, new, *files)
    assert (code, err) == (1, "")
    assert out.startswith("disappeared: factual_summary · smollm2-135m · lora: ending: only in the baseline")
    assert ET.parse(tmp_path / "j.xml").getroot().attrib["failures"] == "1"  # noqa: S314
    assert (tmp_path / "m.md").read_text(encoding="utf-8").startswith("### TuneBench: 1 check failed\n")
    code, out, _ = command_line.run(monkeypatch, capsys, "compare", new, old, "--json")
    assert code == 0 and json.loads(out)["counts"]["new"] == 1
    for arguments, message in (
        ((old, str(tmp_path)), "no tables here"),
        ((old, new, "--junit", str(tmp_path / "no" / "j.xml")), "cannot be written"),
    ):
        code, out, err = command_line.run(monkeypatch, capsys, "compare", *arguments)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    (tmp_path / "empty").mkdir()
    tables.write([], tmp_path / "empty")
    code, out, err = command_line.run(monkeypatch, capsys, "compare", str(tmp_path / "empty"), new)
    assert code == 2 and "hold no trial" in err


def test_no_trial_is_no_check() -> None:
    empty = {"trials": run(1)["trials"].head(0), "example_scores": pd.DataFrame()}
    assert list(shown.lines(gate(empty, empty))) == ["nothing to check"]
