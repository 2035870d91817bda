"""What the titles of figures say is what the numbers say, also of ties, of one row and of nulls."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.trials_table import trials
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

from harness.figures import published
from harness.figures.cost_by_model_size import draw as cost_by_model_size
from harness.figures.examples_and_rank import draw as examples_and_rank
from harness.figures.lines import Series, best_at_the_ends, line_views
from harness.figures.panels import shortened
from harness.figures.style import MUTED, look
from harness.figures.words import leading
from harness.judgement.timings import undisturbed

_SERIES = Series("x", "x", str)
SCORES = st.sampled_from([-0.5, -0.0004, 0.0, 0.5, 0.5003, 0.7])


@st.composite
def lines(draw: st.DrawFn) -> pd.DataFrame:
    """Rows of at most four lines at one to three places."""
    count, places = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rows = [(f"m{i}", float(10**x), draw(SCORES)) for i in range(count) for x in range(places)]
    return pd.DataFrame(rows, columns=["label", "x", "test_score"])


@settings(max_examples=40, deadline=None)
@given(lines(), st.booleans())
def test_the_leaders_at_both_ends_are_all_that_have_the_best_score(frame: pd.DataFrame, higher: bool) -> None:
    said = best_at_the_ends(frame, _SERIES, higher, lambda x: f"x={x:g}")
    for x in (frame.x.min(), frame.x.max()):
        at = frame[frame.x == x]
        best = at.test_score.max() if higher else at.test_score.min()
        names = [row.label for row in at.itertuples() if f"{row.test_score:.3f}" == f"{best:.3f}"]
        leaders = leading(at, "test_score", higher)
        assert list(leaders.names) == names
        assert f"at x={x:g} ({best:.3f})" in said
        who = f"{len(names)} rows" if len(names) > 3 else names[0]
        assert who in said
    assert ("highest" if higher else "lowest") in said


def test_ties_are_named_together() -> None:
    frame = pd.DataFrame({"label": ["a", "b", "c"], "v": [0.50001, 0.5, 0.4]})
    assert leading(frame, "v", largest=True).who == "a and b are"
    assert leading(frame, "v", largest=False).who == "c is"
    assert leading(frame.assign(v=1.0, label=list("xyz")), "v", largest=True).who == "x, y and z are"


def test_rows_that_form_no_line_are_counted() -> None:
    frame = pd.DataFrame(
        {"task": "t", "model": "m", "method": ["a", "a", "b", "c"], "x": [1.0, 2.0, 1.0, np.nan], "test_score": 0.5}
    )
    (view,) = line_views(frame, lambda panel, frame: "", ["task", "model"], _SERIES)
    assert view.where == "t · m · 1 row that forms no line left out"
    assert view.rows == 1
    assert line_views(frame[frame.method != "a"], lambda panel, frame: "", ["task", "model"], _SERIES) == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=90), min_size=1, max_size=8)
)
def test_shortened_names_stay_apart(names: list[str]) -> None:
    frame = shortened(pd.DataFrame({"label": names}))
    assert frame.label.nunique() == len(set(names))
    assert frame.label.str.len().max() <= 42 + len(" (8)")
    assert all(short == name for short, name in zip(frame.label, names, strict=True) if len(name) <= 42)


def test_disturbed_rows_give_no_times() -> None:
    frame = pd.DataFrame({"disturbed": [True, False, None], "concurrent_trials": [0, 2, 0]})
    assert undisturbed(frame).index.tolist() == [2]
    assert undisturbed(frame[["disturbed"]]).index.tolist() == [1, 2]
    assert len(undisturbed(pd.DataFrame({"x": [1]}))) == 1


def test_published_values_have_the_uncertainty_of_their_source() -> None:
    own = published.read("hu2021_lora_readme", method="lora", task="sst2", model="roberta-base")
    assert own.error.tolist() == [0.2]
    digitised = published.read("lester2021_prompt_tuning", method="prompt", model="t5-small")
    assert digitised.error.tolist() == [0.3]
    relative = published.read("liu2024_bitdelta_latency", method="naive", table="figure_decode_latency")
    assert relative.error.iloc[0] == pytest.approx(0.04 * 25.9)
    assert published.read("li2021_prefix").error.isna().all()


@pytest.mark.parametrize(
    ("name", "like"),
    [("lora_r16", "lora"), ("adapter_houlsby_8_256", "adapter"), ("embedding_only_10", "prompt"), ("s_lora", "lora")],
)
def test_a_published_method_looks_like_ours(name: str, like: str) -> None:
    assert published.look_like(name) == look(like)
    assert published.look_like("gpt-4").colour == MUTED


_COLUMNS = ["source", "table", "model", "method", "trainable_params", "task", "metric", "value", "std", "note"]
_OWN = {"peft_method_comparison", "peft_types", "hu2021_lora_counts"}
FILES = sorted(path.stem for path in published.folder().glob("*.csv"))


def test_the_reference_files_are_those_that_the_readme_describes() -> None:
    described = re.findall(r"^\| (\w+)\.csv \|", (published.folder() / "README.md").read_text(encoding="utf-8"), re.M)
    assert sorted(described) == FILES


@pytest.mark.parametrize("name", sorted(set(FILES) - _OWN))
def test_a_reference_file_is_tidy(name: str) -> None:
    frame = pd.read_csv(published.folder() / f"{name}.csv")
    assert set(_COLUMNS) - {"std"} <= set(frame.columns) <= {*_COLUMNS, "setting", "origin"}
    text = ["source", "table", "model", "method", "task", "metric"]
    assert frame[text].notna().all(axis=None)
    assert pd.api.types.is_numeric_dtype(frame.value)
    assert (
        frame.value.notna()
        .to_numpy()[~frame.note.astype("string").fillna("").str.contains("OOM").to_numpy(dtype=bool)]
        .all()
    )
    assert (frame["std"].dropna() >= 0).all()
    if "origin" in frame:
        assert frame.origin.notna().all()


def test_one_row_needs_and_several_are_compared() -> None:
    """Peak memory at the largest size, in the title, from known numbers."""
    rows = [
        {"trial_id": f"{method}{size}", "method": method, "model": f"m{size:g}", "model_params": size,
         "learning_rate": 1.0, "peak_train_bytes": factor * size, "test_score": 0.5}
        for size in (1e6, 1e9)
        for method, factor in (("full", 16.0), ("lora", 4.0))
    ]  # fmt: skip
    figure: Any = cost_by_model_size({"trials": trials(*rows)})
    titles = [" ".join(axes.get_title(loc="left").split()) for axes in figure.axes]
    assert titles[0] == "With 1B parameters, lora is lowest (4 GB) and full is highest (16 GB)"


def ranks(**variants: tuple[dict[str, object], float, float]) -> Any:
    """Ranks 4 and 8 on 8 and 16 examples, and at rank 8 what each of ``variants`` has as validation and test scores."""
    usual: dict[str, object] = {"alpha": 16, "init": "default"}
    cells = [({**usual, "r": rank}, 0.5, 0.4) for rank in (4, 8)]
    cells += [({**usual, "r": 8, **arguments}, valid, test) for arguments, valid, test in variants.values()]
    rows: list[dict[str, object]] = [
        {"trial_id": f"{number}{size}", "method_args": json.dumps(arguments), "train_examples": size,
         "valid_score": valid, "test_score": test}
        for number, (arguments, valid, test) in enumerate(cells)
        for size in (8, 16)
    ]  # fmt: skip
    figure: Any = examples_and_rank({"trials": trials(*rows)})
    (axes,) = figure.axes
    return axes


def test_another_variant_at_one_rank_is_no_cell_of_that_rank() -> None:
    """PiSSA at the highest rank alone would make that rank look better than it is."""
    axes = ranks(pissa=({"init": "pissa"}, 0.9, 0.9))
    title = " ".join(axes.get_title(loc="left").split())
    assert "ranks 4 and 8 with 8 examples (0.400); ranks 4 and 8 with 16 examples (0.400)" in title
    assert any("lora, init default" in text.get_text() for text in axes.figure.findobj(Text))


def test_of_several_scales_validation_chooses_and_not_the_test() -> None:
    for valid, shown in ((0.6, "rank 8 with 8 examples (0.900)"), (0.3, "ranks 4 and 8 with 8 examples (0.400)")):
        assert shown in " ".join(ranks(scaled=({"alpha": 64}, valid, 0.9)).get_title(loc="left").split())
