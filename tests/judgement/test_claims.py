"""The papers' claims: each agrees where it is true, disagrees where it is false, and may be undecided."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.scored_tables import Cell, noisy, scored

from harness.errors import InputError
from harness.judgement import claims
from harness.judgement.claim_verdicts import ClaimVerdict, Evidence, Judgement, judge
from harness.judgement.claims import Check, Claim, Side, Source
from harness.judgement.quantities import QUANTITIES, SCORE

ALL = {claim.name: claim for claim in claims.load_all()}
BIG, SMALL = 1e8, 1e6


def judged(check: Check, tables: dict[str, pd.DataFrame]) -> Judgement:
    source = Source(citation="Nobody 2020", where="table 1", says="so")
    return judge(Claim(name="one", statement="One.", source=source, check=check), Evidence.of(tables))


def check(**given: object) -> Check:
    usual = {"quantity": SCORE, "left": {"method": "lora"}, "relation": "better", "right": {"method": "full"}}
    return Check.model_validate_json(json.dumps({**usual, **given}))


def cell(side: Side, other: Side, wanted: Check, lead: float, spread: float, number: int) -> Cell:
    """A cell of one side of a check that leads the other side by ``lead``, with some spread between three seeds."""
    method = (side.methods or other.methods or ("lora",))[0]
    args = {name: value[0] if isinstance(value, list) else value for name, value in side.method_args.items()}
    columns: dict[str, object] = {name: values[0] for name, values in wanted.where.items()}
    columns |= {"method_args": json.dumps(args), "objective": (*side.objectives, "sft")[0]}
    quantity = QUANTITIES[wanted.quantity]
    sign = 1.0 if quantity.higher_is_better else -1.0
    noise = np.random.default_rng(number).normal(0, 0 if quantity.counted else spread, 3)
    by_seed = [(math.exp if quantity.ratio else float)(sign * lead + one) for one in noise]
    costs = {quantity.column: by_seed} if quantity.column and quantity.name != SCORE else {}
    extra = {wanted.metric: by_seed, "kl": [3.0] * 3} if wanted.metric else {}
    latency = {} if quantity.column else {str(side.variant): by_seed}
    scores = noisy(0.5 + (lead if quantity.name == SCORE else 0), seed=number, spread=spread) + noise[:, None]
    return Cell(method, scores, columns, costs, extra, latency)


def cells_of(claim: Claim, lead: float, spread: float) -> list[Cell]:
    """Cells on a task of their own, in which the left side of the claim leads by ``lead`` (or a logarithm of it)."""
    wanted = claim.check
    ends = [(None, lead)] if wanted.along is None else [(SMALL, 0.0), (BIG, lead)]
    cells: list[Cell] = []
    for number, (size, ahead) in enumerate(ends):
        model = f"m{number}" if wanted.along == "model_params" else "m"
        for side, other, by in ((wanted.left, wanted.right, ahead), (wanted.right, wanted.left, 0.0)):
            one = cell(side, other, wanted, by, spread, len(cells))
            one.columns.update({"task": claim.name, "model": model} | ({wanted.along: size} if wanted.along else {}))
            cells.append(one)
    return cells


def leads(wanted: Check) -> tuple[float, float, float]:
    """Leads that are right, wrong and on the edge of what a check asks for."""
    far = math.log(wanted.factor or 1.0)
    match wanted.relation:
        case "better" | "rises":
            return far + 0.3, -0.3, far
        case "worse" | "falls":
            return -far - 0.3, 0.3, -far
        case "equivalent":
            return 0.0, 0.5, math.log1p(wanted.margin)
        case _:
            return 0.0, -0.3, -wanted.margin


@cache
def evidence(which: int) -> Evidence:
    """Of all claims: where each is right (0), wrong (1) or on the edge (2)."""
    spread = (1e-4, 1e-4, 0.2)[which]
    return Evidence.of(
        scored(*(one for claim in ALL.values() for one in cells_of(claim, leads(claim.check)[which], spread)))
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_claim_agrees_where_it_is_true_disagrees_where_it_is_false_and_may_be_undecided(name: str) -> None:
    verdicts = [ClaimVerdict.AGREES, ClaimVerdict.DISAGREES, ClaimVerdict.CANNOT_TELL]
    counted = QUANTITIES[ALL[name].check.quantity].counted  # nothing that is counted stays undecided
    for which, verdict in enumerate(verdicts[: 2 if counted else 3]):
        known = evidence(which)
        found = judge(ALL[name], replace(known, rows=tuple(row for row in known.rows if row.task == name)))
        assert (found.verdict, len(found.places)) == (verdict, 1), found.reason
        assert (found.places[0].smallest is None) == (verdict is not ClaimVerdict.CANNOT_TELL)
    nothing = judge(ALL[name], replace(evidence(0), rows=()))
    assert nothing.verdict is ClaimVerdict.NOT_RUN and nothing.reason


def test_one_place_that_disagrees_refutes_and_all_must_agree() -> None:
    def places(*apart: float) -> Judgement:
        cells = []
        for number, by in enumerate(apart):
            columns: dict[str, object] = {"task": f"t{number}"}
            cells += [
                Cell("lora", noisy(0.5 + by, seed=2 * number), columns),
                Cell("full", noisy(0.5, seed=2 * number + 1), columns),
            ]
        return judged(check(), scored(*cells))

    assert places(0.2, 0.2).verdict is ClaimVerdict.AGREES
    both = places(0.2, -0.2, 0.2)
    assert both.verdict is ClaimVerdict.DISAGREES
    assert both.count(ClaimVerdict.AGREES) == 2
    assert places(0.2, 0.005).verdict is ClaimVerdict.CANNOT_TELL


def test_better_by_less_than_the_margin_is_no_difference() -> None:
    levels = {"lora": 0.505, "full": 0.5}
    close = [Cell(m, noisy(v, examples=2000, seed=n, spread=0.01)) for n, (m, v) in enumerate(levels.items())]
    assert judged(check(), scored(*close)).verdict is ClaimVerdict.DISAGREES
    assert judged(check(relation="equivalent"), scored(*close)).verdict is ClaimVerdict.AGREES
    assert judged(check(relation="not worse"), scored(*close)).verdict is ClaimVerdict.AGREES
    assert judged(check(margin=0.001), scored(*close)).verdict is ClaimVerdict.AGREES


@pytest.mark.parametrize("lead", [0.0095, -0.0095])
def test_as_good_as_asks_for_both_margins(lead: float) -> None:
    """Far above the lower margin, and too near to the upper one, or the other way round."""
    levels = {"lora": 0.5 + lead, "full": 0.5}
    near = [Cell(m, noisy(v, examples=2000, seed=n, spread=0.05)) for n, (m, v) in enumerate(levels.items())]
    found = judged(check(relation="equivalent"), scored(*near))
    assert found.verdict is ClaimVerdict.CANNOT_TELL
    (place,) = found.places
    assert 0.005 < abs(place.lead.interval.estimate or 0.0) < 0.01, "inside of the margin"


@pytest.mark.slow
def test_many_places_are_corrected_for() -> None:
    """One of twenty places is behind by an amount that alone would be beyond chance."""
    of_seeds = [-0.02, -0.03, -0.04]
    usual = [[0.03, -0.03, 0.01]] * 19

    def tables(steps: list[list[float]]) -> dict[str, pd.DataFrame]:
        cells = []
        for number, by in enumerate(steps):
            columns: dict[str, object] = {"task": f"t{number}"}
            for method, lead in (("lora", by), ("full", [0.0] * 3)):
                costs = {"forgetting": [1 - one for one in lead]}
                cells.append(Cell(method, noisy(0.5, examples=4), columns, costs))
        return scored(*cells)

    wanted = check(quantity="forgetting", margin=0.0)
    assert judged(wanted, tables([of_seeds])).verdict is ClaimVerdict.DISAGREES
    assert judged(wanted, tables([of_seeds, *usual])).verdict is ClaimVerdict.CANNOT_TELL


def test_one_seed_decides_nothing_that_is_measured() -> None:
    cells = [
        Cell("lora", noisy(0.9, 1), costs={"peak_train_bytes": [1.0], "trainable_params": [1.0]}),
        Cell("full", noisy(0.5, 1, seed=1), costs={"peak_train_bytes": [9.0], "trainable_params": [9.0]}),
    ]
    verdicts = {name: judged(check(quantity=name), scored(*cells)).verdict.value for name in ONE_SEED}
    assert verdicts == ONE_SEED


ONE_SEED = {SCORE: "cannot tell", "peak_train_bytes": "cannot tell", "trainable_params": "agrees"}


@pytest.mark.parametrize(
    ("differs", "reason"),
    [
        ({"train_examples": 16}, "both sides ran, but never under the same conditions"),
        ({"task": "u"}, "both sides ran, but never under the same conditions"),
        ({"objective": "dpo"}, "both sides ran, but never under the same conditions"),
        ({"method": "head"}, "no row of full"),
    ],
)
def test_only_what_ran_under_the_same_conditions_is_compared(differs: dict[str, object], reason: str) -> None:
    method = str(differs.get("method", "full"))
    columns = {name: value for name, value in differs.items() if name != "method"}
    found = judged(check(), scored(Cell("lora", noisy(0.9)), Cell(method, noisy(0.5, seed=1), columns)))
    assert (found.verdict, found.reason) == (ClaimVerdict.NOT_RUN, reason)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"disturbed": True}, "was measured, but not so that both sides may be compared (protocol, rule 6)"),
        ({"concurrent_trials": 1}, "was measured, but not so that both sides may be compared (protocol, rule 6)"),
        ({}, None),
    ],
)
def test_a_time_that_may_not_be_compared_was_measured_all_the_same(
    columns: dict[str, object], reason: str | None
) -> None:
    sides = {"lora": [10.0, 11.0, 10.5], "full": [20.0, 21.0, 20.5]}
    cells = [Cell(name, noisy(0.5), columns, costs={"train_tokens_per_s": speeds}) for name, speeds in sides.items()]
    found = judged(check(quantity="train_tokens_per_s"), scored(*cells))
    assert found.reason == (reason and f"{QUANTITIES['train_tokens_per_s'].text} {reason}")
    nothing = [replace(cell, costs={}) for cell in cells]
    unmeasured = judged(check(quantity="peak_train_bytes"), scored(*nothing)).reason
    assert unmeasured == f"{QUANTITIES['peak_train_bytes'].text} was not measured on both sides"


def test_the_untrained_model_has_no_budget_to_agree_on() -> None:
    untrained = Cell("baseline", noisy(0.5, 1, seed=1), {"train_examples": 99, "method_args": '{"shots": 0}'})
    right = {"method": "baseline", "method_args": {"shots": 0}}
    assert judged(check(right=right), scored(Cell("lora", noisy(0.9)), untrained)).verdict is ClaimVerdict.AGREES


def test_arguments_that_no_side_names_are_the_same() -> None:
    cells = [
        Cell("lora", noisy(level, seed=seed), {"method_args": args})
        for seed, (level, args) in enumerate(
            ((0.9, '{"r": 1, "alpha": 8}'), (0.5, '{"r": 64, "alpha": 8}'), (0.5, '{"r": 64, "alpha": 16}'))
        )
    ]
    one, many = ({"method": "lora", "method_args": {"r": r}} for r in (1, [32, 64]))
    assert len(judged(check(left=one, right=many), scored(*cells)).places) == 1


def test_rewards_are_compared_at_equal_kl() -> None:
    alike = {"metric": "kl", "factor": 1.5}
    wanted = check(left={"objective": "dpo"}, right={"objective": "ppo"}, metric="reward", alike=alike)

    def at(kl: float) -> Judgement:
        return judged(
            wanted,
            scored(
                Cell("lora", noisy(0.5), {"objective": "dpo"}, extra={"reward": [1.0, 1.1, 1.2], "kl": [2.0] * 3}),
                Cell("lora", noisy(0.5), {"objective": "ppo"}, extra={"reward": [0.0, 0.12, 0.2], "kl": [kl] * 3}),
            ),
        )

    assert (at(2.5).verdict, at(2.5).unlike) == (ClaimVerdict.AGREES, 0)
    assert (at(4.0).verdict, at(4.0).unlike) == (ClaimVerdict.NOT_RUN, 1)
    assert at(4.0).reason == "no two rows are alike in kl (within a factor of 1.5)"


def test_a_ratio_is_that_of_the_values() -> None:
    cells = [
        Cell("lora", noisy(0.5), costs={"checkpoint_bytes": [10.0] * 3}),
        Cell("full", noisy(0.5), costs={"checkpoint_bytes": [100.0] * 3}),
    ]
    for factor, verdict in ((9.9, ClaimVerdict.AGREES), (10.1, ClaimVerdict.DISAGREES)):
        found = judged(check(quantity="checkpoint_bytes", factor=factor), scored(*cells))
        assert found.verdict is verdict
    place = found.places[0]
    assert (place.lead.left, place.lead.right) == pytest.approx((10, 100))
    assert place.lead.interval.estimate == pytest.approx(math.log(10))


VALID = """
name: one
statement: One.
source: {citation: A, where: B, says: C}
check: {quantity: score, left: {method: lora}, relation: better, right: {method: full}}
"""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("name: one", "name: two", "name: 'two' is not the name of the file"),
        ("method: full", "method: ful", "unknown name 'ful'; did you mean 'full'?"),
        ("quantity: score", "quantity: scor", "unknown name 'scor'; did you mean 'score'?"),
        ("relation: better", "relation: rises", "'along' belongs to the relations rises and falls, and they need it"),
        ("relation: better", "relation: betr", "unknown name 'betr'; did you mean 'better'?"),
        ("method: full", "method: lora", "left and right are the same"),
        ("method: full}", "method: full, method_args: {r: 2}}", "method_args: full: unknown name 'r'"),
        ("relation: better", "relation: better, factor: 2.0", "'factor' belongs to better and worse"),
        ("relation: better", "relation: better, where: {seed: [1]}", "where: unknown name 'seed'"),
        ("says: C", "says: !!python/object/apply:os.getcwd []", "line 4"),
    ],
)
def test_a_mistake_in_a_claim_is_told_in_one_line(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(VALID)
    assert claims.load(path).statement == "One."
    path.write_text(VALID.replace(before, after))
    with pytest.raises(InputError) as raised:
        claims.load(path)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_the_claims_of_the_courses_are_there() -> None:
    """Of each method that the lectures and the survey present, what they say of it."""
    sides = [side for claim in ALL.values() for side in (claim.check.left, claim.check.right)]
    methods = {name for side in sides for name in side.methods}
    assert {"adapter", "prompt", "prefix", "bitfit", "lora", "qlora", "bitdelta", "llama_adapter", "head"} <= methods
    assert {"dpo", "ppo", "rrhf", "clm"} <= {name for side in sides for name in side.objectives}
    assert len(ALL) >= 30


def test_the_page_names_every_key_and_quantity_of_a_check() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "recommend.md").read_text(encoding="utf-8")
    page = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    named = {word for code in re.findall(r"`([^`]+)`", page) for word in re.findall(r"\w+", code)}
    assert set(Check.model_fields) | QUANTITIES.keys() | {"variant", "method_args"} <= named


def test_of_a_metric_where_less_is_better_less_leads() -> None:
    cells = [
        Cell("lora", noisy(0.5), extra={"perplexity": [4.0, 4.1, 4.3]}),
        Cell("full", noisy(0.5, seed=1), extra={"perplexity": [9.0, 9.2, 9.1]}),
    ]
    assert judged(check(metric="perplexity"), scored(*cells)).verdict is ClaimVerdict.AGREES
