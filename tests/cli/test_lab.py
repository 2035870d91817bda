"""A notebook opened by hand: JupyterLab behind its token, in a real browser, from the first cell to the last."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent)"
ALL_RAN = f"() => {{ const p = {PROMPTS}; return p.length > 0 && p.every(t => /^\\[\\d+\\]/.test(t)); }}"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """Address of a running lab, token included; over a copy, because running a notebook saves it."""
    shutil.copytree(NOTEBOOKS / "methods", tmp_path / "methods")
    log = tmp_path / "lab.log"
    with log.open("w") as stream:
        command = [sys.executable, "-m", "harness.cli", "lab", str(tmp_path)]
        # A settings folder of its own: a workspace that someone left open would be opened again.
        settings = {**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path / "settings")}
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=settings)
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        process.wait(30)


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


def test_a_notebook_runs_from_top_to_bottom_behind_the_token(lab: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    host, token = lab.split("/lab?token=")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        stranger = browser.new_context().new_page()
        stranger.goto(f"{host}/lab/tree/methods/head.ipynb")
        assert "/login" in stranger.url, "the lab must ask a stranger for the token"
        page = browser.new_page()
        page.goto(f"{host}/lab/tree/methods/head.ipynb?token={token}")
        page.wait_for_selector(".jp-Notebook", timeout=60_000)
        page.wait_for_selector("#jp-main-statusbar :text('| Idle')", timeout=60_000)  # the kernel is there
        page.click('.lm-MenuBar-itemLabel:text-is("Run")')
        page.click('.lm-Menu-item[data-command="runmenu:run-all"]')
        page.wait_for_function(ALL_RAN, timeout=240_000)
        assert page.locator("text=Traceback (most recent call last)").count() == 0
        browser.close()


def test_the_lab_listens_on_this_machine_only(lab: str) -> None:
    port = int(re.search(r":(\d+)/", lab)[1])  # type: ignore[index]
    assert urlopen(lab, timeout=10).status == 200  # noqa: S310 - loopback
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        if not str(address).startswith("127."):
            with socket.socket() as probe:
                probe.settimeout(2)
                assert probe.connect_ex((address, port)) != 0, f"reachable at {address}"
