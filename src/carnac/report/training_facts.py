"""A training run in words and figures, for a terminal and for a page alike: how far, how good, how fast, what next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from carnac.report.folders import StageFolder
from carnac.report.layout import Facts, Figures, percent
from carnac.report.training import Training, TrainingStage
from carnac.report.training_plan import plan_of, plan_text
from carnac.train.series import Floats

NUM_LAST = 5  # steps shown one by one
COLUMNS = (
    ("loss", "loss", "{:.4f}"),
    ("learning rate", "learning_rate", "{:.3g}"),
    ("gradient", "gradient_norm", "{:.3g}"),
    ("label tokens", "label_tokens", "{:,.0f}"),
    ("tokens", "tokens", "{:,.0f}"),
    ("images", "images", "{:,.0f}"),
    ("seconds", "seconds", "{:.2f}"),
    ("waiting", "waiting_seconds", "{:.3f}"),
)
STATES = {"running": "running", "failed": "failed", "stopped": "stopped", "unfinished": "not finished"}


def heading(stage: TrainingStage) -> str:
    """Return how far a stage is, and its loss at the first, the last and the mean of the last steps."""
    series = stage.series
    if not len(series):
        return "no step is told: metrics.jsonl is missing or empty"
    of = "" if stage.num_steps in (None, len(series)) else f" of {stage.num_steps:,}"
    state = "" if stage.found is not None and stage.found.is_finished else " so far"
    far = f"{len(series):,}{of} steps{state}"
    steps, losses = series.losses()
    if not len(steps):
        return f"{far}; no loss yet"
    # The last one may be no number: that is what such a run has to say.
    row = int(np.flatnonzero(series.whole("label_tokens") > 0)[-1])
    last = f"{series.whole('loss')[row]:.3f} at step {series.steps[row]}"
    return (
        f"{far}; loss {losses[0]:.3f} at step {steps[0]}, {last}, "
        f"mean of the last {min(stage.tail, len(losses)):,}: {stage.mean_loss():.3f}"
    )


def facts(training: Training, folders: Sequence[StageFolder]) -> Facts:
    """Return what there is to say of a run beside its heading; `folders` are those around it, its plans among them."""
    stage = training.current
    lines = list(_lines(stage))
    others = [other for other in training.stages if other is not stage]
    plan = plan_of(stage, others, folders)
    tables = [_stages(training), _sources(stage)]
    if plan is not None:
        told = plan_text(plan.content, stage)
        lines.append(("plan", told.line))
        tables.append(Figures(title="plan", head=told.head, rows=told.rows) if told.rows else None)
    tables.append(_last_steps(stage))
    return Facts(lines=tuple(lines), tables=tuple(table for table in tables if table is not None))


def _lines(stage: TrainingStage) -> Iterator[tuple[str, str]]:
    yield from _named("speed", _speed(stage))
    yield from _named("time", _time(stage))
    yield from _named("rates", _rates(stage))
    yield from _named("gradient", _gradient(stage))
    yield from _named("grounding", _grounding(stage))
    for name in stage.series.below("evaluation"):
        yield from _named(name.replace("_", " "), _evaluation(stage, name))
    yield from _named("bad samples", _stand_ins(stage))
    yield from _named("checkpoints", checkpoints_text(stage))


def _named(name: str, what: str) -> Iterator[tuple[str, str]]:
    if what:
        yield name, what


def _speed(stage: TrainingStage) -> str:
    figures = ((stage.share("tokens"), "{:,.0f} tokens/s"), (stage.share("images"), "{:,.1f} images/s"))
    words = [form.format(value) for value, form in figures if value is not None]
    waiting, flops = stage.share("waiting_seconds"), stage.share("flops")
    mfu = stage.series.there("mfu")[1][-stage.tail :]
    if len(mfu):
        words.append(f"MFU {percent(float(mfu.mean()))}")
    elif flops:
        words.append(f"{flops / 1e12:.3g} TFLOP/s")
    if waiting is not None:
        words.append(f"waiting for data {100 * waiting:.1f} %")
    return ", ".join(words)


def _time(stage: TrainingStage) -> str:
    seconds = stage.series.there("seconds")[1]
    if not len(seconds):
        return ""
    spent = f"{duration(float(seconds.sum()))} in steps"
    if stage.status != "running" or stage.num_steps is None:
        return spent
    left = (stage.num_steps - len(stage.series)) * float(seconds[-stage.tail :].mean())
    return f"{spent}, about {duration(left)} to go"


def _rates(stage: TrainingStage) -> str:
    """Return the learning rates of the parts at the newest checkpoint, where they differ."""
    state = stage.checkpoints[-1].state if stage.checkpoints else {}
    rates = state.get("rates")
    if not isinstance(rates, dict) or not all(isinstance(rate, float) for rate in rates.values()):
        return ""
    told = ", ".join(f"{part} {rate:.3g}" for part, rate in rates.items())
    return f"{told} at {stage.checkpoints[-1].name}" if len(set(rates.values())) > 1 else ""


def _gradient(stage: TrainingStage) -> str:
    steps, norms = stage.series.there("gradient_norm")
    if not len(norms):
        return ""
    words = f"norm {np.median(norms[-stage.tail :]):.3g} (median of the last {min(stage.tail, len(norms)):,})"
    clip = stage.clip_norm
    clipped = "" if clip is None else f", {percent(float((norms > clip).mean()))} of the steps clipped at {clip:g}"
    return f"{words}{clipped}, longest {norms.max():.3g} at step {steps[norms.argmax()]}"


def _grounding(stage: TrainingStage) -> str:
    steps, right = stage.series.there("grounding", "right")
    _, other = stage.series.there("grounding", "other")
    if not len(steps) or len(right) != len(other):
        return ""
    return (
        f"loss after an image {right[-1]:.3f}, {other[-1]:.3f} with images of other samples at step {steps[-1]}: "
        f"{other[-1] - right[-1]:+.3f}"
    )


def _evaluation(stage: TrainingStage, name: str) -> str:
    steps, values = stage.series.there("evaluation", name)
    if not len(steps):
        return ""
    others = f"; {values.min():.4g} to {values.max():.4g} in {len(values)} evaluations" if len(values) > 1 else ""
    return f"{values[-1]:.4g} at step {steps[-1]}{others}"


def _stand_ins(stage: TrainingStage) -> str:
    number = int(np.nansum(stage.series.whole("stand_ins")))
    return f"{number:,} with a picture that does not decode: grey, and their labels masked" if number else ""


def checkpoints_text(stage: TrainingStage) -> str:
    """Return the checkpoints at hand and, of a run that is not done, from which step it goes on."""
    if not stage.checkpoints:
        return ""
    names = [
        f"{each.name} ({each.num_bytes / 1e6:,.1f} MB{f', damaged: {each.problem}' if each.problem else ''})"
        for each in stage.checkpoints
    ]
    shown = ", ".join(names if len(names) <= 4 else [names[0], f"... {len(names) - 3} more", *names[-2:]])
    if stage.found is not None and stage.found.is_finished:
        return shown
    if stage.status == "running":
        return shown
    whole = [each.step for each in stage.checkpoints if not each.problem]
    if not whole:
        return f"{shown}; none is whole"
    after = int((stage.series.steps >= whole[-1]).sum())
    again = f": the {after} steps after it are made again" if after else ""
    return f"{shown}; the same command goes on from step {whole[-1]}{again}"


def _stages(training: Training) -> Figures | None:
    if len(training.stages) < 2:
        return None
    rows = tuple(
        (
            f"{number}. {stage.name}",
            STATES.get(stage.status, stage.status) if len(stage.series) else "not begun",
            f"{len(stage.series):,}" + (f" of {stage.num_steps:,}" if stage.num_steps else ""),
            *_losses(stage),
            f"{int(np.nansum(stage.series.whole('tokens'))):,}",
            duration(float(np.nansum(stage.series.whole("seconds")))),
        )
        for number, stage in enumerate(training.stages, start=1)
    )
    return Figures(
        title="stages", head=("stage", "state", "steps", "first loss", "last loss", "tokens", "time"), rows=rows
    )


def _losses(stage: TrainingStage) -> tuple[str, str]:
    losses = stage.series.losses()[1]
    return (f"{losses[0]:.3f}", f"{stage.mean_loss():.3f}") if len(losses) else ("", "")


def _sources(stage: TrainingStage) -> Figures | None:
    series = stage.series
    names = series.below("sources")
    if len(names) < 2:
        return None
    counts = ("label_tokens", "tokens", "images")
    totals = {name: [int(np.nansum(series.whole("sources", name, what))) for what in counts] for name in names}
    whole = [max(1, sum(total[number] for total in totals.values())) for number in range(3)]
    rows = tuple(
        (
            name,
            _mean_text(series.losses("sources", name)[1][-stage.tail :]),
            *(f"{total:,} ({percent(total / of)})" for total, of in zip(totals[name], whole, strict=True)),
        )
        for name in names
    )
    head = ("source", f"loss, last {stage.tail:,}", "label tokens", "tokens", "images")
    return Figures(title="sources, as met so far", head=head, rows=rows)


def _mean_text(values: Floats) -> str:
    return f"{np.mean(values):.3f}" if len(values) else ""


def _last_steps(stage: TrainingStage) -> Figures | None:
    series = stage.series
    if not len(series):
        return None
    last = range(max(0, len(series) - NUM_LAST), len(series))
    values = {name: series.whole(name) for _, name, _ in COLUMNS}
    rows = tuple(
        (
            f"{series.steps[row]}",
            *(form.format(values[name][row]) if np.isfinite(values[name][row]) else "" for _, name, form in COLUMNS),
        )
        for row in last
    )
    return Figures(title="the last steps", head=("step", *(title for title, _, _ in COLUMNS)), rows=rows)


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"
