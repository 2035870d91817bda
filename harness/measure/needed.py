"""FLOPs that a step really needs: neither padding, nor what is computed twice, nor attention to what is masked.

The convention of MFU here (protocol, rule 11), after Chowdhery et al. 2022, arXiv:2204.02311, appendix B. A matrix
product that nothing below it needs a gradient of, or whose matrix is frozen, does not count in the backward pass: with
LoRA a step needs (2 + trained share) / 3 of full training. Attention counts once forward and twice backward, over the
pairs of tokens that may see each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.measure.flops import FlopCounter

#: A fused backward pass of attention computes its scores again: five products, of which four are needed.
_FUSED_BACKWARD = 4 / 5


def needed_flops(counter: FlopCounter, examples: Sequence[range], slots: int, layers: int, causal: bool) -> float:
    """FLOPs that the counted step needs.

    ``examples`` are the positions that are read for each of its examples, ``slots`` the places that they
    and the padding take, ``layers`` those of the network with attention; in a ``causal`` one a token sees itself and
    those before it. What is read once for several examples is needed once.
    """
    tokens = sum(map(len, examples))
    attention = counter.attention_forward_flops + counter.attention_backward_flops + counter.batched_flops
    products = (counter.flops - counter.repeated_flops - attention) * tokens / slots
    pairs = sum(sum(places) + len(places) if causal else len(places) * places.stop for places in examples)
    fused = counter.attention_forward_flops + _FUSED_BACKWARD * counter.attention_backward_flops
    share = pairs * layers / counter.pairs if counter.pairs else 0.0
    # Attention that is made of products takes whole rows.
    width = slots / max(len(examples), 1)
    whole = pairs / (len(examples) * width**2) if examples else 0.0
    return products + fused * share + counter.batched_flops * whole
