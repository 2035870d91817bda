"""The names: methods and objectives, with what one needs to choose among them (models and tasks are data files).

No torch here: planning, ``tunebench list`` and ``tunebench --help`` read only this. A method is one entry here, one
file in ``harness/methods/`` and one notebook; an objective likewise in ``harness/objectives/``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import JsonValue

from harness import own_method
from harness.errors import InputError, shown, unknown

ModelKind = Literal["encoder", "decoder", "encoder_decoder"]
TaskKind = Literal["classification", "regression", "multiple_choice", "generation", "cloze", "preference", "corpus"]


@dataclass(frozen=True)
class Parent:
    """A trial that another one starts from: the same model and task, and what is None here like the child's."""

    role: str
    """What the child needs it for: its key in the notebook's ``parent_dirs``."""
    objective: str | None = None
    method: str | None = None
    shared: bool = False
    """One for the trials of all methods: ``method`` where the sweep has it, else the sweep's first that can."""
    costs: bool = True
    """False: it judges the child, or is compared with it; what trained the child is the same without it."""


@dataclass(frozen=True)
class Restriction:
    """An argument of a method or objective that only some kinds of models allow to differ from ``neutral``."""

    argument: str
    neutral: JsonValue
    model_kinds: tuple[ModelKind, ...]
    because: str


@dataclass(frozen=True)
class Method:
    """Which parameters train."""

    name: str
    description: str
    citation: str
    notebook: str
    trains: bool = True
    """False: nothing is updated, so there is no learning rate and no objective to vary."""
    seeded_by: str | None = None
    """Argument that makes the seed count though nothing trains, unless it is 0: how many examples the seed draws."""
    model_kinds: tuple[ModelKind, ...] = ("encoder", "decoder", "encoder_decoder")
    families: tuple[str, ...] = ()
    """Architectures (transformers' ``model_type``) that it works on; empty: all of the kinds above."""
    objectives: tuple[str, ...] = ()
    """Objectives that it can be trained with; empty: all."""
    objectives_because: str = ""
    """Why not with the others."""
    restrictions: tuple[Restriction, ...] = ()
    parents: tuple[Parent, ...] = ()
    """Trials whose artefact it starts from; planned by themselves, and shared between children."""
    shards: bool = False
    """Several processes can train it together, each with a part of every layer."""
    merges: bool = False
    """Its change can be folded into the weights, with most of its arguments; its latency is measured both ways."""
    file: str | None = None
    """The user's own Python file with ``apply``; None: the package's."""
    functions: tuple[str, ...] = ()
    """``ROOM/FILE.NAME`` of those whose arguments it takes; none: of ``apply`` in the method's own file."""

    @property
    def address(self) -> str:
        """What finds it: the file of an own one, else the name."""
        return self.file or self.name


@dataclass(frozen=True)
class Objective:
    """Which loss trains the parameters of the method."""

    name: str
    description: str
    citation: str
    task_kinds: tuple[TaskKind, ...]
    model_kinds: tuple[ModelKind, ...]
    notebook: str | None = None
    """None: the method's own notebook runs it."""
    parents: tuple[Parent, ...] = ()
    """Trials whose artefact it starts from, or is judged by; planned by themselves, and shared between children."""
    shards: bool = False
    """Several processes can share a batch of it."""
    restrictions: tuple[Restriction, ...] = ()
    probes: tuple[str, ...] = ()
    """Suites that every trial is asked before and after training, whether or not a sweep names them."""
    scalar: bool = False
    """The network ends in a single number for a text instead of the next token."""


def _methods(*entries: Method) -> dict[str, Method]:
    return {entry.name: entry for entry in entries}


METHODS = _methods(
    Method(
        "baseline",
        "no training: the model as it comes, zero-shot or with k examples in context",
        "Brown et al. 2020, arXiv:2005.14165",
        "methods/baseline",
        trains=False,
        seeded_by="shots",
        restrictions=(
            Restriction(
                "shots", 0, ("decoder", "encoder_decoder"), "an encoder reads one text and no solved examples before it"
            ),
        ),
    ),
    Method(
        "quantized",
        "no training: the linear layers in 8 or 4 bits (LLM.int8, NF4, FP4, plain absmax)",
        "Dettmers et al. 2022, arXiv:2208.07339",
        "studies/quantization",
        trains=False,
    ),
    Method("full", "every parameter trains", "Howard & Ruder 2018, arXiv:1801.06146", "methods/full", shards=True),
    Method(
        "full_top_k",
        "only the last k layers and the norm behind them train",
        "Howard & Ruder 2018, arXiv:1801.06146",
        "methods/full_top_k",
    ),
    Method(
        "head",
        "only the output layer trains (transfer learning on frozen features)",
        "Donahue et al. 2014, arXiv:1310.1531",
        "methods/head",
    ),
    Method(
        "bitfit",
        "only biases train; a model without biases gets zero-initialised ones",
        "Ben Zaken et al. 2022, arXiv:2106.10199",
        "methods/bitfit",
    ),
    Method(
        "adapter",
        "small bottleneck layers in every layer (Houlsby, Pfeiffer, parallel, Lin)",
        "Houlsby et al. 2019, arXiv:1902.00751",
        "methods/adapter",
    ),
    Method(
        "prompt",
        "trainable embeddings before the input (prompt tuning)",
        "Lester et al. 2021, arXiv:2104.08691",
        "methods/prompt",
    ),
    Method(
        "prefix",
        "trainable keys and values before those of every attention layer (prefix tuning)",
        "Li & Liang 2021, arXiv:2101.00190",
        "methods/prefix",
    ),
    Method(
        "p_tuning",
        "embeddings before the input that a small LSTM or MLP computes",
        "Liu et al. 2021, arXiv:2103.10385",
        "methods/p_tuning",
    ),
    Method(
        "llama_adapter",
        "prompts in the last layers' attention behind a gate that starts shut",
        "Zhang et al. 2023, arXiv:2303.16199",
        "methods/llama_adapter",
        model_kinds=("decoder",),
        families=("llama", "mistral", "gpt2"),
    ),
    Method(
        "lora",
        "low-rank update BA beside frozen linear layers; can be merged",
        "Hu et al. 2021, arXiv:2106.09685",
        "methods/lora",
        merges=True,
        shards=True,
    ),
    Method(
        "dora",
        "LoRA on the direction of each matrix, a vector of its own for the magnitude",
        "Liu et al. 2024, arXiv:2402.09353",
        "methods/dora",
        merges=True,
    ),
    Method(
        "ia3",
        "vectors that rescale keys, values and inner activations",
        "Liu et al. 2022, arXiv:2205.05638",
        "methods/ia3",
        merges=True,
    ),
    Method(
        "qlora",
        "LoRA on a base quantised to 4-bit NormalFloat with double quantisation",
        "Dettmers et al. 2023, arXiv:2305.14314",
        "methods/qlora",
    ),
    Method(
        "bitdelta",
        "a full fine-tune kept as one bit per weight and one distilled scale per matrix",
        "Liu et al. 2024, arXiv:2402.10193",
        "methods/bitdelta",
        objectives=("classification", "regression", "sft"),
        objectives_because="its scales learn from the logits of a full fine-tune, so a loss of its own has no say",
        parents=(Parent("full", method="full"),),
        merges=True,
    ),
    Method(
        "peft",
        "any other method of PEFT by its type: AdaLoRA, LN tuning, OFT, VeRA, LoKr, MiSS and more",
        "Mangrulkar et al. 2022, github.com/huggingface/peft",
        "methods/peft",
        merges=True,
    ),
)

STUDIES = _methods(  # planned like methods, they measure tuned models or ways to train instead of making a model
    Method("serving", "no training: what it costs to serve many tuned models of one base", "arXiv:2311.03285",
           "studies/serving", trains=False, model_kinds=("decoder",),
           functions=("serving/study.study", "serving/fidelity.merge_rows")),
    Method("execution", "no model to keep: what each way to train is worth", "arXiv:1604.06174", "studies/execution",
           trains=False, model_kinds=("decoder",), functions=("experiment/executions.study",)),
)  # fmt: skip

# Rewards and wins of two methods can be compared only under one reward model and against one opponent.
_REWARD = Parent("reward", "reward", method="full", shared=True)
_JUDGE = replace(_REWARD, costs=False)
_OPPONENT = Parent("opponent", "sft", method="full", shared=True, costs=False)
_SFT = Parent("sft", "sft")
_PREFERENCE: tuple[TaskKind, ...] = ("preference",)
_DECODER: tuple[ModelKind, ...] = ("decoder",)


def _alignment(name: str, description: str, citation: str, *parents: Parent) -> Objective:
    """An objective that turns a decoder towards the answers that people prefer."""
    return Objective(name, description, citation, _PREFERENCE, _DECODER, f"objectives/{name}", parents)


OBJECTIVES: dict[str, Objective] = {
    entry.name: entry
    for entry in (
        Objective(
            "classification",
            "cross-entropy of the right label: a head on encoders, the label's words on the others",
            "Devlin et al. 2019, arXiv:1810.04805",
            task_kinds=("classification",),
            model_kinds=("encoder", "decoder", "encoder_decoder"),
            shards=True,
        ),
        Objective(
            "regression",
            "squared error of a number: a head on encoders, the number as text on the others",
            "Cer et al. 2017, arXiv:1708.00055; Raffel et al. 2020, arXiv:1910.10683",
            task_kinds=("regression",),
            model_kinds=("encoder", "decoder", "encoder_decoder"),
            shards=True,
        ),
        Objective(
            "sft",
            "supervised fine-tuning: cross-entropy of the completion's tokens, the prompt's left out",
            "Ouyang et al. 2022, arXiv:2203.02155",
            task_kinds=("generation", "cloze", "multiple_choice", "preference"),
            model_kinds=("decoder", "encoder_decoder"),
            shards=True,
        ),
        Objective(
            "clm",
            "continued pre-training on plain text of a domain (DAPT) or of the task (TAPT)",
            "Gururangan et al. 2020, arXiv:2004.10964",
            task_kinds=("corpus",),
            model_kinds=_DECODER,
            notebook="objectives/clm",
            probes=("retention",),
            shards=True,
        ),
        Objective(
            "reward",
            "reward model: one number for an answer, learnt from pairs",
            "Ouyang et al. 2022, arXiv:2203.02155",
            task_kinds=_PREFERENCE,
            model_kinds=("encoder", "decoder"),
            notebook="objectives/reward",
            scalar=True,
        ),
        _alignment(
            "dpo",
            "direct preference optimisation; losses sigmoid, hinge (SLiC) and ipo",
            "Rafailov et al. 2023, arXiv:2305.18290",
            _SFT,
            _JUDGE,
            _OPPONENT,
        ),
        _alignment(
            "kto",
            "answers marked good or bad, without pairs, weighed as prospect theory does",
            "Ethayarajh et al. 2024, arXiv:2402.01306",
            _SFT,
            _JUDGE,
            _OPPONENT,
        ),
        _alignment(
            "orpo",
            "supervised fine-tuning and a preference in one loss, by odds ratios, without a reference",
            "Hong et al. 2024, arXiv:2403.07691",
            _JUDGE,
            _OPPONENT,
        ),
        _alignment(
            "rrhf",
            "answers ranked by their likelihood as by their rewards, and the best one learnt",
            "Yuan et al. 2023, arXiv:2304.05302",
            _SFT,
            _JUDGE,
            _OPPONENT,
        ),
        _alignment(
            "ppo",
            "RLHF: proximal policy optimisation against a reward model, held near the reference by a KL penalty",
            "Ouyang et al. 2022, arXiv:2203.02155",
            _SFT,
            _REWARD,
            _OPPONENT,
        ),
        _alignment(
            "rloo",
            "REINFORCE whose baseline is the mean reward of the other samples of the prompt",
            "Ahmadian et al. 2024, arXiv:2402.14740",
            _SFT,
            _REWARD,
            _OPPONENT,
        ),
        _alignment(
            "grpo",
            "policy gradient with rewards standardised within the samples of a prompt, without a critic",
            "Shao et al. 2024, arXiv:2402.03300",
            _SFT,
            _REWARD,
            _OPPONENT,
        ),
        _alignment(
            "best_of_n",
            "rejection sampling: the best of n samples by reward, learnt by supervised fine-tuning",
            "Touvron et al. 2023, arXiv:2307.09288",
            _SFT,
            _REWARD,
            _OPPONENT,
        ),
    )
}

#: The objective of a task kind when a sweep names none.
NATURAL_OBJECTIVE: dict[TaskKind, str] = {
    "classification": "classification", "regression": "regression", "multiple_choice": "sft", "generation": "sft",
    "cloze": "sft", "preference": "dpo", "corpus": "clm",
}  # fmt: skip


_OWN = Method("own", "a method of your own", "your own file", "methods/own")


def method(name: str, where: str = "method") -> Method:
    """The method called ``name``, or the one in the user's own file when ``name`` is a path to one.

    Nothing is read. Raises :class:`harness.errors.InputError`: with the nearest name if there is none of that name, and
    for a file whose name cannot be one.
    """
    if own_method.is_path(name):
        return replace(_OWN, name=own_method.name_of(name, where), file=name)
    known = {**METHODS, **STUDIES}
    if name not in known:
        if "/" in name:
            raise InputError(f"{where}: {shown(name)} is no file of a method of your own; its name ends in .py")
        raise unknown(where, name, known)
    return known[name]


def method_of_row(name: str) -> Method:
    """The method that a trial or a checkpoint names; of an own one, without its file. InputError as :func:`method`."""
    return replace(_OWN, name=name) if name.startswith(own_method.PREFIX) else method(name)


def objective(name: str, where: str = "objective") -> Objective:
    """The objective called ``name``; :class:`harness.errors.InputError` with the nearest name if there is none."""
    if name not in OBJECTIVES:
        raise unknown(where, name, OBJECTIVES)
    return OBJECTIVES[name]
