"""What a judge from outside says of stored answers, and what that amounts to."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from helpers.fake_judge import fake_judge
from helpers.scored_tables import Cell, noisy, scored

from harness.errors import InputError
from harness.judgement.answer_pairs import (
    TABLE,
    Meeting,
    Question,
    Reply,
    judged,
    meetings,
    preferred,
    read_replies,
)
from harness.judgement.endpoint import Endpoint, ask
from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import Comparison, compare
from harness.report.choices_section import stability

Q = Question("p", "a", "bb")


def tables(
    answers: dict[str, list[str]], seeds: int = 2, prompt: str = "Q{}?", **columns: str
) -> dict[str, pd.DataFrame]:
    """Of methods that gave these answers at every seed, in the order of their scores."""
    given: dict[str, object] = {"task_kind": "generation", **columns}
    cells = [Cell(m, noisy(0.9 - 0.1 * n, seeds, seed=n), given) for n, m in enumerate(answers)]
    known = scored(*cells)
    rows = [
        (row.trial_id, n, prompt.format(n), text, "r")
        for row in known["trials"].itertuples()
        for n, text in enumerate(answers[str(row.method)])
    ]
    names = ["trial_id", "example", "prompt", "output", "reference"]
    return {**known, "generations": pd.DataFrame(rows, columns=names)}


def only(of: dict[str, pd.DataFrame]) -> Comparison:
    (comparison,) = compare(aggregate(of), of)
    return comparison


def replied(of: dict[str, pd.DataFrame], *verdicts: tuple[str, str], judge: str = "j") -> dict[str, pd.DataFrame]:
    """The tables with a pair of replies for each of the first questions, in their order."""
    questions = list(dict.fromkeys(one.question.digest for one in meetings(only(of), of)))
    replies = [Reply(judge, digest, *pair) for digest, pair in zip(questions, verdicts, strict=False)]
    return {**of, TABLE: pd.DataFrame(replies)}


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("[[A]]", "A"),
        ("B is shorter.\n\nVerdict: [[ b ]]", "B"),
        ("[[C]]", "tie"),
        ("[[tie]]", "tie"),
        ("A", "A"),
        ("**B**", "B"),
        ("Tie.", "tie"),
        ("[[A]] or rather [[B]]", None),
        ("A good answer would be B", None),
        ("", None),
    ],
)
def test_a_verdict_is_marked_or_all_that_is_said(reply: str, verdict: str | None) -> None:
    assert preferred(reply) == verdict


def test_every_pair_of_answers_to_one_example_meets_once_a_seed() -> None:
    of = tables({"full": ["x", "y", "z"], "lora": ["x", "yy", "a"]}, prompt="Q{}?")
    met = list(meetings(only(of), of, examples=2))
    assert [one.question for one in met] == [Question("Q0?", "x", "x"), Question("Q1?", "y", "yy")] * 2
    assert [(one.first, one.second, one.seed) for one in met] == [(0, 1, 0), (0, 1, 0), (0, 1, 1), (0, 1, 1)]
    assert [one.question.is_same for one in met[:2]] == [True, False]
    (third,) = list(meetings(only(of), of))[2:3]
    assert third == Meeting(0, 1, 0, Question("Q2?", "a", "z"), turned=True)


def test_labels_and_a_reward_models_choices_are_no_texts_to_judge() -> None:
    for columns in ({"task_kind": "classification"}, {"task_kind": "preference", "objective": "reward"}):
        of = tables({"full": ["x"], "lora": ["y"]}, 2, "Q{}?", **columns)
        assert list(meetings(only(of), of)) == []


def test_worked_examples_are_left_out_of_the_question() -> None:
    of = tables({"full": ["x"], "lora": ["y"]}, seeds=1)
    frame = of["generations"]
    frame.loc[frame.output == "y", "prompt"] = "Q9! 9. Q0?"
    assert next(meetings(only(of), of)).question.prompt == "Q0?"


def test_only_a_verdict_that_holds_in_both_orders_is_a_win() -> None:
    """Four questions of two rows: a win, a loss, a verdict that goes with the place, and one that cannot be read."""
    of = tables({"full": ["a1", "a2", "a3", "a4", "same"], "lora": ["b1", "b2", "b3", "b4", "same"]}, seeds=1)
    forth_and_back = (("[[A]]", "[[B]]"), ("[[B]]", "[[A]]"), ("[[A]]", "[[A]]"), ("[[A]]", "well"), ("[[C]]", "[[C]]"))
    (one,) = judged(only(of), replied(of, *forth_and_back))
    assert (one.judge, one.pairs, one.same, one.swayed, one.unreadable) == ("j", 4, 1, 1, 1)
    full = one.ratings[0]
    assert (full.wins, full.ties, full.losses) == (1, 2, 1)
    (half,) = judged(only(of), replied(of, ("[[A]]", "[[C]]")))
    assert (half.ratings[0].ties, half.swayed) == (1, 1), "a tie in one order alone is no win"


def test_a_judge_that_names_no_verdict_rates_nobody_and_the_report_says_so() -> None:
    """A small real model answered every question with prose; the pairs of equal texts made ratings of +0 [+0, +0]."""
    of = tables({"full": ["a1", "a2", "same"], "lora": ["b1", "b2", "same"]}, seeds=1)
    told = replied(of, ("Sentence: a", "both"), ("A and B", ""), ("[[C]]", "[[C]]"))
    (one,) = judged(only(of), told)
    assert (one.ratings, one.pairs, one.same, one.unreadable) == ({}, 1, 1, 2)
    (line,) = [line for line in stability(only(of), told) if "model j" in line]
    assert line.startswith("no rating follows from what the model j replied (over 1 pair of answers; ")
    assert line.endswith("2 without a readable verdict, and left out)")
    same = tables({"full": ["same"], "lora": ["same"]}, seeds=1)
    assert judged(only(same), replied(same, ("[[C]]", "[[C]]"))) == [], "equal texts alone rate nobody"


def test_the_winner_is_the_row_whatever_the_order_of_the_texts() -> None:
    of = tables({"full": ["z"], "lora": ["a"]}, seeds=1)
    (one,) = judged(only(of), replied(of, ("[[B]]", "[[A]]")))  # for the second of the sorted texts, "z"
    assert (one.ratings[0].wins, one.ratings[1].losses) == (1, 1)


def test_an_answer_that_changed_has_no_judgement() -> None:
    of = tables({"full": ["a"], "lora": ["b"]})
    known = replied(of, ("[[A]]", "[[B]]"))
    assert judged(only(of), known)
    changed = tables({"full": ["a"], "lora": ["b!"]})
    assert judged(only(changed), {**changed, TABLE: known[TABLE]}) == []
    assert judged(only(of), of) == [], "and without a judge there is no rating"


def test_prompts_that_stand_twice_are_one_source() -> None:
    texts = {"full": [f"a{n}" for n in range(12)], "lora": [f"b{n}" for n in range(12)]}
    wins = [("[[A]]", "[[B]]"), ("[[A]]", "[[B]]"), ("[[B]]", "[[A]]")] * 4
    alone, twice = (tables(texts, seeds=1, prompt=prompt) for prompt in ("Q{}?", "Q?"))
    widths = []
    for of in (alone, twice):
        (one,) = judged(only(of), replied(of, *wins))
        widths.append(one.ratings[0].high - one.ratings[0].low)
    assert widths[0] > 0.1 and widths[1] != pytest.approx(widths[0]), "one source says nothing of a spread"


def test_a_file_that_was_cut_is_read_and_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trials.parquet").touch()
    assert read_replies(tmp_path) == []
    path = tmp_path / "judgements.jsonl"
    line = json.dumps({"judge": "j", "digest": "d", "forth": "[[A]]", "back": "[[B]]"}) + "\n"
    path.write_text(line + line[:20])
    assert read_replies(tmp_path) == [Reply("j", "d", "[[A]]", "[[B]]")]
    path.write_text("[1]\n" + line)
    with pytest.raises(InputError, match=r"judgements.jsonl: line 1: \[1\]: a line is a JSON object"):
        read_replies(tmp_path)


def test_the_judge_reads_both_orders_and_gets_the_key() -> None:
    with fake_judge() as judge:
        (reply,) = ask(Endpoint(judge.url, "big", "secret"), [Q])
    assert reply == Reply("big", Q.digest, "[[B]]", "[[A]]")
    assert judge.keys == ["Bearer secret"] * 2 and "secret" not in repr(Endpoint(judge.url, "big", "secret"))
    assert [(one["model"], one["temperature"]) for one in judge.asked] == [("big", 0)] * 2
    assert {one["max_completion_tokens"] for one in judge.asked} == {4096}, "a judge that rambles comes to an end"


def test_a_busy_judge_is_asked_again_and_one_that_refuses_is_not() -> None:
    with fake_judge(fails=[503, 429]) as judge:
        (reply,) = ask(Endpoint(judge.url, "big", pauses_s=(0, 0)), [Q])
        assert reply.forth == "[[B]]" and len(judge.asked) == 4
    with fake_judge(fails=[401]) as judge:
        with pytest.raises(InputError, match=r"127.0.0.1: HTTP 401: .*what was judged so far is kept"):
            list(ask(Endpoint(judge.url, "big", pauses_s=(0, 0)), [Q]))
        assert len(judge.asked) == 1
    with pytest.raises(InputError, match=r"127\.0\.0\.1: no reply"):
        list(ask(Endpoint(judge.url, "big", pauses_s=(0,)), [Q]))


@pytest.mark.parametrize("url", ["", "h/v1", "ftp://h/v1", "https://", "https://me:key@h/v1", "http://h:port/v1"])
def test_an_address_that_cannot_be_one_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InputError, match=r"^--url: write the endpoint as https://HOST/v1") as error:
        Endpoint(url, "big")
    assert "key@" not in str(error.value)
