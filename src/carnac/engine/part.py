"""A part while it is written: rows to a hidden temporary file, ledger to its footer, one rename commits.

Whatever dies before the rename leaves a temporary file that the next run sweeps; what dies after it has lost nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
import uuid
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from carnac.core.errors import OutputError
from carnac.engine.ledger import LEDGER_KEY, Ledger, Quarantined
from carnac.engine.unit import KEY_CHARACTERS, Stage, Unit


def temporary_path(final: Path) -> Path:
    """Return a name beside `final` that no other attempt uses: `.NAME.HOST.PID.RANDOM.tmp`."""
    return final.with_name(f".{final.name}.{_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")


def _host() -> str:
    # One field of a temporary name: with its dots, host `a` would take the live files of host `b.a` for its own.
    return os.uname().nodename.replace(".", "_")


def sweep(folder: Path) -> int:
    """Remove temporary files that processes of this host left when they died. Return how many."""
    swept = 0
    for path in folder.rglob(".*.tmp"):
        fields = path.name.removesuffix(".tmp").rsplit(".", 3)
        if len(fields) != 4 or fields[1] != _host() or not fields[2].isdecimal():
            continue
        if not _is_alive(int(fields[2])):
            path.unlink(missing_ok=True)
            swept += 1
    return swept


def _is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return False
    return state not in (b"Z", b"X")  # in a container whose first process fetches no orphans, the dead stay as zombies


def commit(temporary: Path, final: Path) -> None:
    """Make `temporary` durable under its final name: flush, one rename, flush of the folder."""
    _flush_to_disk(temporary, os.O_RDONLY)
    temporary.replace(final)
    _flush_to_disk(final.parent, os.O_RDONLY | os.O_DIRECTORY)


def _flush_to_disk(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(final: Path, content: bytes) -> None:
    """Write a small file whole or not at all."""
    temporary = temporary_path(final)
    try:
        temporary.write_bytes(content)
        commit(temporary, final)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OutputError(
            f"{final}: cannot be written ({error.strerror}). Free space or choose another output."
        ) from error


class _DigestingFile(io.RawIOBase):
    """A write-only file that hashes what passes through, so that the content digest costs no second read."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class Part:
    """The output of one unit: `write` rows, `count` things, `quarantine` records. Leaving the block commits it.

    Leaving it through an exception abandons it and removes its temporary files.
    """

    def __init__(self, stage: Stage, unit: Unit, folder: Path) -> None:
        self._stage, self._unit = stage, unit
        self._columns = set(stage.schema.names)
        self._final = folder / unit.file_name
        self._temporary = temporary_path(self._final)
        self._beside: list[tuple[Path, Path]] = []
        self._sizes: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._num_rows = 0
        self._counts: Counter[str] = Counter()
        self._quarantine: list[Quarantined] = []
        self._started = time.perf_counter()
        self._file = _DigestingFile(self._temporary)
        # zstd: about a third smaller than snappy on text at the same reading speed.
        self._writer = pq.ParquetWriter(self._file, stage.schema, compression="zstd")

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; the order of calls is the order of rows. A column left out is null."""
        assert row.keys() <= self._columns, f"no columns {row.keys() - self._columns} in {self._stage.name}"
        self._rows.append(row)
        if len(self._rows) >= self._stage.rows_per_group:
            self._flush()

    def write_table(self, table: pa.Table) -> None:
        """Append the rows of a table as one or more row groups."""
        self._flush()
        self._num_rows += table.num_rows
        self._writer.write_table(table.cast(self._stage.schema), row_group_size=self._stage.rows_per_group)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a count of the ledger."""
        self._counts[name] += number

    def quarantine(self, record: str, reason: str, detail: str = "") -> None:
        """Note a lost record; it is also counted under `lost.<reason>`."""
        self._quarantine.append(Quarantined(record=record, reason=reason, detail=detail[:500]))
        self._counts[f"lost.{reason}"] += 1

    def beside(self, folder: Path, suffix: str) -> Path:
        """Return a temporary path for a file that is committed just before the part as `folder/UNIT-KEY16<suffix>`.

        `folder` is the part's own or lies in it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        final = folder / f"{self._unit.name}-{self._unit.key[:KEY_CHARACTERS]}{suffix}"
        temporary = temporary_path(final)
        self._beside.append((temporary, final))
        return temporary

    def needs(self, file: Path) -> None:
        """Note a file in the part's folder, already written, without which the unit is not done."""
        self._sizes[file.relative_to(self._final.parent).as_posix()] = file.stat().st_size

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._stage.schema))
            self._num_rows += len(self._rows)
            self._rows.clear()

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            self._commit()
        except BaseException:
            self._abandon()
            raise

    def _commit(self) -> None:
        self._flush()
        for temporary, final in self._beside:
            self._sizes[final.relative_to(self._final.parent).as_posix()] = temporary.stat().st_size
        digest = self._file.digest.copy()
        digest.update(self._stage.schema.serialize())  # whole: str() cuts long metadata, such as names of reasons
        ledger = Ledger(
            stage=self._stage.name,
            version=self._stage.version,
            unit=self._unit.name,
            key=self._unit.key,
            digest=digest.hexdigest(),
            rows=self._num_rows,
            seconds=round(time.perf_counter() - self._started, 3),
            counts=dict(sorted(self._counts.items())),
            beside=dict(sorted(self._sizes.items())),
            quarantine=tuple(self._quarantine),
        )
        self._writer.add_key_value_metadata({LEDGER_KEY.decode(): ledger.to_json()})
        self._writer.close()
        self._file.close()
        for temporary, final in self._beside:
            commit(temporary, final)
        commit(self._temporary, self._final)

    def _abandon(self) -> None:
        # The disk that refused the rows refuses the footer too; the file goes away all the same.
        with contextlib.suppress(OSError, pa.ArrowException):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()
        for temporary in (self._temporary, *(temporary for temporary, _ in self._beside)):
            with contextlib.suppress(OSError):
                temporary.unlink()
