r"""LoRA: a low-rank update beside frozen matrices (Hu et al. 2021, arXiv:2106.09685).

.. math:: h = W_0 x + \frac{\alpha}{r} B A x, \qquad B \in \mathbb{R}^{d \times r},\ A \in \mathbb{R}^{r \times k}

:math:`B` starts at zero, so at first the model's outputs are unchanged. After training the product can be added to
:math:`W_0` (:attr:`harness.networks.tuned.Tuned.merge`): a merged model is as fast as its base.
"""

from __future__ import annotations

from typing import Annotated, Literal

from peft import LoraConfig
from pydantic import Field

from harness.arguments import Count, Dropout, Modules, Positive
from harness.models.load import Base
from harness.networks.peft_network import with_peft
from harness.networks.tuned import Tuned

#: PiSSA by that many iterations of a fast singular value decomposition.
Iterated = Annotated[str, Field(pattern=r"^pissa_niter_[1-9][0-9]*$")]


def apply(
    base: Base,
    r: Count = 8,
    alpha: Positive = 16,
    dropout: Dropout = 0.0,
    target_modules: Modules = "all-linear",
    use_rslora: bool = False,
    init: Literal["default", "gaussian", "orthogonal", "olora", "pissa"] | Iterated = "default",
) -> Tuned:
    """Rank ``r`` on ``target_modules`` (every linear layer of the body by default), scaled by ``alpha / r``, or by
    ``alpha / sqrt(r)`` with ``use_rslora`` (Kalajdzievski 2023). ``init`` is 'default' or one of
    PEFT's, such as 'pissa' or 'pissa_niter_4' (Meng et al. 2024); those that need data of their own are left out."""
    return with_peft(base, lora_config(base, r, alpha, dropout, target_modules, use_rslora, init))


def lora_config(
    base: Base,
    r: int,
    alpha: float,
    dropout: float,
    target_modules: str | list[str],
    use_rslora: bool = False,
    init: str = "default",
    use_dora: bool = False,
) -> LoraConfig:
    """PEFT's configuration of LoRA; see :func:`apply` and, for ``use_dora``, :mod:`harness.methods.dora`."""
    return LoraConfig(
        task_type=base.peft_task_type,
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules,
        use_rslora=use_rslora,
        use_dora=use_dora,
        init_lora_weights=True if init == "default" else init,
    )
