"""A notebook opened by hand: JupyterLab behind its token, and results that stay as they are in it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nbformat
import pytest
from helpers import tiny_models as tiny
from helpers.browser import chromium
from helpers.fake_records import records
from tornado.web import HTTPError

from harness.cli import lab as command
from harness.cli.contents import ResultsStay
from harness.errors import InputError
from harness.results import tables

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent)"
ALL_RAN = f"() => {{ const p = {PROMPTS}; return p.length > 0 && p.every(t => /^\\[\\d+\\]/.test(t)); }}"


@pytest.fixture
def open_lab(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Starts a lab over a folder; its address, token included. What it says goes into ``lab.log``."""
    log, processes = tmp_path / "lab.log", []

    def started(folder: Path) -> str:
        with log.open("w") as stream:
            arguments = [sys.executable, "-m", "harness.cli", "lab", str(folder)]
            # A settings folder of its own: a workspace that someone left open would be opened again.
            settings = {**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path / "settings")}
            processes.append(subprocess.Popen(arguments, stdout=stream, stderr=subprocess.STDOUT, env=settings))
        return _address(processes[-1], log)

    yield started
    for process in processes:
        process.terminate()
        process.wait(30)


@pytest.fixture
def lab(tmp_path: Path, open_lab: Callable[[Path], str]) -> str:
    """Address of a lab over a copy of the notebooks of methods: running one saves it."""
    shutil.copytree(NOTEBOOKS / "methods", tmp_path / "copy" / "methods")
    return open_lab(tmp_path / "copy")


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """What the lab says it is reached at, once it is: it says so a moment before it listens."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)/lab\?token=\w+", log.read_text()):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(found[1]))) == 0:
                    return found[0]
        time.sleep(0.2)
    pytest.fail(f"the lab did not start: {log.read_text()[-500:]}")


@pytest.fixture
def browser() -> Iterator[Any]:
    """A real one."""
    with chromium() as launched:
        yield launched


def run_all(browser: Any, address: str, notebook: str) -> Any:
    """Open a notebook in the lab and run all of its cells; the page."""
    host, token = address.split("/lab?token=")
    page = browser.new_page()
    page.goto(f"{host}/lab/tree/{notebook}?token={token}")
    page.wait_for_selector(".jp-Notebook", timeout=60_000)
    page.wait_for_selector("#jp-main-statusbar :text('| Idle')", timeout=60_000)  # the kernel is there
    page.click('.lm-MenuBar-itemLabel:text-is("Run")')
    page.click('.lm-Menu-item[data-command="runmenu:run-all"]')
    page.wait_for_function(ALL_RAN, timeout=240_000)
    assert page.locator("text=Traceback (most recent call last)").count() == 0
    return page


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.long
def test_a_notebook_runs_from_top_to_bottom_behind_the_token(lab: str, browser: Any) -> None:
    stranger = browser.new_context().new_page()
    stranger.goto(f"{lab.split('/lab?')[0]}/lab/tree/methods/head.ipynb")
    assert "/login" in stranger.url, "the lab must ask a stranger for the token"
    run_all(browser, lab, "methods/head.ipynb")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.long
def test_a_trial_runs_again_in_the_lab_and_its_results_stay(
    tmp_path: Path, open_lab: Callable[[Path], str], browser: Any
) -> None:
    tiny.bench(tmp_path)
    assert tiny.done(tiny.tunebench(tmp_path, "run", "tiny.yaml"))[0] == 0
    results = tmp_path / "results" / "tiny"
    (notebook,) = results.glob("trials/*/notebook.ipynb")
    before = {path: path.is_file() and hashlib.sha256(path.read_bytes()).digest() for path in results.rglob("*")}
    page = run_all(browser, open_lab(results), str(notebook.relative_to(results)))
    page.get_by_text(f"run by hand: {notebook.parent} stays as it was recorded").wait_for()
    page.keyboard.press("Control+s")
    page.get_by_text("notebook.ipynb is read-only").wait_for()
    assert page.get_by_text("Jupyter news").count() == 0, "nobody asked for news"
    after = {path: path.is_file() and hashlib.sha256(path.read_bytes()).digest() for path in results.rglob("*")}
    assert after == before
    log = (tmp_path / "lab.log").read_text()
    assert "frozen modules" not in log and "without encryption" not in log


@pytest.mark.browser
@pytest.mark.slow
def test_the_lab_listens_on_this_machine_only(lab: str) -> None:
    port = int(re.search(r":(\d+)/", lab)[1])  # type: ignore[index]
    assert urlopen(lab, timeout=10).status == 200  # noqa: S310 - loopback
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        if not str(address).startswith("127."):
            with socket.socket() as probe:
                probe.settimeout(2)
                assert probe.connect_ex((address, port)) != 0, f"reachable at {address}"


@pytest.fixture
def sweep_dir(tmp_path: Path) -> Path:
    """Results of one trial, as far as a file browser sees them."""
    folder = tmp_path / "results" / "tiny"
    (folder / "trials" / "a1").mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    nbformat.write(nbformat.v4.new_notebook(), folder / "trials" / "a1" / "notebook.ipynb")
    return folder


def test_what_a_trial_recorded_is_read_only_and_nothing_else_is(sweep_dir: Path) -> None:
    manager = ResultsStay(root_dir=str(sweep_dir))
    book: dict[str, Any] = {"type": "notebook", "content": nbformat.v4.new_notebook(metadata={"mine": 1})}
    recorded = sweep_dir / "trials" / "a1" / "notebook.ipynb"
    before = recorded.read_bytes()
    for path in ("trials/a1/notebook.ipynb", "trials/a1/record.json", "trials/a1/log.txt", "plan.json", "sweep.yaml"):
        assert not manager.is_writable(path)
        with pytest.raises(HTTPError, match="results stay as they were recorded; save it under another name"):
            asyncio.run(manager.save(book, path))
    assert not asyncio.run(manager.get("trials/a1/notebook.ipynb"))["writable"]
    assert asyncio.run(manager.list_checkpoints("trials/a1/notebook.ipynb")) == []
    assert recorded.read_bytes() == before and [path.name for path in recorded.parent.iterdir()] == ["notebook.ipynb"]
    for path in ("trials/a1/mine.ipynb", "mine.ipynb"):
        assert asyncio.run(manager.save(book, path))["writable"]
        assert asyncio.run(manager.list_checkpoints(path)), "an own notebook has its earlier version"


def test_a_notebook_outside_of_results_is_saved_as_ever(tmp_path: Path) -> None:
    manager = ResultsStay(root_dir=str(tmp_path))
    book = {"type": "notebook", "content": nbformat.v4.new_notebook()}
    assert asyncio.run(manager.save(book, "notebook.ipynb"))["writable"]
    assert asyncio.run(manager.save(book, "notebook.ipynb"))["writable"]


def test_the_lab_opens_a_folder_or_a_notebook_and_says_what_it_cannot_open(sweep_dir: Path) -> None:
    notebook = sweep_dir / "trials" / "a1" / "notebook.ipynb"
    assert f"--ServerApp.root_dir={sweep_dir}" in command._settings(sweep_dir)
    of_notebook = command._settings(notebook)
    assert f"--ServerApp.root_dir={notebook.parent}" in of_notebook
    assert "--LabApp.default_url=/lab/tree/notebook.ipynb" in of_notebook
    with pytest.raises(InputError, match="nowhere: no such folder"):
        command.lab(sweep_dir / "nowhere")
    with pytest.raises(InputError, match=r"plan\.json: not a notebook; give a notebook, or a folder"):
        command.lab(sweep_dir / "plan.json")


@pytest.mark.browser
@pytest.mark.slow
def test_the_explorer_redraws_and_opens_the_trial_behind_a_point(
    tmp_path: Path, open_lab: Callable[[Path], str], browser: Any
) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    tables.write(records(n_methods=4, seeds=1, rates=1, curve_steps=3), folder)
    book = nbformat.read(NOTEBOOKS / "explore.ipynb", as_version=4)
    book.cells = [cell for cell in book.cells if "Explorer" in cell.source or cell.metadata.get("tags")]
    book.cells[0].source = f"sweep_dir = {str(folder)!r}"
    nbformat.write(book, folder / "explore.ipynb")
    page = run_all(browser, open_lab(folder), "explore.ipynb")
    picture = page.locator(".tb-plot img")
    picture.wait_for()
    before = picture.get_attribute("src")
    page.get_by_label("x", exact=True).select_option("peak memory (bytes)")
    page.wait_for_function("old => document.querySelector('.tb-plot img').src !== old", arg=before)
    points = page.locator(".tb-plot .tb-point")
    assert points.count() == 3, "the untrained model has no peak memory of training"
    # Each stands on the picture, where its point is drawn.
    box = picture.bounding_box()
    for point in points.all():
        place = point.bounding_box()
        assert box["x"] < place["x"] < box["x"] + box["width"] and box["y"] < place["y"] < box["y"] + box["height"]
    page.get_by_title("lora · factual_summary · smollm2-135m", exact=True).click()
    page.get_by_text("lora says").first.wait_for()
