"""What ``tunebench judge`` does: finds the questions that are open, asks them, and keeps each reply as it comes."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.cli.fresh import follow_records
from harness.cli.output import say
from harness.errors import InputError
from harness.files import write_atomically
from harness.judgement.answer_pairs import FILE, Question, Reply, meetings, preferred, read_replies
from harness.judgement.endpoint import Endpoint, ask
from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import compare
from harness.results.files import find, read


@dataclass(frozen=True)
class Work:
    """The questions that a judge is to answer."""

    file: Path
    judge: str
    pairs: int
    """Pairs of answers, those that were judged before included."""
    open: list[Question]
    """Questions without a reply, each once; among them those of answers that are the same text."""

    @property
    def to_send(self) -> list[Question]:
        """The open questions that the judge has to read."""
        return [question for question in self.open if not question.is_same]

    def described(self, host: str) -> str:
        """One line on how much there is to do."""
        if not self.open:
            return f"{self.pairs} pairs of answers are judged by {self.judge} already; nothing was sent"
        questions = f"{2 * len(self.to_send)} questions to {self.judge} at {host}"
        return f"{self.pairs} pairs of answers: {questions}, without what is the same text or was asked before"


def work(folder: Path, judge: str, examples: int) -> Work:
    """What is open. Raises :class:`InputError` where no two rows have free answers to the same examples."""
    follow_records(folder)
    tables = read(folder)
    replied = {reply.digest for reply in read_replies(folder) if reply.judge == judge}
    comparisons = compare(aggregate(tables), tables)
    pairs = [met.question for one in comparisons for met in meetings(one, tables, examples)]
    if not pairs:
        raise InputError(f"{folder}: no two rows with free answers to the same examples; only texts can be judged")
    waiting = {question.digest: question for question in pairs if question.digest not in replied}
    return Work(find(folder) / FILE, judge, len(pairs), list(waiting.values()))


def judge(work: Work, endpoint: Endpoint, jobs: int) -> None:
    """Ask what is open, keep every reply as soon as it is there, and say what could not be read."""
    unreadable = 0
    same = (Reply.of_same(work.judge, question) for question in work.open if question.is_same)
    if known := read_replies(work.file.parent):
        write_atomically(work.file, "".join(map(_line, known)))  # without a line that was cut
    with work.file.open("a", encoding="utf-8") as file:
        for reply in itertools.chain(ask(endpoint, work.to_send, jobs), same):
            file.write(_line(reply))
            file.flush()
            unreadable += None in (preferred(reply.forth), preferred(reply.back))
    left_out = f"; {unreadable} replies name no verdict, and their pairs are left out" if unreadable else ""
    say(f"{work.file}: {len(work.open)} pairs judged{left_out}; 'tunebench report' shows the ratings")


def _line(reply: Reply) -> str:
    return json.dumps(asdict(reply)) + "\n"
