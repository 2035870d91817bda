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
from transformers import Trainer, TrainingArguments

from harness.arguments import Count, Part, Positive, Weight
from harness.measure.energy import energy
from harness.measure.environment import synchronize
from harness.measure.memory import gradients_bytes, optimizer_bytes, peak_memory, weights_bytes
from harness.measure.processors import processors
from harness.measure.training import Step
from harness.networks.tuned import Tuned
from harness.tasks.data import TaskData
from harness.tasks.encode import encode_examples, free_answer_tokens, prompt_within
from harness.tasks.logprobs import Batch, completion_batch, from_logits
from harness.training.advantages import adapted, gae, policy_loss, value_loss, whiten
from harness.training.loss_scale import LossScale, finite
from harness.training.rollouts import Reference, Reward, Sample, sample
from harness.training.schedule import schedule
from harness.training.trainer import (
    Diverged,
    History,
    Point,
    Settings,
    activations_bytes,
    loss_of,
    share,
    training_arguments,
)


class ActorCritic(nn.Module):
    """The policy with a second linear output: the value of every position."""

    def __init__(self, tuned: Tuned) -> None:
        super().__init__()
        self.policy = tuned.model
        self._output = tuned.model.get_output_embeddings()
        self.value = nn.Linear(self._output.weight.shape[-1], 1, device=tuned.base.device)
        # Every value is 0 at first, so the first advantages are the rewards themselves.
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, batch: Batch, temperature: Positive = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probability and value of each answer token, and the mask of these tokens; all (rows, width - 1)."""
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


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of :func:`fit` beside the reward; its docstring explains them."""

    updates: int
    minibatch_size: int | None
    gamma: float
    lam: float
    clip: float
    value_clip: float
    value_weight: float
    whiten_rewards: bool
    temperature: float


@dataclass(frozen=True)
class _Experience:
    """The lesson of one batch of answers; rows are answers."""

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


class _Learner:
    """Policy, critic, reference and optimiser of one run."""

    def __init__(self, tuned: Tuned, settings: Settings, options: Options, steps: int) -> None:
        self.actor = ActorCritic(tuned)
        self.gradients_bytes: int | None = None
        self.pause_s = 0.0
        """Seconds of the last :meth:`learn` that were spent on counting."""
        self._options = options
        self._reference = Reference(tuned)
        self._after_step, self._updates = tuned.after_step, 0
        self._loss_term = tuned.loss_term
        self._parameters = [*tuned.trainable.values(), *self.actor.value.parameters()]
        self.scale = LossScale(tuned)
        self.optimizer, self.schedule = _optimizer(self._parameters, tuned, settings, steps)

    @torch.no_grad()
    def experience(
        self, answers: Sequence[Sample], scores: torch.Tensor, kl_coefficient: float
    ) -> tuple[dict[str, float], _Experience]:
        """Rewards and advantages of the answers, and the values for the curves."""
        options, device = self._options, scores.device
        batch = completion_batch([answer.ids for answer in answers], 0, device)
        logprobs, values, mask = self.actor(batch, options.temperature)
        with self._reference():
            before, _, _ = self.actor(batch, options.temperature)
        kl = logprobs - before
        rewards = -kl_coefficient * kl
        last = mask.shape[1] - 1 - mask.flip(-1).int().argmax(-1)
        rewards[torch.arange(len(rewards), device=device), last] += scores
        if options.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = gae(rewards, values, mask, options.gamma, options.lam)
        seen = {
            "reward": float(scores.mean()),
            "kl": float(kl.sum(-1).mean()),
            "answer_tokens": float(mask.sum(-1).float().mean()),
        }
        return seen, _Experience(batch, logprobs, values, whiten(advantages, mask), returns, mask)

    def learn(self, experience: _Experience) -> dict[str, torch.Tensor]:
        """The updates of one step, as means; ``ratio`` is that of the first update, ``grad_norm`` that of the last."""
        options, seen = self._options, []
        self.pause_s = 0.0
        count, device = len(experience.mask), experience.mask.device
        for rows in _minibatches(count, options.updates, options.minibatch_size or count, device):
            part = experience.part(rows)
            logprobs, values, mask = self.actor(part.batch, options.temperature)
            ratio = (logprobs - part.logprobs).exp()
            policy = policy_loss(ratio, part.advantages, options.clip)[mask].mean()
            value = value_loss(values, part.values, part.returns, options.value_clip)[mask].mean()
            loss = policy + options.value_weight * value
            if self._loss_term is not None:
                loss = loss + self._loss_term()
            self.scale.backward(loss)
            self.scale.unscale(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self._count_gradients()
            self.scale.step(self.optimizer)
            self._updates += 1
            if self._after_step is not None and not self.scale.just_skipped:
                self._after_step(self._updates)
            self.optimizer.zero_grad(set_to_none=True)
            moved = (ratio.detach()[mask] - 1).abs()
            seen.append((loss, policy, value, (moved > options.clip).float().mean(), ratio[mask].mean(), norm))
        self.schedule.step()
        columns = [torch.stack([entry.detach() for entry in column]) for column in zip(*seen, strict=True)]
        loss, policy, value, clipped = (column.mean() for column in columns[:4])
        means = {"loss": loss, "policy_loss": policy, "value_loss": value, "clipped": clipped}
        return {**means, "ratio": columns[4][0], "grad_norm": columns[5][-1]}

    def _count_gradients(self) -> None:
        if self.gradients_bytes is None:
            start = time.perf_counter()
            self.gradients_bytes = gradients_bytes(self.actor)
            self.pause_s = time.perf_counter() - start


def fit(
    tuned: Tuned,
    data: TaskData,
    settings: Settings,
    reward: Reward,
    kl_coefficient: Weight = 0.05,
    kl_target: Positive | None = None,
    updates: Count = 4,
    minibatch_size: Count | None = None,
    gamma: Part = 1.0,
    lam: Part = 0.95,
    clip: Positive = 0.2,
    value_clip: Positive = 0.2,
    value_weight: Weight = 0.1,
    whiten_rewards: bool = False,
    temperature: Positive = 1.0,
) -> History:
    """Train the policy in place on the training prompts; their answers are not looked at.

    A step is one batch of answers: sampled once, then learnt in ``updates`` passes over minibatches (None: the whole
    batch). ``kl_coefficient`` is fixed, or the first one where ``kl_target`` (nats per answer) is given;
    ``whiten_rewards`` gives the rewards unit variance. Curves: ``reward``, ``kl`` (to the reference, nats per answer),
    ``kl_coefficient``, ``ratio`` (mean of the first update: 1), ``clipped`` (share of tokens), ``policy_loss``,
    ``value_loss``, ``answer_tokens``. Raises :class:`harness.training.trainer.Diverged` when the loss is not finite.
    """
    start = time.perf_counter()
    budget, device = settings.budget, tuned.base.device
    options = Options(
        updates=updates,
        minibatch_size=minibatch_size,
        gamma=gamma,
        lam=lam,
        clip=clip,
        value_clip=value_clip,
        value_weight=value_weight,
        whiten_rewards=whiten_rewards,
        temperature=temperature,
    )
    torch.manual_seed(settings.seed)
    weights = weights_bytes(tuned.model)
    in_all = budget.epochs * math.ceil(len(data.train) / budget.batch_size)
    learner = _Learner(tuned, settings, options, in_all)
    activations = _activations(learner.actor, tuned, data, settings, minibatch_size)
    tuned.model.eval()  # dropout would make the ratio of the first update differ from 1
    steps: list[Step] = []
    points: list[Point] = []
    state_bytes: int | None = None

    with peak_memory(device) as peak, energy(device) as used, processors() as got:
        for number, prompts in enumerate(_batches([e.prompt for e in data.train], settings), start=1):
            learning_rate = learner.schedule.get_last_lr()[0]
            synchronize(device)
            began = time.perf_counter()
            answers = sample(tuned, prompts, data.spec.max_new_tokens, budget.max_length, temperature)
            scores = reward(prompts, [answer.text for answer in answers]).to(device)
            seen, experience = learner.experience(answers, scores, kl_coefficient)
            learnt = learner.learn(experience)
            synchronize(device)
            seconds = time.perf_counter() - began - learner.pause_s
            state_bytes = optimizer_bytes(learner.optimizer) if state_bytes is None else state_bytes

            means = {name: float(value) for name, value in learnt.items()}
            loss, norm = means.pop("loss"), means.pop("grad_norm")
            if not math.isfinite(loss):
                raise Diverged(f"the loss is {loss} at step {number} of {in_all}")
            mask = experience.batch["attention_mask"]
            steps.append(Step(number, seconds, int(mask.sum()), loss, learning_rate, finite(norm), mask.numel()))
            seen |= {"kl_coefficient": kl_coefficient, **means}
            points += [Point(number, name, value) for name, value in seen.items()]
            kl_coefficient = adapted(kl_coefficient, seen["kl"], kl_target)
            if settings.on_step is not None:
                settings.on_step(number, in_all, loss)
    return History(
        steps=tuple(steps),
        train_s=time.perf_counter() - start,
        peak_train_bytes=peak.bytes,
        weights_bytes=weights,
        gradients_bytes=learner.gradients_bytes,
        optimizer_bytes=state_bytes,
        activations_bytes=activations,
        energy_j=used.joules,
        energy_reason=used.reason,
        processor_share=got.share,
        scaling=learner.scale.outcome(),
        curves=tuple(points),
        cut_share=_cut_share(tuned, data, budget.max_length),
    )


def _cut_share(tuned: Tuned, data: TaskData, max_length: int) -> float | None:
    """Share of the training prompts that are read in part."""
    room = free_answer_tokens(data.spec.max_new_tokens, max_length)
    return share([prompt_within(tuned.base.tokenizer, e.prompt, max_length, room)[1] for e in data.train])


def _activations(
    actor: ActorCritic, tuned: Tuned, data: TaskData, settings: Settings, minibatch_size: int | None
) -> int:
    """Bytes that one minibatch keeps for backward, with the task's own answers in place of sampled ones."""
    tokenizer, budget = tuned.base.tokenizer, settings.budget
    first = data.train[: minibatch_size or budget.batch_size]
    rows = encode_examples(tokenizer, first, budget.max_length, data.spec.max_new_tokens)

    def both(_model: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logprobs, values, _ = actor(batch)
        return logprobs.sum() + values.sum(), {}

    return activations_bytes(tuned, completion_batch(rows, tokenizer.pad_token_id), loss_of(tuned, both))


def _optimizer(parameters: list[nn.Parameter], tuned: Tuned, settings: Settings, steps: int) -> tuple[Any, Any]:
    """The optimiser of the method, with the learning rates of the other objectives: :func:`training_arguments`."""
    args = TrainingArguments(**training_arguments(tuned, settings))
    kind, arguments = Trainer.get_optimizer_cls_and_kwargs(args, tuned.model)
    optimizer = kind(parameters, weight_decay=args.weight_decay, **arguments)
    return optimizer, schedule(optimizer, steps)


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
