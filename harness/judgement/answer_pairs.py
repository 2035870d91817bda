"""Pairs of stored answers to one question, and what a judge from outside said of each.

A judge reads two answers in both orders (Zheng et al. 2023, arXiv:2306.05685, section 3.4). What it replied is kept in
a file beside the tables, under a digest of the question and the two answers: a rating is a function of tables and that
file, and an answer that has changed since has no judgement. Two answers that are the same text are a tie, unasked.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from harness.errors import InputError, cut
from harness.judgement.bradley_terry import Rating, rated_games
from harness.judgement.surprise import FREE, digest
from harness.judgement.verdicts import Comparison, is_reward_model
from harness.results.files import Stored, Tables, find, where

FILE = "judgements.jsonl"
"""Beside the tables: one JSON object a line, with the keys of :class:`Reply`."""

TABLE = "judgements"
"""The name under which :func:`add_judgements` puts the file among the tables."""

Preferred = Literal["A", "B", "tie"]

TIE = "[[C]]"


@dataclass(frozen=True)
class Question:
    """What a judge is asked: a prompt and two answers, in an order that does not depend on whose they are."""

    prompt: str
    one: str
    other: str

    @property
    def is_same(self) -> bool:
        """Whether both answers are the same text."""
        return self.one == self.other

    @property
    def digest(self) -> str:
        """Names the question, whatever the trials that it comes from are called."""
        return digest(self.prompt, self.one, self.other)


@dataclass(frozen=True)
class Reply:
    """What one judge replied to one question, as it came: first with ``one`` as answer A, then with ``other``."""

    judge: str
    digest: str
    forth: str
    back: str

    @classmethod
    def of_same(cls, judge: str, question: Question) -> Reply:
        """What stands for two answers that are the same text."""
        return cls(judge, question.digest, TIE, TIE)


@dataclass(frozen=True)
class Meeting:
    """Two rows of a comparison that answered the same example on the same seed."""

    first: int
    second: int
    seed: int
    question: Question
    turned: bool
    """Whether ``question.one`` is the answer of the second row."""


@dataclass(frozen=True)
class Judged:
    """What a judge's verdicts on the answers of a comparison amount to."""

    judge: str
    ratings: dict[int, Rating]
    """By the number of the row; without rows of which no pair was judged. Empty where no verdict could be read."""
    pairs: int
    """Pairs of answers with a verdict, those that are the same text included."""
    same: int
    """Pairs of answers that are the same text."""
    swayed: int
    """Pairs whose verdict changed with the order of the answers: they count as ties."""
    unreadable: int
    """Pairs that are left out, because a reply named no verdict."""


def preferred(reply: str) -> Preferred | None:
    """The verdict in a reply: the one that stands in double brackets, or is all that was said; None if there is none.

    A reply that names two different verdicts has none.
    """
    marked = {one.upper() for one in re.findall(r"\[\[\s*(A|B|C|tie)\s*\]\]", reply, re.IGNORECASE)}
    if not marked:
        marked = {reply.strip().strip("[]().*\"'").upper()}
    named: dict[str, Preferred] = {"A": "A", "B": "B", "C": "tie", "TIE": "tie"}
    verdicts = {named.get(one) for one in marked}
    return verdicts.pop() if len(verdicts) == 1 else None


def meetings(comparison: Comparison, tables: Tables, examples: int | None = None) -> Iterator[Meeting]:
    """The pairs of stored answers in a comparison, of the first ``examples`` examples that a pair of rows shares.

    Nothing where answers are no free text, or are those that a reward model prefers.
    """
    rows = comparison.listed
    if rows[0].task_kind not in FREE or is_reward_model(rows[0]):
        return
    answers = [_answers(row.trial_ids, tables) for row in rows]
    for first, second in combinations(range(len(rows)), 2):
        for seed in sorted(answers[first].keys() & answers[second].keys()):
            ours, theirs = answers[first][seed], answers[second][seed]
            for example in sorted(ours.keys() & theirs.keys())[:examples]:
                question, turned = _question(ours[example], theirs[example])
                yield Meeting(first, second, seed, question, turned)


def _answers(trial_ids: Iterable[str], tables: Tables) -> dict[int, dict[int, tuple[str, str]]]:
    """By seed and example: prompt and answer."""
    seeds = dict(zip(tables["trials"].trial_id, tables["trials"].seed, strict=True))
    stored = where(tables, "generations", list(trial_ids)) if "generations" in tables else pd.DataFrame()
    found: dict[int, dict[int, tuple[str, str]]] = {}
    rows: Any = stored.itertuples()
    for row in rows:
        found.setdefault(int(seeds[row.trial_id]), {})[int(row.example)] = (str(row.prompt), str(row.output))
    return found


def _question(ours: tuple[str, str], theirs: tuple[str, str]) -> tuple[Question, bool]:
    """The question of two prompts with their answers, and whether ``one`` is the second answer."""
    # Worked examples make a prompt longer; the question is the same.
    prompt = min(ours[0], theirs[0], key=lambda text: (len(text), text))
    one, other = sorted((ours[1], theirs[1]))
    return Question(prompt, one, other), one != ours[1]


def read_replies(folder: Path) -> list[Reply]:
    """What judges replied so far, from the file beside the tables of ``folder``; empty where there is none.

    A last line that is cut, as a killed process leaves it, is skipped. Raises :class:`InputError` for another file.
    """
    path = find(folder) / FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    replies = []
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line)
            replies.append(Reply(**{name: str(fields[name]) for name in ("judge", "digest", "forth", "back")}))
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise InputError(
                f"{path}: line {number}: {cut(line.strip())}: a line is a JSON object with judge, digest, forth, back; "
                "remove it, and 'tunebench judge' asks again"
            ) from error
    return replies


def add_judgements(tables: Stored, folder: Path) -> None:
    """Put what judges replied, if any was asked, beside the tables of ``folder``."""
    if replies := read_replies(folder):
        tables.put(TABLE, pd.DataFrame(replies))


def judged(comparison: Comparison, tables: Tables) -> list[Judged]:
    """The ratings by each judge that was asked about the answers of a comparison, by the judges' names."""
    stored: Any = tables.get(TABLE)
    if stored is None:
        return []
    every = list(meetings(comparison, tables))
    replies = {name: dict(zip(rows.digest, zip(rows.forth, rows.back, strict=True), strict=True))
               for name, rows in stored.groupby("judge")}  # fmt: skip
    ratings = (_judged(str(name), every, of_judge) for name, of_judge in replies.items())
    return [one for one in ratings if one is not None]


def _judged(judge: str, every: Sequence[Meeting], replies: Mapping[str, tuple[str, str]]) -> Judged | None:
    """None where the judge was not asked about these answers, or its verdicts do not connect the rows.

    Answers that are the same text rate nobody alone.
    """
    counts: Counter[str] = Counter()
    games = []
    for one in every:
        if one.question.digest not in replies:
            continue
        forth, back = replies[one.question.digest]
        result = _result(preferred(forth), preferred(back), counts)
        if result is not None:
            counts["same"] += one.question.is_same
            # Examples with one prompt are one source.
            games.append((one.first, one.second, 1 - result if one.turned else result, one.seed, one.question.prompt))
    strengths = rated_games(games) if len(games) > counts["same"] else None
    if strengths is None and not counts["unreadable"]:
        return None
    return Judged(judge, strengths or {}, len(games), counts["same"], counts["swayed"], counts["unreadable"])


def _result(forth: Preferred | None, back: Preferred | None, counts: Counter[str]) -> float | None:
    """1 if the first answer of the question won in both orders, 0 if the other did, else a tie; None if unreadable."""
    if forth is None or back is None:
        counts["unreadable"] += 1
        return None
    outcomes = {"A": 1.0, "B": 0.0, "tie": 0.5}
    one, two = outcomes[forth], 1 - outcomes[back]
    counts["swayed"] += one != two
    return one if one == two else 0.5
