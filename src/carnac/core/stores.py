"""Stores: which are known, how patient one is with them, and what their libraries raise, as an OSError with a sentence.

Known is a store that takes an object whole by one PUT and lists it from then on, since that is how a unit is committed
there. S3 (since December 2020), Google's and Azure's do; an FTP server or a memory file system does not.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from upath import UPath

# By what name a store may be called, and the one it has here: a folder has one name.
PROTOCOLS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
EXTRAS = {**LIBRARIES, "s3": "'carnac[s3]'"}  # what to install
# The modules whose errors are a store's.
_RAISERS = {"botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec", "gcsfs", "google", "adlfs", "azure"}

# A store that refuses to talk is given up after 15 s on average, 31 at most (six tries of botocore), and so is one with
# errors of its own; one that is silent after about 7 minutes (s3fs tries a GET two times two times that, a PUT two
# times). Left alone, botocore waits 60 s five times and s3fs tries five times five: two hours.
_PATIENCE = {"connect_timeout": 5, "read_timeout": 15}
_TRIES = {"mode": "standard", "total_max_attempts": 6}
_LIBRARY_TRIES = 2
PUT_BYTES = 32 << 20  # S3 takes 10,000 pieces of an object: up to 320 GB; two pieces at once are in memory


def options_of(protocol: str) -> dict[str, Any]:
    """Return how a store is opened."""
    # A cached listing would hide what another process committed a second ago.
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol == "s3":
        tries = {} if os.environ.keys() & {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} else {"retries": dict(_TRIES)}
        # One request at a time for one object: with more, s3fs asks for the size first.
        options |= {"max_concurrency": 1, "config_kwargs": {**_PATIENCE, **tries}}
    return options


def store_of(place: UPath) -> Any:
    """Return the file system, in fsspec's sense, of a store."""
    store = place.fs
    if place.protocol == "s3":
        store.retries = _LIBRARY_TRIES  # no option of s3fs, and not carried to another process
    return store


def put_options(protocol: str) -> Mapping[str, int]:
    """Return how a file is sent: above twice `PUT_BYTES` in pieces, which count only once the last one is in."""
    return {"chunksize": PUT_BYTES, "max_concurrency": 2} if protocol == "s3" else {}


@contextlib.contextmanager
def store_errors(place: object) -> Iterator[None]:
    """Turn whatever a store's library raises into OSError: each library has its own tree of errors.

    FileNotFoundError is an object that is not there; a bucket that is not there is another error, since an object that
    is missing may be written.
    """
    try:
        yield
    except OSError as error:
        # The system's own errors name their file. A library's have no number, or one without a file.
        if isinstance(place, Path) or (error.errno is not None and error.filename is not None):
            raise
        raise _os_error(place, error) from error
    except Exception as error:
        if isinstance(place, Path) or type(error).__module__.partition(".")[0] not in _RAISERS:
            raise
        raise _os_error(place, error) from error


def _os_error(place: object, error: Exception) -> OSError:
    cause = error if error.__cause__ is None else error.__cause__
    response = getattr(cause, "response", None)
    code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    told = (getattr(error, "strerror", None) or str(error)).partition("\n")[0] or type(error).__name__
    name = type(cause).__name__
    if code == "NoSuchBucket":
        return OSError(errno.ENXIO, "there is no such bucket: make it, or mend its name", str(place))
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
        wanted = "no credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return PermissionError(errno.EACCES, wanted, str(place))
    if isinstance(error, PermissionError):
        refused = f"the store refuses it ({code or told}): check the credentials and what they allow"
        return PermissionError(errno.EACCES, refused, str(place))
    if isinstance(error, TimeoutError) or "Connect" in name or "Timeout" in name:
        silent = f"the store does not answer ({told.rstrip('. ')}): check its address and that it runs"
        return OSError(errno.EHOSTUNREACH, silent, str(place))
    number = error.errno if isinstance(error, OSError) and error.errno is not None else errno.EIO
    return OSError(number, f"the store says: {told}", str(place))
