"""One stage of a train recipe: the model, from the beginning or the newest checkpoint, to the committed folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from carnac.core.errors import InputError, OutputError
from carnac.core.seeds import seed_of
from carnac.engine.manifest import MANIFEST, find_done
from carnac.engine.part import Part
from carnac.engine.run import EarlyEnd, Runner
from carnac.engine.state import Pulse
from carnac.engine.storage import list_files, sha256_of
from carnac.engine.tables import read_table
from carnac.engine.unit import Stage, Unit
from carnac.jobs.models import INPUTS_FILE, write_inputs
from carnac.jobs.train_evaluation import HeldOutLosses
from carnac.jobs.train_model import Built, Given, build
from carnac.jobs.train_watch import BadSamples, Recorder, Watch
from carnac.mix.ahead import BatchesAhead
from carnac.mix.batches import BatchReader
from carnac.mix.rows import PlanRows
from carnac.sequence.tokenizer import FILE_NAME as TOKENIZER_FILE
from carnac.sequence.tokenizer import load_tokenizer
from carnac.train.metrics import MetricsFile, read_metrics, truncate_metrics
from carnac.train.run_folder import CHECKPOINTS, METRICS_FILE
from carnac.train.stop import Requests

if TYPE_CHECKING:
    from carnac.model.multimodal import MultimodalModel
    from carnac.train.checkpoint import Parts, RunState

# One row per step: what must be equal in a run that was killed and resumed. The last row names the weights.
MODEL = pa.schema(
    [
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("gradient_norm", pa.float64()),
        ("label_tokens", pa.int64()),
        ("tokens", pa.int64()),
        ("images", pa.int64()),
        ("pieces", pa.int64()),
        ("weights_sha256", pa.string()),
    ]
)


def holds_model(folder: Path, unit: Unit) -> bool:
    """Say whether `folder` holds the finished model of `unit`: every file, and the very weights that its part names.

    All runs of a folder give their files the same names, so the part alone would vouch for another run's weights.
    """
    from carnac.model.weights import WEIGHTS_FILE

    if find_done(folder, [unit], list_files(folder))[unit.name] is None:
        return False
    weights = read_table(folder / unit.file_name, columns=["weights_sha256"])["weights_sha256"].to_pylist()[-1]
    return bool(sha256_of(folder / WEIGHTS_FILE) == weights)


class Training:
    """One run of the loop in this process, from the beginning or the newest checkpoint."""

    def __init__(self, given: Given, unit: Unit, runner: Runner, pulse: Pulse) -> None:
        self._given, self._unit, self._runner, self._pulse = given, unit, runner, pulse
        self._settings, self._output = given.stage.training, given.stage.output
        self._tokenizer = load_tokenizer(given.plan.tokenizer_file)
        self._plan_rows = PlanRows(given.plan.rows.path)
        self._checkpoints = self._output / CHECKPOINTS
        self._metrics = self._output / METRICS_FILE

    def run(self) -> None:
        """Train to the end and commit the model. Raises OutputError where the disk refuses something of it."""
        from safetensors import SafetensorError

        try:
            self._run()
        except (OSError, SafetensorError) as error:
            said = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise OutputError(
                f"{getattr(error, 'filename', None) or self._output}: cannot be written ({said}). Free space, then run "
                "the same command again: it goes on from the last checkpoint."
            ) from error

    def _run(self) -> None:
        built = build(self._given, self._tokenizer)
        start = self._resume(built.parts)
        # From here on the folders are this run's: a manifest of an earlier one would vouch for files that are replaced.
        (self._output / MANIFEST).unlink(missing_ok=True)
        self._given.plan.publish()
        with Requests(self._given.recipe.output) as requests:
            stopped = self._loop(built, start, requests)
            if stopped is not None:
                self._end_early(requests, stopped)
        self._commit(built.model)

    def _resume(self, parts: Parts) -> int:
        from carnac.train.checkpoint import latest, sweep
        from carnac.train.optimizer import rates_at
        from carnac.train.resume import resume

        sweep(self._checkpoints)
        newest = latest(self._checkpoints)
        start = 0
        if newest is not None:
            resumed = resume(
                newest, parts, self._state_at, lambda step: rates_at(parts.optimizer, step, self._settings)
            )
            for line in resumed.lines:
                self._runner.reporter.say(line)
            start = resumed.next_step
        if self._metrics.is_file():
            truncate_metrics(self._metrics, start)
        self._whole_metrics(start)
        return start

    def _state_at(self, step: int) -> RunState:
        """Return what this run is before `step`."""
        from carnac.train.checkpoint import PlanPosition, RunState, digest_pieces

        given = self._given
        first, stop = (given.stage.first_row + row for row in given.stage.mix.rows_of(step))
        position = PlanPosition(digest=given.plan.digest, next_row=first)
        if step < self._settings.steps:
            coming = chain.from_iterable(self._plan_rows.pieces(first, stop))
            position = replace(position, next_pieces=digest_pieces(coming))
        return RunState(
            next_step=step,
            key=self._unit.key,
            settings=given.affecting,
            plan=position,
            random=seed_of(self._settings.seed, "step", step, 0) % 2**63,
        )

    def _reader(self) -> BatchReader:
        plan, stage = self._given.plan, self._given.stage
        return BatchReader(
            plan.rows.path, plan.shards, self._tokenizer, stage.pictures, stage.mix, first_row=stage.first_row
        )

    def _loop(self, built: Built, start: int, requests: Requests) -> int | None:
        from carnac.train.loop import Run, train

        settings, mix = self._settings, self._given.stage.mix
        bad = sum(row.get("stand_ins", 0) for row in read_metrics(self._metrics))
        with ExitStack() as stack:
            metrics = stack.enter_context(MetricsFile(self._metrics))
            recorders = tuple(self._recorders(stack, start))
            task = stack.enter_context(self._runner.reporter.task(self._name, settings.steps, start))
            steps = range(start, settings.steps)
            batches = stack.enter_context(BatchesAhead(self._reader(), steps, mix.workers))
            watch = Watch(
                metrics=metrics,
                recorders=recorders,
                parts=built.parts,
                task=task,
                pulse=self._pulse,
                folder=self._checkpoints,
                settings=settings.checkpoints,
                state_at=self._state_at,
                bad_samples=BadSamples(most=mix.max_bad_samples, found=bad),
            )
            run = Run(
                model=built.model,
                optimizer=built.parts.optimizer,
                batches=batches,
                settings=settings,
                watch=watch,
                evaluations=tuple(self._evaluations()),
                listener=requests,
                flops=built.flops,
                peak_flops=built.peak_flops,
            )
            return train(run, start)

    @property
    def _name(self) -> str:
        return f"train {self._given.stage.name}".strip()

    def _recorders(self, stack: ExitStack, start: int) -> Iterator[Recorder]:
        if self._settings.monitor.tensorboard:
            from carnac.train.tensorboard import TensorBoard

            yield stack.enter_context(TensorBoard(self._output / "tensorboard", start))

    def _evaluations(self) -> Iterator[HeldOutLosses]:
        heldout = self._given.heldout
        if heldout is not None and self._settings.monitor.evaluation_every_steps is not None:
            yield HeldOutLosses(heldout, self._tokenizer, self._given.inputs, self._settings)

    def _end_early(self, requests: Requests, next_step: int) -> None:
        """Say that the run stopped as it was asked to, and end it: nothing of it is marked finished."""
        why = (
            f"stopped before step {next_step} of {self._settings.steps}, as {requests.asker} asked; saved in "
            f"{self._checkpoints}. The same command goes on from there."
        )
        self._pulse.beat(why_stopped=why)
        self._runner.reporter.say(f"{self._name}: {why}")
        requests.end_as_asked()
        raise EarlyEnd

    def _commit(self, model: MultimodalModel) -> None:
        """Write the model's files, and last the part that says that they are all there."""
        from carnac.model.weights import CONFIG_FILE, WEIGHTS_FILE, save_model
        from carnac.train.curve import draw_loss

        output, steps = self._output, self._settings.steps
        save_model(model, output)
        write_inputs(output, self._given.plan.tokenizer_file, self._given.inputs)
        rows = self._whole_metrics(steps)
        draw_loss(rows, output / "loss.png")
        weights = sha256_of(output / WEIGHTS_FILE)
        with Part(STAGE, self._unit, output) as part:
            for row in rows:
                kept = {name: row[name] for name in MODEL.names if name in row}
                part.write({**kept, "weights_sha256": weights if row["step"] == steps - 1 else None})
            for name in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, INPUTS_FILE, "loss.png"):
                part.needs(output / name)
            part.count("parameters", sum(parameter.numel() for parameter in model.parameters()))
            part.count("tokens", sum(row["tokens"] for row in rows))
            part.count("images", sum(row["images"] for row in rows))

    def _whole_metrics(self, steps: int) -> list[dict[str, Any]]:
        """Return the records of steps 0 to `steps` - 1, of which the part is made. Raises InputError when one lacks."""
        rows = read_metrics(self._metrics)
        if [row["step"] for row in rows] != list(range(steps)):
            raise InputError(
                f"{self._metrics}: holds {len(rows)} steps, but {self._checkpoints} goes on from step {steps}. "
                f"Put the file back, or remove {self._checkpoints} to train again from the beginning."
            )
        return rows


STAGE = Stage(name="model", version=2, schema=MODEL, work=None)
