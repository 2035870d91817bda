"""A method of a user's own on tiny models: it trains like one of the package, and its mistakes are one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import own_methods as own

from harness import methods
from harness.errors import InputError
from harness.estimate.estimate import estimate
from harness.methods import bitfit, load
from harness.models.load import Base
from harness.models.load import load as load_base

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base("tiny-bert", labels=("a", "b"), device="cpu", seed=3)


def test_a_copy_of_a_shipped_method_is_that_method(base: Base, tmp_path: Path) -> None:
    file = own.write(tmp_path, Path(bitfit.__file__).read_text(encoding="utf-8"), "copy.py")
    copy, shipped = methods.apply(str(file), base), methods.apply("bitfit", base)
    assert (copy.method, copy.args, copy.note) == ("own:copy", {}, shipped.note)
    assert copy.trainable.keys() == shipped.trainable.keys()
    assert all(torch.equal(copy.trainable[name], shipped.trainable[name]) for name in copy.trainable)
    same: dict[str, Any] = {"batch_size": 2, "length": 8, "dtype": "float32"}
    assert estimate("tiny-bert", str(file), **same).total_bytes == estimate("tiny-bert", "bitfit", **same).total_bytes


def test_it_is_saved_and_loaded_with_its_file_or_not_at_all(base: Base, tmp_path: Path) -> None:
    file = own.write(tmp_path)
    tuned = methods.apply(str(file), base, layer_types="layernorm", train_steps=4)
    norms = [name for name in tuned.trainable if "norm" in name.lower()]
    assert len(norms) == 2 * (1 + 2 * base.spec.transformers_config().num_hidden_layers)
    with torch.no_grad():
        tuned.trainable[norms[0]].add_(0.5)
    tuned.save(tmp_path / "checkpoint")
    again = load(base, tmp_path / "checkpoint")
    assert again.args == tuned.args and torch.equal(again.trainable[norms[0]], tuned.trainable[norms[0]])
    file.write_text(own.NORMS + "# changed\n")
    with pytest.raises(InputError, match="has changed since; run its trial again"):
        load(base, tmp_path / "checkpoint")
    file.unlink()
    with pytest.raises(InputError, match="which is not there any more"):
        load(base, tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere\ndef apply(base): ...", "mine.py cannot be imported: ModuleNotFoundError"),
        ("import sys\nsys.exit(0)\ndef apply(base): ...", "mine.py cannot be imported: SystemExit: 0"),
        ("import sys\ndef apply(base): sys.exit(0)", "own:mine: apply: SystemExit: 0"),
        ("def apply(base): return base.model", "own:mine: apply: AttributeError: 'Base' object has no attribute 'mod"),
        ("def apply(base): return base.build()", "own:mine: apply must return Tuned(base, model), not Bert"),
        (
            own.NORMS.replace("return Tuned", "model.requires_grad_(False); return Tuned"),
            "own:mine: apply leaves no parameter that trains; see train_only",
        ),
    ],
)
def test_what_goes_wrong_in_it_is_told(base: Base, tmp_path: Path, text: str, message: str) -> None:
    file = own.write(tmp_path, text, "mine.py")
    with pytest.raises(InputError) as told:
        methods.apply(str(file), base)
    assert message in str(told.value)


def test_it_may_hold_a_dataclass_whose_annotations_are_texts(base: Base, tmp_path: Path) -> None:
    begins = "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
    holds = "@dataclass\nclass Plan:\n    times: int = 2\n\n"
    text = own.NORMS.replace("from typing", begins + "from typing").replace("\nKind =", f"\n{holds}Kind =")
    file = own.write(tmp_path, text.replace("model = base.build()", "model = base.build(); assert Plan().times == 2"))
    assert methods.apply(str(file), base).trainable


def test_its_own_refusal_and_its_arguments_name_it(base: Base, tmp_path: Path) -> None:
    file = str(own.write(tmp_path))
    with pytest.raises(InputError, match=r"^own:norms: layer_types: no layer is called 'conv'$"):
        methods.apply(file, base, layer_types="conv")
    with pytest.raises(InputError, match=r"^own:norms: argument: unknown name 'layers'"):
        methods.apply(file, base, layers=3)
    with pytest.raises(InputError, match="times: must be at least 1"):
        methods.apply(file, base, times=0)
