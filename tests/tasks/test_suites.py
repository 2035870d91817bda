"""Suites of probes: what they ask comes along, needs no hub, and is fetched with the sweep that asks it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers import command_line

from harness.sources import fetch
from harness.sources.fetch import PackageSource
from harness.tasks.probes import SUITES
from harness.tasks.spec import load_spec


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_asks_what_comes_along(name: str) -> None:
    suite = SUITES[name]
    kinds = [load_spec(task).kind for task in suite.tasks]
    assert kinds == ["corpus", *["multiple_choice"] * len(suite.choices)] and len(suite.choices) == 3
    for spec in map(load_spec, suite.tasks):
        assert isinstance(spec.source, PackageSource)
        assert isinstance(spec.splits.test, int) and spec.splits.test >= suite.examples
    assert load_spec(suite.text).primary_metric == "perplexity", "what forgetting is made of"


def test_fetch_brings_what_the_probes_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = {"name": "s", "models": ["tiny-llama"], "tasks": ["trec"], "methods": {"lora": {}}}
    path = tmp_path / "s.yaml"
    told = {}
    monkeypatch.setattr(fetch, "resolve", lambda source, **_: Path("somewhere"))
    for probes in ([], ["retention"]):
        path.write_text(yaml.safe_dump({**document, "probes": probes}))
        code, out, _ = command_line.run(monkeypatch, capsys, "fetch", str(path))
        assert code == 0
        told[len(probes)] = out.splitlines()
    assert [line.partition(":")[0] for line in told[1] if line not in told[0]] == list(SUITES["retention"].tasks)
