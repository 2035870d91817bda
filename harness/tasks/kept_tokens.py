"""Token ids of large training splits, kept in the cache as Arrow: they are the same in every trial of a sweep.

One example takes about a millisecond. The 42,000 of E2E NLG take 37 s in each trial, and half a second from the cache;
a few hundred take no longer than looking for them would.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import feather

from harness.errors import InputError
from harness.sources import cache
from harness.tasks import encode
from harness.tasks.encode import Encoded, encode_examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.tasks.data import Example

#: Fewer examples are not kept.
WORTH_KEEPING = 2_000
#: Above it, splits that were kept first are removed.
LARGEST_BYTES = 2 * 2**30

_FILE = "tokens.arrow"
_SCHEMA = pa.schema({"prompt": pa.large_list(pa.int32()), "completion": pa.large_list(pa.int32()), "cut": pa.bool_()})


def encode_once(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    max_length: int,
    max_new_tokens: int,
    apart: bool = False,
) -> list[Encoded]:
    """:func:`harness.tasks.encode.encode_examples`, from the cache where it holds exactly these.

    Several processes may ask at once. A damaged file is made anew; a cache that cannot be used is done without.
    """

    def rows() -> list[Encoded]:
        return encode_examples(tokenizer, examples, max_length, max_new_tokens, apart)

    # A slow tokenizer does not say all that its ids depend on.
    if len(examples) < WORTH_KEEPING or not tokenizer.is_fast:
        return rows()
    folder = place(tokenizer, examples, max_length, max_new_tokens, apart)
    try:
        cache.build_once(folder, lambda part: _write(part / _FILE, rows()), verify=True)
        kept = _read(folder / _FILE)
        _keep_bound(folder)
    except (InputError, OSError, pa.ArrowException):
        return rows()
    return kept


def place(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int, max_new_tokens: int, apart: bool
) -> Path:
    """The folder of these ids; its name follows from all that they depend on."""
    digest = hashlib.sha256()
    for part in (_about(tokenizer), [max_length, max_new_tokens, apart]):
        digest.update(json.dumps(part, sort_keys=True).encode())
    for example in examples:
        digest.update(json.dumps([example.prompt, example.completion, example.candidates]).encode())
    return cache.root() / "tokens" / digest.hexdigest()[:32]


def _about(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """Everything in code, libraries and tokenizer that ids follow from."""
    code = Path(encode.__file__).read_bytes()
    whole: Any = tokenizer
    return [
        hashlib.sha256(code).hexdigest(),
        *(metadata.version(library) for library in ("transformers", "tokenizers")),
        type(tokenizer).__name__,
        whole.backend_tokenizer.to_str(),
        {name: str(value) for name, value in tokenizer.special_tokens_map.items()},
        tokenizer.chat_template,
    ]


def _write(path: Path, rows: Sequence[Encoded]) -> None:
    columns = {name: [getattr(row, name) for row in rows] for name in _SCHEMA.names}
    feather.write_feather(pa.table(columns, schema=_SCHEMA), path, compression="zstd")


def _read(path: Path) -> list[Encoded]:
    columns = feather.read_table(path, memory_map=False).to_pydict()
    prompts, completions = (map(tuple, columns[name]) for name in ("prompt", "completion"))
    return [Encoded(*row) for row in zip(prompts, completions, columns["cut"], strict=True)]


def _keep_bound(newest: Path) -> None:
    """Remove the splits that were kept first until the others fit; ``newest`` stays."""
    folders = [folder for folder in newest.parent.iterdir() if (folder / _FILE).is_file() and folder != newest]
    sizes = {folder: (folder / _FILE).stat() for folder in folders}
    left = sum(size.st_size for size in sizes.values()) + (newest / _FILE).stat().st_size
    for folder in sorted(folders, key=lambda one: sizes[one].st_mtime):
        if left <= LARGEST_BYTES:
            return
        left -= sizes[folder].st_size
        shutil.rmtree(folder, ignore_errors=True)
