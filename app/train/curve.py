"""How a training looks: a line of text, and the loss over the steps as a drawing."""

from __future__ import annotations

from collections.abc import Sequence

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


def loss_svg(points: Sequence[Point]) -> str:
    """The loss over the steps: faint as it is, strong when smoothed, dots for the validation loss."""
    if len(points) < 2:
        return ""
    every = -(-len(points) // MOST_POINTS)
    shown = range(0, len(points), every)
    smooth = smoothed(points)
    values = [point.loss for point in points] + [p.probe_loss for p in points if p.probe_loss is not None]
    low, high = min(values), max(values)
    first, last = points[0].step, points[-1].step

    def at(step: int, value: float) -> str:
        x = MARGIN + (step - first) / (last - first) * (WIDTH - MARGIN - 8)
        y = HEIGHT - 24 - (value - low) / ((high - low) or 1) * (HEIGHT - 36)
        return f"{x:.1f},{y:.1f}"

    def line(losses: Sequence[float], style: str) -> str:
        path = " ".join(at(points[i].step, losses[i]) for i in shown)
        return f'<polyline points="{path}" fill="none" stroke="var(--color-accent)" {style}/>'

    dots = "".join(
        '<circle r="3" fill="currentColor" cx="{}" cy="{}"/>'.format(*at(p.step, p.probe_loss).split(","))
        for p in points
        if p.probe_loss is not None
    )
    labels = [(4, 16, "start", f"{high:.3f}"), (4, HEIGHT - 26, "start", f"{low:.3f}")]
    labels += [(MARGIN, HEIGHT - 6, "start", f"step {first}"), (WIDTH - 8, HEIGHT - 6, "end", f"step {last}")]
    texts = "".join(f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in labels)
    return (
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss over the steps">'
        f"<title>loss over the steps</title>"
        f'<g font-size="12" fill="currentColor" opacity="0.7">{texts}</g>'
        + line([p.loss for p in points], 'stroke-width="1" opacity="0.25"')
        + line(smooth, 'stroke-width="2"')
        + f"{dots}</svg>"
    )


def duration(seconds: float) -> str:
    """A time in words: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
