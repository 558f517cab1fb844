"""How a training looks: a line of text, and the loss over the steps as a drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spectral_fusion_app.train.progress import Point, TrainingState, smoothed

WIDTH, HEIGHT, MARGIN = 600, 180, 44
MOST_POINTS = 300  # of a line: more than a screen shows
WORDS = {
    "waiting": "waiting for the training before it",
    "preparing": "preparing: the base draws what it must not forget",
    "training": "training",
    "stopping": "stopping after this step",
    "finished": "finished, and in your library",
    "stopped": "stopped",
    "failed": "failed",
}


def state_words(state: TrainingState, seconds: float) -> str:
    """A line: what it is doing, how far it is, how long it takes still. `seconds`: that its process has run."""
    parts = [WORDS[state.kind]]
    if state.kind == "preparing":
        parts.append(f"{duration(seconds)} so far, often 1 to 2 min")
    if state.steps and state.kind != "finished":
        parts.append(f"step {state.step} of {state.steps}")
    if state.kind == "training" and state.seconds_left is not None:
        parts.append(f"{duration(state.seconds_left)} left")
    return " · ".join(parts)


@dataclass(frozen=True)
class Chart:
    """A drawing over the steps: the first and last one across, the lowest and highest value up."""

    first: int
    last: int
    low: float
    high: float

    def at(self, step: int, value: float) -> str:
        """Where a value lies, as `x,y`."""
        x = MARGIN + (step - self.first) / ((self.last - self.first) or 1) * (WIDTH - MARGIN - 8)
        y = HEIGHT - 24 - (value - self.low) / ((self.high - self.low) or 1) * (HEIGHT - 36)
        return f"{x:.1f},{y:.1f}"

    def line(self, places: Iterable[tuple[int, float]], style: str) -> str:
        """Through (step, value)."""
        path = " ".join(self.at(step, value) for step, value in places)
        return f'<polyline points="{path}" fill="none" stroke="var(--color-accent)" {style}/>'

    def dots(self, places: Iterable[tuple[int, float]]) -> str:
        """At (step, value)."""
        corners = [self.at(step, value).split(",") for step, value in places]
        return "".join(f'<circle r="3" fill="currentColor" cx="{x}" cy="{y}"/>' for x, y in corners)

    def svg(self, title: str, inside: str) -> str:
        """The whole drawing."""
        labels = [(4, 16, "start", f"{self.high:.3f}"), (4, HEIGHT - 26, "start", f"{self.low:.3f}")]
        labels += [(MARGIN, HEIGHT - 6, "start", f"step {self.first}")]
        labels += [(WIDTH - 8, HEIGHT - 6, "end", f"step {self.last}")]
        texts = "".join(f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in labels)
        return (
            f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"><title>{title}</title>'
            f'<g font-size="12" fill="currentColor" opacity="0.7">{texts}</g>{inside}</svg>'
        )


def loss_svg(points: Sequence[Point]) -> str:
    """The loss over the steps: faint as it is, strong when smoothed, dots for the validation loss."""
    if len(points) < 2:
        return ""
    shown = range(0, len(points), -(-len(points) // MOST_POINTS))
    smooth = smoothed(points)
    probes = [(point.step, point.probe_loss) for point in points if point.probe_loss is not None]
    values = [point.loss for point in points] + [loss for _, loss in probes]
    chart = Chart(points[0].step, points[-1].step, min(values), max(values))
    plain = chart.line([(points[i].step, points[i].loss) for i in shown], 'stroke-width="1" opacity="0.25"')
    strong = chart.line([(points[i].step, smooth[i]) for i in shown], 'stroke-width="2"')
    return chart.svg("loss over the steps", plain + strong + chart.dots(probes))


def likeness_svg(points: Sequence[Point]) -> str:
    """How like the photos the samples are, over the steps; nothing before there are two, or without a scorer."""
    known = [(point.step, point.likeness) for point in points if point.likeness is not None]
    if len(known) < 2:
        return ""
    values = [likeness for _, likeness in known]
    chart = Chart(known[0][0], known[-1][0], min(*values, 0.0), 1.0)
    return chart.svg("likeness to the photos", chart.line(known, 'stroke-width="2"') + chart.dots(known))


def duration(seconds: float) -> str:
    """A time in words: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
