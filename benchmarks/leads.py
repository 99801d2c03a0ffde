"""How often a lead is found where there is none, and how well where there is one, by form of the behaviour's speed.

    python benchmarks/leads.py                # about five minutes of one core
    python benchmarks/leads.py --runs 50

A run is 145 checkpoints: a distance of the structure, a loss, and an arc length whose pace follows a cosine schedule.
Forms of the loss's speed: root, log and absolute, one-sided, and signed, two-sided (twice the smaller p of both signs).
`phasegraph.phases.leads.lead_lag` uses the root. p is against stationary noise, "both" the larger of it and the p of
circular shifts. The last table has intervals: prompts are noisy, and in its second half so is training.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from engine_methods.table import markdown
from scipy.signal import lfilter
from scipy.special import stdtrit

from phasegraph.phases import lags, leads
from phasegraph.types import GROUPS

N, SURROGATES, ALPHA = 145, 199, 0.05
FORMS: dict[str, Callable] = {
    "root": np.sqrt,
    "log": lambda speed: np.log(np.maximum(speed, 0.01 * np.median(speed))),
    "absolute": lambda speed: speed,
}
PROMPT_NOISE = 0.5
"""Standard deviation of one group's noise, in units of the noise of training."""

Scene = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Distances, levels and arc length [N]; the first distance is not used."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="runs of every scene")
    runs = parser.parse_args().runs
    print("\n\n".join([levels(runs), powers(runs), intervals(max(runs // 2, 1))]))


def autoregression(rng: np.random.Generator, ar: float) -> np.ndarray:
    """Unit-variance noise [N]."""
    return np.sqrt(1 - ar**2) * lfilter([1.0], [1.0, -ar], rng.standard_normal(N + 200))[200:]


def pace(rng: np.random.Generator, jitter: float = 0.0) -> np.ndarray:
    """Displacements [N]: a cosine schedule that ends at 13 %."""
    return (0.13 + 0.87 * (1 + np.cos(np.pi * np.linspace(0, 1, N))) / 2) * np.exp(jitter * rng.standard_normal(N))


def bump(centre: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((np.arange(N) - centre) / width) ** 2)


def burst(rng: np.random.Generator, first: np.ndarray | float, second: np.ndarray | float) -> Scene:
    """A structure and a sigmoid loss (or what else two extra speeds [N] make) with noise of training."""
    moved = pace(rng)
    distances = moved * (0.3 + first) * np.exp(0.3 * autoregression(rng, 0.3))
    changes = moved * (0.5 * rng.standard_normal(N) - 0.1 - 2 * second)
    return distances, changes.cumsum(), moved.cumsum()


def independent(rng: np.random.Generator, ar: float) -> Scene:
    """Logarithms of both speeds are autoregressive."""
    moved = pace(rng)
    speeds = [np.exp(0.5 * autoregression(rng, ar)) for _ in range(2)]
    return moved * speeds[0], -(moved * speeds[1]).cumsum(), moved.cumsum()


def walking_speeds(rng: np.random.Generator) -> Scene:
    moved = pace(rng)
    speeds = [np.exp(0.1 * rng.standard_normal(N).cumsum()) for _ in range(2)]
    return moved * speeds[0], -(moved * speeds[1]).cumsum(), moved.cumsum()


def walking_levels(rng: np.random.Generator) -> Scene:
    moved = pace(rng)
    return moved * np.abs(rng.standard_normal(N)), (moved * rng.standard_normal(N)).cumsum(), moved.cumsum()


def sigmoids(rng: np.random.Generator, width: float) -> Scene:
    return burst(rng, bump(rng.uniform(0, N), width), bump(rng.uniform(0, N), width))


def start(rng: np.random.Generator, time: float) -> Scene:
    decay = 3 * np.exp(-np.arange(N) / time)
    return burst(rng, decay, decay)


def unscaled(rng: np.random.Generator) -> Scene:
    """Changes that are the same however far the weights went, which varies."""
    distances = np.exp(0.3 * autoregression(rng, 0.3))
    return distances, rng.standard_normal(N).cumsum(), pace(rng, 0.5).cumsum()


NULLS: dict[str, Callable[[np.random.Generator], Scene]] = {
    "AR(1) log speeds, 0": lambda rng: independent(rng, 0.0),
    "AR(1) log speeds, .5": lambda rng: independent(rng, 0.5),
    "AR(1) log speeds, .9": lambda rng: independent(rng, 0.9),
    "random-walk log speeds": walking_speeds,
    "random-walk levels": walking_levels,
    "both fast at first, for 3 checkpoints": lambda rng: start(rng, 3),
    "both fast at first, for 10": lambda rng: start(rng, 10),
    "changes that ignore the displacement": unscaled,
    "unrelated sigmoids, 8 checkpoints": lambda rng: sigmoids(rng, 3),
    "unrelated sigmoids, 20": lambda rng: sigmoids(rng, 8),
    "unrelated sigmoids, 40": lambda rng: sigmoids(rng, 15),
}
"""Scenes without a lead; of sigmoids, how long 10 to 90 % of the fall take."""

PLANTED = [(lag, width) for width in (3, 8) for lag in (0, 4, 8)]


def tested(scene: Scene, seed: int) -> Iterator[tuple[str, float, float, float]]:
    """Form, p, p of circular shifts, and lag."""
    distances, values, axis = scene
    moved, trend, rng = np.diff(axis), leads.trends(axis), np.random.default_rng(seed)
    x = lags.remainder(leads.structure_speed(distances, moved), trend)
    fakes = lags.remainder(lags.phase_randomised(x, SURROGATES, rng), trend)

    def against(speed: np.ndarray) -> tuple[float, float, float]:
        y = lags.remainder(speed, trend)
        found = lags.cross_correlations(x, y, leads.MAX_LAG)
        exceeding = (lags.cross_correlations(fakes, y, leads.MAX_LAG).max(-1) >= found.max()).sum()
        timing = lags.timing_p(x, y, abs(int(found.argmax()) - leads.MAX_LAG))
        return (1 + exceeding) / (1 + SURROGATES), timing, float(lags.peak(found))

    for name, form in FORMS.items():
        yield name, *against(form(np.abs(np.diff(values)) / moved))
    best = min((against(sign * np.diff(values) / moved) for sign in (-1, 1)), key=lambda one: one[0])
    yield "signed", min(1.0, 2 * best[0]), min(1.0, 2 * best[1]), best[2]


def outcomes(make: Callable[[np.random.Generator], Scene], runs: int) -> dict[str, np.ndarray]:
    """Form -> [runs, 3]: p, the larger p, lag."""
    found: dict[str, list] = {}
    for run in range(runs):
        for form, p, timing, lag in tested(make(np.random.default_rng([3, run])), run):
            found.setdefault(form, []).append((p, max(p, timing), lag))
    return {form: np.array(rows) for form, rows in found.items()}


def rates(found: dict[str, np.ndarray]) -> list[str]:
    return [f"{rate:.2f}" for rows in found.values() for rate in (rows[:, :2] <= ALPHA).mean(0)]


def levels(runs: int) -> str:
    """False alarms at 5 %."""
    rows = [[name, *rates(outcomes(make, runs))] for name, make in NULLS.items()]
    return markdown(
        ["no lead: share with p <= .05", *(c for form in (*FORMS, "signed") for c in (form, "both"))], rows, 1
    )


def powers(runs: int) -> str:
    """Power at 5 % and median error of the lag."""
    rows = []
    for lag, width in PLANTED:

        def make(rng: np.random.Generator, lag: int = lag, width: int = width) -> Scene:
            centre = rng.uniform(30, 110)
            return burst(rng, bump(centre, width), bump(centre + lag, width))

        found = outcomes(make, runs)
        errors = [f"{np.median(np.abs(of[:, 2] - lag)):.1f}" for of in found.values()]
        cells = rates(found)
        rows.append([f"lag {lag}, {round(2.56 * width)} checkpoints long"])
        for i, error in enumerate(errors):
            rows[-1] += [cells[2 * i], cells[2 * i + 1], error]
    head = [c for form in (*FORMS, "signed") for c in (form, "both", "error")]
    return markdown(["planted burst: share with p <= .05, median error of the lag", *head], rows, 1)


def intervals(runs: int) -> str:
    """Coverage and median length of nominal 90 % intervals."""
    rows = []
    for training in (0.0, 1.0):
        for lag, width in PLANTED:
            found = [interval(np.random.default_rng([4, run]), lag, width, training) for run in range(runs)]
            ends = np.array([(one.low, one.high) for one in found])
            margins = stdtrit(GROUPS - 1, 0.95) * np.array([one.prompt_error for one in found])
            alone = np.array([one.lag for one in found])[:, None] + margins[:, None] * [-1, 1]
            noise = "prompts and training" if training else "prompts"
            rows.append([noise, f"lag {lag}, {round(2.56 * width)} checkpoints long"])
            for low, high in (ends.T, alone.T):
                rows[-1] += [f"{((low <= lag) & (lag <= high)).mean():.2f}", f"{np.median(high - low):.1f}"]
    return markdown(
        ["noise of", "planted burst", "90 % interval covers", "length", "jackknife alone", "length"], rows, 2
    )


def interval(rng: np.random.Generator, lag: int, width: float, training: float) -> leads.LeadLag:
    """Find the lag where every group of prompts sees the truth with noise of its own."""
    centre, moved = rng.uniform(30, 110), pace(rng)
    relative = 0.3 * (training * autoregression(rng, 0.3) + PROMPT_NOISE * rng.standard_normal((GROUPS, N)))
    distances = moved * (0.3 + bump(centre, width)) * np.exp(relative)  # [GROUPS, N]
    noise = training * rng.standard_normal(N) + PROMPT_NOISE * rng.standard_normal((GROUPS, N))
    values = (moved * (0.5 * noise - 0.1 - 2 * bump(centre + lag, width))).cumsum(-1)
    return leads.lead_lag(
        distances.mean(0),
        values.mean(0),
        moved.cumsum(),
        structure_replicates=without_each(distances),
        behaviour_replicates=without_each(values),
        surrogates=SURROGATES,
    )


def without_each(groups: np.ndarray) -> np.ndarray:
    """Means over all groups but one, [GROUPS, N]."""
    return (groups.sum(0) - groups) / (GROUPS - 1)


if __name__ == "__main__":
    main()
