"""The perplexity of answers under the untouched model, from what is kept beside the tables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.trials_table import trials

from harness.errors import InputError
from harness.judgement import surprise
from harness.judgement.surprise import Surprise, digest, perplexity


def tables(*answers: tuple[str, str, str], **columns: Any) -> dict[str, pd.DataFrame]:
    """Trials 'a' and 'b' on one model and 'c' on another, with these (trial, prompt, answer)."""
    rows = [{"trial_id": name, "model": "big" if name == "c" else "small", "task_kind": "generation", **columns}
            for name in "abc"]  # fmt: skip
    generations = pd.DataFrame(
        [(trial, at, prompt, answer, "r") for at, (trial, prompt, answer) in enumerate(answers)],
        columns=["trial_id", "example", "prompt", "output", "reference"],
    )
    return {"trials": trials(*rows), "generations": generations}


def costs(*rows: tuple[str, str, str, float, int]) -> pd.DataFrame:
    return pd.DataFrame([Surprise(model, digest(p, a), nats, tokens) for model, p, a, nats, tokens in rows])


ASKED = (("a", "p", "x"), ("a", "q", "y"), ("b", "p", "x"), ("c", "p", "x"))


def test_tokens_weigh_equally_whatever_answer_they_stand_in() -> None:
    known = costs(("small", "p", "x", 2.0, 1), ("small", "q", "y", 1.0, 3), ("big", "p", "x", 0.5, 1))
    of = {**tables(*ASKED), surprise.TABLE: known}
    assert perplexity(["a"], of) == pytest.approx(math.exp(3 / 4))
    assert perplexity(["b"], of) == pytest.approx(math.exp(2)), "the same answer costs the same"
    assert perplexity(["c"], of) == pytest.approx(math.exp(0.5)), "each model has its own costs"


def test_an_answer_that_was_not_read_leaves_no_number() -> None:
    of = {**tables(*ASKED), surprise.TABLE: costs(("small", "p", "x", 2.0, 1))}
    assert perplexity(["a"], of) is None and perplexity(["b"], of) is not None
    assert perplexity(["c"], of) is None, "what another model read does not count"
    assert perplexity(["a"], tables(*ASKED)) is None
    assert perplexity(["nobody"], of) is None


def test_what_is_open_is_each_answer_once_by_model() -> None:
    assert surprise.unmeasured(tables(*ASKED), []) == {"small": [("p", "x"), ("q", "y")], "big": [("p", "x")]}
    known = [Surprise("small", digest("p", "x"), 1.0, 1)]
    assert surprise.unmeasured(tables(*ASKED), known) == {"small": [("q", "y")], "big": [("p", "x")]}
    assert surprise.unmeasured(tables(*ASKED, task_kind="classification"), []) == {}
    assert surprise.unmeasured(tables(*ASKED, status="failed"), []) == {}


def test_what_was_measured_is_kept_beside_the_tables(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "trials.parquet").touch()
    assert surprise.read(tmp_path) == []
    known = [Surprise("small", digest("p", "ä\n"), 1.25, 3)]
    assert surprise.write(tmp_path, known) == tmp_path / "tables" / surprise.FILE
    assert surprise.read(tmp_path) == known
    (tmp_path / "tables" / surprise.FILE).write_text('{"model": "small"}\n')
    with pytest.raises(InputError, match="cannot be read; remove it"):
        surprise.read(tmp_path)
