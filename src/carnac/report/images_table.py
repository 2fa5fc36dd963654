"""The table of images read once, in bounded memory: states, hosts, formats and sizes.

Flow in: the parts of `images/`. Flow out: an `ImageTable`. The job puts all URLs of a host into one part, so what is
said of a host is exact for all but the smallest: those are forgotten where more than `MAX_HOSTS` are met.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import nlargest
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.places import Place
from carnac.core.schema import IMAGES
from carnac.engine.manifest import Manifest
from carnac.engine.tables import open_part

MAX_ROWS = 1_000_000  # looked at: 5 s and 160 MB
MAX_HOSTS = 20_000  # in mind at once; half of them are kept when there are more
NUM_HOSTS = 10
NUM_SAMPLES = 3  # of each reason, each of another host
ROWS_AT_ONCE = 65_536
SIDES_PX = (1, 32, 64, 128, 256, 512, 1024, 2048, 4096)  # lower ends of bins
SIZES_KB = (0, 3, 10, 30, 100, 300, 1000, 3000, 10_000)

T = TypeVar("T", int, str)

COLUMNS = ("url", "status", "reason", "source", "detail", "location", "received_bytes", "media_type", "width", "height",
           "length")  # fmt: skip
# RFC 3986, appendix B, with the authority taken apart. What has no authority (`data:`) has no host.
_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/?#:]*)"


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlSample:
    """A URL that met a reason; `detail` is what its row says beside, where it was led to."""

    url: str
    detail: str


@dataclass(slots=True, kw_only=True)
class State:
    """The URLs that ended in one state, `asked` of them over HTTP.

    `stored_bytes` lie in packs; an image that several URLs gave is counted for each.
    """

    status: str
    reason: str
    number: int = 0
    asked: int = 0
    received_bytes: int = 0
    stored_bytes: int = 0
    samples: list[UrlSample] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Host:
    """The URLs of one host, by (status, reason)."""

    name: str
    received_bytes: int = 0
    states: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def number(self) -> int:
        """Number of its URLs."""
        return self.states.total()

    def of(self, status: str) -> int:
        """Return how many are in a status."""
        return sum(number for (each, _), number in self.states.items() if each == status)

    @property
    def not_kept(self) -> int:
        """Number of its URLs of which no image was kept."""
        return self.number - self.of("kept")

    @property
    def commonest(self) -> str:
        """The reason that most of those not kept have."""
        reasons = [(number, reason) for (status, reason), number in self.states.items() if status != "kept"]
        return max(reasons, key=lambda entry: (entry[0], entry[1]), default=(0, ""))[1]


@dataclass(slots=True, kw_only=True)
class Bin:
    """The kept images of one format, or of sizes from a lower end on."""

    number: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTable:
    """What was found in the first `num_rows` of a table's `total_rows`.

    `sides` is by the shorter side (px), `sizes` by the bytes stored (kB): lower ends of bins.
    """

    num_rows: int
    total_rows: int
    states: tuple[State, ...]
    formats: dict[str, Bin]
    sides: dict[int, Bin]
    sizes: dict[int, Bin]
    largest_hosts: tuple[Host, ...]
    failing_hosts: tuple[Host, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all rows were looked at."""
        return self.num_rows == self.total_rows


def read_image_table(manifest: Manifest) -> ImageTable:
    """Read a table of images, at most `MAX_ROWS` of it. Raises InputError for a damaged part."""
    reading = _Reading()
    num_rows = 0
    for table in _tables(manifest):
        num_rows += table.num_rows
        reading.add(table)
    order = {"kept": 0, "dropped": 1, "deferred": 2}
    states = sorted(
        reading.states.values(), key=lambda state: (order.get(state.status, 3), -state.number, state.reason)
    )
    hosts = reading.hosts.values()
    return ImageTable(
        num_rows=num_rows,
        total_rows=manifest.rows,
        states=tuple(states),
        formats=dict(sorted(reading.formats.items(), key=lambda entry: (-entry[1].number, entry[0]))),
        sides=dict(sorted(reading.sides.items())),
        sizes=dict(sorted(reading.sizes.items())),
        largest_hosts=_first(hosts, lambda host: host.number),
        failing_hosts=tuple(host for host in _first(hosts, lambda host: host.not_kept) if host.not_kept),
    )


def _first(hosts: Iterable[Host], number: Callable[[Host], int]) -> tuple[Host, ...]:
    found = nlargest(NUM_HOSTS + 1, hosts, key=lambda host: (number(host), host.number))
    return tuple(sorted(found, key=lambda host: (-number(host), -host.number, host.name))[:NUM_HOSTS])


def _tables(manifest: Manifest) -> Iterator[pa.Table]:
    """Yield the rows by some ten thousands; columns that are younger than a part are null there."""
    left = MAX_ROWS
    for part in manifest.parts:
        held: list[pa.RecordBatch] = []
        for batch in _batches(part.path):
            held.append(batch.slice(0, left))
            left -= held[-1].num_rows
            if not left or sum(map(len, held)) >= ROWS_AT_ONCE:
                yield _filled(pa.Table.from_batches(held))
                held = []
            if not left:
                return
        if held:
            yield _filled(pa.Table.from_batches(held))


def _batches(part: Place) -> Iterator[pa.RecordBatch]:
    with open_part(part) as file:
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            yield from file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=[group], columns=names, use_threads=False)


def _filled(table: pa.Table) -> pa.Table:
    for name in COLUMNS:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, IMAGES.field(name).type))
    return table


class _Reading:
    """Sums over the rows met so far."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str], State] = {}
        self.hosts: dict[str, Host] = {}
        self.formats: dict[str, Bin] = {}
        self.sides: dict[int, Bin] = {}
        self.sizes: dict[int, Bin] = {}

    def add(self, table: pa.Table) -> None:
        """Take in some rows."""
        self._add_states(table)
        kept = table.filter(pc.equal(table["status"], "kept"))
        self._add_bins(self.formats, kept["media_type"], kept["length"])
        shorter = pc.min_element_wise(kept["width"], kept["height"])
        self._add_bins(self.sides, _lower_ends(shorter, SIDES_PX), kept["length"])
        kilobytes = pc.divide(kept["length"], 1000)
        self._add_bins(self.sizes, _lower_ends(kilobytes, SIZES_KB), kept["length"])

    def _add_states(self, table: pa.Table) -> None:
        names_of_hosts = pc.fill_null(pc.struct_field(pc.extract_regex(table["url"], _HOST), "host"), "")
        table = table.append_column("host", pc.ascii_rtrim(pc.utf8_lower(names_of_hosts), characters="."))
        # The first URL of each group is a sample: threads would give another one each time.
        groups = table.group_by(["status", "reason", "source", "host"], use_threads=False).aggregate(
            [
                ([], "count_all"),
                ("received_bytes", "sum"),
                ("length", "sum"),
                ("url", "first"),
                ("detail", "first"),
                ("location", "first"),
            ]
        )
        names = ("status", "reason", "source", "host", "count_all", "received_bytes_sum", "length_sum")
        for status, reason, source, name, number, received, stored, *sample in zip(
            *(groups[column].to_pylist() for column in (*names, "url_first", "detail_first", "location_first")),
            strict=True,
        ):
            key = (status or "", reason or "")
            state = self.states.setdefault(key, State(status=key[0], reason=key[1]))
            state.number += number
            state.asked += number if source == "http" else 0
            state.received_bytes += received or 0
            state.stored_bytes += stored or 0
            if key[0] != "kept" and len(state.samples) < NUM_SAMPLES:
                state.samples.append(_sample(*sample))
            host = self.hosts.setdefault(name, Host(name=name))
            host.states[key] += number
            host.received_bytes += received or 0
        self._forget_hosts()

    def _forget_hosts(self) -> None:
        if len(self.hosts) > MAX_HOSTS:
            kept = nlargest(MAX_HOSTS // 2, self.hosts.values(), key=lambda host: host.number)
            self.hosts = {host.name: host for host in kept}

    @staticmethod
    def _add_bins(bins: dict[T, Bin], values: pa.ChunkedArray, lengths: pa.ChunkedArray) -> None:
        groups = pa.table({"value": values, "length": lengths}).group_by("value", use_threads=False)
        sums = groups.aggregate([([], "count_all"), ("length", "sum")])
        for value, number, stored in zip(*(column.to_pylist() for column in sums.columns), strict=True):
            if value is not None:
                found = bins.setdefault(value, Bin())
                found.number += number
                found.stored_bytes += stored or 0


def _sample(url: str | None, detail: str | None, location: str | None) -> UrlSample:
    led = f"led to {location}" if location else ""
    return UrlSample(url=url or "", detail=", ".join(filter(None, (detail, led))))


def _lower_ends(values: pa.ChunkedArray, ends: tuple[int, ...]) -> pa.ChunkedArray:
    """Return the lower end of the bin of each value; null where there is none."""
    least = pa.scalar(None, pa.int64())
    for end in ends:
        least = pc.if_else(pc.fill_null(pc.greater_equal(values, end), False), end, least)
    return least
