r"""KTO: answers that are good or bad by themselves, without pairs (Ethayarajh et al. 2024, arXiv:2402.01306).

.. math:: \lambda_y - v(x, y), \qquad v = \begin{cases}
    \lambda_D\, \sigma(\beta (r_\theta - z_0)) & y \text{ desirable} \\
    \lambda_U\, \sigma(\beta (z_0 - r_\theta)) & y \text{ undesirable} \end{cases}

with :math:`r_\theta = \log\frac{\pi_\theta(y|x)}{\pi_{ref}(y|x)}` and :math:`z_0` an estimate of the KL to the
reference. TRL's implementation.
"""

from __future__ import annotations

from peft import PeftModel

from harness.arguments import Positive
from harness.errors import InputError
from harness.networks.tuned import Tuned
from harness.tasks.data import TaskData
from harness.training import through_trl
from harness.training.trainer import History, Settings


def fit(
    tuned: Tuned,
    data: TaskData,
    settings: Settings,
    beta: Positive = 0.1,
    desirable_weight: Positive = 1.0,
    undesirable_weight: Positive = 1.0,
) -> History:
    """Train in place; each pair is one desirable and one undesirable answer, so a batch holds twice as many answers.

    The reference is the policy before its first step, and never a second network. A method of PEFT keeps its adapter
    twice. For any other method the reference's log-probabilities are computed before the training. Curves are TRL's
    own. Raises :class:`harness.errors.InputError` for an adapter that PEFT cannot keep twice.
    """
    from trl import KTOConfig, KTOTrainer

    pairs, cut = through_trl.pair_rows(tuned, data, settings.budget.max_length)
    rows = [
        {"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"}
        for row in pairs
        for name in ("chosen", "rejected")
    ]
    arguments = {
        "per_device_train_batch_size": 2 * settings.budget.batch_size,
        "max_length": settings.budget.max_length,
        "beta": beta,
        "desirable_weight": desirable_weight,
        "undesirable_weight": undesirable_weight,
        "disable_dropout": True,
        "precompute_ref_log_probs": not isinstance(tuned.model, PeftModel),
    }
    try:
        return through_trl.fit(tuned, settings, KTOTrainer, KTOConfig, rows, arguments, cut)
    except ValueError as error:
        if "only 1 trainable adapter" not in str(error):
            raise
        kind = tuned.model.peft_config["default"].peft_type.value
        raise InputError(
            f"objective 'kto': PEFT has one {kind} adapter in a network at most, and the reference would be a "
            "second one; 'dpo' needs none"
        ) from error
