"""Models as data: right sizes, pinned weights, and checkpoints that load."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.models.checkpoint import checkpoint_dir
from harness.models.spec import ModelSpec, load_spec, names
from harness.sources import cache
from harness.sources.fetch import HubSource, PackageSource

BICYCLE = (
    "The history of the bicycle began in the early nineteenth century, when a German baron built a wooden machine "
    "with two wheels that was pushed along by the feet of its rider. Pedals were added in France some decades later, "
    "and the chain drive that is still used today made the modern safety bicycle popular around the world."
)


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_the_shape_has_the_parameters_that_the_registry_says(name: str) -> None:
    import torch
    import transformers

    from harness.models.shape import from_shape

    spec = load_spec(name)
    auto = {
        "encoder": transformers.AutoModel,
        "decoder": transformers.AutoModelForCausalLM,
        "encoder_decoder": transformers.AutoModelForSeq2SeqLM,
    }[spec.kind]
    with torch.device("meta"):
        assert from_shape(auto, spec.transformers_config()).num_parameters() == spec.params


@pytest.mark.parametrize("name", names())
def test_weights_cannot_change_under_a_name(name: str) -> None:
    spec = load_spec(name)
    assert spec.is_pinned and spec.description
    assert spec.is_random or spec.license
    assert not load_spec("gpt2@main").is_pinned


def test_the_text_part_of_a_model_that_reads_pictures(tmp_path: Path) -> None:
    import torch
    import transformers
    from helpers import checkpoints

    from harness.models import load

    text = {**checkpoints.SHAPES["gemma3_text"], "num_key_value_heads": 2}
    picture = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    shape = transformers.Gemma3Config(
        text_config=text, vision_config={**picture, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    whole = transformers.Gemma3ForConditionalGeneration(shape).eval()
    whole.save_pretrained(tmp_path)
    checkpoints.byte_tokenizer().save_pretrained(tmp_path)

    spec = load_spec(str(tmp_path))
    assert spec.architecture == spec.transformers_config().model_type == "gemma3_text"
    base = load.load(str(tmp_path), device="cpu")
    assert base.missing_keys == frozenset() and base.config().num_hidden_layers == 2
    part = base.build()
    assert not [name for name, _ in part.named_parameters() if "vision" in name]
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        assert torch.equal(part(ids).logits, whole(ids).logits)
    reward = load.load(str(tmp_path), device="cpu", scalar=True)
    assert reward.missing_keys == {"score.weight"} and reward.build().config.num_labels == 1


def test_the_output_layer_of_flan_t5_is_its_own(tmp_path: Path) -> None:
    import torch
    import transformers
    from torch import nn

    from harness.models.shape import from_shape

    shape = {**load_spec("flan-t5-small").config, "vocab_size": 272, "d_model": 32, "d_kv": 8, "d_ff": 48}
    spec = load_spec("flan-t5-small").model_copy(update={"config": {**shape, "num_layers": 1, "num_heads": 4}})
    network = from_shape(transformers.AutoModelForSeq2SeqLM, spec.transformers_config())
    assert network.lm_head.weight is not network.shared.weight and not network.config.scale_decoder_outputs
    assert network.encoder.embed_tokens.weight is network.shared.weight is network.decoder.embed_tokens.weight
    nn.init.normal_(network.lm_head.weight)  # trained on their own, the two differ
    network.save_pretrained(tmp_path)
    # As Google published it: transformers writes more.
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**{k: config[k] for k in config if k != "scale_decoder_outputs"}, "tie_word_embeddings": False})
    )
    counted = from_shape(transformers.AutoModelForSeq2SeqLM, load_spec(str(tmp_path)).transformers_config())
    read = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert torch.equal(read.lm_head.weight, network.lm_head.weight) and read.lm_head.weight is not read.shared.weight
    assert counted.num_parameters() == network.num_parameters() == read.num_parameters()


def test_sizes_of_a_family_rise() -> None:
    ladders: dict[str, list[int]] = {}
    for spec in map(load_spec, names()):
        if isinstance(spec.source, HubSource) and spec.params:
            ladders.setdefault(spec.family, []).append(spec.params)
    assert {"pythia", "qwen2.5", "qwen3", "smollm2", "llama-2", "olmo2", "flan-t5"} <= set(ladders)
    assert all(sizes == sorted(sizes) for sizes in ladders.values())


def test_every_model_has_a_random_twin() -> None:
    twin, model = load_spec("smollm2-135m@random"), load_spec("smollm2-135m")
    assert twin.is_random and not model.is_random and (twin.params, twin.family) == (model.params, model.family)
    assert twin.transformers_config(num_labels=3).num_labels == 3
    with pytest.raises(InputError, match="random weights and no checkpoint"):
        checkpoint_dir(twin)


def test_another_revision() -> None:
    assert load_spec("pythia-70m@step1000").source == HubSource(hub="EleutherAI/pythia-70m", revision="step1000")
    with pytest.raises(InputError, match="only a hub model has revisions"):
        load_spec("smollm2-135m@v2")


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model: unknown name 'smollm-135m'; did you mean 'smollm2-135m'"):
        load_spec("smollm-135m")
    with pytest.raises(InputError, match=r"no such is not a folder with a config.json"):
        load_spec("./no such")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="model_type is missing"):
        load_spec(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "llama"}, "decoder"),
        ({"model_type": "bert"}, "encoder"),
        ({"model_type": "bert", "is_decoder": True}, "decoder"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "encoder_decoder"),
    ],
)
def test_a_local_folder_is_a_model(tmp_path: Path, config: dict[str, object], kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = load_spec(str(tmp_path))
    assert (spec.kind, spec.architecture, spec.is_pinned) == (kind, config["model_type"], False)
    assert checkpoint_dir(spec) == tmp_path


def test_a_checkpoint_without_configuration_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    spec = load_spec(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"there is no config\.json in"):
        checkpoint_dir(spec)


def test_a_conversion_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversion itself is replaced here; the slow test below runs the real one's result."""
    from harness.models import checkpoint
    from harness.sources import fetch

    done: list[Path] = []

    def convert(gguf: Path, target: Path) -> None:
        done.append(gguf)
        (target / "config.json").write_text("{}")

    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "resolve", lambda source, verify=False: tmp_path)
    monkeypatch.setattr(checkpoint, "_convert", convert)
    spec = load_spec("smollm2-135m")
    folder = checkpoint_dir(spec)
    assert checkpoint_dir(spec) == folder and len(done) == 1 and spec.gguf and done[0] == tmp_path / spec.gguf
    (folder / "config.json").write_text("{ }")
    assert checkpoint_dir(spec) == folder and len(done) == 2, "a damaged file means another conversion"
    assert isinstance(spec.source, PackageSource)
    other = spec.model_copy(update={"source": spec.source.model_copy(update={"sha256": "0" * 64})})
    assert checkpoint_dir(other) != folder, "another package is another checkpoint"


@pytest.mark.slow
def test_the_embedded_decoder_speaks() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = load_spec("smollm2-135m")
    folder = checkpoint_dir(spec)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.num_parameters() == spec.params
    assert (tokenizer.chat_template is not None) == spec.chat
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]
    ids = tokenizer(BICYCLE, return_tensors="pt").input_ids
    with torch.no_grad():
        assert 10 < math.exp(model(ids, labels=ids).loss) < 40
    assert cache.is_whole(folder, verify=True)


@pytest.mark.slow
def test_the_embedded_encoder_loads() -> None:
    from transformers import AutoModelForSequenceClassification

    spec: ModelSpec = load_spec("minilm-l6-22m")
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint_dir(spec), num_labels=2)
    assert model.num_parameters() == 22_713_986
    assert sum(p.numel() for name, p in model.named_parameters() if name.endswith("bias")) == 26_114


@pytest.mark.slow
def test_a_gguf_file_gives_the_shape_of_the_registry() -> None:
    from transformers import AutoConfig

    for name in ("smollm2-135m", "gemma3-270m"):
        spec = load_spec(name)
        found = AutoConfig.from_pretrained(checkpoint_dir(spec)).to_dict()
        # GGUF keeps numbers in single precision.
        assert {key: found[key] for key in spec.config} == pytest.approx(spec.config, rel=1e-6)
