"""Image URLs of documents to packs: first from the crawl's own records, the rest over HTTP if the recipe says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from carnac.archive.pairs import read_pair_images
from carnac.archive.records import Damage, Response, read_responses
from carnac.core.errors import RecordError
from carnac.core.places import Folder, Place, source_of
from carnac.core.schema import IMAGES
from carnac.engine.aligned import read_aligned
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit, outside_digests, unit_names
from carnac.images.fetch import fetch_images
from carnac.images.inspect import ImageFacts, inspect_image
from carnac.images.pack import PackWriter
from carnac.images.settings import FetchSettings, ImageSettings
from carnac.jobs.recipes import keep_recipe
from carnac.recipe.settings import DocumentsFolder, Reads, Recipe, Writes

# URLs fetched before their rows are written in the order of the list (results arrive in any order). All are in memory
# at once: about 10 MB as the web goes, 1.3 GB if each were at the default cap of 20 MB.
FETCH_CHUNK = 64


class ImagesRecipe(Recipe):
    """Settings of the job `images`."""

    job: Literal["images"] = Field(description="the job that this recipe describes")
    documents: DocumentsFolder = Field(description="folder of the documents whose images are wanted")
    masks: Annotated[Folder | None, Reads("masks")] = Field(
        default=None, description="folder of a pass's masks: only images that it keeps are wanted"
    )
    output: Annotated[Folder, Writes("images")] = Field(description="folder for the table of images and their packs")
    fetch: bool = Field(default=False, description="fetch over HTTP what the archives do not hold")
    inspect: ImageSettings = Field(default=ImageSettings(), description="which images are taken")
    http: FetchSettings = Field(default=FetchSettings(), description="how images are fetched")


RECIPE = ImagesRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesTask:
    """What a worker needs for one archive, or (`archive` is None) for the URLs that no part of `found` settles.

    An archive is a WARC file or, with `is_pairs`, a tar of image-text pairs.
    The manifests are those that the key was made from: what lies in their folders may change meanwhile.
    """

    archive: Place | None
    is_pairs: bool
    documents: Manifest
    masks: Manifest | None
    found: tuple[Place, ...]
    recipe: ImagesRecipe


def run(recipe: ImagesRecipe, runner: Runner) -> None:
    """Write `images/`: one row per wanted URL with its final state, bytes in `packs/`."""
    documents = read_manifest(recipe.documents, "documents")
    masks = None if recipe.masks is None else read_manifest(recipe.masks, "masks")
    wanted = [documents.digest, *([] if masks is None else [masks.rows_digest])]
    settings: dict[str, Any] = {"inspect": recipe.inspect.model_dump(mode="json"), "limit": recipe.limit}

    is_pairs = "pairs" in documents.inputs

    def unit(
        name: str, archive: Place | None, found: tuple[Place, ...], extra: dict[str, Any], inputs: list[str]
    ) -> Unit:
        task = ImagesTask(
            archive=archive, is_pairs=is_pairs, documents=documents, masks=masks, found=found, recipe=recipe
        )
        return STAGE.unit(name, task, settings={**settings, **extra}, inputs=[*wanted, *inputs])

    archives = []
    # Of other sources (a crawl by name, pointers, pages, the OBELICS format) no file holds images.
    files = [source_of(name) for name in documents.inputs.get("pairs" if is_pairs else "warcs", [])]
    for name, file, digest in zip(unit_names(files), files, outside_digests(files), strict=True):
        archives.append(unit(name, file, (), {}, [digest]))
    entries = runner.do(STAGE, archives, recipe.output)
    http = {"http": recipe.http.model_dump(mode="json", exclude={"num_connections"})} if recipe.fetch else {}
    rest = unit("~rest", None, tuple(entry.path for entry in entries), http, [entry.digest for entry in entries])
    entries += runner.do(STAGE, [rest], recipe.output)
    shown = {**settings, "fetch": recipe.fetch, **http}
    runner.publish(STAGE, recipe.output, entries, shown, {"documents": str(recipe.documents)})
    if not runner.changes_nothing:
        keep_recipe(recipe, recipe.output)


def take_images(unit: Unit, part: Part) -> None:
    """Write the images of one unit: those of one archive, or the rest."""
    task: ImagesTask = unit.task
    urls = wanted_urls(task)
    with PackWriter(part.beside(task.recipe.output / "packs", ".tar")) as pack:
        keep = _Keeper(part, pack, f"{unit.stem}.tar", task.recipe.inspect)
        if task.archive is not None:
            records = (read_pair_images if task.is_pairs else read_responses)(
                task.archive, max_payload_bytes=keep.settings.max_image_bytes
            )
            _take_from_archive(task, records, urls, keep, part)
            return
        for found in task.found:
            for row in read_rows(found, ["url"]):
                urls.pop(row["url"], None)
        left = list(urls)
        if not task.recipe.fetch:
            for url in left:
                keep.drop(url, None, "not_in_archive")
            return
        for start in range(0, len(left), FETCH_CHUNK):
            chunk = left[start : start + FETCH_CHUNK]
            fetched = {
                got.url: got for got in fetch_images(chunk, task.recipe.http, task.recipe.inspect.max_image_bytes)
            }
            for url in chunk:
                got = fetched[url]
                if got.payload is None:
                    keep.drop(url, "http", got.reason or "connection_failed")
                elif (reason := keep.take(url, url, "http", got.payload)) is not None:
                    keep.drop(url, "http", reason)


def wanted_urls(task: ImagesTask) -> dict[str, None]:
    """Return the image URLs of documents (kept ones, if there are masks), each once, in order of first appearance."""
    urls = dict.fromkeys(url for entry in task.documents.parts for url in _urls_of(entry.path, task.masks, entry.unit))
    return dict.fromkeys(list(urls)[: task.recipe.limit])


def _urls_of(documents: Place, masks: Manifest | None, unit: str) -> Iterator[str]:
    if masks is None:
        for row in read_rows(documents, ["images"]):
            yield from (url for url in row["images"] if url is not None)
        return
    for rows in read_aligned({"document": documents, "mask": masks.part(unit).path}):
        if rows["mask"]["keep"]:
            blocks = zip(rows["document"]["images"], rows["mask"]["keep_block"], strict=True)
            yield from (url for url, keep in blocks if url is not None and keep)


class _Keeper:
    """Writes the row of each URL, and the bytes of those kept to the pack."""

    def __init__(self, part: Part, pack: PackWriter, pack_name: str, settings: ImageSettings) -> None:
        self._part, self._pack, self._pack_name, self.settings = part, pack, pack_name, settings

    def take(self, record: str, url: str, source: str, payload: bytes) -> str | None:
        """Keep an image, or return the reason for which its bytes are refused."""
        facts = self._part.attempt(record, _inspect, payload, self.settings)
        if facts is LOST:
            return "not_inspected"
        if isinstance(facts, str):
            return facts
        offset, length = self._pack.add(facts.sha256, facts.media_type, payload)
        place = {"pack": self._pack_name, "offset": offset, "length": length}
        known = {"sha256": facts.sha256, "media_type": facts.media_type, "width": facts.width, "height": facts.height}
        self._part.write({"url": url, "status": "kept", "source": source, **known, **place})
        self._part.count("kept")
        return None

    def drop(self, url: str, source: str | None, reason: str) -> None:
        """Note that an image is not kept, and why."""
        self._part.write({"url": url, "status": "dropped", "reason": reason, "source": source})
        self._part.count(f"dropped.{reason}")


def _inspect(payload: bytes, settings: ImageSettings) -> ImageFacts | str:
    """Return the facts of an image, or the reason for which it is refused: that is no loss but a state of its URL."""
    try:
        return inspect_image(payload, settings)
    except RecordError as error:
        return error.reason


def _take_from_archive(
    task: ImagesTask, records: Iterable[Response | Damage], urls: dict[str, None], keep: _Keeper, part: Part
) -> None:
    """Take each wanted URL from its first sound record; one that has none keeps the reason of its first bad one."""
    archive, source = task.archive, "pairs" if task.is_pairs else "warc"
    assert archive is not None
    kept: set[str] = set()
    failed: dict[str, str] = {}
    for record in records:
        url = record.url
        if url is None or url not in urls:
            continue
        name = f"{archive.name}@{record.place}"
        if url in kept:
            part.quarantine(name, "second_record_of_url", url, is_loss=False)
        elif isinstance(record, Damage):
            failed.setdefault(url, record.reason)
        elif not 200 <= record.status < 300:
            # A page requisite that failed in the crawl may still be had over HTTP: it stays wanted.
            part.count("archived_failures")
        elif (reason := keep.take(name, url, source, record.payload)) is None:
            kept.add(url)
        else:
            failed.setdefault(url, reason)
    for url, reason in failed.items():
        if url not in kept:
            keep.drop(url, source, reason)


STAGE = Stage(name="images", version=1, schema=IMAGES, work=take_images)
