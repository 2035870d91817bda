"""The report: one page that needs nothing else, trusts no text, and says what went wrong."""

from __future__ import annotations

import ast
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from helpers.fake_records import make_sweep

from harness import notebooks
from harness.errors import InputError
from harness.ledger.records import read_records
from harness.report import build, compared, sections
from harness.report.page import render
from harness.report.sections import Html, brief, comparison
from harness.results import tables

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a browser would load, run and show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for found, attrs in self.tags if found == tag]


def run_here(name: str, **parameters: str) -> nbformat.NotebookNode:
    """Execute a notebook in this process: faster than a kernel, and enough for cells whose value is HTML."""
    notebook = nbformat.read(notebooks.path(name), as_version=4)
    names: dict[str, object] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        body = ast.parse(cell.source).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), name, "exec"), names)  # noqa: S102 - our own notebook
        if "parameters" in cell.metadata.get("tags", []):
            names |= parameters
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), names)  # noqa: S307
            assert isinstance(value, Html)
            data = {"text/html": value._repr_html_()}
            cell.outputs = [nbformat.v4.new_output("execute_result", data=data, execution_count=1)]
    return notebook


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    endings = {"lora": "oom", "bitfit": "failed", "qlora": "skipped"}
    make_sweep(folder / "s", n_methods=6, curve_steps=4, endings=endings)
    tables.write(read_records(folder / "s"), folder / "s")
    return render(run_here("report", sweep_dir=str(folder / "s"), out_dir=str(folder / "out")))


def test_the_page_loads_nothing_from_anywhere(rendered: str) -> None:
    page = Page(rendered)
    for tag, attrs in page.tags:
        assert (attrs.get("src") or "data:").startswith("data:"), f"<{tag}> loads {attrs['src']}"
        if tag == "link":
            pytest.fail(f"a link to {attrs.get('href')}")
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:)", rendered)
    outside = [a["href"] for a in page.all("a") if not re.match(r"#|figures/|tables/|trials/", a.get("href") or "")]
    assert not outside
    assert len([script for script in page.all("script") if script.get("type") != "application/json"]) == 1


def test_what_models_say_is_text(rendered: str) -> None:
    assert "<script>alert" not in rendered
    assert "&lt;script&gt;alert(0)&lt;/script&gt;" in rendered
    assert "&lt;b&gt;broken&lt;/b&gt; &amp; unescaped" in rendered


def test_what_names_say_is_text(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)> \x1b[2J\u202e $x$ é"
    make_sweep(tmp_path, n_methods=2, models=[name], tasks=[name], sweep=name, endings={"full": "failed"})
    tables.write(read_records(tmp_path), tmp_path)
    stored = dict(tables.read(tmp_path))
    stored["trials"] = stored["trials"].assign(reason=name, note=name, hostname=name)
    shown = "".join(
        section(stored).text
        for section in (sections.comparison, sections.endings, sections.generations, sections.machine, sections.sources)
    )
    assert shown.count(r"&lt;img src=x onerror=alert(1)&gt; \u001b[2J\u202e $x$ é") >= 5
    assert "<img" not in shown
    assert not re.search("[\x1b\u202e]", shown)


def test_every_page_has_a_nonce_of_its_own() -> None:
    empty = nbformat.v4.new_notebook()
    nonces = []
    for page in map(Page, (render(empty), render(empty))):
        (script,) = page.all("script")
        (policy,) = [
            meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy is not None
        assert f"script-src 'nonce-{script['nonce']}';" in policy
        nonces.append(script["nonce"])
    assert nonces[0] != nonces[1]
    assert all(nonce and len(nonce) >= 22 for nonce in nonces)


def test_every_ending_is_told_with_its_reason(rendered: str) -> None:
    text = "".join(Page(rendered).text)
    for expected in ("out of memory: tried to allocate", "prefix does not work on this model", "6 skipped", "6 oom"):
        assert expected in text


def test_every_heading_of_the_contents_is_there(rendered: str) -> None:
    page = Page(rendered)
    anchors = {attrs["id"] for _, attrs in page.tags if attrs.get("id")}
    wanted = [a["href"][1:] for a in page.all("a") if (a.get("href") or "").startswith("#")]
    assert len(wanted) > 8
    assert set(wanted) <= anchors


def test_every_image_says_its_finding(rendered: str) -> None:
    texts = [image["alt"] or "" for image in Page(rendered).all("img")]
    assert len(texts) == 13
    assert all(texts)
    assert texts[0] == "full scores best: 0.873 [0.825, 0.920], better than both others"


def test_the_page_does_not_tell_where_it_was_made(rendered: str) -> None:
    assert str(notebooks.root()) not in rendered
    assert "pytest" not in rendered


@pytest.mark.parametrize("endings", [{"baseline": "failed"}, {}], ids=["all failed", "only a baseline"])
def test_a_poor_sweep_still_gives_a_page(tmp_path: Path, endings: dict[str, str]) -> None:
    make_sweep(tmp_path / "s", n_methods=1, endings=endings)
    tables.write(read_records(tmp_path / "s"), tmp_path / "s")
    page = render(run_here("report", sweep_dir=str(tmp_path / "s"), out_dir=str(tmp_path / "out")))
    assert "there is no answer yet" in page
    assert "Nothing to show because" in page


def test_one_seed_is_said_first_and_calls_nothing_better(tmp_path: Path) -> None:
    make_sweep(tmp_path, n_methods=4, seeds=1)
    tables.write(read_records(tmp_path), tmp_path)
    stored = tables.read(tmp_path)
    first = "<p><strong>Every method ran on one seed, which says nothing about the spread between runs: "
    said = brief(stored).text
    assert said.startswith(first)
    assert "scores best" not in said
    compared = comparison(stored).text
    assert "✓" not in compared
    assert "Intervals: 71 examples alone, of one seed." in compared


def test_intervals_say_what_they_cover(tmp_path: Path) -> None:
    make_sweep(tmp_path, n_methods=2)
    tables.write(read_records(tmp_path), tmp_path)
    compared = comparison(tables.read(tmp_path)).text
    assert "Intervals: 3 seeds and 71 examples." in compared
    assert "✓" in compared


def test_build_wants_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tables here"):
        build(tmp_path, tmp_path / "out")


@pytest.mark.slow
def test_build_executes_the_notebook(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", n_methods=3, curve_steps=4)
    tables.write(read_records(tmp_path / "s"), tmp_path / "s")
    page = build(tmp_path / "s", tmp_path / "out")
    assert page == (tmp_path / "out" / "index.html").resolve()
    assert "full scores best" in page.read_text(encoding="utf-8")
    assert {path.suffix for path in (tmp_path / "out" / "figures").iterdir()} == {".png", ".svg"}
    assert (tmp_path / "out" / "tables" / "trials.csv").read_bytes() == (
        tmp_path / "s" / "tables" / "trials.csv"
    ).read_bytes()
    assert str(tmp_path) not in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_explore_notebook_runs(tmp_path: Path) -> None:
    import papermill

    make_sweep(tmp_path / "s", n_methods=3, curve_steps=4)
    tables.write(read_records(tmp_path / "s"), tmp_path / "s")
    papermill.execute_notebook(
        notebooks.path("explore"),
        tmp_path / "explore.ipynb",
        parameters={"sweep_dir": str(tmp_path / "s")},
        kernel_name="python3",
        progress_bar=False,
    )


def test_the_time_of_training_alone_is_told_where_it_is_not_all() -> None:
    def row(own: float | None, chain: float | None) -> SimpleNamespace:
        return SimpleNamespace(train_s=own, chain_train_s=chain)

    assert [
        compared._has_chain(row(*costs)) for costs in ((26.0, 126.0), (26.0, 26.0), (None, None), (26.0, None))
    ] == [*(True, False, False, False)]
