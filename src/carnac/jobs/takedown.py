"""`carnac takedown`: what was asked to go goes from packs, shards and tables, and is kept out of later runs.

    entries + what tables tell --find_victims--> the record       takedown_victims.py
    the record, into every folder, before anything else changes   core/taken_down.py
    every file, one by one, each by one rename                    takedown_parts.py, takedown_files.py
    a search of every byte for what is left                       takedown_search.py

Whatever ends it, the same command again ends with the same files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from carnac.core.errors import InputError, OutputError
from carnac.core.places import Place
from carnac.core.taken_down import RECORD, TakenDown
from carnac.engine.ledger import LEDGER_KEY, read_ledger
from carnac.engine.manifest import MANIFEST
from carnac.engine.state import STATE, end_state, new_state, refuse_second, write_state
from carnac.engine.storage import list_files, remove, sweep
from carnac.engine.tables import open_part
from carnac.jobs.images_wanted import URLS_STAGE
from carnac.jobs.shards_gather import GATHER_STAGE, ROUTES_STAGE, remove_gathered
from carnac.jobs.takedown_columns import Needles
from carnac.jobs.takedown_entries import Entries
from carnac.jobs.takedown_files import (
    FUNNEL,
    clean_digests,
    clean_manifest,
    clean_pack,
    clean_text,
    is_drawn_page,
    is_spool,
    is_text,
    write_records,
)
from carnac.jobs.takedown_parts import Cleaning, clean_part
from carnac.jobs.takedown_search import Search
from carnac.jobs.takedown_victims import find_victims

Say = Callable[[str], None]
RECIPE_FILE = "recipe.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What lies below a folder: parts that carnac wrote, all files with their bytes, and the folders of stages."""

    root: Place
    files: dict[str, int]
    parts: tuple[str, ...]
    folders: tuple[str, ...]

    @classmethod
    def of(cls, root: Place) -> Tree:
        """Look at a folder. Raises InputError where carnac has written nothing in it."""
        files = list_files(root)
        parts = tuple(name for name in sorted(files) if name.endswith(".parquet") and _is_part(root / name))
        marked = [name for name in files if PurePosixPath(name).name in (MANIFEST, RECIPE_FILE)]
        folders = sorted({str(PurePosixPath(name).parent) for name in (*parts, *marked)})
        if not folders:
            raise InputError(f"{root}: holds nothing that carnac wrote. Wanted the folder of a run, or of a stage.")
        return cls(root=root, files=files, parts=parts, folders=tuple(folders))

    def place(self, folder: str) -> Place:
        """Return the place of a folder."""
        return self.root if folder == "." else self.root / folder


def _is_part(place: Place) -> bool:
    if PurePosixPath(place.name).name.startswith("."):
        return False
    try:
        with open_part(place) as file:
            return LEDGER_KEY in (file.metadata.metadata or {})
    except InputError:
        return False  # damaged, or another's: the search looks at its bytes


def take_down(roots: Sequence[Place], entries: Entries, *, dry_run: bool, say: Say) -> list[str]:
    """Take entries down in every folder; return a sentence for everything that is left of them.

    With `dry_run` nothing changes, and what would go is said. Raises InputError, OutputError.
    """
    trees = [Tree.of(root) for root in roots]
    for tree in trees:
        for name in tree.files:
            if PurePosixPath(name).name == STATE:
                _refuse_run(tree.root / name, dry_run=dry_run)
    left = []
    for tree in trees:
        counts = f"{len(entries.urls):,} URLs, {len(entries.domains):,} domains, {len(entries.sha256s):,} hashes"
        say(f"{tree.root}: {counts}")
        parts = [tree.root / name for name in tree.parts if not _is_gathered(tree, name)]
        victims = find_victims(parts, TakenDown.read([tree.root]).merged(entries.taken_down))
        cleaning = Cleaning(victims=victims, needles=Needles.of((*entries.hosts, *entries.sha256s)))
        if dry_run:
            _Cleaner(tree, cleaning, dry_run=True, say=say).clean()
            continue
        with _working(tree):
            write_records([tree.root, *map(tree.place, tree.folders)], victims.taken_down)
            _Cleaner(tree, cleaning, dry_run=False, say=say).clean()
        search = Search.of(entries, victims.taken_down)
        files = sorted(list_files(tree.root))
        found = [sentence for name in files for sentence in search.left_in(tree.root / name)]
        if not found:
            say(f"  {len(files):,} files searched, nothing of it is left; {RECORD} keeps it out of later runs")
        left += found
    return left


@contextlib.contextmanager
def _working(tree: Tree) -> Iterator[None]:
    """Have every folder of a stage say that someone works there: a run that begins meanwhile would be half cleaned."""
    folders = [tree.place(folder) for folder in tree.folders]
    try:
        for folder in folders:
            write_state(folder, new_state("takedown", len(tree.parts), 0))
        yield
    finally:
        for folder in folders:
            end_state(folder)


def _refuse_run(state: Place, *, dry_run: bool) -> None:
    if not dry_run:
        refuse_second(state.parent)


def _is_gathered(tree: Tree, name: str) -> bool:
    """Say whether a part is of the steps that bring images to shards: copies, removed whole."""
    return read_ledger(tree.root / name).stage in (ROUTES_STAGE.name, GATHER_STAGE.name)


class _Cleaner:
    """Cleans one tree, file by file."""

    def __init__(self, tree: Tree, cleaning: Cleaning, *, dry_run: bool, say: Say) -> None:
        self._tree, self._cleaning, self._victims = tree, cleaning, cleaning.victims
        self._dry_run, self._say, self._verb = dry_run, say, "would be" if dry_run else "were"

    def clean(self) -> None:
        self._remove_leftovers()
        self._clean_parts()
        self._clean_packs()
        self._clean_texts()
        for folder in self._tree.folders:
            if f"{folder}/{MANIFEST}".removeprefix("./") in self._tree.files and not self._dry_run:
                place = self._tree.place(folder)
                clean_manifest(place, list_files(place), self._victims.taken_down)

    def _remove_leftovers(self) -> None:
        """Remove what is made again: spools, gathered images, files of dead runs, pages that carnac drew."""
        root = self._tree.root
        spools = [name for name in self._tree.files if is_spool(name)]
        pages = [name for name in self._tree.files if name.endswith((".html", ".htm")) and is_drawn_page(root / name)]
        gathered = sorted({self._gather_folder(name) for name in self._tree.parts if _is_gathered(self._tree, name)})
        for folder in gathered:
            self._say(f"  {root / folder}: images on their way to shards {self._verb} removed")
        for name in (*spools, *pages):
            why = "a page drawn by carnac show" if name in pages else "what an unfinished unit received"
            self._say(f"  {root / name}: {why}, {self._verb} removed")
        if self._dry_run:
            return
        for folder in gathered:
            remove_gathered(root / folder)
        for name in (*spools, *pages):
            remove(root / name)
        sweep(root)

    def _gather_folder(self, name: str) -> str:
        stage = read_ledger(self._tree.root / name).stage
        path = PurePosixPath(name).parent
        return str(path.parent if stage == ROUTES_STAGE.name else path)

    def _clean_parts(self) -> None:
        rows: dict[str, int] = {}
        for name in self._tree.parts:
            place = self._tree.root / name
            if not _is_there(place, name, self._tree):
                continue
            if not self._dry_run and read_ledger(place).stage == URLS_STAGE.name:
                clean_digests(place, self._victims.taken_down)
            folder = str(PurePosixPath(name).parent)
            number = clean_part(place, self._cleaning, dry_run=self._dry_run)
            rows[folder] = rows.get(folder, 0) + number
        for folder, number in rows.items():
            if number:
                self._say(f"  {self._tree.place(folder)}: {number:,} rows {self._verb} changed or removed")

    def _clean_packs(self) -> None:
        for name in sorted(self._tree.files):
            if not name.endswith(".tar") or PurePosixPath(name).name.startswith("."):
                continue
            try:
                number = clean_pack(self._tree.root / name, self._victims.taken_down, dry_run=self._dry_run)
            except InputError as error:  # the search tells of it again: all else is not to wait for it
                self._say(f"  {error}")
                continue
            if number:
                self._say(f"  {self._tree.root / name}: {number:,} images {self._verb} erased")

    def _clean_texts(self) -> None:
        for name in sorted(self._tree.files):
            place = self._tree.root / name
            if not is_text(name) or not _is_there(place, name, self._tree):
                continue
            if clean_text(place, self._victims, dry_run=self._dry_run):
                told = "removed, the next run draws it again" if place.name == FUNNEL else "cleaned"
                self._say(f"  {place}: {self._verb} {told}")


def _is_there(place: Place, name: str, tree: Tree) -> bool:
    """Say whether a file that was listed is still there: gathered images and old pages have gone meanwhile."""
    return name in tree.files and place.exists()


def report(left: Sequence[str]) -> None:
    """Raise OutputError where something is left."""
    if left:
        shown = "\n  ".join(left[:20])
        more = f"\n  and {len(left) - 20:,} more" if len(left) > 20 else ""
        raise OutputError(
            f"{len(left):,} files or columns still hold something of what was taken down:\n  {shown}{more}\n"
            f"Remove or mend them. {RECORD} keeps it out of later runs all the same."
        )
