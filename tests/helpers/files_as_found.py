"""A test helper: a data file in each form that is recognised, small enough to read with the eye."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ROWS = range(40)
USER, BOT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}


def _lines(*rows: Any) -> str:
    return "\n".join(json.dumps(row) for row in rows) + "\n"


#: File name -> content, the kind of task that it is, and what it is called in words.
FORMS: Mapping[str, tuple[str, str, str]] = {
    "alpaca.jsonl": (
        _lines(*({"instruction": f"Say {n}.", "input": "x" * (n % 2), "output": f"It is {n}."} for n in ROWS)),
        "generation",
        "Alpaca instructions (columns instruction, input, output)",
    ),
    "sharegpt.jsonl": (
        _lines(
            *(
                {"id": n, "conversations": [{"from": "human", "value": f"hi {n}"}, {"from": "gpt", "value": "hello"}]}
                for n in ROWS
            )
        ),
        "generation",
        "dialogues (ShareGPT) (column conversations)",
    ),
    "messages.jsonl": (
        _lines(*({"messages": [{**USER, "content": f"hi {n}"}, BOT]} for n in ROWS)),
        "generation",
        "dialogues (messages) (column messages)",
    ),
    "pairs.jsonl": (
        _lines(*({"prompt": f"q {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in ROWS)),
        "preference",
        "chosen and rejected answers (columns prompt, chosen, rejected)",
    ),
    "dialogue_pairs.jsonl": (
        _lines(
            *(
                {name: [{**USER, "content": f"hi {n}"}, {**BOT, "content": name}] for name in ("chosen", "rejected")}
                for n in ROWS
            )
        ),
        "preference",
        "chosen and rejected dialogues (columns chosen, rejected)",
    ),
    "transcripts.jsonl": (
        _lines(*({name: f"\n\nHuman: hi {n}\n\nAssistant: {name}" for name in ("chosen", "rejected")} for n in ROWS)),
        "preference",
        "chosen and rejected transcripts (columns chosen, rejected)",
    ),
    "tickets.csv": (
        "id,body,team\n" + "".join(f"{n},my words number {n},{'tech' if n % 3 else 'sales'}\n" for n in ROWS),
        "classification",
        "texts with a label (columns body, team)",
    ),
    "semicolons.csv": (
        "Nr;Mein Text;label\n" + "".join(f"{n};my words number {n};{n % 2}\n" for n in ROWS),
        "classification",
        "texts with a label (columns Mein Text, label)",
    ),
    "stars.csv": (
        "text,score\n" + "".join(f"my words number {n},{n / 8}\n" for n in ROWS),
        "regression",
        "texts with a number (columns text, score)",
    ),
    "nli.tsv": (
        "premise\thypothesis\tlabel\n" + "".join(f"a {n}\tb {n}\t{n % 3}\n" for n in ROWS),
        "classification",
        "pairs of texts with a label (columns premise, hypothesis, label)",
    ),
    "similar.tsv": (
        "sentence1\tsentence2\tscore\n" + "".join(f"a {n}\tb {n}\t{n % 11 / 2}\n" for n in ROWS),
        "regression",
        "pairs of texts with a number (columns sentence1, sentence2, score)",
    ),
    "completions.jsonl": (
        _lines(*({"prompt": f"q {n}", "completion": f"a {n}"} for n in ROWS)),
        "generation",
        "prompts and answers (columns prompt, completion)",
    ),
    "plain.txt": ("".join(f"This is line {n}.\n" for n in ROWS), "corpus", "plain text (column text)"),
}
