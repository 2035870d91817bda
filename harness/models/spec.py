"""A base model as data: what it is, where it comes from, and how large it is.

Nothing here imports torch; :mod:`harness.models.checkpoint` turns a specification into a folder, and
:mod:`harness.models.load` turns that folder into a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache as once
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from harness import specfile
from harness.catalog import ModelKind
from harness.errors import InputError, unknown
from harness.models import configuration
from harness.sources import own_files
from harness.sources.fetch import HubSource, LocalSource, PackageSource, PartsSource, kind_of
from harness.trial import Frozen

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class RandomSource(Frozen):
    """Random weights: for memory, speed and latency; their quality means nothing."""

    random: Literal[True]


def _kind(value: Any) -> str | None:
    return kind_of(value, ("package", "parts", "hub", "local", "random"))


ModelSource = Annotated[
    Annotated[PackageSource, Tag("package")]
    | Annotated[PartsSource, Tag("parts")]
    | Annotated[HubSource, Tag("hub")]
    | Annotated[LocalSource, Tag("local")]
    | Annotated[RandomSource, Tag("random")],
    Discriminator(
        _kind,
        custom_error_type="source",
        custom_error_message="a source needs one of the keys package, parts, hub, local, random",
    ),
]


class ModelSpec(Frozen):
    """One base checkpoint at one size."""

    name: str
    family: str = Field(description="series whose sizes make a ladder, such as pythia")
    architecture: str = Field(description="model_type of transformers, such as gpt_neox")
    kind: ModelKind
    params: int | None = Field(None, gt=0, description="parameters, tied ones once; null: not known before loading")
    license: str | None = None
    description: str = ""
    chat: bool = Field(False, description="trained on dialogues, with a chat template")
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="shape: what differs from the architecture's defaults in transformers"
    )
    source: ModelSource
    folder: str = Field("", description="folder inside the source that holds config.json")
    gguf: str | None = Field(None, description="GGUF file inside the source, to be converted once")
    note: str | None = Field(None, description="what a reader of the results has to know about these weights")

    @property
    def is_random(self) -> bool:
        """Whether the weights are random, so that quality means nothing."""
        return isinstance(self.source, RandomSource)

    @property
    def remark(self) -> str | None:
        """A remark about these weights for a row of the results."""
        return "random weights: no quality is recorded" if self.is_random else self.note

    @property
    def is_pinned(self) -> bool:
        """Whether the name fixes the weights for good, as a stored comparison requires."""
        if isinstance(self.source, HubSource):
            return self.source.is_pinned
        return not isinstance(self.source, LocalSource)

    @property
    def address(self) -> str:
        """How :func:`load_spec` finds these weights from any folder: a path, a commit of the hub, else the name."""
        match self.source:
            case LocalSource() if self.is_own:
                return self.source.local
            case HubSource():
                base = self.name.partition("@")[0]
                known = _registry().get(base)
                if known is None:
                    return f"{own_files.HUB}{self.source.hub}@{self.source.revision}"
                return self.name if known.source == self.source else f"{base}@{self.source.revision}"
            case _:
                return self.name

    def pinned(self) -> ModelSpec:
        """This model at the commit that its revision is now; itself if its revision cannot move.

        Raises :class:`harness.errors.InputError` if the hub refuses, or cannot be reached and its cache has no commit.
        """
        if not isinstance(self.source, HubSource) or self.source.is_pinned:
            return self
        folder = _configured(self.source, f"model: '{self.name}': {self.source.hub}@{self.source.revision}")
        return self.model_copy(update={"source": self.source.model_copy(update={"revision": folder.name})})

    @property
    def is_own(self) -> bool:
        """Whether it is a folder of the user's own rather than a model of the registry."""
        return isinstance(self.source, LocalSource) and Path(self.source.local).is_absolute()

    def revision(self) -> str | None:
        """Which weights these are: a hub revision, or 12 digits of a SHA-256; None for random ones.

        The hash of an own folder covers its configuration, tokenizer and safetensors. A model of the registry below
        ``$TUNEBENCH_DATA`` has none. Raises :class:`harness.errors.InputError` for a file that cannot be read.
        """
        match self.source:
            case HubSource():
                return self.source.revision
            case PackageSource() | PartsSource():
                return self.source.sha256[:12]
            case LocalSource() if self.is_own:
                return _content(Path(self.source.local))
            case _:
                return None

    def transformers_config(self, **changes: Any) -> PretrainedConfig:
        """The model's shape, with ``changes`` such as ``num_labels``; it needs neither weights nor a network.

        The shape is enough to count and to estimate. Weights come with a ``config.json`` of their own, which says more.
        """
        from transformers import AutoConfig

        if isinstance(self.source, LocalSource):
            return read_config(Path(self.source.local), **changes).get_text_config()
        return AutoConfig.for_model(self.architecture, **{**self.config, **changes})


def read_config(folder: Path, **changes: Any) -> PretrainedConfig:
    """The shape that the ``config.json`` of a checkpoint says, with ``changes``; code beside it never runs.

    Raises :class:`harness.errors.InputError` for an architecture that transformers does not know, and for values that
    are no shape.
    """
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, **changes)
    except Exception as error:  # transformers checks little, so whatever a value leads to
        raise unreadable(folder / "config.json", error) from error
    return config


#: Characters of what a library says that are told.
_MOST_OF_A_REASON = 300


def unreadable(path: Path, error: Exception) -> InputError:
    """What a library says about a file of a checkpoint, in one line."""
    text = " ".join(str(error).split())
    if "custom code" in text or "does not recognize this architecture" in text:
        reason = "this transformers knows no such architecture, and code that comes with a checkpoint never runs"
    else:
        reason = text[:_MOST_OF_A_REASON] or type(error).__name__
    return InputError(f"model: {path}: {reason}")


#: Files of a checkpoint: no pickled weights, which are never read.
CHECKPOINT_FILES = ("*.json", "*.jinja", "*.model", "*.safetensors", "merges.txt", "vocab.txt")
#: Weights as ``from_pretrained`` finds them; a repository may hold them in other forms, too.
HUB_WEIGHTS = "model*.safetensors"
#: Files of a checkpoint that are fetched from the hub.
HUB_FILES = (*(pattern for pattern in CHECKPOINT_FILES if "safetensors" not in pattern), HUB_WEIGHTS)
#: Parts of a ``config.json`` that say nothing about the shape, and that a task may contradict.
_NO_SHAPE = ("model_type", "id2label", "label2id", "transformers_version", "auto_map")


def _content(folder: Path) -> str:
    """A digest of the files of an own checkpoint."""
    files = {path.name: path for pattern in CHECKPOINT_FILES for path in folder.glob(pattern) if path.is_file()}
    try:
        return own_files.digest(files.items())
    except OSError as error:
        raise InputError(f"model: {error.filename or folder}: cannot be read: {error.strerror}") from error


_REGISTRY = Path(__file__).with_name("registry.yaml")


@once
def _registry() -> dict[str, ModelSpec]:
    return {
        name: specfile.parse(ModelSpec, {"name": name, **entry}, f"{_REGISTRY.name}: {name}")
        for name, entry in specfile.read_yaml(_REGISTRY).items()
    }


def names() -> tuple[str, ...]:
    """Names of the models of the registry, in its order: small to large within a family."""
    return tuple(_registry())


def load_spec(name: str) -> ModelSpec:
    """The model called ``name``, or the one in a local folder with a ``config.json`` if ``name`` is a path.

    A relative path is relative to the current folder; the folder's base name becomes the model's name. ``name@random``
    has the same shape with random weights. ``name@revision`` takes another revision of a hub model than the registry
    does. ``hub:ORG/NAME[@REVISION]``, and ``ORG/NAME`` where no such folder exists, is a model of the hub: its
    ``config.json`` is fetched, and its revision becomes a commit. Raises :class:`harness.errors.InputError` for an
    unknown name (with the nearest one), for a folder without a model, and for what the hub does not give.
    """
    if name.startswith(own_files.HUB):
        return _of_hub(name.removeprefix(own_files.HUB), "model: hub:")
    if own_files.is_model_path(name):
        folder = Path(name).expanduser()
        if own_files.may_be_of_hub(name) and not folder.exists():
            return _of_hub(name, f"model: there is no folder '{folder}', and hub:")
        return _local(folder)
    base, _, revision = name.partition("@")
    if base not in _registry():
        raise unknown("model", base, _registry())
    spec = _registry()[base]
    if not revision:
        return spec
    if revision == "random":
        changes = {"source": RandomSource(random=True), "folder": "", "gguf": None, "note": None, "chat": False}
        return spec.model_copy(update={"name": name, **changes})
    if not isinstance(spec.source, HubSource):
        raise InputError(f"model: '{name}': only a hub model has revisions")
    return spec.model_copy(update={"name": name, "source": spec.source.model_copy(update={"revision": revision})})


def at_path(model: str) -> ModelSpec:
    """:func:`load_spec`, also for the path of a ``config.json`` itself."""
    path = Path(model).expanduser()
    return load_spec(str(path.parent.absolute()) if path.name == "config.json" else model)


def _local(folder: Path) -> ModelSpec:
    place = own_files.absolute(folder)
    return _described(place.name, _checked(folder), LocalSource(local=str(place)))


def _of_hub(name: str, where: str) -> ModelSpec:
    """The model ``name`` of the hub, ORG/NAME[@REVISION]; a message begins with ``where`` and the name."""
    repository, _, revision = name.partition("@")
    try:
        source = HubSource(hub=repository, revision=revision or "main")
    except ValueError as error:
        raise InputError(
            f"{where}{name}: not the name of a model; valid: hub:ORG/NAME or hub:ORG/NAME@REVISION"
        ) from error
    folder = _configured(source, f"{where}{repository}@{source.revision}")
    config = _checked(folder)
    spec = _described(name, config, source.model_copy(update={"revision": folder.name}))
    return spec.model_copy(update={"config": {key: config[key] for key in config if key not in _NO_SHAPE}})


def _configured(source: HubSource, where: str) -> Path:
    """The folder of the hub's cache, named like its commit, that holds the model's ``config.json``."""
    from harness.sources import hub

    listing = None if source.is_pinned else hub.look(source.hub, source.revision, where=where)
    if listing is not None and listing.has("config.json") and not listing.has(HUB_WEIGHTS):
        raise InputError(
            f"{where}: has no {HUB_WEIGHTS}, and pickled weights are never read; valid: a revision that has, such as "
            "a conversion, refs/pr/NUMBER"
        )
    # By the name and not by the listing's commit: so the cache knows what the name stood for when there is no network.
    folder = hub.snapshot(source.hub, source.revision, ("config.json",), where=where, quiet=True)
    if not (folder / "config.json").is_file():
        raise InputError(f"{where}: has no config.json, so it is not a model for transformers (an adapter has none)")
    return folder


def _checked(folder: Path) -> dict[str, Any]:
    """The configuration in ``folder``, of its part for text, when all that lies there can be trusted to be read."""
    _check_files(folder)
    config = configuration.read(folder)
    if (code := next(_outside_code(config), None)) is not None:
        path = folder / "config.json"
        raise InputError(f"model: {path}: '{code}' is code from elsewhere, which never runs; take that line out")
    return _text_part(config)


def _described(name: str, config: dict[str, Any], source: LocalSource | HubSource) -> ModelSpec:
    """What a ``config.json`` says about a model that the registry does not know."""
    architecture = str(config["model_type"])
    return ModelSpec(name=name, family=architecture, architecture=architecture, kind=_kind_of(config), source=source)


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    """The part for text of the ``config.json`` of a model that reads pictures or sounds, too; else all of it."""
    part = config.get("text_config")
    return part if isinstance(part, dict) and "model_type" in part else config


def _check_files(folder: Path) -> None:
    """Raise InputError for what is no file, nor a link to one: a pipe is read without end."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.is_file() and not path.is_dir():
            what = "a link that leads nowhere or to no file" if path.is_symlink() else "not a regular file"
            raise InputError(f"model: {path}: is {what}; a checkpoint has files alone")
    if (folder / "adapter_config.json").exists():  # transformers would load that other model, wherever it is
        raise InputError(f"model: {folder}: is an adapter of another model; merge it into that model first")


def _outside_code(config: Any) -> Iterator[str]:
    """Implementations of layers that a configuration would have transformers load from a repository."""
    for name, value in config.items() if isinstance(config, dict) else ():
        if name.endswith("_implementation") and isinstance(value, str) and "/" in value:
            yield value
        yield from _outside_code(value)


_ENCODERS = frozenset(
    {
        "albert",
        "bert",
        "camembert",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "modernbert",
        "mpnet",
        "roberta",
        "xlm-roberta",
    }
)


def _kind_of(config: dict[str, Any]) -> ModelKind:
    if config.get("is_encoder_decoder"):
        return "encoder_decoder"
    return "encoder" if config["model_type"] in _ENCODERS and not config.get("is_decoder") else "decoder"
