"""Objects show themselves: bounded text everywhere, tables and pictures in Jupyter, nothing of a model as markup."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from harness.experiment.chain import Comparison
from harness.experiment.stored import StoredBytes
from harness.figures.style import COLOURS
from harness.measure.latency import Latencies, Latency
from harness.measure.training import Step
from harness.networks.tuned import Tuned
from harness.tasks.evaluate import Answer, Evaluation
from harness.tasks.metrics import Score
from harness.training.trainer import History

pytestmark = pytest.mark.slow


def history(*losses: float) -> History:
    steps = tuple(Step(n, 2.0, 10, loss) for n, loss in enumerate(losses, start=1))
    return History(steps, 12.34, 5, 6, 7, None, 9)


def evaluation(*outputs: str) -> Evaluation:
    answers = tuple(Answer("a prompt", output, ("the <b>reference</b>", "another")) for output in outputs)
    return Evaluation("test", (Score("rouge_l", 0.5, 0.125, 4), Score("exact_match", 0.0, None, 1)), answers)


def network(trained: int, frozen: int, note: str | None = None) -> Tuned:
    module = torch.nn.ParameterList(torch.zeros(size) for size in (trained, frozen))
    module[1].requires_grad_(False)
    return Tuned(base=cast(Any, None), model=module, note=note)


@pytest.mark.parametrize(
    ("trained", "frozen", "shown"),
    [
        (34, 9_966, "34 of 10,000 parameters train (0.34 %)"),
        (3, 9_999_997, "3 of 10,000,000 parameters train (3e-05 %)"),
        (0, 5, "0 of 5 parameters train (0 %)"),
        (5, 0, "5 of 5 parameters train (100.00 %)"),
    ],
)
def test_a_tuned_network_says_how_much_of_it_trains(trained: int, frozen: int, shown: str) -> None:
    assert repr(network(trained, frozen)) == shown


def test_the_note_of_a_tuned_network_is_shown() -> None:
    assert repr(network(1, 3, "biases were added")) == "1 of 4 parameters train (25.00 %)\nbiases were added"


def test_a_history_says_where_the_loss_began_and_ended() -> None:
    assert repr(history(2.0, 1.5, 0.25)) == "Loss 2.000 → 0.250 in 3 steps, 12.3 s"
    assert repr(history(2.0)) == "Loss 2.000 in one step, 12.3 s"
    assert repr(history()) == "nothing was trained"


def test_a_history_draws_its_loss_in_the_palette() -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    png = history(2.0, 1.5, 0.25)._repr_png_()
    assert png is not None and png.startswith(b"\x89PNG")
    picture = imread(io.BytesIO(png), format="png")
    assert picture.shape[:2] == (300, 600)
    of_the_curve = abs(picture[..., :3] - to_rgb(COLOURS["blue"])).max(axis=-1) < 0.01
    across = of_the_curve.any(axis=0).nonzero()[0]
    assert across.max() - across.min() > 400
    assert history()._repr_png_() is None


def test_drawing_leaves_the_state_of_pyplot_alone_and_matplotlib_waits_for_it() -> None:
    code = (
        "import sys, harness.training.trainer as t; from harness.measure.training import Step\n"
        "before = [m for m in sys.modules if m.split('.')[0] == 'matplotlib']\n"
        "h = t.History((Step(1, 2.0, 10, 0.5),), 1.0, 5, 6, 7, None, 9); repr(h)\n"
        "shown = [m for m in sys.modules if m.split('.')[0] == 'matplotlib']\n"
        "h._repr_png_()\n"
        "print(before, shown, 'matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[] [] True False", done.stdout + done.stderr


def test_an_evaluation_shows_scores_and_the_first_three_answers() -> None:
    assert repr(evaluation("one", "two\nlines", "three", "four")) == (
        "test\nrouge_l: 0.500 ± 0.125 (n = 4)\nexact_match: 0.000 (n = 1)\n"
        "\none\n  expected: the <b>reference</b>\n"
        "\ntwo lines\n  expected: the <b>reference</b>\n"
        "\nthree\n  expected: the <b>reference</b>"
    )
    assert repr(Evaluation("test", (Score("perplexity", 9.0, None, 3),), ())) == "test\nperplexity: 9.000 (n = 3)"


def test_what_a_model_answers_is_never_markup() -> None:
    html = evaluation("<script>alert('x')</script>")._repr_html_()
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in html and "<script" not in html
    assert "the &lt;b&gt;reference&lt;/b&gt;" in html and "<b>reference" not in html


def test_a_long_answer_is_cut() -> None:
    endless = evaluation("x" * 10_000)
    assert "x" * 300 + "…" in repr(endless) and "x" * 301 not in repr(endless)
    assert "x" * 300 + "…" in endless._repr_html_() and "x" * 301 not in endless._repr_html_()


def test_latency_is_a_table_in_milliseconds() -> None:
    rows = [
        Latency("plain", 1, 64, 16, "prefill", 0.25, 0.3, 256.0),
        Latency("merged", 1, 64, 16, "decode", 0.0125, 0.01, 80.0),
    ]
    assert repr(Latencies(rows)) == (
        "                    p50       p95\nplain prefill  250.0 ms  300.0 ms\nmerged decode   12.5 ms   10.0 ms"
    )
    wider = Latencies([*rows, Latency("plain", 4, 64, 16, "decode", 0.02, 0.02, 200.0)])
    assert [line.split("  ")[0] for line in repr(wider).splitlines()[1:]] == [
        "plain prefill, batch 1",
        "merged decode, batch 1",
        "plain decode, batch 4",
    ]


def test_a_checkpoints_size_shows_itself_and_is_recorded_as_a_number() -> None:
    size = StoredBytes(2_310_000)
    assert repr(size) == "stored per task: 2.31 MB; reloaded into a fresh base: same outputs"
    assert json.dumps({"checkpoint_bytes": size}) == '{"checkpoint_bytes": 2310000}'
    assert f"{size}" == str(size) == "2310000" and size + 1 == 2_310_001


def test_a_comparison_shows_before_and_after_side_by_side() -> None:
    against = Comparison.__new__(Comparison)
    before = Score("reward", -1.0, None, 2)
    rated = Score("reward_accuracy", 0.75, None, 2)
    against._run = cast(Any, SimpleNamespace(scores={"base": [before], "test": [rated]}))
    against.before, against.after = evaluation("old <i>"), None
    of_the_parent = (
        "SFT model, rouge_l: 0.500 ± 0.125 (n = 4)\nSFT model, exact_match: 0.000 (n = 1)\n"
        "SFT model, reward: -1.000 (n = 2)\n"
    )
    assert repr(against) == of_the_parent + "reward_accuracy: 0.750 (n = 2)"
    assert "<table" not in against._repr_html_()
    against.after = evaluation("new")
    assert repr(against) == (
        of_the_parent + "rouge_l: 0.500 ± 0.125 (n = 4)\nexact_match: 0.000 (n = 1)\nreward_accuracy: 0.750 (n = 2)\n"
        "\nbefore:  old <i>\nafter:   new\nbetter:  the <b>reference</b>"
    )
    assert "old &lt;i&gt;" in against._repr_html_() and "<i>" not in against._repr_html_()
