"""Which of several candidates becomes a parent, and what a chain of trials has cost."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.ledger.ledger import Ledger
from harness.results import tables
from harness.results.parents import preferred
from harness.results.record import Outcome, Record
from harness.sweeps.plan import Plan, Planned
from harness.trial import Trial


def trial(method: str = "full", objective: str = "sft", seed: int = 0, **fields: Any) -> Trial:
    return Trial(notebook="n", method=method, objective=objective, model="m", task="t", seed=seed, **fields)


def record(of: Trial, status: str = "ok", parents: dict[str, str] | None = None, **columns: Any) -> Record:
    return Record(
        trial_id=of.trial_id,
        sweep="s",
        trial=of,
        status=status,
        started_at=datetime(2025, 1, 1, tzinfo=UTC),
        parents=parents or {},
        outcome=Outcome(columns=columns) if status == "ok" else None,
    )


SLOW, FAST, FASTER = (trial(learning_rate=rate) for rate in (1e-5, 1e-4, 1e-3))


@pytest.mark.parametrize(
    ("higher", "scores", "expected"),
    [
        (True, (0.2, 0.6, 0.5), FAST),
        (False, (0.2, 0.6, 0.5), SLOW),
        (True, (0.6, 0.6, 0.6), SLOW),
        (True, (None, 0.1, None), FAST),
        (False, (None, 0.1, None), FAST),
        (True, (None, None, None), SLOW),
    ],
    ids=["higher", "lower", "tie", "one scored", "one scored, lower", "none scored"],
)
def test_validation_chooses_the_parent(higher: bool, scores: tuple[float | None, ...], expected: Trial) -> None:
    found = preferred(
        [
            record(of, valid_score=score, test_score=0.9 if of is FASTER else 0.1, higher_is_better=higher)
            for of, score in zip((SLOW, FAST, FASTER), scores, strict=True)
        ]
    )
    assert found is not None
    assert found.trial == expected


def test_a_candidate_that_ended_badly_is_passed_over() -> None:
    good = record(SLOW, valid_score=0.1, higher_is_better=True)
    assert preferred([record(FAST, "diverged"), good, record(FASTER, "oom")]) is good
    assert preferred([record(FAST, "diverged")]) is None


def test_the_id_of_a_child_holds_its_candidates_and_not_the_choice(tmp_path: Path) -> None:
    child = trial("bitdelta", parents={"full": (SLOW.trial_id, FAST.trial_id)})
    ledger = Ledger.create(tmp_path, Plan("s", tuple(map(Planned, (SLOW, FAST, child)))), "name: s\n")
    ledger.finish(record(SLOW, valid_score=0.1, higher_is_better=True))
    ledger.finish(record(FAST, valid_score=0.2, higher_is_better=True))
    assert ledger.chosen_parents(child) == {"full": FAST.trial_id}
    assert Ledger.open(tmp_path).row(child.trial_id).trial == child, "and the plan reads back"
    ledger.finish(record(child, parents=ledger.chosen_parents(child)))
    row = tables.build(ledger.records())["trials"].to_pylist()[2]
    assert row["parents"] == f'{{"full": "{FAST.trial_id}"}}'
    assert row["parent_candidates"] == f'{{"full": ["{SLOW.trial_id}", "{FAST.trial_id}"]}}'


def test_a_trial_with_one_candidate_has_the_id_that_it_always_had() -> None:
    child = trial("bitdelta", parents={"full": ("0123456789ab",)})
    assert '"parents":{"full":"0123456789ab"}' in child.canonical_json()
    assert Trial.from_json(child.canonical_json()) == child


def test_a_chain_costs_what_its_chosen_parts_cost() -> None:
    """A fine-tune of 10 s (chosen) or 20 s, BitDelta on it 3 s, and what is made of that 1 s."""
    child = trial("bitdelta", parents={"full": (SLOW.trial_id, FAST.trial_id)})
    grandchild = trial("bitdelta", seed=1, parents={"full": (child.trial_id,)})
    records = [
        record(SLOW, train_s=20.0, energy_j=200.0),
        record(FAST, train_s=10.0, energy_j=100.0),
        record(child, parents={"full": FAST.trial_id}, train_s=3.0, energy_j=30.0),
        record(grandchild, parents={"full": child.trial_id}, train_s=1.0, energy_j=None),
        record(trial("baseline")),
    ]
    rows = tables.build(records)["trials"].to_pylist()
    assert [row["chain_train_s"] for row in rows] == [20.0, 10.0, 13.0, 14.0, None]
    assert [row["chain_energy_j"] for row in rows] == [200.0, 100.0, 130.0, None, None]


@pytest.mark.parametrize(
    ("objective", "expected"), [("dpo", 1.0 + 4.0), ("orpo", 1.0), ("ppo", 1.0 + 4.0 + 16.0), ("best_of_n", 21.0)]
)
def test_what_only_judges_costs_nothing(objective: str, expected: float) -> None:
    """SFT start 4 s, reward model 16 s, opponent 64 s, the trial itself 1 s."""
    start, judge, opponent = trial("lora"), trial(objective="reward"), trial("full")
    roles = {"sft": start, "reward": judge, "opponent": opponent}
    if objective == "orpo":
        del roles["sft"]
    child = trial("lora", objective, parents={role: (of.trial_id,) for role, of in roles.items()})
    records = [record(start, train_s=4.0), record(judge, train_s=16.0), record(opponent, train_s=64.0)]
    rows = tables.build([*records, record(child, train_s=1.0)])["trials"].to_pylist()
    assert rows[3]["chain_train_s"] == expected


def test_a_part_of_unknown_cost_leaves_the_chain_unknown() -> None:
    child = trial("bitdelta", parents={"full": (FAST.trial_id,)})
    (row,) = tables.build([record(child, train_s=3.0)])["trials"].to_pylist()
    assert (row["train_s"], row["chain_train_s"]) == (3.0, None)
