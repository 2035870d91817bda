"""Whatever is killed, cut or left behind: each trial is recorded once, and the tables are those of a quiet run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from campaign import ANYWHERE, WARM, Campaign, bench, outcome

pytestmark = pytest.mark.slow

TRIALS = 24


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("undisturbed")
    bench(folder, TRIALS)
    campaign = Campaign(folder, seed=0, cold=False)
    assert campaign.start().wait(300) == 0
    return outcome(folder)


#: With those below, 66 faults in all.
_LONG = [pytest.param(seed, 30, True, marks=pytest.mark.long) for seed in (1, 2)]


@pytest.mark.parametrize(("seed", "faults", "cold"), [(4, 6, False), *_LONG])
def test_nothing_is_lost(
    tmp_path: Path, undisturbed: dict[str, pd.DataFrame], seed: int, faults: int, cold: bool
) -> None:
    bench(tmp_path, TRIALS)
    campaign = Campaign(tmp_path, seed, cold)
    campaign.disturb(faults, ANYWHERE if cold else WARM)
    campaign.finish()
    print(f"seed {seed}: {dict(campaign.done)}")
    assert campaign.done.total() == faults

    planned = {row.trial_id for row in campaign.ledger.plan.rows}
    paths = sorted(tmp_path.glob("results/tiny/trials/*/record.json"))
    assert len([path for path in paths if path.parent.name in planned]) == TRIALS
    left = [path for path in tmp_path.rglob("*.part") if ".elsewhere." not in path.name]
    assert not left, "nothing half-written is left"
    assert campaign.ledger.status() == {"ok": TRIALS}
    found = outcome(tmp_path)
    for name, expected in undisturbed.items():
        pd.testing.assert_frame_equal(found[name], expected)
