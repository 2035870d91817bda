"""What a merge changes: nothing in 32 bits, a little in 16, more where the base is quantised again."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.tenants import trained

from harness.errors import InputError
from harness.models.load import Base
from harness.results.builder import TableBuilder
from harness.results.schema import TABLES
from harness.results.validate import validate
from harness.serving.fidelity import Merging, divergence, fidelity, merge_rows, merged_four_bits
from harness.serving.strategies import merge
from harness.serving.tenant import tenant_of

pytestmark = pytest.mark.slow


def test_the_divergence_of_known_distributions() -> None:
    wanted, other = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log(), torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log()
    by_hand = (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)) / 2
    assert divergence(wanted, other) == pytest.approx(by_hand)
    assert divergence(wanted, wanted) == 0


@pytest.mark.parametrize("method", ["lora", "dora", "qlora", "ia3"])
def test_coarser_weights_are_further_from_the_unmerged_model(method: Merging, base: Base) -> None:
    rows = list(merge_rows(base, ["abc", "a longer text"], [method], max_length=16, new_tokens=4, scale=0.3))
    builder = TableBuilder(TABLES["merge_fidelity"])
    builder.extend(rows, trial_id="0" * 12)
    validate(TABLES["merge_fidelity"], builder.finish())
    kl = {row["format"]: row["kl"] for row in rows}
    assert list(kl) == ["float32", "bfloat16", "int8", "nf4"]
    assert kl["float32"] < 1e-9 < kl["bfloat16"] < kl["int8"] < kl["nf4"]
    own = rows[0]
    assert (own["changed_tokens"], own["changed_answers"], own["answers"]) == (0, 0, 2)
    assert own["places"] == 4 + 14 and own["tenants_from"] == "made up"
    assert rows[1]["weights_bytes"] < own["weights_bytes"] > rows[3]["weights_bytes"]


def test_qlora_is_merged_into_the_base_that_it_learnt_on(base: Base) -> None:
    """Its own base dequantised; what the checkpoint's weights would give is another network."""
    tuned = trained(base, "qlora", 0, r=2)
    ids = torch.arange(3, 11).view(1, 8)
    with torch.inference_mode():
        unmerged, merged = (model(input_ids=ids).logits for model in (tuned.model, merged_four_bits(tuned)))
        whole = merge(base.build(), tenant_of(tuned, base.build(), "x"))(input_ids=ids).logits
    torch.testing.assert_close(merged, unmerged, rtol=1e-4, atol=1e-4)
    assert divergence(unmerged[0], whole[0]) > 100 * divergence(unmerged[0], merged[0])


def test_what_cannot_be_merged_is_refused(base: Base) -> None:
    ids = torch.ones(1, 3, dtype=torch.long)
    with pytest.raises(InputError, match="prompt cannot be merged"):
        list(fidelity(trained(base, "prompt", 0), ids, ids, 2))
