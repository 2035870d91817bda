"""Tables on disk: written batch by batch, read as data frames, as much of them as is wanted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from harness.errors import InputError
from harness.files import TABLES_DIR, part_of
from harness.results.columns import OLDEST_READABLE
from harness.results.schema import SCHEMA_VERSION, TABLES, Table
from harness.results.validate import validate

#: The tables by name.
Tables = Mapping[str, pd.DataFrame]

_Result = TypeVar("_Result")


class TableFiles:
    """One table as Parquet and as CSV, under temporary names until :meth:`keep`."""

    def __init__(self, folder: Path, table: Table) -> None:
        self._finals = [folder / f"{table.name}.{ending}" for ending in ("parquet", "csv")]
        self._parts = [part_of(path) for path in self._finals]
        parquet, csv = self._parts
        self._writers = (
            pq.ParquetWriter(parquet, table.arrow, compression="zstd"),
            pyarrow.csv.CSVWriter(csv, table.arrow),
        )

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows; in the CSV, no text is a formula of a spreadsheet."""
        parquet, csv = self._writers
        parquet.write_batch(batch)
        csv.write_batch(pa.record_batch([_no_formula(column) for column in batch.columns], schema=batch.schema))

    def close(self) -> None:
        """Write what is left."""
        for writer in self._writers:
            writer.close()

    def keep(self) -> None:
        """Give the closed files their names: a reader sees an old file or a new one."""
        for part, final in zip(self._parts, self._finals, strict=True):
            part.replace(final)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, pa.ArrowException):
            self.close()
        for part in self._parts:
            part.unlink(missing_ok=True)


def _no_formula(column: pa.Array) -> pa.Array:
    """Texts that a spreadsheet would compute begin with an apostrophe, as if somebody had typed them as text."""
    if not pa.types.is_string(column.type):
        return column
    return pc.replace_substring_regex(column, pattern=r"\A([=+\-@\t\r\n＝＋－＠])", replacement=r"'\1")


class Stored(Tables):
    """The tables of a folder: each is read when it is first asked for, and kept."""

    def __init__(self, folder: Path) -> None:
        self._files = {name: folder / f"{name}.parquet" for name in TABLES}
        self._frames: dict[str, pd.DataFrame] = {}
        self._derived: dict[Hashable, Any] = {}
        for name, path in self._files.items():
            if path.exists():
                with _open(path) as file:
                    _check_columns(path, file.schema_arrow, TABLES[name], _version(file))
        if self._files["trials"].exists():
            self._check_trials()

    def _check_trials(self) -> None:
        """Hold what every statement rests on against the rules of its columns, as it was when it was written."""
        path, table = self._files["trials"], TABLES["trials"]
        stored = _complete(_all(path), table)
        try:
            validate(table, stored)
        except InputError as error:
            raise InputError(f"{path}: {error}; make the tables again") from error

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._frames:
            path = self._files[name]
            stored = _all(path) if path.exists() else TABLES[name].arrow.empty_table()
            self._frames[name] = _frame(_complete(stored, TABLES[name]))
        return self._frames[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a table, without reading it."""
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def put(self, name: str, frame: pd.DataFrame) -> None:
        """Add a table that is no file of the folder."""
        self._frames[name] = frame
        self._derived.clear()

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """See :func:`once`."""
        if key not in self._derived:
            self._derived[key] = compute()
        return self._derived[key]

    def where(self, name: str, trial_ids: Collection[str], equal: Mapping[str, Any]) -> pd.DataFrame:
        """See :func:`where`; only the rows that are wanted come to lie in memory."""
        if name in self._frames or not self._files[name].exists():
            return _where(self[name], trial_ids, equal)
        wanted = pa.array(list(trial_ids), type=pa.string())
        row_groups = []
        with _reading(self._files[name]), _open(self._files[name]) as file:
            for number in range(file.num_row_groups):
                keys = file.read_row_group(number, columns=["trial_id", *equal])
                mask = pc.is_in(keys["trial_id"], value_set=wanted)
                for column, value in equal.items():
                    mask = pc.and_(mask, pc.fill_null(pc.equal(keys[column], value), False))
                if pc.any(mask).as_py():
                    row_groups.append(file.read_row_group(number).filter(mask))
        stored = pa.concat_tables(row_groups) if row_groups else TABLES[name].arrow.empty_table()
        return _frame(_complete(stored, TABLES[name]))


def where(tables: Tables, name: str, trial_ids: Collection[str], **equal: Any) -> pd.DataFrame:
    """The rows of a long table that belong to these trials and have these values.

    Of stored tables, the rest is not even kept in memory: among ten thousand trials, that is gigabytes.
    """
    if isinstance(tables, Stored):
        return tables.where(name, trial_ids, equal)
    return _where(tables[name], trial_ids, equal)


def once(tables: Tables, key: Hashable, compute: Callable[[], _Result]) -> _Result:
    """What ``compute`` makes of these tables; of stored ones, which do not change, it is computed once.

    A report asks for the same rows and verdicts in two dozen sections. ``key`` names what is computed, and nobody may
    change the result.
    """
    found: _Result = tables.once(key, compute) if isinstance(tables, Stored) else compute()
    return found


def _where(frame: pd.DataFrame, trial_ids: Collection[str], equal: Mapping[str, Any]) -> pd.DataFrame:
    mask = frame.trial_id.isin(list(trial_ids))
    for column, value in equal.items():
        mask &= frame[column] == value
    return frame[mask].reset_index(drop=True)


def read(folder: Path) -> Stored:
    """The tables of a folder that holds ``tables/``, or is it, by name.

    Nullable integers come as float64 with NaN and nullable booleans as pandas' ``boolean``. A long table
    without a file is empty. Raises :class:`InputError` when there is no trials table, or a table has another
    schema version.
    """
    return Stored(find(folder))


def find(folder: Path) -> Path:
    """``folder/tables`` or ``folder``, whichever holds the trials table; else :class:`InputError`."""
    for candidate in (Path(folder) / TABLES_DIR, Path(folder)):
        if (candidate / "trials.parquet").is_file():
            return candidate
    raise InputError(f"{folder}: no tables here; make them with 'tunebench tables {folder}'")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what is wrong with the file into one line."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be read as Parquet: {what}; make the tables again") from error


def _all(path: Path) -> pa.Table:
    with _reading(path), _open(path) as file:
        return file.read()


def _open(path: Path) -> pq.ParquetFile:
    with _reading(path):
        file = pq.ParquetFile(path)
    version = _version(file)
    if version == _NO_VERSION:
        raise InputError(f"{path}: another program than TuneBench wrote it; make the tables again")
    if version not in _READABLE:
        raise InputError(
            f"{path}: schema version {version}, not {SCHEMA_VERSION}: another version of TuneBench wrote it; "
            "read it with that version, or run the sweep again"
        )
    return file


_NO_VERSION = "none"
_READABLE = tuple(map(str, range(OLDEST_READABLE, SCHEMA_VERSION + 1)))


def _version(file: pq.ParquetFile) -> str:
    return str((file.schema_arrow.metadata or {}).get(b"schema_version", _NO_VERSION.encode()).decode())


def _complete(stored: pa.Table, table: Table) -> pa.Table:
    """``stored`` with the columns that its version had not, in the order of ``table``."""
    for field in table.arrow:
        if field.name not in stored.column_names:
            values = [table.column(field.name).before] * stored.num_rows
            stored = stored.append_column(field, pa.array(values, type=field.type))
    return stored.select(table.arrow.names)


def _check_columns(path: Path, columns: pa.Schema, table: Table, version: str) -> None:
    for field in table.arrow:
        if field.name not in columns.names:
            is_known = field.nullable or table.column(field.name).before is not None
            if version != str(SCHEMA_VERSION) and is_known:
                continue  # it was added since
            raise InputError(f"{path}: the column '{field.name}' is missing; make the tables again")
        if (given := columns.field(field.name).type) != field.type:
            raise InputError(f"{path}: the column '{field.name}' is {given}, not {field.type}; make the tables again")


def _frame(data: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = data.to_pandas()
    for field in data.schema:
        if pa.types.is_boolean(field.type):
            frame[field.name] = frame[field.name].astype("boolean")
        elif pa.types.is_integer(field.type) and field.nullable:
            frame[field.name] = frame[field.name].astype("float64")
    return frame
