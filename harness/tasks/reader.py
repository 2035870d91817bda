"""How a file becomes rows of named columns, as a part of a task's YAML file."""

from __future__ import annotations

import codecs
import difflib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from harness.errors import InputError
from harness.tasks.templates import Expression
from harness.trial import Frozen

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".xml": "xml",
}

#: Endings of compressed files; what is compressed is told by the content.
COMPRESSED = (".gz", ".xz", ".bz2")

_SEPARATED = ("csv", "tsv")
_TEXTS = (*_SEPARATED, "json", "jsonl", "lines", "text")
#: Option of the reader -> the formats that know it.
_OPTIONS = {
    "encoding": _TEXTS,
    "skip_lines": ("lines", "jsonl", *_SEPARATED),
    "columns": _SEPARATED,
    "delimiter": _SEPARATED,
    "quotes": _SEPARATED,
    "records": ("json", "xml"),
}

_ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "cp1250", "cp1251")


def _encoding(name: str) -> str:
    try:
        codecs.lookup(name)
        b"a".decode(name, "ignore")  # refuses what Python calls a codec and is no encoding of text, such as hex
    except LookupError:
        near = difflib.get_close_matches(name.lower(), _ENCODINGS, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"valid: {', '.join(_ENCODINGS)} and others"
        raise ValueError(f"unknown encoding '{name}'; {hint}") from None
    return name


class Reader(Frozen):
    """How a file becomes rows of named columns."""

    format: Literal["csv", "tsv", "json", "jsonl", "lines", "text", "parquet", "arrow", "xml"] | None = Field(
        None,
        description="null: told by the file's ending. 'arrow' is an Arrow stream or file (Feather); 'text' takes each "
        "text file of a folder as one row; files compressed with gzip, xz or bzip2 are read as they are",
    )
    file: str | None = Field(None, description="file that splits without one of their own are drawn from")
    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"
    skip_lines: int = Field(0, ge=0, description="lines to leave out at the start of a text format")
    columns: tuple[str, ...] = Field((), description="names of the columns of a CSV or TSV file without a header")
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="the sign between values; null: a comma, or a tab in TSV files"
    )
    quotes: bool | None = Field(
        None,
        description="whether double quotes enclose values; null: in CSV files, and in TSV files whose form shows it",
    )
    records: str | None = Field(
        None,
        min_length=1,
        description="'json': dotted path to the list of rows inside the file, such as data.items; 'xml': name of the "
        "elements that are rows",
    )
    pattern: Expression | None = Field(None, description="'lines': expression whose named groups are the fields")
    missing: tuple[str, ...] = Field(
        ("nan", "NaN", "NaT", "None", "<NA>"),
        description="texts that stand for a missing value, unless they are a label; null, None and NaN always do",
    )
    lists_as_text: bool = Field(False, description="take a text such as \"['a', 'b']\" for a text, not for a list")
    max_left_out: float = Field(
        0.1, ge=0, le=1, description="share of a file's rows that may be left out; beyond it, nothing is planned or run"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.format == "lines") != (self.pattern is not None):
            raise ValueError("'pattern' belongs to format 'lines', and that format needs it")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("columns: a name is there twice")
        if self.delimiter is not None and self.delimiter in '"\r\n':
            raise ValueError("delimiter: a quotation mark or a line break cannot separate values")
        return self

    def format_of(self, path: Path) -> str:
        """The format that a file is read as.

        Raises :class:`harness.errors.InputError` if neither the reader nor the ending of the name tells it, and for an
        option that this format does not have.
        """
        plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
        kind = self.format or FORMATS.get(plain.suffix.lower())
        if kind is None:
            raise InputError(f"{path}: the file's ending names no format; {_hint(plain.suffix.lower())}")
        if kind == "xml" and self.records is None:
            raise InputError(f"{path}: set reader.records to the name of the elements that are rows")
        for option, formats in _OPTIONS.items():
            if option in self.model_fields_set and kind not in formats:
                raise InputError(
                    f"{path}: reader.{option} belongs to {', '.join(formats)}, and this file is read as {kind}"
                )
        return kind


def _hint(ending: str) -> str:
    match ending:
        case ".txt" | ".text" | ".md" | "":
            return (
                "for columns set reader.format: tsv or csv; for a text in each line set reader.format: lines and "
                "reader.pattern: '(?P<text>.+)'; for a folder of texts give the folder"
            )
        case ".xls" | ".xlsx" | ".ods":
            return "save the sheet as a CSV file"
        case ".zip" | ".zst" | ".tar" | ".tgz" | ".7z" | ".rar":
            return f"unpack it first (of compressed files, {', '.join(COMPRESSED)} are read as they are)"
        case _:
            return f"set reader.format or use one of {', '.join(FORMATS)}"
