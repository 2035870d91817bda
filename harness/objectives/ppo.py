r"""RLHF by proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347; Ouyang et al. 2022, arXiv:2203.02155).

The policy :math:`\pi_\theta` answers prompts; the reward model scores each whole answer; every token pays for leaving
the reference :math:`\pi_{ref}`, which is the policy before the first step:

.. math:: r_t = -\beta \log\frac{\pi_\theta(y_t \mid x, y_{<t})}{\pi_{ref}(y_t \mid x, y_{<t})} + [t = T]\, R(x, y)

Advantages come from a critic by generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438). Policy and
critic then minimise

.. math::
    -\min\big(\rho_t A_t, \operatorname{clip}(\rho_t, 1-\epsilon, 1+\epsilon) A_t\big)
    + \tfrac{c}{2} \max\big((V_t - \hat R_t)^2, (V_t^{clip} - \hat R_t)^2\big), \qquad
    \rho_t = \frac{\pi_\theta(y_t)}{\pi_{old}(y_t)}

The critic is a linear output on the policy's last hidden state (as in Ziegler et al. 2019, arXiv:1909.08593): a critic
that is a network of its own would hide what the method saves. Reference and policy share every frozen weight. Written
here because TRL no longer has PPO.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import get_scheduler

from harness.measure.environment import synchronize
from harness.measure.memory import gradients_bytes, optimizer_bytes, peak_memory, weights_bytes
from harness.measure.training import Step
from harness.methods.tuned import Tuned
from harness.objectives.reward import Reward
from harness.objectives.rollout import Reference, Sample, sample
from harness.objectives.training import Diverged, History, Point, Settings, activations_bytes, training_arguments
from harness.tasks.data import TaskData
from harness.tasks.encode import encode_examples
from harness.tasks.logprobs import Batch, completion_batch, from_logits

# --- the mathematics, on tensors of shape (answers, positions); ``mask`` says where a token of the answer is ----------


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Advantages :math:`A_t = \sum_l (\gamma\lambda)^l \delta_{t+l}` and returns :math:`A_t + V_t`.

    :math:`\delta_t = r_t + \gamma V_{t+1} - V_t`; after the last token there is no value.
    """
    advantages = torch.zeros_like(rewards)
    ahead, value_ahead = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        here = mask[:, t].to(rewards.dtype)
        delta = rewards[:, t] + gamma * value_ahead - values[:, t]
        ahead = (delta + gamma * lam * ahead) * here
        value_ahead = values[:, t] * here
        advantages[:, t] = ahead
    return advantages, (advantages + values) * mask


def whiten(values: torch.Tensor, mask: torch.Tensor, shift_mean: bool = True) -> torch.Tensor:
    """Unit variance over the masked places, and zero mean unless ``shift_mean`` is false; 0 elsewhere."""
    kept = values[mask]
    mean, std = kept.mean(), kept.std(unbiased=False)
    white = (values - mean) / (std + 1e-8)
    return (white if shift_mean else white + mean) * mask


def policy_loss(ratio: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """The clipped surrogate of every token, to be minimised."""
    return -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def value_loss(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """Half the squared error of every token, the larger one of the value and of the value clipped around ``old``."""
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2)


def adapted(coefficient: float, kl: float, target: float | None, gain: float = 0.1) -> float:
    """The next KL coefficient: larger where the KL is above ``target``; unchanged where that is null.

    The proportional controller of Ziegler et al. 2019, section 2.2, its error cut at 20 %.
    """
    if target is None:
        return coefficient
    return coefficient * (1 + gain * min(max(kl / target - 1, -0.2), 0.2))


# --- policy and critic ------------------------------------------------------------------------------------------------


class ActorCritic(nn.Module):
    """The policy with one linear output beside its own: the value of every position."""

    def __init__(self, tuned: Tuned) -> None:
        super().__init__()
        self.policy = tuned.model
        self._output = tuned.model.get_output_embeddings()
        self.value = nn.Linear(self._output.weight.shape[-1], 1, device=tuned.base.device)
        # Every value is 0 at first, so the first advantages are the rewards themselves.
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, batch: Batch, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probability and value of each token of the answers, and where there is one; all (rows, width - 1)."""
        hidden: list[torch.Tensor] = []
        hook = self._output.register_forward_pre_hook(lambda _module, inputs: hidden.append(inputs[0]))
        try:
            logits = self.policy(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        finally:
            hook.remove()
        width = batch["labels"].shape[1]
        logprobs, mask = from_logits(logits[:, -width:], batch["labels"], temperature)
        values = self.value(hidden[0][:, -width:-1].float()).squeeze(-1) * mask
        return logprobs, values, mask


@dataclass(frozen=True)
class _Experience:
    """What one batch of answers taught; rows are answers."""

    batch: Batch
    logprobs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    mask: torch.Tensor

    def part(self, rows: torch.Tensor) -> _Experience:
        """Some of the rows."""
        tensors = {name: tensor[rows] for name, tensor in vars(self).items() if name != "batch"}
        return _Experience(batch={name: tensor[rows] for name, tensor in self.batch.items()}, **tensors)


def fit(
    tuned: Tuned,
    data: TaskData,
    settings: Settings,
    reward: Reward,
    kl_coefficient: float = 0.05,
    kl_target: float | None = None,
    updates: int = 4,
    minibatch_size: int | None = None,
    gamma: float = 1.0,
    lam: float = 0.95,
    clip: float = 0.2,
    value_clip: float = 0.2,
    value_weight: float = 0.1,
    whiten_rewards: bool = False,
    temperature: float = 1.0,
) -> History:
    """Train the policy in place on the training prompts; their answers are not looked at.

    A step is one batch of answers: sampled once, then learnt in ``updates`` passes over minibatches (null: the whole
    batch). ``kl_coefficient`` is fixed, or the first one where ``kl_target`` (nats per answer) is given. Curves:
    ``reward``, ``kl`` (to the reference, nats per answer), ``kl_coefficient``, ``ratio`` (mean of the first update: 1),
    ``clipped`` (share of tokens), ``policy_loss``, ``value_loss``, ``answer_tokens``. Raises
    :class:`harness.objectives.training.Diverged` when the loss is not finite.
    """
    start = time.perf_counter()
    budget, device, tokenizer = settings.budget, tuned.base.device, tuned.base.tokenizer
    torch.manual_seed(settings.seed)
    weights = weights_bytes(tuned.model)
    actor = ActorCritic(tuned)
    probe = completion_batch(
        encode_examples(tokenizer, data.train[: minibatch_size or budget.batch_size], budget.max_length),
        tokenizer.pad_token_id,
    )
    kept = activations_bytes(tuned, probe, lambda _model, batch: (sum(t.sum() for t in actor(batch)[:2]), {}))
    tuned.model.eval()  # dropout would make the ratio of the first update differ from 1
    reference = Reference(tuned)
    parameters = [*tuned.trainable.values(), *actor.value.parameters()]
    steps_in_all = budget.epochs * math.ceil(len(data.train) / budget.batch_size)
    optimizer, schedule = _optimizer(parameters, tuned, settings, steps_in_all)
    steps: list[Step] = []
    points: list[Point] = []
    gradient_bytes = state_bytes = None

    with peak_memory(device) as peak:
        for number, prompts in enumerate(_batches([e.prompt for e in data.train], settings), start=1):
            synchronize(device)
            began, paused = time.perf_counter(), 0.0
            answers = sample(tuned, prompts, data.spec.max_new_tokens, budget.max_length, temperature)
            scores = reward(prompts, [answer.text for answer in answers]).to(device)
            seen, experience = _experience(
                actor, reference, answers, scores, kl_coefficient, gamma, lam, whiten_rewards, temperature
            )
            losses, first_ratio, clipped, norm = [], None, [], 0.0
            for rows in _minibatches(len(answers), updates, minibatch_size or len(answers), device):
                part = experience.part(rows)
                logprobs, values, mask = actor(part.batch, temperature)
                ratio = (logprobs - part.logprobs).exp()
                losses.append(
                    torch.stack(
                        [
                            policy_loss(ratio, part.advantages, clip)[mask].mean(),
                            value_loss(values, part.values, part.returns, value_clip)[mask].mean(),
                        ]
                    )
                )
                (losses[-1][0] + value_weight * losses[-1][1]).backward()
                norm = nn.utils.clip_grad_norm_(parameters, 1.0)
                if gradient_bytes is None:
                    since = time.perf_counter()
                    gradient_bytes = gradients_bytes(actor)
                    paused += time.perf_counter() - since
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                first_ratio = ratio[mask].mean().detach() if first_ratio is None else first_ratio
                clipped.append(((ratio[mask] - 1).abs() > clip).float().mean())
            learning_rate = schedule.get_last_lr()[0]
            schedule.step()
            synchronize(device)
            seconds = time.perf_counter() - began - paused
            state_bytes = optimizer_bytes(optimizer) if state_bytes is None else state_bytes

            policy, value = torch.stack(losses).detach().mean(0).tolist()
            loss = policy + value_weight * value
            if not math.isfinite(loss):
                raise Diverged(f"the loss is {loss} at step {number} of {steps_in_all}")
            tokens = int(experience.batch["attention_mask"].sum())
            steps.append(Step(number, seconds, tokens, loss, learning_rate, float(norm)))
            seen |= {
                "kl_coefficient": kl_coefficient,
                "ratio": float(first_ratio),  # type: ignore[arg-type]
                "clipped": float(torch.stack(clipped).mean()),
                "policy_loss": policy,
                "value_loss": value,
            }
            points += [Point(number, name, found) for name, found in seen.items()]
            kl_coefficient = adapted(kl_coefficient, seen["kl"], kl_target)
            if settings.on_step is not None:
                settings.on_step(number, steps_in_all, loss)
    return History(
        steps=tuple(steps),
        train_s=time.perf_counter() - start,
        peak_train_bytes=peak.bytes,
        weights_bytes=weights,
        gradients_bytes=gradient_bytes,
        optimizer_bytes=state_bytes,
        activations_bytes=kept,
        curves=tuple(points),
    )


@torch.no_grad()
def _experience(
    actor: ActorCritic,
    reference: Reference,
    answers: Sequence[Sample],
    scores: torch.Tensor,
    kl_coefficient: float,
    gamma: float,
    lam: float,
    whiten_rewards: bool,
    temperature: float,
) -> tuple[dict[str, float], _Experience]:
    """Rewards and advantages of the answers, and what there is to see."""
    device = scores.device
    rows = completion_batch([answer.ids for answer in answers], 0)
    batch = {name: tensor.to(device) for name, tensor in rows.items()}
    logprobs, values, mask = actor(batch, temperature)
    with reference():
        before, _, _ = actor(batch, temperature)
    kl = logprobs - before
    rewards = -kl_coefficient * kl
    last = mask.shape[1] - 1 - mask.flip(-1).int().argmax(-1)
    rewards[torch.arange(len(rewards), device=device), last] += scores
    if whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    seen = {
        "reward": float(scores.mean()),
        "kl": float(kl.sum(-1).mean()),
        "answer_tokens": float(mask.sum(-1).float().mean()),
    }
    return seen, _Experience(batch, logprobs, values, whiten(advantages, mask), returns, mask)


def _optimizer(parameters: list[nn.Parameter], tuned: Tuned, settings: Settings, steps: int) -> tuple[Any, Any]:
    """AdamW and the learning rates of the other objectives: see :func:`training_arguments`."""
    args = training_arguments(tuned, settings)
    optimizer = torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=(args["adam_beta1"], args["adam_beta2"]),
        eps=args["adam_epsilon"],
        weight_decay=args["weight_decay"],
        fused=True,
    )
    return optimizer, get_scheduler(args["lr_scheduler_type"], optimizer, args["warmup_steps"], steps)


def _batches(prompts: Sequence[str], settings: Settings) -> Iterator[list[str]]:
    """The prompts in a new order in every epoch, the same for every method."""
    order = torch.Generator().manual_seed(settings.seed)
    size = settings.budget.batch_size
    for _ in range(settings.budget.epochs):
        shuffled = [prompts[i] for i in torch.randperm(len(prompts), generator=order).tolist()]
        yield from (shuffled[start : start + size] for start in range(0, len(shuffled), size))


def _minibatches(answers: int, updates: int, size: int, device: torch.device) -> Iterator[torch.Tensor]:
    for _ in range(updates):
        yield from torch.randperm(answers).to(device).split(size)
