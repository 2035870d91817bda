"""A model folder of a stranger: its code never runs, its pickles are never read, and nothing waits for it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import checkpoints

from harness.errors import InputError
from harness.estimate.estimate import estimate
from harness.estimate.start import quick_start
from harness.models.load import load
from harness.models.spec import load_spec


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save(tmp_path_factory.mktemp("usual") / "model", "llama", transformers.AutoModelForCausalLM)


@pytest.fixture
def folder(tmp_path: Path, usual: Path) -> Path:
    """A checkpoint with a file of Python that tells whether it ran."""
    place = tmp_path / "model"
    shutil.copytree(usual, place)
    (place / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    return place


def say(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def willing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who answers yes to everything."""
    monkeypatch.setattr("builtins.input", lambda _="": "y")


@pytest.mark.usefixtures("willing")
@pytest.mark.parametrize("architecture", ["llama", "unknown_net"])
def test_code_beside_a_configuration_never_runs(folder: Path, architecture: str) -> None:
    classes = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M", "AutoModel": "code.M"}
    say(folder / "config.json", auto_map=classes, model_type=architecture)
    for use in (lambda: load(str(folder), device="cpu").build(), lambda: estimate(str(folder), length=8)):
        if architecture == "llama":
            assert use() is not None
        else:
            with pytest.raises(
                InputError,
                match="model_type: unknown name",
            ):
                use()
    assert not (folder.parent / "ran").exists()


@pytest.mark.usefixtures("willing")
def test_code_beside_a_tokenizer_never_runs(folder: Path) -> None:
    say(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.T", "code.T"]}, tokenizer_class="Own")
    with pytest.raises(InputError, match="code that comes with a checkpoint never runs"):
        load(str(folder), device="cpu")
    assert not (folder.parent / "ran").exists()


def test_code_of_a_repository_is_refused(folder: Path) -> None:
    say(folder / "config.json", text_config={"attn_implementation": "someone/kernel"})
    with pytest.raises(InputError, match=r"config.json: 'someone/kernel' is code from elsewhere, which never runs"):
        load_spec(str(folder))
    say(folder / "config.json", text_config={"attn_implementation": "sdpa"})
    assert load_spec(str(folder)).architecture == "llama"


def test_pickles_are_never_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no weights in safetensors; pickled ones \(.bin, .pt\) are never read"):
        load(str(folder), device="cpu")


def test_an_adapter_does_not_bring_another_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/model", "peft_type": "LORA"}')
    with pytest.raises(InputError, match="is an adapter of another model; merge it"):
        load_spec(str(folder))


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "special_tokens_map.json"])
@pytest.mark.parametrize("put", [_pipe, lambda path: path.symlink_to("/dev/zero"), lambda p: p.symlink_to("gone")])
def test_what_has_no_end_is_not_read(folder: Path, name: str, put: Callable[[Path], None]) -> None:
    (folder / name).unlink(missing_ok=True)
    put(folder / name)
    with pytest.raises(InputError, match=rf"{name}: is (not a regular file|a link that leads nowhere or to no file); "):
        load_spec(str(folder))


def test_a_link_to_a_file_is_a_file_as_in_the_cache_of_the_hub(folder: Path) -> None:
    for path in [*folder.iterdir()]:
        path.rename(folder.parent / path.name)
        path.symlink_to(folder.parent / path.name)
    assert load(str(folder), device="cpu").build() is not None


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_one_line(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(InputError, match=r"^model: .*/model: ") as told:
        load(str(folder), device="cpu").build()
    assert "\n" not in str(told.value)


def test_an_estimate_asks_nobody() -> None:
    with quick_start(), pytest.raises(EOFError):
        sys.stdin.readline() or input()
