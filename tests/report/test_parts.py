"""Parts of the report: rows and their details, notes said once, any two methods side by side, pages of trials."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from helpers.runs import METHODS, run

from harness import report
from harness.report import sections
from harness.report.answers import side_by_side
from harness.report.compared import comparison
from harness.report.html import cell, data
from harness.report.page import render_trial
from harness.report.trial_pages import write_pages

EVIL = "<b>x</b></script><img src=x onerror=alert(1)> \x1b[2J"


def with_answers(stored: dict[str, pd.DataFrame], examples: int, size: int = 10) -> dict[str, pd.DataFrame]:
    """The tables with an answer of every trial to every example."""
    rows = [
        (trial, n, f"question {n} {'q' * size}", f"{trial} {n} {'a' * size}", f"right {n}")
        for trial in stored["trials"].trial_id
        for n in range(examples)
    ]
    return {
        **stored,
        "generations": pd.DataFrame(rows, columns=["trial_id", "example", "prompt", "output", "reference"]),
    }


def documents(html: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)]


def test_only_varied_settings_name_a_row_and_the_rest_stands_in_its_details() -> None:
    stored = run(1, METHODS[:2], seeds=2)
    args = [json.dumps({"alpha": 16, "r": 4 if n < 2 else 8}) for n in range(4)]
    stored["trials"] = stored["trials"].assign(method="lora", method_args=args, chain_train_s=9.0, train_s=3.0)
    html = comparison(stored).text
    names = re.findall(r'<td class="name" data-value="([^"]*)"', html)
    assert names == ["lora, r 4", "lora, r 8"]
    assert html.count("<dt>arguments</dt><dd>alpha 16, r 4</dd>") == 1
    assert html.count("<dt>training alone</dt><dd>3 s</dd>") == 2
    assert "<dt>trials</dt><dd>seed 0: <code>full0</code>, seed 1: <code>full1</code></dd>" in html
    # Nothing was measured of these, so no term stands there without a number.
    assert "<dt>MFU</dt>" not in html and "<dd></dd>" not in html


def test_a_number_is_sorted_by_its_value_whatever_its_type() -> None:
    import numpy as np

    assert cell(np.float64(0.1), "x") == '<td class="number" data-value="0.1">x</td>'
    assert cell(float("nan"), "") == '<td class="number" data-value=""></td>'


@pytest.mark.parametrize(("higher", "first"), [(True, "descending"), (False, "ascending")])
def test_the_first_click_on_a_score_puts_the_best_on_top(higher: bool, first: str) -> None:
    stored = run(1, METHODS[:2])
    stored["trials"]["higher_is_better"] = higher
    pairs = re.findall(r'data-first="(\w+)"><button type="button">([^<]*)<', comparison(stored).text)
    heads = {head: direction for direction, head in pairs}
    assert heads["Score [95 %]"] == first and heads["Memory"] == "ascending"


def test_a_row_leads_to_its_notebook_if_that_is_there(tmp_path: Path) -> None:
    stored = run(1, METHODS[:2], seeds=2)
    assert "<a " not in comparison(stored, tmp_path).text
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "lora0.html").touch()
    links = re.findall(r'<a href="([^"]*)"', comparison(stored, tmp_path).text)
    assert links == ["trials/lora0.html"] * 2


def test_notes_are_said_once() -> None:
    shared, own = "dequantised; from 4 bits", "adds biases"
    stored = run(1, METHODS[:3], seeds=2)
    trials = stored["trials"]
    notes = [f"{own}; {shared}" if method == "bitfit" else shared for method in trials.method]
    html = sections.endings({**stored, "trials": trials.assign(note=notes)}).text
    assert re.findall(r"<li>(.*?)</li>", html) == [f"<b>m</b>: {shared}.", f"<b>bitfit on m</b>: {own}."]
    alone = trials.assign(note=pd.Series([own] * len(trials)).where(trials.method == "lora", None))
    assert "<li><b>lora on m</b>: adds biases.</li>" in sections.endings({**stored, "trials": alone}).text


def test_two_methods_answer_the_same_examples_with_their_scores() -> None:
    stored = with_answers(run(1, METHODS[:3], seeds=2, examples=6), 6)
    html = side_by_side(stored).text
    (told,) = documents(html)
    assert told["methods"] == list(METHODS[:3]) and told["metric"] == "accuracy" and not told["binary"]
    values = stored["example_scores"].set_index(["trial_id", "example"]).value
    for n, example in enumerate(told["examples"]):
        assert example["n"] == n and example["answers"][1].startswith(f"lora0 {n} ")
        assert example["scores"] == [round(values[f"{method}0", f"e{n}"], 4) for method in METHODS[:3]]
    assert "All 6 test examples" in html


def test_of_many_examples_those_stay_on_which_the_methods_differ_most() -> None:
    stored = with_answers(run(1, METHODS[:2], seeds=1, examples=150), 150)
    scores = stored["example_scores"]
    same = scores.example.isin([f"e{n}" for n in range(0, 150, 3)])
    stored["example_scores"] = scores.assign(value=scores.value.where(~same, 0.5))
    html = side_by_side(stored).text
    (told,) = documents(html)
    assert [example["n"] for example in told["examples"]] == [n for n in range(150) if n % 3]
    assert "100 of 150 test examples whose answers were kept, those on which the scores differ most" in html


def test_answers_that_steer_the_reading_order_are_written_out() -> None:
    stored = with_answers(run(1, METHODS[:2], seeds=1, examples=2), 2)
    stored["generations"]["output"] = EVIL + "\u202e"
    (told,) = documents(side_by_side(stored).text)
    assert told["examples"][0]["answers"] == [EVIL.replace("\x1b", "\\u001b") + "\\u202e"] * 2


def test_without_scores_or_a_second_method_there_is_no_false_word() -> None:
    stored = with_answers(run(1, METHODS[:2], seeds=1, examples=4), 4)
    bare = {**stored, "example_scores": stored["example_scores"].head(0)}
    (told,) = documents(side_by_side(bare).text)
    assert not told["binary"] and {score for example in told["examples"] for score in example["scores"]} == {None}
    alone = with_answers(run(1, METHODS[:1], seeds=1), 4)
    assert side_by_side(alone).text == "<p>There are no answers of two methods to compare.</p>"
    assert side_by_side({**alone, "generations": alone["generations"].head(0)}).text.startswith("<p>There are no")


def test_data_for_the_script_does_not_end_it() -> None:
    html = data({"said": EVIL})
    assert html.count("</script>") == 1 and "\x1b" not in html
    assert documents(html) == [{"said": EVIL}]


@pytest.mark.slow
def test_forty_methods_with_long_answers_stay_small() -> None:
    names = [f"method{n}" for n in range(40)]
    stored = with_answers(run(1, names, seeds=1, examples=70), 70, size=3000)
    parts = [section(stored).text for section in (comparison, side_by_side, sections.generations)]
    assert sum(map(len, parts)) < 4_500_000
    (told,) = documents(parts[1])
    assert 50 <= len(told["examples"]) < 70
    assert "more characters)" in told["examples"][0]["prompt"]


def test_the_page_of_a_trial_shows_its_code_and_runs_nothing(tmp_path: Path) -> None:
    stored = run(1, METHODS[:2], seeds=2)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("# LoRA"), nbformat.v4.new_code_cell("print('fits')")]
    notebook.cells[1].outputs = [nbformat.v4.new_output("display_data", data={"text/html": f"<i>{EVIL}</i>"})]
    for trial, text in (("lora0", nbformat.writes(notebook)), ("lora1", nbformat.writes(notebook)), ("full0", "{")):
        (tmp_path / "s" / "trials" / trial).mkdir(parents=True)
        (tmp_path / "s" / "trials" / trial / "notebook.ipynb").write_text(text, encoding="utf-8")
    stale = tmp_path / "out" / "trials" / "full0.html"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert write_pages(stored, tmp_path / "s", tmp_path / "out") == 1
    assert [path.name for path in stale.parent.iterdir()] == ["lora0.html"]
    page = (stale.parent / "lora0.html").read_text(encoding="utf-8")
    assert "<title>lora on t, m, seed 0</title>" in page and '<body class="code">' in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert '<a href="../index.html">Report</a>' in page
    assert write_pages(stored, tmp_path / "no", tmp_path / "out") == 0 and not list(stale.parent.iterdir())
    assert render_trial(tmp_path / "absent", "x") is None


def test_a_report_takes_the_tables_of_its_sweep_and_leaves_none_of_another(tmp_path: Path) -> None:
    tables, page = tmp_path / "tables", tmp_path / "page"
    tables.mkdir()
    page.mkdir()
    for path in (tables / "trials.csv", tables / "notes.csv", page / "trials.csv", page / "curves.csv"):
        path.write_text(path.parent.name)
    report._copy(tables, page)
    assert {path.name: path.read_text() for path in page.iterdir()} == {"trials.csv": "tables"}
