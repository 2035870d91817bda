"""What a merge changed is said as the rows have it, odd ones included."""

from __future__ import annotations

import pandas as pd

from harness.serving.fidelity_words import sentences


def table(**kl: list[float]) -> pd.DataFrame:
    rows = [
        {
            "model": "m",
            "method": method,
            "format": form,
            "kl": value,
            "changed_tokens": value / 2,
            "changed_answers": 0.5,
        }
        for method, values in kl.items()
        for form, value in zip(("bfloat16", "nf4"), values, strict=False)
    ]
    return pd.DataFrame(rows, columns=["model", "method", "format", "kl", "changed_tokens", "changed_answers"])


def test_each_method_and_each_common_format_is_a_sentence() -> None:
    assert list(sentences(table(lora=[0.01, 0.8], qlora=[0.02, 0.2]))) == [
        "lora on m, merged: bfloat16 changes 0.5% of the next tokens and 50% of the answers (KL 0.01 nats); nf4 "
        "changes 40.0% of the next tokens and 50% of the answers (KL 0.8 nats).",
        "qlora on m, merged: bfloat16 changes 1.0% of the next tokens and 50% of the answers (KL 0.02 nats); nf4 "
        "changes 10.0% of the next tokens and 50% of the answers (KL 0.2 nats).",
        "On m in bfloat16, lora loses less than qlora by a merge: 0.01 against 0.02 nats.",
        "On m in nf4, qlora loses less than lora by a merge: 0.2 against 0.8 nats.",
    ]


def test_ties_missing_formats_and_missing_methods() -> None:
    tied = list(sentences(table(lora=[0.01, 0.8], qlora=[0.01])))
    assert tied[2:] == ["On m in bfloat16, lora and qlora lose the same by a merge: 0.01 nats."]
    assert len(list(sentences(table(dora=[0.1, 0.2])))) == 1
    assert list(sentences(table())) == []
