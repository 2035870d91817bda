"""The site is built without a warning, holds every page and notebook, and asks no other host for anything."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "results" / "README.md"]
NEEDS_SPHINX = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_nb", "furo")),
    reason="the site needs the extra 'docs'",
)


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs" / "site" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "srcset", "object": "data"}


class Page(HTMLParser):
    """What an HTML page loads, what it links to, and where one can jump in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if (place := given.get(LOADS.get(tag, ""))) is not None:
            self.loads.append(place)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.anchors |= {given[name] for name in ("id", "name") if name in given}


def anchors(page: Path) -> set[str]:
    """The headings of a Markdown page, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


def test_links_of_pages_lead_to_a_file_and_a_heading() -> None:
    count = 0
    for page in PAGES:
        for link in links(page):
            target, _, heading = link.partition("#")
            if urlsplit(link).scheme:
                continue
            count += 1
            there = (page.parent / unquote(target)).resolve() if target else page
            assert there.exists(), f"{page.relative_to(ROOT)}: {link} leads nowhere"
            assert not heading or heading in anchors(there), f"{page.relative_to(ROOT)}: no heading for {link}"
    assert count > 60, "hardly a link was read"


def test_the_menu_has_every_page(site: ModuleType) -> None:
    listed = {(ROOT / "docs" / f"{page}.md").resolve() for pages in site.PARTS.values() for page in pages}
    of_results = {ROOT / "results" / f"{page}.md" for page in site.RESULTS}
    assert listed == {*PAGES, *of_results, ROOT / "docs" / "api.md"} - {ROOT / "README.md"}
    folders = {path.name for path in (ROOT / "notebooks").iterdir() if path.is_dir()} - {".ipynb_checkpoints"}
    assert set(site.CHAPTER_FOLDERS) == folders


def test_chapters_are_executed_notebooks_of_the_package_without_a_trace_of_the_machine(site: ModuleType) -> None:
    chapters = sorted(site.CHAPTERS.rglob("*.ipynb"))
    assert len(chapters) >= 9
    for path in chapters:
        text = path.read_text(encoding="utf-8")
        assert (ROOT / "notebooks" / path.relative_to(site.CHAPTERS)).is_file(), path
        assert any(cell.get("outputs") for cell in json.loads(text)["cells"]), f"{path}: nothing was executed"
        assert not re.search(r"[\"' (](/tmp|/home|/root|/work|/Users)/", text), f"{path}: a path of a machine"


def test_a_chapter_says_what_it_is(site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def book(code: str, **metadata: object) -> dict[str, object]:
        cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": [code], "outputs": [], "execution_count": 1}
        title = {"cell_type": "markdown", "id": "b", "metadata": {}, "source": ["# Title"]}
        return {"cells": [title, cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}

    for name in ("same", "changed", "plain"):
        path = tmp_path / "notebooks" / "methods" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(book("x = 1")))
    for name, code in (("same", "x = 1"), ("changed", f"print('{tmp_path}/sweep/trials')"), ("gone", "x = 1")):
        path = tmp_path / "sweep" / "trials" / name / "notebook.ipynb"
        path.parent.mkdir(parents=True)
        run = {"input_path": f"/elsewhere/notebooks/methods/{name}.ipynb", "parameters": {"model": "smollm2-135m"}}
        path.write_text(json.dumps(book(code, papermill=run, kernelspec={"name": "python3"})))
    monkeypatch.setattr(site, "ROOT", tmp_path)
    monkeypatch.setattr(site, "CHAPTERS", tmp_path / "docs" / "chapters")
    site.take_chapters(tmp_path / "sweep")
    assert {path.stem for path in site.CHAPTERS.rglob("*.ipynb")} == {"same", "changed"}
    shown = {name: json.dumps(notebook) for name, notebook in site.notebooks()}
    assert "executed by the sweep `sweep`" in shown["methods/same.ipynb"]
    assert "changed since" in shown["methods/changed.ipynb"] and "changed since" not in shown["methods/same.ipynb"]
    assert "shown without outputs" in shown["methods/plain.ipynb"]
    assert str(tmp_path) not in "".join(shown.values())


def check(folder: Path) -> int:
    """Assert that pages load only what is beside them, and that their links lead somewhere; the number of links."""
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html")}
    count = 0
    for path, page in pages.items():
        for place in page.loads:
            parts = urlsplit(place)
            assert parts.scheme in ("", "data") and not parts.netloc, f"{path}: loads {place}"
            assert parts.scheme == "data" or (path.parent / unquote(parts.path)).exists(), f"{path}: {place} is missing"
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert there.exists(), f"{path}: {link} leads nowhere"
            if parts.fragment and there in pages:
                assert unquote(parts.fragment) in pages[there].anchors, f"{path}: no place for {link}"
    for style in folder.rglob("*.css"):
        assert not re.search(r"(url\(|@import )['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style
    return count


@pytest.mark.long
@NEEDS_SPHINX
def test_the_pages_alone_are_built(site: ModuleType, tmp_path: Path) -> None:
    assert site.main(["--out", str(tmp_path / "site"), "--pages"]) == 0
    assert check(tmp_path / "site") > 200
    assert "TuneBench" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
@NEEDS_SPHINX
def test_a_dead_link_is_an_error(site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = site.stage

    def with_a_dead_link(source: Path, *, pages_alone: bool) -> None:
        stage(source, pages_alone=pages_alone)
        for page in source.rglob("*.md"):
            if page.name != "index.md":
                page.unlink()
        (source / "index.md").write_text("# One page\n\n[nowhere](nowhere.md)\n")

    monkeypatch.setattr(site, "stage", with_a_dead_link)
    assert site.main(["--out", str(tmp_path / "site"), "--pages"]) != 0


@pytest.mark.slow
@NEEDS_SPHINX
def test_the_whole_site_is_built(site: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    assert site.main(["--out", str(folder)]) == 0
    assert check(folder) > 1000
    assert "paired_difference" in (folder / "docs" / "api.html").read_text(encoding="utf-8")
    lora = (folder / "notebooks" / "methods" / "lora.html").read_text(encoding="utf-8")
    assert "<math" in lora and "cell_output" in lora and "_images/" in lora
