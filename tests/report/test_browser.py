"""The report in a real Chromium, at the widths of a laptop, a tablet and a phone, dark, and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from helpers.browser import chromium
from helpers.fake_records import make_sweep
from helpers.runs import run

from harness.ledger.records import read_records
from harness.report import sections
from harness.report.page import render
from harness.results import tables

pytestmark = [pytest.mark.slow, pytest.mark.browser]

WIDTHS = (1280, 768, 390)
NAMES = ("full", "lora", "bitfit", "head", "prefix", "prompt", "adapter")


def made_up() -> dict[str, pd.DataFrame]:
    """A sweep of seven methods whose answers are right or wrong, on labels."""
    stored = run(1, NAMES, seeds=2, examples=8)
    scores = stored["example_scores"]
    stored["example_scores"] = scores.assign(value=(scores.value > scores.value.median()).astype(float))
    trials = stored["trials"].assign(chain_train_s=9.0, trainable_params=1e6, majority_score=0.1, train_s=3.0)
    answers = [
        (trial, n, f"question {n} " + "word " * 40, f"answer {n} of {trial} <b>", f"right {n}")
        for trial in trials.trial_id
        for n in range(8)
    ]
    columns = ["trial_id", "example", "prompt", "output", "reference"]
    return {**stored, "trials": trials, "generations": pd.DataFrame(answers, columns=columns)}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the sections that are more than a picture, and one picture."""
    folder = tmp_path_factory.mktemp("page")
    stored = made_up()
    (folder / "trials").mkdir()
    (folder / "trials" / "lora0.html").write_text("the notebook", encoding="utf-8")
    make_sweep(folder / "s", n_methods=3, curve_steps=4)
    tables.write(read_records(folder / "s"), folder / "s")
    parts = {
        "The answer in brief": sections.brief(stored),
        "Comparison": sections.comparison(stored, folder),
        "Score against cost": sections.figure("score_vs_params", tables.read(folder / "s"), folder),
        "How the trials ended": sections.endings(stored),
        "Sample answers": sections.generations(stored),
        "Two methods side by side": sections.side_by_side(stored),
        "How it was measured": sections.machine(stored),
    }
    notebook = nbformat.v4.new_notebook()
    for title, html in parts.items():
        notebook.cells.append(nbformat.v4.new_markdown_cell(f"## {title}"))
        notebook.cells.append(nbformat.v4.new_code_cell("1 + 1"))
        output = nbformat.v4.new_output("execute_result", data={"text/html": html.text}, execution_count=1)
        notebook.cells[-1].outputs = [output]
    (folder / "index.html").write_text(render(notebook), encoding="utf-8")
    return folder / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


def opened(browser: Any, file: Path, width: int = 1280, **settings: Any) -> tuple[Any, list[str]]:
    """A page, and everything that it complained of or asked another host for."""
    page = browser.new_page(viewport={"width": width, "height": 900}, **settings)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url))
    page.goto(file.as_uri())
    return page, said


#: What is wider than its box and cannot be scrolled, and what stands outside the page.
CUT = """() => [...document.querySelectorAll("main *, header *")].filter((one) => {
  const box = one.getBoundingClientRect(), style = getComputedStyle(one);
  if (!box.width || one.closest("[hidden], pre, select")) return false;
  const hides = ["hidden", "clip"].includes(style.overflowX) && one.scrollWidth > one.clientWidth + 1;
  const outside = box.right > document.documentElement.clientWidth + 1 && !one.closest(".scroll, nav");
  return hides || outside;
}).map((one) => one.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_and_nothing_complains(browser: Any, page_file: Path, width: int) -> None:
    page, said = opened(browser, page_file, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CUT) == []
    assert page.evaluate("document.querySelector('header').offsetHeight") < 80
    # What is wider than the page scrolls, and so it does by keys.
    for region in page.query_selector_all(".scroll"):
        if region.evaluate("one => one.scrollWidth > one.clientWidth"):
            region.focus()
            page.keyboard.press("ArrowRight")
            page.wait_for_function("one => one.scrollLeft > 0", arg=region)
    # No letter of a drawing, 9.6 inches wide, is smaller than 6 pixels: 9 points are 125 of its 10,000 parts.
    assert page.evaluate("document.querySelector('figure img').getBoundingClientRect().width") >= 690
    assert said == []
    page.close()


def test_on_a_laptop_no_column_has_to_be_scrolled_to_and_on_paper_none_is_lost(browser: Any, page_file: Path) -> None:
    fits = "[...document.querySelectorAll('.comparison .scroll')].every((one) => one.scrollWidth <= one.clientWidth)"
    page, _ = opened(browser, page_file)
    assert page.evaluate(fits)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 690, "height": 1000})  # A4 with margins
    assert page.evaluate(fits)
    assert page.evaluate("document.documentElement.scrollWidth") == 690
    assert not page.locator("header, .controls, button.more").filter(visible=True).count()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()


def column(page: Any, number: int) -> list[str]:
    rows = page.locator("table.sortable > tbody > tr:first-child").all()
    return [row.locator("td").nth(number).inner_text().split(" ")[0].split("\n")[0].strip() for row in rows]


def test_heads_sort_best_first_by_mouse_and_keyboard(browser: Any, page_file: Path) -> None:
    page, said = opened(browser, page_file)
    heads = page.locator("table.sortable th")
    score, memory = heads.nth(1), heads.filter(has_text="Memory")
    score.get_by_role("button").click()
    assert score.get_attribute("aria-sort") == "descending"
    values = [float(one) for one in column(page, 1)]
    assert len(values) == len(NAMES) + 1 and values == sorted(values, reverse=True)
    score.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert score.get_attribute("aria-sort") == "ascending"
    assert [float(one) for one in column(page, 1)] == sorted(values)
    memory.get_by_role("button").focus()
    page.keyboard.press("Space")
    assert memory.get_attribute("aria-sort") == "ascending" and score.get_attribute("aria-sort") is None
    # The row without a value stays last.
    assert column(page, 0)[-1] == "one"
    assert said == []
    page.close()


def test_rows_open_filter_and_lead_to_their_notebook(browser: Any, page_file: Path) -> None:
    page, said = opened(browser, page_file)
    more = page.get_by_role("button", name="details of lora")
    details = page.locator("tbody", has_text="lora").locator("tr.more")
    assert not details.first.is_visible()
    more.focus()
    page.keyboard.press("Enter")
    assert more.get_attribute("aria-expanded") == "true" and details.first.is_visible()
    assert "training alone\n3 s" in details.first.inner_text()
    page.get_by_label("Filter").fill("lo")
    assert page.locator("table.sortable > tbody").filter(visible=True).count() == 1
    assert page.get_by_role("status").first.inner_text() == "1 of 8 rows"
    page.locator("table.sortable").get_by_role("link", name="lora", exact=True).click()
    assert page.url.endswith("/trials/lora0.html")
    assert said == []
    page.close()


def test_two_methods_stand_side_by_side(browser: Any, page_file: Path) -> None:
    page, said = opened(browser, page_file)
    pairs = page.locator(".pairs")
    stored = made_up()
    values = stored["example_scores"].pivot_table(index="example", columns="trial_id", values="value", sort=False)
    a, b = page.get_by_label("A", exact=True), page.get_by_label("B", exact=True)
    a.select_option(label="lora")
    b.select_option(label="prompt")
    pairs.get_by_label("Show").select_option(label="A right, B wrong")
    right = (values.lora0 == 1) & (values.prompt0 == 0)
    assert right.any()
    assert pairs.get_by_role("status").inner_text() == f"{right.sum()} of 8 examples"
    numbers = [f"Example {n}" for n, one in enumerate(right) if one]
    assert pairs.locator(".example > h4").all_inner_texts() == numbers[:5]
    first = pairs.locator(".example").first.inner_text()
    # What models say is text.
    assert "of lora0 <b>" in first and "accuracy 1" in first and "accuracy 0" in first
    pairs.get_by_label("Show").select_option(label="all")
    pairs.get_by_role("button", name="Show more").click()
    assert pairs.locator(".example").count() == 8
    assert said == []
    page.close()


def test_the_code_shows_by_keyboard_and_full_is_seen_in_the_dark(browser: Any, page_file: Path) -> None:
    page, said = opened(browser, page_file, color_scheme="dark")
    code = page.get_by_role("button", name="Code")
    assert not page.locator(".input").first.is_visible()
    code.focus()
    page.keyboard.press("Enter")
    assert code.get_attribute("aria-pressed") == "true" and page.locator(".input").first.is_visible()
    ring = page.locator(".swatch").first.evaluate("one => getComputedStyle(one).boxShadow")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (
        ring.count("rgb") == 2 and back != "rgb(255, 255, 255)" and ring.rpartition("px, ")[2].split(" 0px")[0] != back
    )
    assert said == []
    page.close()


def test_what_a_model_wrote_runs_nothing(browser: Any, page_file: Path, tmp_path: Path) -> None:
    evil = "<p onclick='run()'>x</p><script>document.title = 'run'</script><img src='http://127.0.0.1:9/x.png'>"
    page_text = page_file.read_text(encoding="utf-8").replace("<main>", f"<main>{evil}")
    (tmp_path / "evil.html").write_text(page_text, encoding="utf-8")
    page, said = opened(browser, tmp_path / "evil.html")
    assert page.title() == "TuneBench report"
    assert len([text for text in said if "Content Security Policy" in text]) >= 2
    page.close()
