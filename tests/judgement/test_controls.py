"""The built-in control of timings: equal networks must answer equally fast, and where they do not, no time counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.command_line import run
from helpers.fake_records import make_sweep
from helpers.trials_table import trials
from hypothesis import given
from hypothesis import strategies as st

from harness.figures import FIGURES, Nothing
from harness.figures.panels import title_of
from harness.judgement.controls import control_sentences
from harness.judgement.leads import of_trials
from harness.judgement.statistics import aggregate
from harness.judgement.timings import TOLERANCE
from harness.report import sections
from harness.results.control import controls, fill_control
from harness.results.schema import LONG_TABLES

BARE, FULL, LORA = "baseline", "full", "lora"


def tables(*answers: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Tables of trials that took ``p50_s`` for a token, with ``variant``; the rest are columns of trials."""
    of_trial = ("p50_s", "variant", "phase", "batch_size_of_times")
    rows: list[dict[str, Any]] = []
    times: list[dict[str, Any]] = []
    for number, answer in enumerate(answers):
        mine = {name: value for name, value in answer.items() if name not in of_trial}
        known = {"trial_id": str(number), "method": LORA, "train_tokens_per_s": 100.0, "test_score": 0.5}
        args = {"primary_metric": "accuracy", "chain_train_s": 9.0, "weights_bytes": 400, "hostname": "here"}
        rows.append({**known, **args, **mine})
        usual = {"trial_id": str(number), "variant": "plain", "batch_size": answer.get("batch_size_of_times", 1)}
        rest = {"prompt_tokens": 64, "new_tokens": 16, "phase": answer.get("phase", "decode"), "p50_s": 0.01}
        times.append({**usual, **rest, **{k: answer[k] for k in ("p50_s", "variant") if k in answer}, "p95_s": 0.02})
    empty = {n: pd.DataFrame(columns=[column.name for column in table.columns]) for n, table in LONG_TABLES.items()}
    frame = trials(*rows)
    filled = frame.to_dict("records")
    fill_control(filled, times)
    latency = pd.DataFrame(times, columns=empty["latency"].columns).assign(tokens_per_s=1.0)
    ratios = pd.Series([row["control_ratio"] for row in filled], index=frame.index, dtype="float64")
    return {**empty, "trials": frame.assign(control_ratio=ratios), "latency": latency}


def ratio(*answers: dict[str, Any]) -> list[float]:
    known = tables(*answers)["trials"].control_ratio
    return [round(value, 6) for value in known.dropna()]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([{"method": BARE, "p50_s": 0.010}, {"method": FULL, "p50_s": 0.013}], [1.3] * 2),
        ([{"method": BARE, "p50_s": 0.013}, {"method": FULL, "p50_s": 0.010}], [1.3] * 2),
        ([{"method": FULL, "p50_s": 0.010}, {"p50_s": 0.015, "variant": "merged"}], [1.5] * 2),
        ([{"method": FULL}, {"p50_s": 0.03}], []),
        ([{"method": BARE}], []),
        ([{"p50_s": 0.02, "variant": "merged"}, {"method": "dora", "variant": "merged"}], []),
        ([{"method": BARE}, {"method": FULL, "p50_s": 0.0}], []),
        ([{"method": BARE}, {"method": FULL, "p50_s": None}], []),
        ([{"method": BARE}, {"method": FULL, "p50_s": 0.02, "status": "failed"}], []),
        ([{"method": BARE}, {"method": FULL, "p50_s": 0.02, "disturbed": True}], []),
        ([{"method": BARE}, {"method": FULL, "p50_s": 0.02, "concurrent_trials": 1}], []),
        ([{"method": BARE}, {"method": FULL, "p50_s": 0.02, "hostname": "there"}], []),
        ([{"method": BARE}, {"method": FULL, "p50_s": 0.02, "dtype": "bfloat16"}], []),
        ([{"method": BARE}, {"method": FULL, "p50_s": 0.02, "batch_size_of_times": 4}], []),
        ([{"method": BARE}, {"method": FULL, "p50_s": 0.02, "phase": "prefill"}], []),
        ([{"method": BARE, "method_args": '{"shots": 2}'}, {"method": FULL, "p50_s": 0.02}], []),
        ([{"method": BARE, "method_args": '{"shots": 0}'}, {"method": FULL, "p50_s": 0.02}], [2.0] * 2),
        ([{"method": BARE}, {"p50_s": 0.02, "variant": "merged", "weights_bytes": 200}], []),
        ([{"method": BARE}, {"p50_s": 0.02, "variant": "merged", "weights_bytes": 440}], [2.0] * 2),
    ],
    ids=[
        *("full slower", "base slower", "merged against full", "not merged", "one row", "merged alone", "zero", "null"),
        *("failed", "disturbed", "beside another", "another machine", "another format", "another batch"),
        *("another phase", "with examples", "without examples", "merged in 4 bits", "merged, with its adapter"),
    ],
)
def test_the_ratio_is_that_of_equal_networks(answers: list[dict[str, Any]], expected: list[float]) -> None:
    assert ratio(*answers) == expected


def test_medians_over_trials_decide_and_the_worst_setting_is_told() -> None:
    bare = [{"method": BARE, "seed": seed, "p50_s": p50} for seed, p50 in enumerate((0.010, 0.011, 0.050))]
    full = [{"method": FULL, "seed": seed, "p50_s": p50} for seed, p50 in enumerate((0.012, 0.012, 0.012))]
    slower = [{"method": name, "p50_s": p50, "phase": "prefill"} for name, p50 in ((BARE, 0.2), (FULL, 0.1))]
    assert set(ratio(*bare, *full)) == {round(12 / 11, 6)}
    known = tables(*bare, *full, *slower)
    (control,) = controls(known["trials"].to_dict("records"), known["latency"].to_dict("records")).values()
    assert (control.slow, control.fast, control.phase) == ("the untrained model", "full fine-tuning", "prefill")
    assert (control.ratio, control.trials) == (2.0, 2)
    (said,) = control_sentences(tables(*bare, *full))
    assert said.sentence == (
        "the control of these timings holds. At batch 1, full fine-tuning takes 1.09 times as long for a token as the "
        "untrained model (0.24 to 1.20 between their 6 trials); smaller differences mean nothing"
    )


HOLDS = ({"method": BARE}, {"method": FULL, "p50_s": 0.012, "learning_rate": 1e-4})
FAILS = ({"method": BARE}, {"method": FULL, "p50_s": 0.0121, "learning_rate": 1e-4})


def test_the_tolerance_is_a_fifth_and_what_fails_has_no_times() -> None:
    assert TOLERANCE == 1.2
    for answers, count in ((HOLDS, 1), (FAILS, 0)):
        known = tables(*answers)
        assert aggregate(known).chain_train_s.notna().sum() == 2 * count
        assert aggregate(known).test_score.notna().all()
        trained = known["trials"][known["trials"].method == FULL]
        assert len(of_trials("chain_train_s", trained, known)) == len(of_trials("latency_s", trained, known)) == count
        assert len(of_trials("trainable_params", trained.assign(trainable_params=7.0), known)) == 1


@pytest.mark.parametrize("name", ["training_speed", "score_vs_time"])
def test_a_figure_of_speed_says_why_it_is_not_drawn(name: str) -> None:
    assert not isinstance(FIGURES[name](tables(*HOLDS)), Nothing)
    drawn = FIGURES[name](tables(*FAILS))
    assert isinstance(drawn, Nothing)
    assert drawn.reason == (
        "timings of this run are not to be trusted: networks that must answer equally fast differ by a factor of 1.21"
    )


@pytest.mark.parametrize("name", ["decode_latency", "latency_vs_batch"])
def test_a_figure_of_latency_shows_the_times_under_another_title(name: str) -> None:
    larger = [{**answer, "batch_size_of_times": 4, "seed": 1} for answer in FAILS]
    drawn = FIGURES[name](tables(*FAILS, *larger))
    assert not isinstance(drawn, Nothing)
    assert "Timings of this run are not to be trusted" in title_of(drawn).replace("\n", " ")


def test_the_report_says_it_first_and_in_its_place() -> None:
    doubt = "timings of this run are not to be trusted"
    assert doubt in sections.brief(tables(*FAILS)).text and doubt in sections.control(tables(*FAILS)).text
    assert doubt not in sections.brief(tables(*HOLDS)).text
    assert "the control of these timings holds" in sections.control(tables(*HOLDS)).text
    assert "there is no control of these timings" in sections.control(tables({"p50_s": 0.01})).text
    assert sections.control(tables({"status": "failed"})).text == "<p>Nothing was timed.</p>"


def test_two_formats_have_a_control_each() -> None:
    said = control_sentences(tables(*HOLDS, *({**answer, "dtype": "bfloat16"} for answer in FAILS)))
    assert {one.place: one.holds for one in said} == {"t · m · float32": True, "t · m · bfloat16": False}


_SECONDS = st.sampled_from([None, 0.0, float("nan"), 0.01, 0.011, 0.5])
_ANSWERS = st.fixed_dictionaries(
    {
        "method": st.sampled_from([BARE, FULL, LORA]),
        "variant": st.sampled_from(["plain", "merged"]),
        "p50_s": _SECONDS,
        "status": st.sampled_from(["ok", "ok", "oom"]),
        "disturbed": st.sampled_from([None, False, True]),
        "weights_bytes": st.sampled_from([None, 100, 400]),
        "hostname": st.sampled_from([None, "here"]),
        "chain_train_s": st.sampled_from([None, 1.0]),
    }
)


@pytest.mark.slow
@given(st.lists(_ANSWERS, max_size=6))
def test_odd_tables_have_a_ratio_of_at_least_one_or_none(answers: list[dict[str, Any]]) -> None:
    known = tables(*answers)
    ratios = known["trials"].control_ratio
    assert (ratios.dropna() >= 1).all()
    for one in control_sentences(known):
        assert one.holds is None or str(one.holds) in {str(ok) for ok in ratios.dropna() <= TOLERANCE}
    usable = [a for a in answers if a["status"] == "ok" and not a["disturbed"] and (a["p50_s"] or 0) > 0]
    if len({(a["method"], a["variant"]) for a in usable}) < 2:
        assert ratios.isna().all()


def test_the_command_line_fills_the_column_and_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sweep(tmp_path, n_methods=3, seeds=1, rates=1, curve_steps=2)
    code, out, _ = run(monkeypatch, capsys, "tables", str(tmp_path))
    assert code == 0
    assert "factual_summary · smollm2-135m: the control of these timings holds. At batch " in out
    table = pd.read_parquet(tmp_path / "tables" / "trials.parquet")
    assert table.control_ratio.between(1.0, TOLERANCE).all()
