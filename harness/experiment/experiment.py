"""One trial, step by step: what a notebook's cells call, in their order.

    run = Experiment(model, task, objective, budget, seed=seed, learning_rate=learning_rate)
    tuned = run.apply("lora", r=8)
    run.fit()
    run.evaluate()
    run.measure_inference()
    run.save_and_reload()
    run.record()

Each step times itself and keeps what it measured; :meth:`Experiment.record` hands it over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness import catalog, methods, objectives
from harness.execution import Execution, of_trial
from harness.experiment import quiet, rows, untouched
from harness.experiment.parallel import launch
from harness.experiment.probes import Probes
from harness.experiment.stored import StoredBytes
from harness.files import PROGRESS_FILE, write_atomically
from harness.measure.data_sheet import data_sheet_flops_per_s
from harness.measure.environment import accelerator
from harness.measure.latency import Latencies, Latency, generation_latency, prediction_latency
from harness.measure.memory import Peak, peak_memory, weights_bytes
from harness.measure.processors import disturbed, undisturbed
from harness.measure.roofline import Roofline, roofline
from harness.measure.training import speed, utilisation
from harness.methods import load
from harness.methods.baseline import in_context
from harness.models import load as models
from harness.networks.precision import as_served
from harness.networks.tuned import Tuned
from harness.processes.together import processes
from harness.results.execution_columns import active
from harness.results.ownership import own, place_of_record
from harness.results.record import Outcome, write_outcome
from harness.tasks import data as tasks
from harness.tasks.encode import prompt_text
from harness.tasks.evaluate import Evaluation, evaluate_splits, majority_score
from harness.tasks.metrics import METRICS, Score
from harness.training.proof import attention_of
from harness.training.trainer import History, Settings
from harness.trial import Budget


class Experiment:
    """The state of one trial. Call each step at most once; a step that is left out stays None in the record."""

    def __init__(
        self,
        model: str,
        task: str,
        objective: str,
        budget: Mapping[str, Any],
        *,
        seed: int = 0,
        learning_rate: float | None = None,
        dtype: str = "float32",
        device: str = "auto",
        trial_dir: str | None = None,
        execution: Mapping[str, Any] | None = None,
    ) -> None:
        """Load the data and the base checkpoint; ``trial_dir`` is None when a person runs the notebook.

        ``execution`` are fields of :class:`harness.execution.Execution` that differ from the usual; None: those of the
        trial in ``trial_dir``. A trial's folder is written by that trial alone (:mod:`harness.results.ownership`).
        Raises :class:`harness.errors.InputError` for unknown names, and for an invalid budget.
        """
        start = time.perf_counter()
        self.budget = Budget(**budget)
        self.objective = catalog.objective(objective).name
        scalar = catalog.objective(objective).scalar
        self.execution = of_trial(trial_dir) if execution is None else Execution(**execution)
        self.seed = seed
        self.learning_rate = learning_rate
        self.data = self.read(task)
        self.base = models.load(
            model, labels=self.data.head_words, scalar=scalar, dtype=dtype, device=device, seed=seed
        )
        self.base = dataclasses.replace(self.base, attention=self.execution.attention)
        self._max_length = self.budget.max_length
        self.probes = Probes(self.budget.probes, self.base, self.data.spec)
        self.tuned: Tuned | None = None
        self.history: History | None = None
        self.evaluations: dict[str, Evaluation] = {}
        self.scores: dict[str, list[Score]] = {}
        self.latency = Latencies()
        self.checkpoint_bytes: int | None = None
        self.peak_inference_bytes: int | None = None
        self.eval_s: float | None = None
        self._together: str | None = None
        self._shares: list[float | None] = []  # of the processors, in the timed regions
        self._trial_dir = place_of_record(trial_dir)
        self.setup_s = time.perf_counter() - start

    def read(self, task: str) -> tasks.TaskData:
        """The data of ``task`` under this trial's budget and seed; prints what a reader should know about its rows."""
        with quiet.plain_warnings():
            data = tasks.load(task, self.budget, self.seed)
        for notice in data.notices:
            if not notice.lost:  # of those that are, a warning has told
                print(notice)
        return data

    def show_examples(self, shots: int) -> None:
        """Put ``shots`` solved training examples before every prompt of validation and test (k-shot in context).

        Each may be as long as the budget allows a prompt to be.
        """
        self.data = in_context(self.data, shots, self.base.tokenizer, self.budget.max_length)
        self._max_length = self.budget.max_length * (shots + 1)

    def apply(self, method: str, *, start_from: str | Path | None = None, **args: Any) -> Tuned:
        """Build the base and apply the method with that name, such as 'lora', with its arguments.

        ``start_from`` is the folder of a parent with the same method; training continues from its parameters.
        """
        self._tell("probe the base")
        self.probes.before()
        start = time.perf_counter()
        self._tell("apply")
        with peak_memory(self.base.device) as peak:
            if start_from is None:
                self.tuned = methods.apply(method, self.base, **{"train_steps": self.budget.train_steps, **args})
            else:
                self.tuned = load(self.base, start_from)
        self._load_peak = peak.bytes
        self._weights_bytes = weights_bytes(self.tuned.model)
        self.setup_s += time.perf_counter() - start
        return self.tuned

    def applied(self) -> Tuned:
        """The model with its method. Raises RuntimeError before :meth:`apply`."""
        if self.tuned is None:
            raise RuntimeError("apply a method first")
        return self.tuned

    def fit(self, **args: Any) -> History:
        """Train with the objective and its ``args``; returns losses, step times and memory."""
        if self.learning_rate is None:
            raise ValueError("learning_rate: training needs one")
        settings = Settings(self.budget, self.learning_rate, self.seed, self.execution, self._on_step)
        if (together := processes()) > 1:
            self._together = f"trained by {together} processes, each with a part of every layer; memory is that of one"
            self.history = launch.fit(self.objective, self.applied(), self.data.spec.address, settings, args, together)
        else:
            self.history = objectives.fit(self.objective, self.applied(), self.data, settings, **args)
        return self.history

    def add_scores(self, split: str, *scores: Score) -> None:
        """Record more than the task's own metrics, such as a mean reward; ``split`` is what they were measured on."""
        self.scores.setdefault(split, []).extend(scores)

    def inputs(self, examples: int) -> dict[str, torch.Tensor]:
        """What the model reads of the first test examples: token ids and mask, padded on the right."""
        head = self.base.has_head
        texts = [e.text if head else prompt_text(self.base.tokenizer, e.prompt) for e in self.data.test[:examples]]
        batch = self.base.tokenizer(
            texts,
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self.budget.max_length,
            add_special_tokens=head or self.base.tokenizer.chat_template is None,
            return_tensors="pt",
        ).to(self.base.device)
        return self.base.reading(batch["input_ids"], batch["attention_mask"])

    def evaluate(self, *splits: str) -> Evaluation:
        """Score validation, which selects the settings, then test; returns the last of ``splits``."""
        start = time.perf_counter()
        names = splits or ("validation", "test")
        self._tell(f"evaluate {' and '.join(names)}")
        with self._inference():
            self.evaluations |= evaluate_splits(self.applied(), self.data, names, self._max_length)
        self.eval_s = (self.eval_s or 0.0) + time.perf_counter() - start
        return self.evaluations[names[-1]]

    def evaluate_base(self, split: str = "test") -> Evaluation:
        """What the untouched base answers, from the cache if another trial asked it: it is no part of the record.

        Call it before :meth:`apply`, so that the two networks are not in memory together.
        """
        self._tell("evaluate the base")
        try:
            return untouched.evaluation(self.base, self.data, split, self._max_length)
        finally:
            untouched.release(self.base.device)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[Peak]:
        with peak_memory(self.base.device) as peak:
            yield peak
        if peak.bytes is not None:
            self.peak_inference_bytes = max(peak.bytes, self.peak_inference_bytes or 0)

    def measure_inference(self, **settings: int) -> Latencies:
        """Latency at the budget's batch sizes, or at other ``settings`` of :mod:`harness.measure.latency`.

        If the change can be folded into the weights, the method is measured both ways: ``plain`` and ``merged``. What
        others disturbed is measured again (protocol, rule 6).
        """
        tuned = self.applied()
        self._tell("latency")
        measure = prediction_latency if self.base.has_head else generation_latency
        place = (self.base.device, self.base.tokenizer.vocab_size)

        def at_every_size(network: Any, variant: str) -> None:
            for size in self.budget.latency_batches if "batch_size" not in settings else (settings["batch_size"],):
                self._time(partial(measure, network, *place, variant=variant, **{**settings, "batch_size": size}))

        with as_served(tuned) as network:
            at_every_size(network, "plain")
            if tuned.merge is not None:
                with tuned.merge() as folded:
                    at_every_size(folded, "merged")
        return self.latency

    def _time(self, measure: Callable[[], list[Latency]]) -> None:
        measured, share = undisturbed(measure)
        self.latency += measured
        self._shares.append(share)

    @torch.no_grad()
    def save_and_reload(self, artifact_dir: str | None = None) -> StoredBytes:
        """Save the checkpoint, load it into a fresh base, and compare the outputs; returns the bytes on disk.

        The checkpoint stays in ``artifact_dir`` for later trials. It is deleted if that is None, or the folder of a
        trial that this process does not run. Raises AssertionError if the reloaded model answers differently.
        """
        tuned = self.applied()
        self._tell("save and reload")
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(10, self.base.tokenizer.vocab_size, (2, 16), generator=generator).to(self.base.device)
        probe = self.base.reading(ids, torch.ones_like(ids))
        before = tuned.model(**probe).logits
        with tempfile.TemporaryDirectory() as temporary:
            folder = own(artifact_dir) or temporary
            self.checkpoint_bytes = tuned.save(folder)
            after = load(self.base, folder).model(**probe).logits
        # Kernels may differ in the last bits when tensors lie elsewhere in memory.
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
        return StoredBytes(self.checkpoint_bytes)

    def record(self) -> Outcome:
        """Ask the budget's probes, and hand the measurements to the caller and, if there is one, to the runner."""
        self._tell("probe")
        self.probes.after(self.applied())
        return write_outcome(self._trial_dir, self._columns(), self._tables())

    def _columns(self) -> dict[str, Any]:
        tuned = self.applied()
        valid, test = self.evaluations.get("validation"), self.evaluations.get("test")
        scored = valid or test
        metric = scored.primary.metric if scored else self.data.spec.primary_metric
        columns: dict[str, Any] = {
            "model_family": self.base.spec.family,
            "model_params": self.base.spec.params,
            "task_kind": self.data.kind,
            "note": "; ".join(self._remarks(tuned)) or None,
            "device": str(self.base.device),
            "processor_threads": torch.get_num_threads(),
            "accelerator": accelerator(self.base.device),
            "setup_s": self.setup_s,
            "eval_s": self.eval_s,
            "total_params": tuned.total_params,
            "trainable_params": tuned.trainable_params,
            "trainable_share": tuned.trainable_params / tuned.total_params,
            active("attention"): attention_of(tuned),
            "trainable_dtype": tuned.trainable_formats,
            "checkpoint_bytes": self.checkpoint_bytes,
            "primary_metric": metric,
            "higher_is_better": METRICS[metric].higher_is_better,
            "weights_bytes": self._weights_bytes,
            "peak_inference_bytes": self.peak_inference_bytes,
            "train_steps": 0,
            "disturbed": disturbed(*self._shares, self.history.processor_share if self.history else None),
        }
        if not self.base.spec.is_random:  # what random weights answer means nothing
            columns |= {
                "valid_score": valid.primary.value if valid else None,
                "test_score": test.primary.value if test else None,
                "test_stderr": test.primary.stderr if test else None,
                "test_examples": test.primary.n if test else None,
                "majority_score": majority_score(self.data) if test else None,
                **self.probes.columns,
            }
        single = {row.phase: row for row in self.latency if row.batch_size == 1 and row.variant == "plain"}
        prefill, decode = single.get("prefill") or single.get("predict"), single.get("decode")
        if prefill is not None:
            columns["prefill_s_p50"] = prefill.p50_s
        if decode is not None:
            columns |= {"decode_s_per_token_p50": decode.p50_s, "decode_tokens_per_s": 1 / decode.p50_s}
        if self.history is not None:
            history = self.history
            columns |= {
                "train_steps": len(history.steps),
                "train_s": history.train_s,
                "train_tokens": sum(s.tokens for s in history.steps),
                "padding_share": history.padding_share,
                "example_tokens_cut": history.cut_share,
                "peak_train_bytes": history.peak_train_bytes,
                "gradients_bytes": history.gradients_bytes,
                "optimizer_bytes": history.optimizer_bytes,
                "activations_bytes": history.activations_bytes,
                "energy_j": history.energy_j,
                "energy_reason": history.energy_reason,
                **rows.execution(history),
                **self._utilisation(history),
            }
            if (fast := speed(list(history.steps))) is not None:
                columns |= {
                    "train_tokens_per_s": fast.tokens_per_s,
                    "train_step_s_median": fast.step_s_median,
                    "train_step_s_p95": fast.step_s_p95,
                }
        return columns

    def _remarks(self, tuned: Tuned) -> list[str]:
        """The remarks for a reader of the row: on method and model, rows left out, metrics without a value."""
        scores = [score for evaluation in self.evaluations.values() for score in evaluation.scores]
        unscored = dict.fromkeys(f"{score.metric} has no value: {score.reason}" for score in scores if score.reason)
        skipped = self.history.scaling.remark if self.history and self.history.scaling else None
        given = filter(None, (tuned.note, self.base.spec.remark, self._together, skipped))
        return [*given, *self.data.left_out, *unscored, *self.probes.remarks]

    def _utilisation(self, history: History) -> dict[str, float]:
        """FLOPs of an average step, and their share of this machine's measured peak."""
        steps, flops_per_slot = list(history.steps), history.flops_per_slot
        if flops_per_slot is None:
            return {}
        columns = {"train_flops": flops_per_slot * sum(s.slots or 0 for s in steps) / len(steps)}
        if (repeated := history.repeated_share) is not None:
            columns["recomputed_flops"] = repeated * columns["train_flops"]
        if speed(steps) is not None:
            peak = roofline(self.base.device, self.base.dtype, self.base.number_format)
            mfu = utilisation(steps, flops_per_slot, peak.flops_per_s) if peak.undisturbed else None
            # A peak below what training reached is none: the machine was busy, or throttled, when it was measured.
            if mfu is not None and mfu <= 1:
                columns["mfu"] = mfu
            columns |= self._needed(history, peak)
        return columns

    def _needed(self, history: History, measured: Roofline) -> dict[str, float]:
        """FLOPs that an average step needs, and their share of the two peaks (protocol, rule 11)."""
        needed = history.proof.needed_flops_per_token if history.proof else None
        fast = speed(list(history.steps))
        if needed is None or fast is None:
            return {}
        tokens = sum(step.tokens for step in history.steps)
        columns = {"needed_flops": needed * tokens / len(history.steps)}
        peaks = {
            "mfu_of_measured_peak": measured.flops_per_s if measured.undisturbed else None,
            "mfu_of_data_sheet": data_sheet_flops_per_s(accelerator(self.base.device), self.base.number_format),
        }
        shares = {name: needed * fast.tokens_per_s / peak for name, peak in peaks.items() if peak}
        return columns | {name: share for name, share in shares.items() if share <= 1}

    def _tables(self) -> dict[str, rows.Rows]:
        scores = [(split, score) for split, evaluation in self.evaluations.items() for score in evaluation.scores]
        scores += [(split, score) for split, extra in self.scores.items() for score in extra]
        scores += self.probes.scores()
        if self.base.spec.is_random:
            scores = []
        return {
            "scores": rows.scores(scores),
            "example_scores": [*rows.example_scores(scores, self.evaluations), *self.probes.example_scores()],
            "curves": rows.curves(self.history),
            "memory": rows.memory(self.history, self._weights_bytes, self._load_peak, self.peak_inference_bytes),
            "latency": [dataclasses.asdict(row) for row in self.latency],
            "generations": rows.generations(self.evaluations.get("test")),
        }

    def _on_step(self, step: int, steps: int, loss: float | None) -> None:
        self._tell("train", step=step, steps=steps, loss=loss)

    def _tell(self, phase: str, **details: Any) -> None:
        """Write live progress for anyone who watches the trial's folder."""
        if self._trial_dir is not None:
            write_atomically(self._trial_dir / PROGRESS_FILE, json.dumps({"phase": phase, **details}), durable=False)
