"""Models of the hub by their address, from a hub on this machine: pinned at plan time, safetensors alone, one line."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import hub as hubs
from helpers import tiny_models as tiny

from harness import cli
from harness.errors import InputError
from harness.models.checkpoint import checkpoint_dir
from harness.models.spec import load_spec
from harness.sources.fetch import HubSource
from harness.sweeps import expand as matrix
from harness.sweeps import spec as sweep

pytestmark = pytest.mark.slow

#: What a repository holds beside the files of a checkpoint: none of it may be fetched.
OTHERS = ("pytorch_model.bin", "modeling_own.py", "consolidated.safetensors", "training_args.bin", "README.md")


def _repository(folder: Path, weights: bytes = b"weights", **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shape = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, **config}
    (folder / "config.json").write_text(json.dumps(shape))
    for name in ("tokenizer.json", "tokenizer_config.json", *OTHERS):
        (folder / name).write_bytes(name.encode())
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hubs.Hub]:
    """A hub with ``org/tiny``, and nothing cached; the current folder is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "here" / "notebooks"))
    with hubs.serve() as served:
        served.add("org/tiny", _repository(tmp_path / "tiny"))
        hubs.point_to(served.url, tmp_path / "hf", monkeypatch)
        yield served


@pytest.mark.parametrize("name", ["hub:org/tiny", "org/tiny", "org/tiny@main"])
def test_a_model_of_the_hub_is_the_commit_that_its_revision_is_now(hub: hubs.Hub, name: str) -> None:
    commit = hub.revisions["org/tiny"]["main"]
    spec = load_spec(name)
    assert spec.source == HubSource(hub="org/tiny", revision=commit) and spec.is_pinned
    assert (spec.name, spec.kind, spec.architecture) == (name.removeprefix("hub:"), "decoder", "llama")
    assert (spec.revision(), spec.address) == (commit, f"hub:org/tiny@{commit}")
    assert spec.transformers_config().hidden_size == 64
    assert not [request for request in hub.requests if "safetensors" in request], "a plan needs no weights"


def test_only_what_a_checkpoint_needs_is_fetched(hub: hubs.Hub) -> None:
    folder = checkpoint_dir(load_spec("hub:org/tiny"))
    fetched = {path.name for path in folder.iterdir()}
    assert fetched == {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert not [request for request in hub.requests if any(name in request for name in OTHERS)]


def test_a_commit_that_is_cached_is_never_asked_for_again(hub: hubs.Hub) -> None:
    address = load_spec("hub:org/tiny").address
    folder = checkpoint_dir(load_spec(address))
    hub.requests.clear()
    assert checkpoint_dir(load_spec(address)) == folder and hub.requests == []


def test_another_revision_is_another_model(hub: hubs.Hub, tmp_path: Path) -> None:
    old = hub.revisions["org/tiny"]["main"]
    new = hub.add("org/tiny", _repository(tmp_path / "new", b"other", hidden_size=32), "v2")
    assert [load_spec(name).revision() for name in ("org/tiny", "org/tiny@v2", f"hub:org/tiny@{new}")] == [
        old,
        new,
        new,
    ]
    assert load_spec("org/tiny@v2").transformers_config().hidden_size == 32


def test_a_registry_model_whose_revision_moves_is_pinned_by_the_plan(hub: hubs.Hub, tmp_path: Path) -> None:
    commit = hub.add("openai-community/gpt2", _repository(tmp_path / "gpt2", model_type="gpt2"))
    spec = load_spec("gpt2@main").pinned()
    assert (spec.name, spec.revision(), spec.address) == ("gpt2@main", commit, f"gpt2@{commit}")
    assert load_spec(spec.address).source == spec.source
    assert load_spec("gpt2").pinned() is load_spec("gpt2"), "the registry's own commit needs no network"


def test_a_plan_holds_the_commit_and_a_trial_finds_it(hub: hubs.Hub, tmp_path: Path) -> None:
    commit = hub.revisions["org/tiny"]["main"]
    path = tiny.bench(tmp_path / "here", models=["org/tiny", "hub:org/tiny@main"], tasks=["trec"])
    document = yaml.safe_load(path.read_text())
    document["exclude"] = [{"model": "hub:org/tiny@main"}]
    path.write_text(yaml.safe_dump(document))
    loaded = sweep.load(path)
    (row,) = matrix.plan(loaded).rows
    assert (row.trial.model, row.trial.model_revision) == ("org/tiny", commit)
    assert row.trial.parameters()["model"] == f"hub:org/tiny@{commit}"
    assert yaml.safe_load(loaded.to_yaml())["models"] == ["hub:org/tiny", "hub:org/tiny@main"]
    later = hub.add("org/tiny", _repository(tmp_path / "new", b"other"))
    (moved,) = matrix.plan(loaded).rows
    assert moved.trial.model_revision == later != commit and moved.trial_id != row.trial_id
    assert matrix.plan(loaded).matching({"model": ["hub:org/tiny"]}) == {moved.trial_id}


def test_a_folder_wins_over_a_name_of_the_hub(hub: hubs.Hub, tmp_path: Path) -> None:
    _repository(tmp_path / "here" / "org" / "tiny", model_type="bert")
    assert (load_spec("org/tiny").kind, load_spec("hub:org/tiny").kind) == ("encoder", "decoder")


def test_without_a_network_the_cached_snapshot_counts(
    hub: hubs.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = load_spec("org/tiny").revision()
    for url, offline in (("http://127.0.0.1:9", False), (hub.url, True)):
        hubs.point_to(url, tmp_path / "hf", monkeypatch, offline=offline)
        assert load_spec("org/tiny").revision() == commit
        with pytest.raises(InputError, match=rf"fetch: org/tiny@{commit}: the hub cannot be reached"):
            checkpoint_dir(load_spec("org/tiny"))  # the plan fetched no weights
    hub.requests.clear()


@pytest.mark.parametrize("offline", [False, True])
def test_no_network_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    monkeypatch.chdir(tmp_path)
    hubs.point_to("http://127.0.0.1:9", tmp_path / "hf", monkeypatch, offline=offline)
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    begin = time.monotonic()
    for name in ("hub:org/tiny", "org/tiny", f"hub:org/tiny@{'0' * 40}", "gpt2@main"):
        with pytest.raises(InputError, match=r"the hub cannot be reached.* not in its cache") as told:
            load_spec(name).pinned()
        assert "\n" not in str(told.value) and ("HF_HUB_OFFLINE" in str(told.value)) == offline
    with pytest.raises(InputError, match="the hub cannot be reached"):
        checkpoint_dir(load_spec("gpt2"))
    assert time.monotonic() - begin < 3, "the library tries for 23 seconds"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hub:org/none",
            "model: hub:org/none@main: the hub has no such repository, or it is private ('hf auth login')",
        ),
        ("org/none", "model: there is no folder 'org/none', and hub:org/none@main: the hub has no such repository"),
        ("hub:org/tiny@v9", "model: hub:org/tiny@v9: the hub has no such revision"),
        ("hub:org/shut", "model: hub:org/shut@main: access must be granted on the hub first, then 'hf auth login'"),
        (
            "hub:org/pickled",
            "model: hub:org/pickled@main: has no model*.safetensors, and pickled weights are never read",
        ),
        ("hub:org/adapter", "model: hub:org/adapter@main: has no config.json, so it is not a model for transformers"),
        ("hub:org/untold", "config.json: must be a mapping with a model_type"),
        ("hub:a/b/c", "model: hub:a/b/c: not the name of a model; valid: hub:ORG/NAME or hub:ORG/NAME@REVISION"),
        ("hub:", "model: hub:: not the name of a model; valid: hub:ORG/NAME"),
        ("./org/tiny", "org/tiny is not a folder with a config.json"),
        ("a/b/c", "a/b/c is not a folder with a config.json"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    hub: hubs.Hub, tmp_path: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    hub.add("org/shut", _repository(tmp_path / "shut", b"shut"))
    hub.gated.add("org/shut")
    for repository, missing in (("pickled", "model.safetensors"), ("adapter", "config.json")):
        (_repository(tmp_path / repository) / missing).unlink()
        hub.add(f"org/{repository}", tmp_path / repository)
    (_repository(tmp_path / "untold") / "config.json").write_text("[]")
    hub.add("org/untold", tmp_path / "untold")
    with pytest.raises(InputError, match=re.escape(message)) as told:
        load_spec(name)
    assert "\n" not in str(told.value)
    path = tiny.bench(tmp_path / "here", models=[name], tasks=["trec"])
    for command in (["plan", str(path)], ["estimate", name], ["fetch", str(path)]):
        monkeypatch.setattr(sys, "argv", ["tunebench", *command])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = capsys.readouterr()
        assert (exit_.value.code, out, len(err.splitlines())) == (2, "", 1), err


def test_the_memory_of_a_model_of_the_hub_is_estimated_from_its_configuration(hub: hubs.Hub, tmp_path: Path) -> None:
    from harness.estimate.estimate import estimate

    shape: dict[str, Any] = dict(load_spec("tiny-llama").config)
    hub.add("org/shape", _repository(tmp_path / "shape", **shape))
    for method in ("full", "lora"):
        ours, known = (estimate(name, method, length=32) for name in ("org/shape", "tiny-llama"))
        assert (ours.total_params, ours.total_bytes) == (known.total_params, known.total_bytes)
    assert ours.total_params > 100_000 and not [request for request in hub.requests if "safetensors" in request]
