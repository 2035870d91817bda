"""Which PEFT types work on which family of models: found by running every one of them on tiny models.

Working means: it trains two steps and changes the outputs; saved and reloaded it answers alike; a decoder generates
with it. Writes ``results/reference/peft_types.csv`` and ``docs/peft_types.md``.

    python benchmarks/peft_types.py
"""

from __future__ import annotations

import csv
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftType
from peft import __version__ as peft_version
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from harness import methods
from harness.errors import InputError
from harness.methods import load
from harness.models.load import Base
from harness.models.spec import ModelSpec
from harness.networks.tuned import Tuned

ROOT = Path(__file__).parents[1]
_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 259,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**_SHAPE, "num_key_value_heads": 2},
    "qwen2": {**_SHAPE, "num_key_value_heads": 2},
    "gemma3_text": {**_SHAPE, "head_dim": 8, "num_key_value_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64, "vocab_size": 259},
    "gpt_neox": _SHAPE,
    "bert": _SHAPE,
    "roberta": _SHAPE,
}
ENCODERS = ("bert", "roberta")

#: What a type needs to be told on models this small, or at all.
CONFIGS: dict[str, dict[str, Any]] = {
    "ADALORA": {"target_r": 2, "init_r": 4},
    "C3A": {"block_size": 8},
    "CPT": {"cpt_token_ids": [5, 6, 7, 8], "cpt_mask": [1, 1, 1, 1], "cpt_tokens_type_mask": [1, 2, 3, 4]},
    "FOURIERFT": {"n_frequency": 16},
    "MISS": {"r": 8},
    "MULTITASK_PROMPT_TUNING": {"num_virtual_tokens": 4},
    "P_TUNING": {"num_virtual_tokens": 4, "encoder_hidden_size": 8},
    "PREFIX_TUNING": {"num_virtual_tokens": 4},
    "PROMPT_TUNING": {"num_virtual_tokens": 4},
    "CARTRIDGE": {"num_virtual_tokens": 4},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 1},
    "PSOFT": {"r": 8},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 4},
    "TRAINABLE_TOKENS": {"token_indices": list(range(3, 250))},
    "UNILORA": {"theta_d_length": 64},
    "VBLORA": {"vector_length": 8, "num_vectors": 16},
    "VERA": {"r": 8},
    "WAVEFT": {"n_frequency": 16},
}
_NORMS = r".*([nN]orm|ln_)[^.]*"


def base_of(family: str) -> Base:
    """A tiny model with random weights that reads bytes."""
    kind = "encoder" if family in ENCODERS else "decoder"
    spec = ModelSpec(
        name=family,
        family=family,
        architecture=family,
        kind=kind,
        config=FAMILIES[family],
        source={"random": True},
    )
    tokenizer = transformers.ByT5Tokenizer(extra_ids=0)
    labels = ("a", "b") if kind == "encoder" else None
    return Base(spec, tokenizer, None, torch.float32, torch.device("cpu"), seed=0, labels=labels)


def batch(base: Base) -> dict[str, torch.Tensor]:
    """Two texts, with labels or with themselves to predict."""
    ids = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(0))
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([0, 1]) if base.has_head else ids,
    }


@torch.no_grad()
def logits(tuned: Tuned) -> torch.Tensor:
    """Outputs on :func:`batch`."""
    inputs = {name: value for name, value in batch(tuned.base).items() if name != "labels"}
    found: torch.Tensor = tuned.model.eval()(**inputs).logits
    return found


def apply(base: Base, kind: str) -> Tuned:
    """The type with PEFT's own places, or where it knows none for this family on every linear layer (or norm)."""
    config = CONFIGS.get(kind, {})
    try:
        return methods.apply("peft", base, peft_type=kind, config=config, train_steps=2)
    except InputError as error:
        if "target_modules" not in str(error):
            raise
    places = _NORMS if kind == "LN_TUNING" else "all-linear"
    return methods.apply("peft", base, peft_type=kind, config={**config, "target_modules": places}, train_steps=2)


def verdict(base: Base, kind: str) -> str:
    """'works', or what stopped it, in one line."""
    stage = "apply"
    try:
        torch.manual_seed(0)
        tuned = apply(base, kind)
        stage = "train"
        untrained = logits(tuned)
        optimizer = torch.optim.AdamW(tuned.trainable.values(), lr=1e-1)
        tuned.model.train()
        for step in (1, 2):
            optimizer.zero_grad()
            tuned.model(**batch(base)).loss.backward()
            optimizer.step()
            if tuned.after_step is not None:
                tuned.after_step(step)
        trained = logits(tuned)
        if torch.equal(trained, untrained):
            return "train: two steps change nothing"
        stage = "reload"
        with tempfile.TemporaryDirectory() as folder:
            tuned.save(folder)
            reloaded = logits(load(base, folder))
        if not torch.allclose(reloaded, trained, rtol=1e-3, atol=1e-4):
            return "reload: other outputs"
        stage = "generate"
        if not base.has_head:
            inputs = {name: value for name, value in batch(base).items() if name != "labels"}
            tuned.model.generate(**inputs, max_new_tokens=3, do_sample=False)
    except Exception as error:  # whatever stops a type is its verdict
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        # What the harness puts before PEFT's own words is in the row already.
        return (f"{stage}: " + first.removeprefix(f"peft: PEFT's {kind} on {base.spec.name}: "))[:200]
    return "works"


def main() -> None:
    """Run all, write the two files."""
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    kinds = sorted(kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING if isinstance(kind, PeftType))
    table = {kind: {family: verdict(base_of(family), kind) for family in FAMILIES} for kind in kinds}
    with (ROOT / "results/reference/peft_types.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["peft_version", "peft_type", "family", "verdict"])
        for kind, found in table.items():
            writer.writerows([peft_version, kind, family, text] for family, text in found.items())
    (ROOT / "docs/peft_types.md").write_text(_document(table), encoding="utf-8")


def _document(table: dict[str, dict[str, str]]) -> str:
    lines = [
        "# PEFT types by model family",
        "",
        f"Made by `benchmarks/peft_types.py` with peft {peft_version}, on tiny models with random weights. Each",
        "type trains two steps, is saved and reloaded and, on a decoder, generates text. ✓ means that everything",
        "worked. The reasons for the others are below and in `results/reference/peft_types.csv`.",
        "",
        "| type | " + " | ".join(FAMILIES) + " |",
        "|---|" + "---|" * len(FAMILIES),
    ]
    lines += [
        f"| {kind} | " + " | ".join("✓" if found[f] == "works" else "–" for f in FAMILIES) + " |"
        for kind, found in table.items()
    ]
    lines += ["", "## Why the others fail", ""]
    for kind, found in table.items():
        reasons: dict[str, list[str]] = {}
        for family, text in found.items():
            if text != "works":
                reasons.setdefault(text, []).append(family)
        lines += [f"- {kind} ({', '.join(families)}): `{text}`" for text, families in reasons.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
