"""Runs of a small job whose processes are threads that take turns, in an order drawn from a seed, and die at any step.

    engine_schedules.py FOLDER FIRST_SEED NUMBER [MUTATION]      prints one JSON line per schedule

The engine is the real one, from `Runner` down to `Part`. Three things are not: a child process is a thread with a
number of its own; every change of the folder, and every look at it, first hands the turn to a process drawn by lot; a
disk needs no flushing. Who is killed never gets a turn again: no `finally` of it runs, what it had not yet written is
lost.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from engine_stages import ListReporter
from engine_turns import WORLD

from carnac.core.errors import CarnacError, RecordError
from carnac.engine import guard, ledger, local, manifest, part, run, state, storage
from carnac.engine.child import Cause, Said, do_unit
from carnac.engine.journal import Watch
from carnac.engine.manifest import read_manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit
from carnac.recipe.settings import Limits

# --- the job: a stage with a file beside each part and a record that kills, and a stage that reads all of the first ---

SCHEMA = pa.schema([("record", pa.string()), ("number", pa.int64())])
RECORDS = {"a": ("sound", "sound"), "b": ("sound", "deadly", "sound"), "c": ("raises", "sound")}


def write_packs(unit: Unit, part: Part) -> None:
    """Write a row and some bytes per record that lives."""
    pack = part.beside(unit.task["folder"] / "packs", ".bin")
    for number, what in enumerate(RECORDS[unit.name]):
        made = part.attempt(f"{unit.name}@{number}", _meet, what, number)
        if made is not LOST:
            pack.write_bytes((pack.read_bytes() if pack.exists() else b"") + made)
            part.write({"record": f"{unit.name}@{number}", "number": number})


def _meet(what: str, number: int) -> bytes:
    WORLD.step("try a record")
    if what == "raises":
        raise RecordError("too_odd")
    if what == "deadly":
        WORLD.die(-11)
    return bytes([65 + number]) * 8


def read_all(unit: Unit, part: Part) -> None:
    """Write the rows of all parts of the first stage, with the sizes of the packs."""
    for entry in read_manifest(unit.task["packs"], "packs").parts:
        size = sum(len((unit.task["packs"] / name).read_bytes()) for name in entry.beside)
        for row in read_rows(entry.path):
            part.write({"record": row["record"], "number": size + row["number"]})


PACKS = Stage(name="packs", version=1, schema=SCHEMA, work=write_packs, rows_per_group=1)
ALL = Stage(name="all", version=1, schema=SCHEMA, work=read_all, rows_per_group=2)


def do_job(folder: Path, workers: int) -> None:
    """Do both stages, as a recipe's job does."""
    limits = Limits(cpu_seconds=1e6, wait_seconds=1e6)
    runner = Runner(reporter=ListReporter(), workers=workers, limits=limits)
    packs, everything = folder / "packs", folder / "all"
    units = [PACKS.unit(name, {"folder": packs}, settings={}, inputs=[]) for name in RECORDS]
    made = runner.publish(PACKS, packs, runner.do(PACKS, units, packs), {}, {})
    units = [ALL.unit("all", {"packs": packs}, settings={}, inputs=[made.digest])]
    runner.publish(ALL, everything, runner.do(ALL, units, everything), {}, {})


# --- a child that is a thread ---


class ThreadChild:
    """What `engine.child.Child` is, with a thread for a process."""

    def __init__(self, _context: object, stage: Stage, unit: Unit, folder: Path, watch: Watch) -> None:
        self.watch = watch
        self.waitables: list[object] = []
        self.said: Said | None = None
        self._work = (stage, unit, folder, watch)
        self._process = WORLD.spawn(self._run, run=WORLD.me.run, is_child=True)

    def _run(self) -> None:
        try:
            do_unit(*self._work)
        except CarnacError as error:
            self.said = Said(error=error)
        else:
            self.said = Said()

    def has_ended(self) -> bool:
        return self._process.exit is not None

    def cause(self) -> Cause:
        return Cause(reason="crashed", detail="its process died", is_outside=self._process.exit == -9)

    def close(self) -> None:
        WORLD.kill(self._process)


class _Context:
    @staticmethod
    def RawValue(kind: type) -> Any:  # noqa: N802 -- multiprocessing's name
        """Return memory that only threads share."""
        return kind()

    @staticmethod
    def set_forkserver_preload(_modules: Sequence[str]) -> None:
        """Do nothing: there is no fork server."""


# --- every change of a folder is a step, and so is every look at it ---


def kind_of(verb: str, path: Path) -> str:
    """Return the kind of a step: what is done to which of the engine's files."""
    name = path.name
    folder = path.is_dir() and not name.endswith(".tmp")
    what = next((w for w in (".parquet", ".bin", "manifest", "culprits", ".run.json") if w in name), "folder")
    return f"{verb} {'folder' if folder else what}"


def take_turns() -> None:
    """Put a step before everything by which the engine changes a folder, and after every look into one."""
    _step_first(part._DigestingFile, "write", lambda *_: "write .parquet")
    _step_first(Path, "unlink", lambda path, *_, **__: kind_of("remove", path))
    _step_first(Path, "mkdir", lambda path, *_, **__: kind_of("make", path))
    _step_first(Path, "replace", lambda _, target: kind_of("rename", target))
    for module, names in {
        manifest: ("list_files", "read_bytes", "read_ledger"), guard: ("read_bytes",), run: ("list_files",),
        state: ("read_bytes",), ledger: ("_footer",),
    }.items():  # fmt: skip
        for name in names:
            _look_first(module, name)
    _replace(Path, "write_bytes", _write_in_steps)
    _replace(storage, "flush", lambda path, _flags: WORLD.step(kind_of("flush", path)))
    _replace(storage, "is_alive", WORLD.is_alive)
    for module in (storage, part):
        _replace(module, "temporary_path", _own_temporary)
    _replace(local, "wait", lambda *_, **__: WORLD.step("wait"))
    _replace(multiprocessing, "get_context", lambda _: _Context())
    _replace(guard, "Child", ThreadChild)
    _replace(run, "run_units", _in_any_order)
    _replace(run, "new_state", lambda *args: dataclasses.replace(_new_state(*args), process=WORLD.me.number))
    _replace(state.RunState, "is_mine", property(lambda said: said.process == WORLD.me.number))
    _replace(state.RunState, "is_alive", property(lambda said: WORLD.refuses and WORLD.is_alive(said.process)))


def _replace(owner: object, name: str, by: object) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, by)


def _step_first(owner: object, name: str, kind: Callable[..., str]) -> None:
    original = getattr(owner, name)

    def step_first(*args: Any, **kwargs: Any) -> Any:
        WORLD.step(kind(*args, **kwargs))
        return original(*args, **kwargs)

    _replace(owner, name, step_first)


def _look_first(owner: object, name: str) -> None:
    original = getattr(owner, name)

    def look_first(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            WORLD.step("look")

    _replace(owner, name, look_first)


def _write_in_steps(path: Path, content: bytes) -> int:
    for length in (0, len(content) // 2, len(content)):
        WORLD.step(kind_of("write", path))
        with path.open("wb") as file:
            file.write(content[:length])
    return len(content)


_temporary_path, _run_units, _new_state = storage.temporary_path, local.run_units, state.new_state


def _own_temporary(final: Path) -> Path:
    path = _temporary_path(final)
    return path.with_name(path.name.replace(f".{os.getpid()}.", f".{WORLD.me.number}."))


def _in_any_order(stage: Stage, units: Sequence[Unit], *args: Any) -> Generator[object, None, None]:
    return _run_units(stage, WORLD.random.sample(units, len(units)), *args)


# --- ways to be wrong, which the property must find ---


def _copy(temporary: Path, final: Path) -> None:
    final.write_bytes(temporary.read_bytes())
    temporary.unlink()


def _sweep_nothing() -> None:
    for module in (run, local, guard):
        _replace(module, "sweep", lambda _: 0)


def _share_temporary_names() -> None:
    _replace(part, "temporary_path", lambda final: final.with_name(f".{final.name}.tmp"))


MUTATIONS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "a rename that is a copy": lambda: _replace(storage, "rename", _copy),
    "no sweep": _sweep_nothing,
    "one temporary name for all": _share_temporary_names,
    "a sweep of the living": lambda: _replace(storage, "is_alive", lambda _: False),
}


# --- schedules ---


def content(folder: Path) -> dict[str, object]:
    """Return what must not depend on the schedule, by file: all but seconds and the culprits' try."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".parquet":
            entry = ledger.read_ledger(path)
            rows = pq.read_table(path, use_threads=False).to_pylist()
            lost = [(culprit.record, culprit.reason) for culprit in entry.quarantine]
            found[name] = [rows, entry.digest, entry.counts, entry.beside, lost]
        elif path.name == "manifest.json":
            listed = json.loads(path.read_bytes())
            found[name] = [{k: v for k, v in p.items() if k not in ("seconds", "bytes")} for p in listed["parts"]]
        else:
            found[name] = "" if path.is_dir() else path.read_bytes().hex()
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def schedule(folder: Path, seed: int, steps: Counter[str]) -> dict[str, object]:
    """Live through one schedule drawn from `seed`, then one clean run; return what came of it."""
    draw = WORLD.random = random.Random(seed)
    WORLD.said.clear()
    WORLD.killed.clear()
    for _ in range(draw.randint(0, 3)):
        runs = draw.choice((1, 1, 1, 2))
        WORLD.refuses = draw.random() < 0.5
        # By kind, or the few renames would hardly ever be met among the many writes.
        kinds = [draw.choice(sorted(steps)) for _ in range(draw.randint(1, 2))]
        at = {(kind, draw.randint(1, steps[kind] * runs)): draw.choice(("run", "worker", "all")) for kind in kinds}
        WORLD.round([lambda: do_job(folder, draw.randint(1, 4))] * runs, at)
    WORLD.round([lambda: do_job(folder, draw.randint(1, 4))], {})
    return {"seed": seed, "said": list(WORLD.said), "killed": dict(WORLD.killed), "content": content(folder)}


def schedules(root: Path, seeds: Sequence[int], mutation: str) -> Generator[dict[str, object], None, None]:
    """Yield what came of every schedule, against an uninterrupted run in order with one worker."""
    take_turns()
    WORLD.random = random.Random(-1)
    WORLD.round([lambda: do_job(root / "whole", 1)], {})
    assert not WORLD.said, WORLD.said
    whole, steps = content(root / "whole"), Counter(WORLD.steps)
    MUTATIONS[mutation]()
    for seed in seeds:
        folder = root / f"{seed}"
        try:
            came = schedule(folder, seed, steps)
        except Exception as error:  # noqa: BLE001 -- what is left cannot even be read
            came = {"seed": seed, "said": [f"{type(error).__name__}: {error}"], "killed": {}, "content": {}}
        shutil.rmtree(folder, ignore_errors=True)
        left = came.pop("content")
        assert isinstance(left, dict)
        differs = [name for name in sorted({*left, *whole}) if left.get(name) != whole.get(name)]
        yield {**came, "differs": differs, "possible": dict(steps)}


def main() -> None:
    """Print what came of each schedule."""
    root, first, number, mutation = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), (sys.argv[4:] or ["none"])[0]
    for came in schedules(root, range(first, first + number), mutation):
        print(json.dumps(came), flush=True)
    os._exit(0)  # the dead wait for their turns for ever


if __name__ == "__main__":
    main()
