"""How often change tests find a change where there is none, and whether they find the ones that are there.

    python benchmarks/changes.py --jobs 2          # an hour and a half; no cell that the JSON has is run again
    python benchmarks/changes.py --runs 20 --out quick.json
    python benchmarks/changes.py --only "random walk" "steps 3"  # these again, and the JSON's others are kept
    python benchmarks/changes.py --tables          # the tables of docs/phases.md, from the JSON beside this file
    python benchmarks/changes.py --time            # CPU seconds of one call of our test

Series have 150 points and 6 columns, correlated by .4. Where there is no change, any boundary is a false alarm; of a
hidden Markov model, any second state. Where there are changes, there are two, at 50 and 100 give or take 8, each in
four columns drawn at random, up or down. Noise has a standard deviation of 1. All methods see the same series.

There are 1000 series of each kind without a change, because their share of false alarms is held against a limit: of
200, a test of exactly 5 % exceeds 7 % in 8 kinds of 100; of 1000, in 2 of 1000. The number was settled before they were
drawn.
"""

import argparse
import json
import os
import sys
import time
import zlib
from collections.abc import Callable
from functools import partial
from itertools import product
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from engine_methods.table import markdown
from scipy.signal import lfilter

from phasegraph.files import atomic
from phasegraph.phases.others import kernel, pelt, pelt_long_run, training_map
from phasegraph.phases.settings import NULLS_OF
from phasegraph.phases.test import NULLS, phase_test

N, D = 150, 6
CORRELATION = 0.4
ALPHA, BOOTSTRAPS, MIN_SIZE, MAX_CHANGES = 0.05, 99, 5, 4
PLACES, JITTER, CHANGED = (50, 100), 8, 4
"""Where changes are, how far from there at most, and in how many columns."""
NEAR = 5
"""Distance in points up to which a boundary is the change."""
ALLOWED = 0.07
"""Share of false alarms that a test may have where it is `required` to hold its level."""
RUNS, RUNS_WITHOUT = 200, 1000
"""Series per kind with changes, and without. The slow HMM sees `RUNS` of either."""
FRESH = 1
"""Part of every seed: the tests were settled on other series of the same kinds."""
BURN_IN = 200

Series = Callable[[np.random.Generator], np.ndarray]
"""Draws a series [N, D]."""


# ---- series without a change


def innovations(rng: np.random.Generator, n: int, d: int, heavy: bool = False) -> np.ndarray:
    """Unit-variance values [n, d], normal or of Student's t with 3 degrees of freedom, from one common factor."""

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_t(3, shape) / np.sqrt(3) if heavy else rng.standard_normal(shape)

    return np.sqrt(CORRELATION) * draw(n, 1) + np.sqrt(1 - CORRELATION) * draw(n, d)


def noise(rng: np.random.Generator, *ar: float, heavy: bool = False, n: int = N, d: int = D) -> np.ndarray:
    """Stationary autoregression [n, d] with these coefficients, of unit variance."""
    response = lfilter([1.0], [1.0, *(-phi for phi in ar)], np.eye(1, 1000)[0])  # to one innovation
    values = innovations(rng, n + BURN_IN, d, heavy)
    return lfilter([1.0], [1.0, *(-phi for phi in ar)], values, axis=0)[BURN_IN:] / np.sqrt((response**2).sum())


X = np.linspace(0, 1, N)[:, None]
DRIFTS = {
    "exponential": np.exp(-5 * X),
    "Gompertz": np.exp(-8 * np.exp(-8 * X)),
    "quadratic": 2 * (X - 0.3) ** 2,
    "steep sigmoid": 1 / (1 + np.exp(-20 * (X - 0.5))),
}
"""Smooth curves [N, 1] with a range of about 1; the sigmoid goes from .1 to .9 within 33 points."""


def drift(rng: np.random.Generator, shape: str, amplitude: float) -> np.ndarray:
    """Smooth curves [N, D], each column with a sign and size of its own."""
    return amplitude * DRIFTS[shape] * rng.choice([-1, 1], D) * rng.uniform(0.5, 1.5, D)


def drifting(shape: str, amplitude: float) -> Series:
    return lambda rng: noise(rng, 0.5) + drift(rng, shape, amplitude)


class Case(NamedTuple):
    """Series without a change of level."""

    draw: Series
    required: str
    """Tests that must hold their level here: both if there is no drift, test B if the drift is smooth."""


STABLE, SMOOTH, BEYOND = "A, B", "B", ""
WITHOUT = {
    "white": Case(noise, STABLE),
    "AR .3": Case(lambda rng: noise(rng, 0.3), STABLE),
    "AR .65": Case(lambda rng: noise(rng, 0.65), STABLE),
    "AR .9": Case(lambda rng: noise(rng, 0.9), STABLE),
    "AR(2) .6, .25": Case(lambda rng: noise(rng, 0.6, 0.25), STABLE),
    "AR .5, heavy tails": Case(lambda rng: noise(rng, 0.5, heavy=True), STABLE),
    "AR .5, sd falls tenfold": Case(lambda rng: noise(rng, 0.5) * np.geomspace(10, 1, N)[:, None], STABLE),
    "AR .3, sd 3, 1, .4": Case(lambda rng: noise(rng, 0.3) * np.select([X < 0.3, X < 0.6], [3, 1], 0.4), STABLE),
    **{f"{of} x {size}": Case(drifting(of, size), SMOOTH) for of in list(DRIFTS)[:3] for size in (4, 8)},
    "random walk": Case(lambda rng: innovations(rng, N, D).cumsum(0), SMOOTH),
    "steep sigmoid x 6": Case(drifting("steep sigmoid", 6), BEYOND),
}


# ---- series with two changes


def changes(rng: np.random.Generator, size: float) -> tuple[np.ndarray, list[int]]:
    """Two steps [N, D] and the first point after each."""
    places = [int(place + rng.integers(-JITTER, JITTER + 1)) for place in PLACES]
    steps = np.zeros((N, D))
    for place in places:
        columns = rng.choice(D, CHANGED, replace=False)
        steps[place:, columns] += size * rng.choice([-1, 1], CHANGED)
    return steps, places


WITH = {f"steps {size}{', drift' * drifts}": (size, drifts) for drifts in (False, True) for size in (2, 3, 4)}
"""Size of the changes, and whether there is an exponential drift beside them."""


def changed(rng: np.random.Generator, size: float, drifts: bool) -> tuple[np.ndarray, list[int]]:
    steps, places = changes(rng, size)
    return noise(rng, 0.5) + steps + (drift(rng, "exponential", 4) if drifts else 0), places


# ---- methods: series -> first points of new regimes


def ours(series: np.ndarray, seed: int, most: int, null: str) -> list[int]:
    options = {"alpha": ALPHA, "bootstraps": BOOTSTRAPS, "min_size": MIN_SIZE, "max_changes": most}
    return list(phase_test(series, null=null, seed=seed, **options).boundaries)


def hmm(series: np.ndarray, seed: int, most: int) -> list[int]:
    found = training_map(series, seed=seed)
    return (np.flatnonzero(np.diff(found.states[0])) + 1).tolist()


SLOW = ("HMM",)
"""Methods that are applied last, and to fewer series."""
METHODS: dict[str, Callable[[np.ndarray, int, int], list[int]]] = {
    "test A": partial(ours, null=NULLS_OF["test_a"]),
    "test B": partial(ours, null=NULLS_OF["test_b"]),
    "PELT": lambda series, seed, most: pelt(series, MIN_SIZE),
    "PELT, long-run": lambda series, seed, most: pelt_long_run(series, MIN_SIZE),
    "KernelCPD": lambda series, seed, most: kernel(series, MIN_SIZE),
    "HMM": hmm,
}


# ---- simulation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*WITHOUT, *WITH]
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"), help="JSON to write and read")
    parser.add_argument("--runs", type=int, help=f"series per cell, in place of {RUNS} or {RUNS_WITHOUT}")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--only", nargs="+", choices=names, metavar="CELL", help=f"of {names}, run again")
    parser.add_argument("--tables", action="store_true", help="print the tables of docs/phases.md, and run nothing")
    parser.add_argument("--time", action="store_true", help="time one call of our test, and run nothing else")
    arguments = parser.parse_args()
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # read by spawned processes
    if not arguments.tables:
        with get_context("spawn").Pool(arguments.jobs) as pool:
            if arguments.time:
                print(pool.apply(timed))
                return
            for slow, name in product((False, True), arguments.only or names):
                methods = [method for method in METHODS if (method in SLOW) == slow]
                runs = arguments.runs or (RUNS_WITHOUT if name in WITHOUT and not slow else RUNS)
                done = all(found.get(name, {}).get(method, {}).get("runs", 0) >= runs for method in methods)
                if arguments.only or not done:
                    found[name] = found.get(name, {}) | simulate(name, methods, runs, pool)
                    with atomic(arguments.out) as path:
                        path.write_text(json.dumps(found, indent=1) + "\n")
    if missing := [name for name in names if len(found.get(name, {})) < len(METHODS)]:
        sys.exit(f"no tables yet, {arguments.out} lacks {', '.join(missing)}; run them")
    print("\n\n".join(tables(found)))


def simulate(name: str, methods: list[str], runs: int, pool: Pool) -> dict[str, dict[str, int]]:
    """Run a cell: method -> number of runs and of each outcome."""
    start = time.perf_counter()
    total: dict[str, dict[str, int]] = {}
    for outcomes in pool.imap_unordered(partial(one_run, name, methods), range(runs)):
        for method, outcome in outcomes.items():
            of = total.setdefault(method, dict.fromkeys(["runs", *outcome], 0))
            for key, happened in {"runs": True, **outcome}.items():
                of[key] += happened
    told = ", ".join(" ".join([method, *map(str, of.values())]) for method, of in total.items())
    print(f"{name}, {time.perf_counter() - start:.0f} s: {told}", file=sys.stderr, flush=True)
    return total


def one_run(name: str, methods: list[str], run: int) -> dict[str, dict[str, bool]]:
    """Draw a series and apply the methods: method -> outcome -> whether it happened."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), run, FRESH])
    series, places = (WITHOUT[name].draw(rng), []) if name in WITHOUT else changed(rng, *WITH[name])
    most = MAX_CHANGES if places else 1
    return {method: outcome(METHODS[method](series, run, most), places) for method in methods}


def outcome(found: list[int], places: list[int]) -> dict[str, bool]:
    """Judge boundaries: any at all, if there is no change; else whether they are the changes, and whether one is."""
    if not places:
        return {"alarms": bool(found)}
    near = [any(abs(boundary - place) <= NEAR for boundary in found) for place in places]
    return {"exact": all(near) and len(found) == len(places), "any": any(near)}


def timed() -> str:
    """CPU seconds of one call on 154 points and 10 columns with 999 replicates, and what it finds."""
    rng = np.random.default_rng(0)
    flat = noise(rng, 0.5, n=154, d=10)
    signs = rng.choice([-1, 1], (4, 10))
    rows = []
    for null in NULLS:
        for count in (0, 2, 3):
            regime = np.arange(154) * (count + 1) // 154
            series = flat + 4 * signs.cumsum(0)[regime]
            start = time.process_time()
            test = phase_test(series, null=null, bootstraps=999)
            seconds = time.process_time() - start
            rows.append([null, str(count), str(len(test.steps)), str(len(test.boundaries)), f"{seconds:.1f}"])
    return markdown(["null", "changes", "steps tested", "boundaries", "CPU s"], rows, left=1)


# ---- tables


def tables(found: dict) -> list[str]:
    """Markdown: false alarms, which of ours exceed what is allowed, and detection."""
    return [false_alarms(found), verdict(found), detection(found)]


def false_alarms(found: dict) -> str:
    rows = []
    for name, case in WITHOUT.items():
        cells = [alarms(found[name][method], error=method.startswith("test")) for method in METHODS]
        rows.append([name, case.required or "none", *cells])
    return markdown(["no change in", "required of", *titles(found[next(iter(WITHOUT))])], rows, left=2)


def verdict(found: dict) -> str:
    """Say where a test that is required to hold its level does not."""
    above = [
        f"test {test} on {name} ({alarms(found[name][f'test {test}'], error=True)} %)"
        for name, case in WITHOUT.items()
        for test in ("A", "B")
        if test in case.required and share(found[name][f"test {test}"], "alarms") > ALLOWED
    ]
    count = sum(len(case.required.split(", ")) for case in WITHOUT.values() if case.required)
    return f"Of {count} required shares, above {100 * ALLOWED:.0f} %: {'; '.join(above) or 'none'}."


def detection(found: dict) -> str:
    rows = []
    for name in WITH:
        of = [found[name][method] for method in METHODS]
        rows.append([name, *(f"{100 * share(one, 'exact'):.0f} / {100 * share(one, 'any'):.0f}" for one in of)])
    return markdown(["two changes", *titles(found[next(iter(WITH))])], rows, left=1)


def titles(cell: dict) -> list[str]:
    """Methods, with the number of runs where it is not that of the others."""
    runs = {method: cell[method]["runs"] for method in METHODS}
    return [of if count == runs["test A"] else f"{of} ({count} runs)" for of, count in runs.items()]


def share(outcomes: dict[str, int], key: str) -> float:
    return outcomes[key] / outcomes["runs"]


def alarms(outcomes: dict[str, int], error: bool) -> str:
    """Per cent, with the binomial standard error."""
    p = share(outcomes, "alarms")
    return f"{100 * p:.1f} ± {100 * np.sqrt(p * (1 - p) / outcomes['runs']):.1f}" if error else f"{100 * p:.0f}"


if __name__ == "__main__":
    main()
