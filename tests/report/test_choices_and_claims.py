"""The sections on what to take and on what the papers say: true on known and on odd tables, and trusting no text."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd
import pytest
from helpers.scored_tables import Cell, noisy, scored
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.judgement import surprise
from harness.judgement.claim_verdicts import Evidence, judge
from harness.judgement.claims import load_all
from harness.judgement.normalised import Normalised, OverTasks
from harness.judgement.statistics import aggregate
from harness.judgement.surprise import Surprise, digest
from harness.judgement.verdicts import compare
from harness.report.choices_section import _over_tasks, choices, stability
from harness.report.claims_section import claims, evidence_lines

EVIL = "<img src=x onerror=alert(1)>"
CLAIMS = {claim.name: claim for claim in load_all()}


def text(markup: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", markup)).split())


def tables(seeds: int = 3, **columns: object) -> dict[str, pd.DataFrame]:
    usual = {"base_score": 0.2, **columns}
    costs = {"full": (9e9, 90.0, 9e8), "lora": (2.9e9, 50.0, 1e6)}
    levels = {"full": 0.6, "lora": 0.5}
    cells = [Cell("baseline", noisy(0.2, seeds, seed=9), {"method_args": '{"shots": 0}', **usual})]
    for number, (method, (peak, seconds, stored)) in enumerate(costs.items()):
        by_seed = {"peak_train_bytes": peak, "chain_train_s": seconds, "checkpoint_bytes": stored}
        latency = {"plain": [0.02] * seeds} | ({"merged": [0.0201] * seeds} if method == "lora" else {})
        spent = {name: [value] * seeds for name, value in by_seed.items()}
        cells.append(Cell(method, noisy(levels[method], seeds, seed=number), usual, spent, latency=latency))
    return scored(*cells)


def lines(name: str, of: dict[str, pd.DataFrame]) -> list[str]:
    return evidence_lines(judge(CLAIMS[name], Evidence.of(of)), {})


def test_the_recommendations_of_a_known_sweep() -> None:
    said = text(choices(tables()).text)
    assert "Memory score speed latency size 4 GB lora lora lora lora 16 GB full full full full" in said
    assert re.search(
        r"the best score would be that of full (99|100)[.\d]* %.*; two such orders agree by τ = (0\.9|1)", said
    )
    assert "on the front of score against peak memory of training, in 95 % of resamples or more: full, lora" in said
    assert "(Bradley–Terry, Elo scale, mean 0): full +" in said


def test_one_seed_is_said_and_nothing_is_told_apart() -> None:
    said = text(choices(tables(seeds=1)).text)
    assert "4 GB lora" in said and "16 GB full, not told from lora" in said
    assert "with other test examples (some methods have one seed)" in said


@pytest.mark.parametrize("section", [choices, claims])
def test_no_tables_and_no_scores_are_said(section: object) -> None:
    bare = scored(Cell("baseline", noisy(0.2, 1), {"method_args": '{"shots": 0}'}))
    for some in (bare, {"trials": tables()["trials"].assign(status="oom")}):
        said = text(section(some).text)  # type: ignore[operator]
        assert said.startswith(("No trained model was scored", f"Not run here ({len(CLAIMS)} of {len(CLAIMS)})"))


def test_names_are_text() -> None:
    shown = tables(task=EVIL, model=EVIL)
    for section in (choices, claims):
        markup = section(shown).text
        assert "<img" not in markup and html.escape(EVIL) in markup


def test_the_evidence_of_a_difference_of_a_ratio_and_of_what_was_not_run() -> None:
    found = tables()
    (score,) = lines("lora_learns_less", found)
    interval = r"-0\.1\d\d \[-0\.\d+, -0\.0\d+\], 3 seeds and 200 examples\."
    assert re.match(r"agrees on t · m: lora 0\.\d{3}, full 0\.\d{3}; " + interval, score)
    memory = lines("lora_needs_a_third_of_the_memory", found)
    assert memory[0] == "agrees on t · m: lora 2.9 GB, full 9 GB; 0.322 times."
    latency = lines("lora_merged_costs_no_latency", found)
    assert latency == ["agrees on t · m: lora (merged) 20.1 ms, full 20 ms; 1 times."]
    assert lines("bitdelta_as_good_as_its_parent", found) == ["Not run here: no row of bitdelta."]


def test_doubt_gives_its_reason() -> None:
    (line,) = lines("lora_learns_less", tables(seeds=1))
    assert line.startswith("cannot tell on t · m") and line.endswith(
        "one seed says nothing of the spread between runs."
    )
    wide = scored(*(Cell(m, noisy(0.5, 3, 20, seed=n, spread=0.5)) for n, m in enumerate(("lora", "full"))))
    (line,) = lines("lora_learns_less", wide)
    assert line.endswith("beyond what is claimed would have been seen with a probability of 80 %.")


def test_many_places_are_counted() -> None:
    several = []
    for number in range(6):
        columns: dict[str, object] = {"task": f"t{number}"}
        several += [
            Cell("lora", noisy(0.3, seed=2 * number), columns),
            Cell("full", noisy(0.6, seed=2 * number + 1), columns),
        ]
    said = lines("lora_learns_less", scored(*several))
    assert len(said) == 5 and said[-1] == "2 more places: agrees 2."


ODD = st.lists(
    st.tuples(st.sampled_from([-0.4, 0.0, 0.5, 1.0]), st.sampled_from([None, 1e9, 3e9])), min_size=1, max_size=4
)


@pytest.mark.slow
@settings(max_examples=3, deadline=None)
@given(ODD, st.booleans(), st.integers(1, 2), st.booleans())
def test_no_sentence_is_false_on_odd_tables(
    rows: list[tuple[float, float | None]], higher: bool, seeds: int, ties: bool
) -> None:
    cells = []
    for number, (level, peak) in enumerate(rows):
        table = np.full((seeds, 5), level) if ties else noisy(level, seeds, 5, seed=number)
        costs = {} if peak is None else {"peak_train_bytes": [peak] * seeds}
        cells.append(Cell(f"m{number}", table, {"higher_is_better": higher}, costs))
    odd = scored(*cells, metric="of_ones_own")
    assert "nan" not in choices(odd).text
    (comparison,) = compare(aggregate(odd), odd)
    said = stability(comparison, odd)
    ranked = [line for line in said if "the best score would be that of" in line]
    assert len(ranked) == (len(rows) > 1 and not ties), "scores whose error is not known have no rank that varies"
    for line in ranked:
        shares = [float(share) for share in re.findall(r"(\d+(?:\.\d+)?) %[,;]", line.replace("≈", ""))]
        assert 0 < sum(shares) <= 101


def test_answers_of_one_length_have_no_shortest_and_nobody_repeats_most() -> None:
    def said(*outputs: str) -> list[str]:
        of = tables()
        chosen = compare(aggregate(of), of)[0]
        rows = [
            (trial, 0, "p", text, "r")
            for row, text in zip(chosen.listed, outputs, strict=True)
            for trial in row.trial_ids
        ]
        columns = ["trial_id", "example", "prompt", "output", "reference"]
        shown = stability(chosen, {**of, "generations": pd.DataFrame(rows, columns=columns)})
        return [line for line in shown if line.startswith("mean length")]

    count = len(compare(aggregate(tables()), tables())[0].rows)
    assert said(*["a b c d"] * count) == ["mean length of the answers: 4 words in every row"]
    (line,) = said("a b c a b c", *["a b c d"] * (count - 1))
    assert "4 (" in line and "to 6 (full) words; full repeats most, 25 % of its word triples" in line


def test_the_answers_that_surprise_the_untouched_model_are_named() -> None:
    of = tables()
    chosen = compare(aggregate(of), of)[0]
    rows = [(trial, 0, "p", row.method, "r") for row in chosen.listed for trial in row.trial_ids]
    columns = ["trial_id", "example", "prompt", "output", "reference"]
    of = {**of, "generations": pd.DataFrame(rows, columns=columns).assign(output=lambda frame: frame.output + " x")}

    def said(**nats: float) -> list[str]:
        known = [Surprise(chosen.listed[0].model, digest("p", f"{name} x"), cost, 2) for name, cost in nats.items()]
        shown = stability(chosen, {**of, surprise.TABLE: pd.DataFrame(known)} if known else of)
        return [line for line in shown if line.startswith("perplexity")]

    assert said() == [] and said(full=1.0) == [], "one row is compared with nothing"
    (line,) = said(full=2.0, lora=4.0)
    assert line.startswith("perplexity of the answers under the untouched model: from 2.72 (full) to 7.39 (lora)")
    assert line.endswith(f"; {len(chosen.rows) - 2} not measured")
    (line,) = said(full=2.0, lora=2.0)
    assert "2.72 for every row" in line


def test_over_tasks_a_method_is_called_by_what_tells_its_rows_apart() -> None:
    settings = [("full", "{}"), ("lora", '{"alpha": 16, "r": 8}'), ("lora", '{"alpha": 16, "r": 4}')]
    found = OverTasks(tuple(Normalised(*each, 1.0, 0.9, 1.1, 2) for each in settings), 2, 0)
    assert re.findall("<li>(.*?):", _over_tasks(found)) == ["full", "lora, r 8", "lora, r 4"]
