"""Fixtures: an S3-type server on loopback, in a process of its own, and a bucket of it for each test."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import s3fs

NAMES = itertools.count()
START_SECONDS = 60


class Server:
    """The server. What it holds is gone when it is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the port that it had before, and wait until it listens."""
        script = Path(__file__).with_name("store_process.py")
        port = [(self.folder / "port").read_text()] if (self.folder / "port").exists() else []
        (self.folder / "port").unlink(missing_ok=True)
        with (self.folder / "said").open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, str(script), str(self.folder), *port], stdout=said, stderr=said
            )
        until = time.monotonic() + START_SECONDS
        while not (self.folder / "port").exists():
            assert self._process.poll() is None, (self.folder / "said").read_text()
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a machine that loses its power ends it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{(self.folder / 'port').read_text()}"

    def environment(self) -> dict[str, str]:
        """Return the variables under which it is found, and nothing of the one who runs the tests."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "FSSPEC_CONFIG_DIR": "/dev/null",
        }


class Bucket:
    """A bucket of the server, seen past carnac by another client."""

    def __init__(self, server: Server, name: str) -> None:
        import boto3

        self.server, self.name = server, name
        given = server.environment()
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=given["AWS_ENDPOINT_URL"],
            aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
            region_name=given["AWS_DEFAULT_REGION"],
        )
        self._client.create_bucket(Bucket=name)

    @property
    def url(self) -> str:
        """The bucket as a place."""
        return f"s3://{self.name}"

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def objects(self) -> dict[str, bytes]:
        """Return every object by its key."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: self._client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys}

    def uploads(self) -> list[str]:
        """Return the keys of uploads in pieces that were begun and not ended."""
        return [entry["Key"] for entry in self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])]

    def requests(self, kind: str = "requests") -> list[str]:
        """Return the requests for this bucket so far: those answered, or those `begun`."""
        file = self.server.folder / kind
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if f" /{self.name}" in line]

    def tell(self, what: str, value: str) -> None:
        """Have the server `refuse` requests or be `slow`, until told otherwise ("")."""
        (self.server.folder / what).write_text(value)


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server that all tests of this process share."""
    server = Server(tmp_path_factory.mktemp("store"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def bucket(store_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, found by carnac through the environment."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in store_server.environment().items():
        monkeypatch.setenv(name, value)
    # Another test of this process may have opened a file system, or started the fork server, before there were
    # credentials; children have the environment in which their server began.
    s3fs.S3FileSystem.clear_instance_cache()
    vars(forkserver)["_forkserver"]._stop()
    bucket = Bucket(store_server, f"bucket-{next(NAMES)}")
    yield bucket
    for what in ("refuse", "slow"):
        bucket.tell(what, "")


@pytest.fixture
def mortal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of a server of its own, which the test may kill."""
    server = Server(tmp_path / "server")
    server.folder.mkdir()
    server.start()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    yield Bucket(server, "bucket")
    server.kill()
