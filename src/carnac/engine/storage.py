"""How bytes reach a folder whole or not at all: one rename on a disk, one PUT in a store.

On a disk a file is written under a hidden temporary name beside its final one, flushed, renamed, and the folder is
flushed. A store has no rename; there a file is written to a scratch folder of this machine and sent as one object.
Whatever dies before the commit leaves a temporary file that the next run sweeps; what dies after it has lost nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from carnac.core.errors import OutputError
from carnac.core.places import Place, is_local, read_bytes
from carnac.core.stores import put_options, store_errors, store_of

# A temporary file of another host says nothing about its process. A unit takes minutes; after a week it is dead.
STALE_SECONDS = 7 * 24 * 3600.0
# How a file system says that it cannot flush a folder (FUSE, CIFS, some NFS servers), or that this user may not.
_NO_FOLDER_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM)


def open_to_others(path: Path) -> None:
    """Give a file the permissions of one that is made as usual: safetensors makes its files readable to one alone."""
    umask = os.umask(0o077)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def temporary_path(final: Place) -> Path:
    """Return a name that no other attempt uses, `.NAME.HOST.PID.RANDOM.tmp`: beside `final`, or for a store in scratch.

    The scratch folder is made where it lacks.
    """
    name = f".{final.name}.{host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    if is_local(final):
        return final.with_name(name)
    return make_scratch() / name


def scratch() -> Path:
    """Return the folder for files on their way to a store; TMPDIR moves it to a disk with room."""
    return Path(tempfile.gettempdir()) / f"carnac-{os.getuid()}"


def make_scratch() -> Path:
    """Make the scratch folder where it lacks, for this user alone. Raises OutputError where it is another's."""
    scratch().mkdir(mode=0o700, parents=True, exist_ok=True)
    if scratch().stat().st_uid != os.getuid():
        raise OutputError(f"{scratch()}: belongs to another user. Remove it, or set TMPDIR to a folder of your own.")
    return scratch()


def host() -> str:
    """Return the name of this machine and its space of process numbers, fit for one field of a temporary name."""
    # With its dots, host `a` would take the live files of host `b.a` for its own. Two containers may share a name and
    # a folder, and then do not see each other's processes.
    with contextlib.suppress(OSError):
        return f"{os.uname().nodename.replace('.', '_')}-{Path('/proc/self/ns/pid').stat().st_ino}"
    return os.uname().nodename.replace(".", "_")


def commit(temporary: Path, final: Place) -> None:
    """Make `temporary` durable under its final name. Raises OSError; then `final` is as it was."""
    if is_local(final):
        flush(temporary, os.O_RDONLY)
        rename(temporary, final)
        flush(final.parent, os.O_RDONLY | os.O_DIRECTORY)
        return
    with store_errors(final):
        # In one piece or, if large, in several, which count only once the last one is in: one object or none.
        store_of(final).put_file(os.fspath(temporary), final.path, **put_options(final.protocol))
    remove(temporary)


# The three below are the only steps by which the engine changes a folder: a test that stops a run at any of them has
# met every moment at which a run can die.


def flush(path: Path, flags: int) -> None:
    """Have the system write `path` out to its disk. A folder whose file system cannot do that is left to it."""
    try:
        handle = os.open(path, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        # The rename is done: to fail now would say of a whole file that it is not there.
        if not flags & os.O_DIRECTORY or error.errno not in _NO_FOLDER_FLUSH:
            raise


def rename(temporary: Path, final: Path) -> None:
    """Give `temporary` its final name, in one step."""
    inode = temporary.stat().st_ino
    try:
        temporary.replace(final)
    except FileNotFoundError:
        # An NFS client whose answer got lost asks again, and hears that the old name is gone: it has been done.
        if not final.exists() or final.stat().st_ino != inode:
            raise


def remove(place: Place) -> None:
    """Remove a file; one that is gone already is no mistake."""
    if is_local(place):
        place.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError), store_errors(place):
        store_of(place).rm_file(place.path)


def write_changed(final: Place, content: bytes) -> None:
    """Write a small file unless it says so already: a run with nothing to do changes nothing. Raises OutputError."""
    with contextlib.suppress(OSError):
        if read_bytes(final) == content:
            return
    write_file(final, content)


def write_file(final: Place, content: bytes) -> None:
    """Write a small file whole or not at all. Raises OutputError."""
    try:
        if not is_local(final):
            with store_errors(final):
                store_of(final).pipe_file(final.path, content)
            return
        temporary = temporary_path(final)
        try:
            temporary.write_bytes(content)
            commit(temporary, final)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise OutputError(
            f"{final}: cannot be written ({error.strerror}). Free space or choose another output."
        ) from error


def size_of(place: Place) -> int:
    """Return the bytes of a file. Raises OSError (FileNotFoundError where there is none)."""
    if is_local(place):
        return place.stat().st_size
    with store_errors(place):
        return int(store_of(place).info(place.path)["size"])


def sha256_of(path: Path) -> str:
    """Return the sha256 (hex) of a file's content, of any size. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(folder: Place) -> None:
    """Create `folder` where it lacks, and see that it can be written to. Raises OutputError.

    A store has no folders, and whether one may write there is told by the first PUT alone.
    """
    if not is_local(folder):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created ({error.strerror}). Choose another output.") from None
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: not writable by this user. Choose another output or mend its permissions.")


def may_write(folder: Place) -> bool:
    """Say whether a folder may be written to, as far as can be told without doing it; one that lacks may be made."""
    return not is_local(folder) or not folder.exists() or os.access(folder, os.W_OK)


def list_files(folder: Place) -> dict[str, int]:
    """Return the bytes of every file in `folder` and below it, by name relative to it; none where there is no folder.

    One listing, however many (of a store, a request per 1,000). Raises OSError.
    """
    if not is_local(folder):
        with store_errors(folder):
            found = store_of(folder).find(folder.path, detail=True)
        root = folder.path.rstrip("/") + "/"
        return {
            name.removeprefix(root): int(facts["size"] or 0)
            for name, facts in found.items()
            if name.startswith(root) and not name.endswith("/")  # consoles mark a folder by an object of that name
        }
    sizes = {}
    for entry in _files(folder, set()):
        with contextlib.suppress(FileNotFoundError):  # another process has just renamed or removed it
            sizes[os.path.relpath(entry.path, folder)] = entry.stat().st_size
    return sizes


def _files(folder: Path, met: set[tuple[int, int]]) -> Iterator[os.DirEntry[str]]:
    """Yield the files of a folder, of links to folders too: `packs` may lie on a larger disk. `met` ends a circle."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        status = folder.stat()
        if (status.st_dev, status.st_ino) in met:
            return
        met.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from _files(Path(entry.path), met)
                elif entry.is_file():
                    yield entry


def sweep(folder: Place) -> int:
    """Remove temporary files that processes of this host left when they died, and forgotten ones of others.

    Returns how many.
    """
    swept = 0
    root = folder if is_local(folder) else scratch()
    for entry in _files(root, set()):
        if _is_stray(entry):
            Path(entry.path).unlink(missing_ok=True)
            swept += 1
    return swept


def _is_stray(entry: os.DirEntry[str]) -> bool:
    if not (entry.name.startswith(".") and entry.name.endswith(".tmp")):
        return False
    fields = entry.name.removesuffix(".tmp").rsplit(".", 3)
    if len(fields) != 4 or not fields[2].isdecimal():
        return False
    if fields[1] != host():
        with contextlib.suppress(OSError):
            return time.time() - entry.stat().st_mtime > STALE_SECONDS
        return False
    return not is_alive(int(fields[2]))


def is_alive(process: int) -> bool:
    """Say whether a process of this machine still runs."""
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return False
    return state not in (b"Z", b"X")  # in a container whose first process fetches no orphans, the dead stay as zombies
