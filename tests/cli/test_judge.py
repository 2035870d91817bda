"""``tunebench judge`` as a user sees it, against an endpoint on loopback."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from helpers import command_line
from helpers.command_line import Call
from helpers.fake_judge import fake_judge
from helpers.fake_records import make_sweep

from harness.cli.figures import with_judgements
from harness.judgement import surprise
from harness.judgement.answer_pairs import add_judgements
from harness.ledger.records import read_records
from harness.report.choices_section import choices
from harness.results import tables


@pytest.fixture
def results(tmp_path: Path) -> Path:
    make_sweep(tmp_path, n_methods=2, rates=1, curve_steps=2, generations=4)
    tables.write(read_records(tmp_path), tmp_path)
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return partial(command_line.run, monkeypatch, capsys)


@pytest.mark.slow
def test_answers_are_judged_once_and_the_report_says_by_whom(call: Call, results: Path) -> None:
    file = results / "tables" / "judgements.jsonl"
    with fake_judge() as judge:
        ask = ("judge", str(results), "--url", judge.url, "--model", "<b>big</b>", "--examples", "2")
        code, out, _ = call(*ask, "--plan")
        assert (code, judge.asked, file.exists()) == (0, [], False)
        assert "questions to <b>big</b> at 127.0.0.1, without what is the same text" in out
        planned = int(out.split(" pairs of answers: ")[1].split()[0])
        code, out, _ = call(*ask)
        assert code == 0 and len(judge.asked) == planned > 0 and "pairs judged; 'tunebench report' shows" in out
        before = file.read_bytes()
        file.write_bytes(before[:-9])  # as a killed process leaves it
        code, out, _ = call(*ask)
        assert code == 0 and file.read_bytes().count(b"\n") == before.count(b"\n")
        code, out, _ = call(*ask)
        assert code == 0 and "already; nothing was sent" in out and len(judge.asked) <= planned + 2
    stored = tables.read(results)
    add_judgements(stored, results)
    said = choices(stored).text
    assert "judged by the model &lt;b&gt;big&lt;/b&gt; (Bradley" in said and "pairs of answers" in said


@pytest.mark.slow
def test_the_untouched_model_reads_every_answer_once(call: Call, tmp_path: Path) -> None:
    make_sweep(tmp_path, n_methods=2, rates=1, curve_steps=2, generations=3, models=("tiny-llama",))
    tables.write(read_records(tmp_path), tmp_path)
    with_judgements(tmp_path)
    code, out, _ = call("judge", str(tmp_path), "--perplexity")
    answers = tables.read(tmp_path)["generations"].drop_duplicates(["prompt", "output"])
    assert code == 0 and f"tiny-llama reads {len(answers)} answers" in out
    known = surprise.read(tmp_path)
    assert len(known) == len(answers) and all(one.nats > 0 < one.tokens for one in known)
    code, out, _ = call("judge", str(tmp_path), "--perplexity")
    assert code == 0 and "every stored answer was read already" in out and surprise.read(tmp_path) == known
    assert "perplexity of the answers under the untouched model" in choices(with_judgements(tmp_path)).text


def test_nothing_to_read_is_one_line(call: Call, tmp_path: Path) -> None:
    make_sweep(tmp_path, n_methods=2, rates=1, curve_steps=2, generations=0)
    tables.write(read_records(tmp_path), tmp_path)
    code, _, err = call("judge", str(tmp_path), "--perplexity")
    assert (code, err.count("\n")) == (2, 1) and "no trial stored a free answer" in err


def test_bad_input_is_one_line(call: Call, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEBENCH_JUDGE_URL", raising=False)
    code, _, err = call("judge", str(results), "--model", "big")
    assert (code, err.count("\n")) == (2, 1) and "give --url, or --perplexity" in err
    code, _, err = call("judge", str(results), "--url", "https://key@host/v1", "--model", "big")
    assert (code, err.count("\n")) == (2, 1) and "without a user name or a key" in err
    make_sweep(bare := results / "bare", n_methods=2, rates=1, curve_steps=2, generations=0)
    tables.write(read_records(bare), bare)
    code, _, err = call("judge", str(bare), "--url", "http://127.0.0.1:9/v1", "--model", "big")
    assert code == 2 and "no two rows with free answers to the same examples" in err
