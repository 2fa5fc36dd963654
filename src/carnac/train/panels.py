"""The numbers of a run, stage after stage -> its drawings: loss, sources, rates, speed, what was measured meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from carnac.train.curve import smooth
from carnac.train.drawing import COLOURS, Curve, Frame, Line, Panel, draw
from carnac.train.series import Series

Stages = Sequence[Series]
# What is drawn per second of step, as a mean over the steps around. MFU is a share of each second.
SPEEDS = (
    ("tokens", "Tokens per second", "without padding", 1.0),
    ("waiting_seconds", "Waiting for data", "per cent of the time", 100.0),
    ("mfu", "MFU", "per cent of what the device can do", 100.0),
)


def draw_panels(stages: Stages, *, clip_norm: float | None = None) -> list[Panel]:
    """Return the drawings of a run whose stages follow one another; what a run has not is left out.

    `clip_norm` is the longest gradient taken, drawn as a level.
    """
    import matplotlib as mpl

    begun = [stage for stage in stages if len(stage)]
    planned = [*_losses(begun), *_measured(begun), *_course(begun, clip_norm), *_speeds(begun)]
    # A fixed salt: the same numbers give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "carnac", "svg.fonttype": "path"}):
        drawn = [draw(frame, lines, begun) for frame, lines in planned]
    return [panel for panel in drawn if panel is not None]


_Planned = Iterator[tuple[Frame, Sequence[Line]]]


def _losses(stages: Stages) -> _Planned:
    losses = [stage.losses() for stage in stages]
    curves = _smoothed(losses)
    is_log = _spans_decades(curves)
    what = f"nats per label: {'' if is_log else 'each step (pale), '}mean of the steps around"
    frame = Frame(name="loss", title="Loss", what=what, is_wide=True, is_log=is_log)
    yield frame, [Line(label="loss", curves=curves, raw=[] if is_log else losses)]
    frame = Frame(name="sources", title="Loss by source", what="nats per label, mean of the steps around")
    yield frame, list(_source_lines(stages))


def _spans_decades(curves: Sequence[Curve]) -> bool:
    """Say whether a loss falls to a twentieth: on an even scale all but its first steps would be one flat line.

    The single steps are left out then: those near zero would stretch the scale for nothing.
    """
    values = np.concatenate([values for _, values in curves]) if curves else np.zeros(1)
    return bool(len(values) and values.min() > 0 and values.max() > 20 * values.min())


def _source_lines(stages: Stages) -> Iterator[Line]:
    """Yield a line for each source where there are several: of dozens those that most labels are of."""
    labels = {
        name: sum(float(np.nansum(stage.whole("sources", name, "label_tokens"))) for stage in stages)
        for name in _names(stages, "sources")
    }
    if len(labels) > 1:
        for name in sorted(labels, key=lambda name: -labels[name])[: len(COLOURS)]:
            yield Line(label=name, curves=_smoothed([stage.losses("sources", name) for stage in stages]))


def _measured(stages: Stages) -> _Planned:
    """Yield grounding, and a drawing per evaluation: values whose names begin alike are of one, in one unit."""
    what = "loss after an image with those of other samples, less that with its own: above 0 the model looks"
    frame = Frame(name="grounding", title="Grounding", what=what, level=0.0)
    yield frame, [Line(label="gap", curves=[_gap(stage) for stage in stages], has_marks=True)]
    groups: dict[str, list[str]] = {}
    for name in _names(stages, "evaluation"):
        groups.setdefault(name.partition("_")[0], []).append(name)
    for group, names in groups.items():
        lines = [
            Line(label=_said(name), curves=[stage.there("evaluation", name) for stage in stages], has_marks=True)
            for name in names[: len(COLOURS)]
        ]
        title = "On held-out samples" if group == "heldout" else f"Evaluation: {names[0] if len(names) == 1 else group}"
        what = "nats per token" if group == "heldout" else "as the evaluation counts it"
        yield Frame(name=f"evaluation.{group}", title=title, what=what), lines


def _course(stages: Stages, clip_norm: float | None) -> _Planned:
    rates = [stage.there("learning_rate") for stage in stages]
    frame = Frame(name="learning_rate", title="Learning rate", what="of parts without a rate of their own")
    yield frame, [Line(label="rate", curves=rates)]
    norms = [_positive(stage.there("gradient_norm")) for stage in stages]
    what = "before clipping" if clip_norm is None else f"longer ones than {clip_norm:g} (grey) are clipped"
    frame = Frame(name="gradient_norm", title="Gradient norm", what=what, level=clip_norm, is_log=True)
    yield frame, [Line(label="norm", curves=_smoothed(norms), raw=norms)]
    penalties = [stage.there("z_loss") for stage in stages]
    if any(values.any() for _, values in penalties):
        frame = Frame(name="z_loss", title="z-loss", what="what it adds to the loss")
        yield frame, [Line(label="z-loss", curves=_smoothed(penalties))]


def _speeds(stages: Stages) -> _Planned:
    for name, title, what, factor in SPEEDS:
        curves = [_rate(stage, name, factor) for stage in stages]
        yield Frame(name=name, title=title, what=what, is_from_0=True), [Line(label=name, curves=curves)]


def _said(name: str) -> str:
    return name.removeprefix("heldout_").replace("_", " ")


def _names(stages: Stages, prefix: str) -> list[str]:
    return list(dict.fromkeys(name for stage in stages for name in stage.below(prefix)))


def _smoothed(curves: Sequence[Curve]) -> list[Curve]:
    return [(steps, smooth(values)) for steps, values in curves]


def _positive(curve: Curve) -> Curve:
    steps, values = curve
    return steps[values > 0], values[values > 0]


def _gap(stage: Series) -> Curve:
    gaps = stage.whole("grounding", "other") - stage.whole("grounding", "right")
    has = np.isfinite(gaps)
    return stage.steps[has], gaps[has]


def _rate(stage: Series, name: str, factor: float) -> Curve:
    """Return a number per second: a ratio of means, since short steps must not count as much as long ones."""
    values, seconds = stage.whole(name), stage.whole("seconds")
    above = values * seconds if name == "mfu" else values
    has = np.isfinite(above) & (seconds > 0)
    return stage.steps[has], factor * smooth(above[has]) / smooth(seconds[has])
