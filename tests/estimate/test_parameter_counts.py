"""The harness counts the trainable parameters that the LoRA paper prints, on models without weights."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.estimate.counts import Published, agree, read

pytestmark = pytest.mark.slow

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
ROWS = list(read(REFERENCE / "hu2021_lora_counts.csv"))
OPEN = [row for row in ROWS if not row.agrees]


def _id(row: Published) -> str:
    return f"{row.model}-{row.published_method}-{row.published}"


@pytest.mark.parametrize("row", ROWS, ids=_id)
def test_every_row_counts_as_the_table_says(row: Published) -> None:
    assert row.recount() == row.counted
    assert agree(row.counted, row.published) == row.agrees


def test_every_count_of_the_paper_is_in_the_table() -> None:
    with (REFERENCE / "hu2021_lora.csv").open() as file:
        printed = {(r["model"], r["method"], int(r["trainable_params"])) for r in csv.DictReader(file)}
    assert {(row.model, row.published_method, row.published) for row in ROWS} == printed


def test_most_rows_agree_and_the_others_say_what_is_open() -> None:
    assert len(ROWS) - len(OPEN) >= 22
    assert all(row.note for row in OPEN)
    assert not {"roberta-base", "roberta-large"} & {row.model for row in OPEN}


@pytest.mark.parametrize(
    ("counted", "published", "same"),
    [
        (294_912, 300_000, True),
        (786_432, 800_000, True),
        (11_089_152, 11_090_000, True),
        (11_064_576, 11_090_000, False),
        (354_823_168, 354_920_000, False),
        (1_566_913_538, 1_500_000_000, False),
    ],
)
def test_agreement_to_the_precision_printed(counted: int, published: int, same: bool) -> None:
    assert agree(counted, published) is same


@given(st.integers(1, 10**6), st.integers(0, 6), st.data())
def test_agreement_means_half_a_unit_of_the_last_place(digits: int, zeros: int, data: st.DataObject) -> None:
    published = digits * 10**zeros
    text = str(published)
    unit = 10 ** (len(text) - len(text.rstrip("0")))
    counted = published + data.draw(st.integers(-2 * unit, 2 * unit))
    if abs(counted - published) * 2 < unit:
        assert agree(counted, published)
    if abs(counted - published) * 2 > unit:
        assert not agree(counted, published)
