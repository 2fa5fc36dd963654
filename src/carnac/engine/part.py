"""A part while it is written: rows to a hidden temporary file, ledger to its footer, one rename (or PUT) commits.

A record is tried through `Part.attempt`: what it raises costs the record, what it does to the process its guard sees.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from pprint import pformat
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from carnac.core.errors import CarnacError, InputError, RecordError, RunError
from carnac.core.places import Place, below
from carnac.engine.journal import Watch, record_key
from carnac.engine.ledger import LEDGER_KEY, Ledger, Quarantined, read_ledger
from carnac.engine.spool import spool_path
from carnac.engine.storage import commit, make_folder, make_scratch, remove, temporary_path
from carnac.engine.unit import Stage, Unit

MAX_DETAIL = 500  # characters of what is kept of why a record was lost
EARLY = 10  # times the fewest losses that count: so many end a unit before its end, even if the rest were sound
MAX_SHOWN = 20_000  # characters of a record's result that a terminal can take
P = ParamSpec("P")
T = TypeVar("T")


class Lost(Enum):
    """What `Part.attempt` returns for a record that was lost: None may be a sound result."""

    LOST = "lost"


LOST: Literal[Lost.LOST] = Lost.LOST


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

    def __init__(self, stage: Stage, unit: Unit, folder: Place, watch: Watch | None = None) -> None:
        self._stage, self._unit, self._folder = stage, unit, folder
        self._watch = watch or Watch.nobody()
        self._columns = set(stage.schema.names)
        self._final: Place = folder / unit.file_name
        self._temporary = temporary_path(self._final)
        self._beside: list[tuple[Path, Place]] = []
        self._spool: Path | None = None
        self._trial_spool: Path | None = None
        self._sizes: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._num_rows = 0
        self._counts: Counter[str] = Counter()
        self._quarantine: list[Quarantined] = []
        self._reasons: Counter[str] = Counter()  # of what was lost
        self._started = time.perf_counter()
        self._file = _DigestingFile(self._temporary)
        # zstd: about a third smaller than snappy on text at the same reading speed.
        self._writer = pq.ParquetWriter(self._file, stage.schema, compression="zstd")

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; the order of calls is the order of rows. A column left out is null."""
        assert row.keys() <= self._columns, f"no columns {row.keys() - self._columns} in {self._stage.name}"
        self._watch.journal.note_life(self._watch.limits)
        self._rows.append(row)
        if len(self._rows) >= self._stage.rows_per_group:
            self._flush()

    def write_table(self, table: pa.Table) -> None:
        """Append the rows of a table as one or more row groups."""
        self._flush()
        self._watch.journal.note_life(self._watch.limits)
        self._num_rows += table.num_rows
        self._writer.write_table(table.cast(self._stage.schema), row_group_size=self._stage.rows_per_group)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a count of the ledger."""
        self._watch.journal.note_life(self._watch.limits)
        self._counts[name] += number

    def attempt(
        self, record: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T | Literal[Lost.LOST]:
        """Return what `function` makes of a record, or LOST after quarantining it with its reason.

        `record` names it in its unit, once. Lost is a record that raises (its reason: that of a RecordError, else
        `raised`), and one known to kill its process. What is no fault of the record goes on: an OSError with a number
        (the disk), a CarnacError. Raises RunError when too many records are lost.
        """
        watch, key = self._watch, record_key(record)
        if (culprit := watch.culprits.get(key)) is not None:
            self.quarantine(record, culprit.reason, culprit.detail)
            return LOST
        if watch.only is not None and key != watch.only:
            return LOST
        watch.journal.begin(record, _size_of(args), watch.limits)
        try:
            made = function(*args, **kwargs)
        except MemoryError:
            raise  # the record stays in flight: its guard tries it alone
        except Exception as error:
            watch.journal.land(watch.limits)
            if watch.tells:
                traceback.print_exc()
            # Libraries raise an OSError without a number for bytes that they cannot decode (PIL, fastwarc).
            if isinstance(error, CarnacError) or (isinstance(error, OSError) and error.errno is not None):
                raise
            is_known = isinstance(error, RecordError)
            reason, detail = error.args if is_known else ("raised", what_raised(error))
            self.quarantine(record, reason, detail)
            return LOST
        watch.journal.land(watch.limits)
        watch.journal.count_tried()
        if watch.tells:
            text = pformat(made, width=120)
            print(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} ... ({len(text):,} characters)")
        return made

    def is_wanted(self, record: str) -> bool:
        """Say whether `record` is to be tried: of a unit one record of which is tried alone, only that one is."""
        return self._watch.only in (None, record_key(record))

    def quarantine(self, record: str, reason: str, detail: str = "", *, is_loss: bool = True) -> None:
        """Note a lost record; it is also counted under `lost.<reason>`.

        With `is_loss` False it says nothing of the run's health: it was left out, not lost. Raises RunError when far
        too many are lost already; whether too many are is judged when the unit is done.
        """
        self._quarantine.append(Quarantined(record=record, reason=reason, detail=detail[:MAX_DETAIL]))
        self._counts[f"lost.{reason}"] += 1
        journal, limits = self._watch.journal, self._watch.limits
        journal.note_life(limits)
        if is_loss and self._watch.only in (None, record_key(record)):
            journal.count_tried()
            journal.count_lost()
            self._reasons[reason] += 1
            self._check_budget(limits.min_lost * EARLY)

    def _check_budget(self, min_lost: int) -> None:
        journal, max_share = self._watch.journal, self._watch.limits.max_lost_share
        if journal.lost >= min_lost and journal.lost > max_share * journal.tried:
            raise RunError(budget_sentence(journal.tried, self._reasons, self._quarantine, max_share))

    def beside(self, folder: Place, suffix: str) -> Path:
        """Return a temporary path for a file that is committed just before the part as `folder/UNIT-KEY16<suffix>`.

        `folder` is the part's own or lies in it.
        """
        if self._watch.only is not None:
            folder = self._folder  # nothing is committed: the folder may be one that must not be written to
        make_folder(folder)
        final = folder / f"{self._unit.stem}{suffix}"
        temporary = temporary_path(final)
        self._beside.append((temporary, final))
        return temporary

    def spool(self) -> Path:
        """Return where to spool what the unit receives: it outlives this process, and goes once the part is there.

        Another attempt at the unit finds it again (on the same machine, where the part goes to a store).
        """
        # A record that is tried alone after it killed its process lies in the spool. Without one nothing is to be left:
        # nothing is committed, and the folder may be one that must not be written to.
        if self._watch.only is not None and not spool_path(self._final).exists():
            self._trial_spool = make_scratch() / temporary_path(self._final).name
            return self._trial_spool
        self._spool = spool_path(self._final)
        return self._spool

    def needs(self, file: Path) -> None:
        """Note a file in the part's folder, already written, without which the unit is not done."""
        self._sizes[below(file, self._folder)] = file.stat().st_size

    def _flush(self) -> None:
        self._watch.journal.note_life(self._watch.limits)
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._stage.schema))
            self._num_rows += len(self._rows)
            self._rows.clear()

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or self._watch.only is not None:
            self._abandon()
            return
        try:
            self._commit()
        except BaseException:
            self._abandon()
            raise

    def _commit(self) -> None:
        self._check_budget(self._watch.limits.min_lost)
        self._flush()
        for temporary, final in self._beside:
            self._sizes[below(final, self._folder)] = temporary.stat().st_size
        digest = self._file.digest.copy()
        rows_digest = digest.hexdigest()
        digest.update(self._stage.schema.serialize())  # whole: str() cuts long metadata, such as names of reasons
        ledger = Ledger(
            stage=self._stage.name,
            version=self._stage.version,
            unit=self._unit.name,
            key=self._unit.key,
            digest=digest.hexdigest(),
            rows_digest=rows_digest,
            rows=self._num_rows,
            seconds=round(time.perf_counter() - self._started, 3),
            counts=dict(sorted(self._counts.items())),
            beside=dict(sorted(self._sizes.items())),
            quarantine=tuple(self._quarantine),
        )
        self._writer.add_key_value_metadata({LEDGER_KEY.decode(): ledger.to_json()})
        self._writer.close()
        self._file.close()
        if self._beside and self._replaces_another(ledger.digest):
            remove(self._final)  # its rows must not stand, not even for a moment, over the new files
        for temporary, final in self._beside:
            commit(temporary, final)
        commit(self._temporary, self._final)
        if self._spool is not None:
            self._spool.unlink(missing_ok=True)

    def _replaces_another(self, digest: str) -> bool:
        """Say whether a part of this unit with other rows is there: what is fetched may come out otherwise."""
        try:
            return read_ledger(self._final).digest != digest
        except InputError:  # none, or a damaged one
            return False

    def _abandon(self) -> None:
        # The disk that refused the rows refuses the footer too; the file goes away all the same.
        with contextlib.suppress(OSError, pa.ArrowException):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()
        trial = () if self._trial_spool is None else (self._trial_spool,)
        for temporary in (self._temporary, *trial, *(temporary for temporary, _ in self._beside)):
            with contextlib.suppress(OSError):
                temporary.unlink()


def budget_sentence(tried: int, reasons: Counter[str], samples: Sequence[Quarantined], max_share: float) -> str:
    """Return what is wrong: of the records `tried` so many were lost, for `reasons`, such as `samples`."""
    commonest = ", ".join(f"{number:,} {reason}" for reason, number in reasons.most_common(3))
    examples = {lost.reason: f"{lost.record} {lost.detail}".strip() for lost in samples}
    such = "; ".join(f"{reason}: {examples[reason]}" for reason, _ in reasons.most_common(3) if reason in examples)
    return (
        f"{reasons.total():,} of {tried:,} records were lost ({commonest}); at most {max_share:.0%} may be. "
        f"{f'Such as {such}. ' if such else ''}Mend what is wrong, or raise limits.max_lost_share in the recipe."
    )


def _size_of(args: tuple[Any, ...]) -> int:
    """Return the bytes of a record: of its payload, where an argument has one."""
    for value in args:
        payload = value if isinstance(value, bytes) else getattr(value, "payload", None)
        if isinstance(payload, bytes):
            return len(payload)
    return 0


def what_raised(error: BaseException) -> str:
    """Return "KIND: MESSAGE (FILE:LINE)" of what was raised; of a long message its beginning."""
    try:
        message = str(error)
    except Exception as worse:  # noqa: BLE001 -- a library's error that cannot even be printed
        message = f"its message raised {type(worse).__name__}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"
    # The place is last and counts most: the quarantine keeps MAX_DETAIL characters.
    return f"{type(error).__name__}: {message[: MAX_DETAIL - 100]}{where}"
