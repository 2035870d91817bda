"""Batched LoRA against PEFT's mixed batch and against the base alone, as ratios of one interleaved run.

python benchmarks/serving_ratios.py
python benchmarks/serving_ratios.py --model llama-1b --dtype bfloat16 --device cuda

Sixteen tenants, one request each. The aims are those of a prototype on two processor cores: decoding at least 4 times
as fast as PEFT's mixed batch and within 1.2 times of the base alone, prompts at least 1.7 times as fast as PEFT's. The
tokens must be the same. The tenants are made up: random matrices cost what trained ones do. Batched LoRA runs the
base's products too, so it cannot beat PEFT by more than PEFT falls behind the base: that ratio is printed as well. It
grows with the number of threads (``--threads``), which help large products and not PEFT's loop over small ones.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from harness import methods
from harness.models.load import load
from harness.serving.compare import compare, random_prompts
from harness.serving.strategies import BaseAlone, Batched, PeftMixed, peft_model
from harness.serving.tenant import made_up, tenant_of

PEFT_DECODE, BASE_DECODE, PEFT_PREFILL = 4.0, 1.2, 1.7
OWN = "batched LoRA"


def main() -> None:
    """Print the times and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of the processor; by default those of the environment")
    parser.add_argument("--tenants", type=int, default=16)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=0.02, help="standard deviation of the made-up matrices")
    given = parser.parse_args()

    if given.threads is not None:
        torch.set_num_threads(given.threads)
    base = load(given.model, dtype=given.dtype, device=given.device)
    network = base.build().requires_grad_(False)
    template = tenant_of(methods.apply("lora", base, r=given.rank), network, "made up")
    tenants = [made_up(template, seed, given.scale) for seed in range(given.tenants)]
    batched = Batched(network, tenants, OWN)
    strategies = [BaseAlone(network), PeftMixed(peft_model(network, tenants)), batched]
    timings = compare(
        strategies,
        list(range(given.tenants)),
        random_prompts(given.tenants, given.prompt_tokens, base.tokenizer.vocab_size, base.device),
        new_tokens=given.new_tokens,
        rounds=given.rounds,
    )
    for name, timing in timings.items():
        mark = {True: " (disturbed)", False: "", None: " (whether disturbed is not known)"}[timing.disturbed]
        print(
            f"{name}: prefill {1e3 * timing.median('prefill'):.1f} ms, "
            f"decode {1e3 * timing.median('decode'):.1f} ms a step{mark}"
        )
    alone, peft, own = timings.values()
    decode, prefill = (peft.median(phase) / own.median(phase) for phase in ("decode", "prefill"))
    over, most = (of.median("decode") / alone.median("decode") for of in (own, peft))
    print(f"decode, PEFT / own: {decode:.2f} (aim: at least {PEFT_DECODE})")
    print(f"decode, PEFT / base alone: {most:.2f} (PEFT / own stays below it)")
    print(f"decode, own / base alone: {over:.2f} (aim: at most {BASE_DECODE})")
    read = 1 + batched.tenants_bytes / batched.base_bytes
    print(f"weights to read for a step, own / base alone: {read:.2f} (the floor where memory sets the pace)")
    print(f"prefill, PEFT / own: {prefill:.2f} (aim: at least {PEFT_PREFILL})")
    assert peft.tokens is not None and own.tokens is not None  # noqa: S101 - every strategy ran
    print(f"same tokens: {(peft.tokens == own.tokens).float().mean().item():.1%}")


if __name__ == "__main__":
    main()
