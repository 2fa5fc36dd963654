"""What the hosts of `fetching_site` answer: a pure function of host, path and whether the path was asked for before."""

from __future__ import annotations

import email.utils
import functools
import gzip
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fetching_pictures import Pictures
from fetching_site import DOMAIN, OBJECTIONS, PRIVATE_ADDRESSES

RETRY_SECONDS = 2
CRAWL_DELAY_SECONDS = 1.0
TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
SOME = b"User-agent: *\nDisallow: /private/\n"
# robots.txt by the kind of its host; of others one of those that allow everything, or none.
RULES = {
    "forbidden": b"User-agent: *\nDisallow: /\n",
    "forbidden-us": b"User-agent: carnac\nDisallow: /\n\nUser-agent: *\nDisallow:\n",
    "partly": SOME,
    "verbose": SOME + b"# to whom it may concern\n" * 24_576,  # 600 KiB: a crawler need not read more than 500
    "patient": f"User-agent: *\nCrawl-delay: {CRAWL_DELAY_SECONDS:g}\n".encode(),
    "babbling": bytes(range(256)) * 20,
}
HARMLESS = (b"", b"User-agent: *\nAllow: /\n", b"User-agent: another-robot\nDisallow: /\n")
Way = Literal["whole", "drop", "slow", "silent", "endless"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`raw` are the bytes sent, after `latency` seconds; then the connection is kept only if `keeps`.

    Ways: `whole`; `drop` closes it without a word; `slow` sends a byte every 20th of a second; `silent` waits for ever;
    `endless` repeats the last 64 KiB as long as somebody takes them.
    """

    status: int
    raw: bytes
    way: Way = "whole"
    keeps: bool = True
    latency: float = 0.0


def answer(pictures: Pictures, host: str, path: str, *, is_first: bool, port: int) -> Answer:
    """Return what `host` (without port) answers to a GET of `path` (with query)."""
    kind, _, number = host.removesuffix(f".{DOMAIN}").rpartition("-")
    if path in ("/robots.txt", "/rules.txt"):
        return robots_txt(kind, int(number) if number.isdecimal() else 0, path)
    folder, _, name = path.partition("?")[0].lstrip("/").partition("/")
    # One after the other, all answers at once would show nothing of how many are asked for at the same time.
    latency = 0.01 * (int(number) % 7) if number.isdecimal() else 0.0
    stem, _, extension = name.partition(".")
    if folder == "hopped" or folder not in ANSWERS:
        folder = "good"
    asked = Asked(pictures, host, folder, int(stem) if stem.isdecimal() else 0, extension, is_first, port)
    made = ANSWERS[folder](asked)
    return made if made.latency else _later(made, latency)


def plain(status: int, body: bytes = b"", /, **headers: str | int) -> Answer:
    """Return an ordinary answer."""
    told = {"Content-Length": len(body)} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return Answer(status=status, raw=f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)


def robots_txt(kind: str, number: int, path: str) -> Answer:
    """Return the answer to a request for robots.txt."""
    if kind in RULES:
        return plain(200, RULES[kind])
    if kind == "led":
        return plain(200, RULES["partly"]) if path == "/rules.txt" else plain(301, Location="/rules.txt")
    if kind == "ailing":
        return plain(503)
    if kind == "tarpit":
        return Answer(status=200, raw=b"HTTP/1.1 200 X\r\nContent-Length: 5000\r\n\r\n" + bytes(5000), way="slow")
    return plain(404) if number % 4 == 3 else plain(200, HARMLESS[number % 4])


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for."""

    pictures: Pictures
    host: str
    folder: str
    number: int
    extension: str
    is_first: bool
    port: int

    @property
    def body(self) -> bytes:
        return self.pictures.payload(self.number)

    @property
    def media_type(self) -> str:
        return TYPES.get(self.extension, "image/jpeg")


def _later(made: Answer, latency: float) -> Answer:
    return Answer(status=made.status, raw=made.raw, way=made.way, keeps=made.keeps, latency=latency)


def _good(asked: Asked, **headers: str | int) -> Answer:
    return plain(200, asked.body, Content_Type=asked.media_type, **headers)


def _announcing(asked: Asked, length: int) -> Answer:
    return _closing(plain(200, asked.body, Content_Type=asked.media_type, Content_Length=length))


def _closing(made: Answer, way: Way = "whole") -> Answer:
    return Answer(status=made.status, raw=made.raw, way=way, keeps=False)


def _endless(asked: Asked) -> Answer:
    head = b"HTTP/1.1 200 X\r\nContent-Type: image/jpeg\r\nConnection: close\r\n\r\n"
    return Answer(status=200, raw=head + asked.body[:1000] + bytes(65536), way="endless", keeps=False)


def _chunked(asked: Asked) -> Answer:
    pieces = [asked.body[start : start + 3000] for start in range(0, len(asked.body), 3000)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    head = f"HTTP/1.1 200 X\r\nContent-Type: {asked.media_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Answer(status=200, raw=head.encode() + body)


def _busy(asked: Asked) -> Answer:
    return plain(429, Retry_After=RETRY_SECONDS) if asked.is_first else _good(asked)


def _unavailable(asked: Asked) -> Answer:
    # Dates have whole seconds: one more, so that it is not over at once.
    until = email.utils.formatdate(time.time() + RETRY_SECONDS + 1, usegmt=True)
    return plain(503, Retry_After=until) if asked.is_first else _good(asked)


def _moved(asked: Asked) -> Answer:
    return plain(302, Location=f"http://moved-000.{DOMAIN}:{asked.port}/good/{asked.number}.{asked.extension}")


def _objecting(place: int, asked: Asked) -> Answer:
    objection = OBJECTIONS[place]
    if objection == "tdm":
        return _good(asked, TDM_Reservation="1")
    if objection == "train-ai":
        return _good(asked, Content_Usage="train-ai=n")
    return _good(asked, X_Robots_Tag=objection)


def _lure(place: int, asked: Asked) -> Answer:
    return plain(302, Location=f"http://{PRIVATE_ADDRESSES[place]}:{asked.port}/good/{asked.number}.jpg")


def make_bombs() -> None:
    """Make what takes long to make, before anybody waits for it."""
    _gzip_bomb()
    _pixel_bomb()


@functools.cache
def _gzip_bomb() -> bytes:
    return gzip.compress(b"\xff\xd8\xff\xe0" + bytes(50_000_000), compresslevel=1)


@functools.cache
def _pixel_bomb() -> bytes:
    """A PNG of 60,000 x 60,000 grey pixels, of which a few rows are there."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(60_001 * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


ANSWERS: dict[str, Callable[[Asked], Answer]] = {
    "good": _good,
    "private": _good,
    "unlabelled": lambda asked: plain(200, asked.body),
    "text_type": lambda asked: plain(200, asked.body, Content_Type="text/html"),
    "encoded": lambda asked: _good(asked, Content_Encoding="identity"),
    "other_agent": lambda asked: _good(asked, X_Robots_Tag="another-robot: noai"),
    "chunked": _chunked,
    "gzip": lambda asked: plain(200, gzip.compress(asked.body), Content_Type=asked.media_type, Content_Encoding="gzip"),
    "hop": lambda asked: plain(301, Location=f"/hopped/{asked.number}.{asked.extension}"),
    "missing": lambda _: plain(404, b"<p>Gone</p>", Content_Type="text/html"),
    "failing": lambda _: plain(500),
    "page": lambda _: plain(200, b"<!doctype html><title>404</title>" * 9, Content_Type="image/jpeg"),
    "empty": lambda _: plain(200, Content_Type="image/jpeg"),
    "endless": _endless,
    "long": lambda asked: _announcing(asked, 10_000_000_000),
    "short": lambda asked: _announcing(asked, len(asked.body) + 1000),
    "over": lambda asked: plain(200, asked.body, Content_Length=len(asked.body) // 2),
    "cut": lambda _: _closing(plain(200), "drop"),
    "garbage": lambda _: Answer(status=0, raw=b"SSH-2.0-OpenSSH_9.2\r\n", keeps=False),
    "slow": lambda asked: _closing(_good(asked), "slow"),
    "silent": lambda asked: _closing(_good(asked), "silent"),
    "gzip_bomb": lambda _: plain(200, _gzip_bomb(), Content_Encoding="gzip", Content_Type="image/jpeg"),
    "pixel_bomb": lambda _: plain(200, _pixel_bomb(), Content_Type="image/png"),
    "headers": lambda asked: _good(asked, X_Long="x" * 300_000),
    "loop": lambda asked: plain(302, Location=f"/loop/{asked.number + 10**6}.jpg"),
    "to_file": lambda _: plain(302, Location="file:///etc/passwd"),
    "to_ftp": lambda asked: plain(302, Location=f"ftp://{asked.host}/1.jpg"),
    "to_user": lambda asked: plain(302, Location=f"http://me:secret@{asked.host}:{asked.port}/good/1.jpg"),
    "damaged": lambda asked: plain(200, asked.body[: len(asked.body) // 2], Content_Type=asked.media_type),
    "busy": _busy,
    "unavailable": _unavailable,
    "overrun": lambda _: plain(429, Retry_After=100_000),
    "moved": _moved,
    **{f"objecting{place}": functools.partial(_objecting, place) for place in range(len(OBJECTIONS))},
    **{f"lure{place}": functools.partial(_lure, place) for place in range(len(PRIVATE_ADDRESSES))},
}
