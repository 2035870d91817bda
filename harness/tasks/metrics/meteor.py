"""METEOR 1.5 for English, by its authors' program, which needs Java (Denkowski & Lavie 2014, WMT).

The program and its table of paraphrases come from a pinned package when the metric is first used. It aligns answers
with references (equal words, stems, synonyms, paraphrases) and prints what it counted; the value of the sums is
computed here, so that it can be resampled. A test holds it to the program's own value.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.processes.tied import tied
from harness.sources.fetch import PackageSource, resolve
from harness.tasks.metrics.scoring import Predictions, References, Statistics

if TYPE_CHECKING:
    from harness.tasks.metrics.scoring import Table

_FOLDER = "pycocoevalcap/meteor"
_JAR = f"{_FOLDER}/meteor-1.5.jar"
SOURCE = PackageSource(
    package="pycocoevalcap==1.2",
    sha256="083ed7910f1aec000b0a237ef6665f74edf19954204d0b1cbdb8399ed132228d",
    files=(_JAR, f"{_FOLDER}/data/paraphrase-en.gz"),
)

#: What the program prints of an example: lengths, function words, then per stage of matching (equal, stem, synonym,
#: paraphrase) the content and function words of both sides that match, then chunks and all words that match.
_COLUMNS = 23
_STAGES = slice(4, 20)
#: Its parameters for English: alpha weighs recall, beta and gamma the penalty for disorder, delta content words.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGE_WEIGHTS = (1.0, 0.6, 0.8, 0.6)
_NAMES = (
    *("tokens", "reference_tokens", "function_words", "reference_function_words"),
    *(
        f"{what}_{stage}"
        for stage in range(1, 5)
        for what in ("content", "reference_content", "function", "reference_function")
    ),
    *("chunks", "matches", "reference_matches"),
)
_LIMIT_S = 1800


def meteor(predictions: Predictions, references: References) -> Statistics:
    """METEOR of a corpus, 0 to 1; without Java, or without the package and a network, there is no value."""
    import numpy as np

    try:
        rows = summands(np.array(_counted(predictions, references)))
    except InputError as error:
        return Statistics(np.zeros((len(predictions), 1)), lambda *_: 0.0, outside=str(error))
    return Statistics(rows, lambda sums, _n: value_of(sums), stored=dict(zip(_NAMES, rows.T.tolist(), strict=True)))


def summands(counted: Table) -> Table:
    """The rows that the program adds up, of what it counts: an answer that is its reference adds no chunk."""
    rows = counted.copy()
    tokens, reference_tokens = counted[:, 0], counted[:, 1]
    chunks, matches, reference_matches = counted[:, -3:].T
    rows[(chunks == 1) & (matches == tokens) & (reference_matches == reference_tokens), -3] = 0.0
    return rows


def value_of(sums: Table) -> float:
    """METEOR of a sum of :func:`summands`, of shape (23,): Denkowski & Lavie 2014, section 2; 0 where none match."""
    tokens, reference_tokens, function, reference_function = sums[:4]
    chunks, matches, reference_matches = sums[-3:]
    if not matches or not reference_matches:
        return 0.0
    by_stage = sums[_STAGES].reshape(4, 2, 2)  # of each stage: content and function words, of answer and reference
    of_content, of_function = (by_stage * _weights()).sum(0)
    right = _DELTA * of_content + (1 - _DELTA) * of_function
    precision = right[0] / (_DELTA * (tokens - function) + (1 - _DELTA) * function)
    recall = right[1] / (_DELTA * (reference_tokens - reference_function) + (1 - _DELTA) * reference_function)
    if not precision or not recall:
        return 0.0
    disorder = chunks / ((matches + reference_matches) / 2)
    mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
    return float(mean * (1 - _GAMMA * disorder**_BETA))


def _weights() -> Table:
    import numpy as np

    return np.array(_STAGE_WEIGHTS)[:, None, None]


def _counted(predictions: Predictions, references: References) -> list[list[float]]:
    """The columns of each example. Raises :class:`harness.errors.InputError` with why there are none."""
    java = shutil.which("java")
    if java is None:
        raise InputError("METEOR needs Java, and no 'java' is on the PATH")
    jar = resolve(SOURCE) / _JAR
    lines = [
        "SCORE ||| " + " ||| ".join(map(_one_line, (*several, prediction)))
        for prediction, several in zip(predictions, references, strict=True)
    ]
    command = tied([java, "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"])
    try:
        ended = subprocess.run(
            command, input="\n".join(lines) + "\n", capture_output=True, text=True, encoding="utf-8", timeout=_LIMIT_S
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"METEOR's program did not end within {_LIMIT_S} s") from error
    rows = [[float(one) for one in line.split()] for line in ended.stdout.splitlines()] if not ended.returncode else []
    if len(rows) != len(lines) or any(len(row) != _COLUMNS for row in rows):
        said = (ended.stderr.strip().splitlines() or [f"{len(rows)} answers to {len(lines)} questions"])[-1]
        raise InputError(f"METEOR's program failed with code {ended.returncode}: {said[:200]}")
    return rows


def _one_line(text: str) -> str:
    """``text`` without line breaks and without the program's separator."""
    return " ".join(text.replace("|||", " ").split())
