"""How often the audit calls a good checkpoint out of line, and how often it finds a planted wrong one.

    python benchmarks/audit_false_alarms.py --store DIR     # trains five series (2 minutes of one core and 0.7 GB each)
    python benchmarks/audit_false_alarms.py --store DIR --seeds 0 --trials 1 --series 20

Prints two tables and writes benchmarks/audit_false_alarms.json. `trained` are the embedded series, audited as files;
`subsets` are drawn from them: every second, fifth and tenth checkpoint, powers of two, and random 6 to 40 of them. The
synthetic ones are paths in 600 dimensions with 6 to 120 checkpoints on regular, Pythia-like or random schedules:
`walk` (drift of any strength), `decay` (warm-up, then a step size that falls to a hundredth), `stationary` (forgets its
past within a part of the run, slow drift beneath), `cyclic` (learning rate between 1 and a tenth, 2 to 30 checkpoints
a cycle; noise and one direction follow it, so weights do return; no audit by distances can be sure there).

Planted wrong checkpoints are no exact copies (those are found by their digest): every weight is changed by a
thousandth of itself, or by rounding to bfloat16 where it says so. "Good ones flagged" counts the others in the series.
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from phasegraph.files import atomic
from phasegraph.series.audit import audit
from phasegraph.series.line import out_of_line
from phasegraph.series.recipe import Recipe
from phasegraph.series.steps import expand_steps
from phasegraph.series.suspects import foreign_tensors, sample_distances
from phasegraph.series.training import train
from phasegraph.series.weights import Description, describe

STEPS = expand_steps({"start": 4, "stop": 572, "every": 4, "also": [0, 1, 2]})
DIMENSIONS = 600

Series = list[Description]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="folder for the trained series, one subfolder a seed")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4], help="seeds of the recipe")
    parser.add_argument("--trials", type=int, default=4, help="planted checkpoints of each kind and seed")
    parser.add_argument("--series", type=int, default=200, help="synthetic series of each kind")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"), help="JSON to write")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    alarms: dict[str, list[int]] = {}
    plants: dict[str, list[int]] = {}
    seconds = []
    for seed in arguments.seeds:
        folder = train(Recipe(seed=seed), STEPS, arguments.store / str(seed))
        began = time.process_time()
        rows = audit((step, folder / str(step)) for step in STEPS)
        seconds.append((time.process_time() - began) / len(rows))
        count(alarms, "trained", sum(not row.good for row in rows), len(rows))
        found = [describe(folder / str(step)) for step in STEPS]
        rng = np.random.default_rng(seed)
        for chosen in subsets(rng):
            count(alarms, "subsets", len(flagged([found[at] for at in chosen])), len(chosen))
        for name, plant in PLANTS.items():
            for _ in range(arguments.trials):
                series, wrong = plant(found, rng)
                named = flagged(series)
                count(plants, name, bool(named & wrong), len(named & wrong), 1, len(wrong), len(named - wrong))
    for name, make in SYNTHETIC.items():
        rng = np.random.default_rng(0)
        for _ in range(arguments.series):
            points = make(rng, schedule(rng))
            count(alarms, name, len(out_of_line(distances(points))), len(points))
    print(f"{np.mean(seconds):.3f} CPU seconds per checkpoint of 4.8 MB\n" if seconds else "")
    print("| series | number | with a flag | checkpoints | flagged | share |\n|---|---|---|---|---|---|")
    for name, (flags, checkpoints, bad, number) in alarms.items():
        print(f"| {name} | {number} | {bad} | {checkpoints} | {flags} | {flags / checkpoints:.2%} |")
    print("\n| planted | trials | found | wrong ones | of them named | good ones flagged |\n|---|---|---|---|---|---|")
    for name, (hits, named, trials, wrong, innocent) in plants.items():
        print(f"| {name} | {trials} | {hits} | {wrong} | {named} | {innocent} |")
    with atomic(arguments.out) as temporary:
        result = {"alarms": alarms, "plants": plants, "seconds_per_checkpoint": seconds, "seeds": arguments.seeds}
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def count(table: dict[str, list[int]], name: str, *values: int) -> None:
    """Add to a row; of a row of alarms, also the series and those with a flag."""
    if len(values) == 2:
        values = (*values, values[0] > 0, 1)
    table[name] = [int(old + new) for old, new in zip(table.get(name, [0] * len(values)), values, strict=True)]


def flagged(found: Series) -> set[int]:
    """What `audit` would flag as out of line, without its verification."""
    whole = set(out_of_line(sample_distances(found)))
    rest = [at for at in range(len(found)) if at not in whole]
    return whole | {rest[at] for at in foreign_tensors([found[at] for at in rest])}


def subsets(rng: np.random.Generator) -> Iterator[list[int]]:
    """Schedules within the trained one, as indices."""
    for every in (2, 5, 10):
        yield list(range(0, len(STEPS), every))
    yield [STEPS.index(step) for step in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)]
    for size in (6, 10, 20, 40):
        yield sorted(rng.choice(len(STEPS), size, replace=False).tolist())


# ---- planted wrong checkpoints: each gives a series and the indices of the wrong ones


def altered(one: Description, rng: np.random.Generator, bfloat16: bool = False) -> Description:
    """Change every weight a little."""
    if bfloat16:
        sample = {name: ((v.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32) for name, v in one.sample.items()}
    else:
        sample = {n: (v * (1 + 1e-3 * rng.normal(size=v.shape))).astype(np.float32) for n, v in one.sample.items()}
    return dataclasses.replace(one, sample=sample, digest=hashlib.sha256(rng.bytes(8)).hexdigest())


def replaced(found: Series, places: dict[int, Description]) -> tuple[Series, set[int]]:
    return [places.get(at, one) for at, one in enumerate(found)], set(places)


def final(found: Series, rng: np.random.Generator, bfloat16: bool = False) -> tuple[Series, set[int]]:
    place = int(rng.integers(0, len(found) - 5))
    return replaced(found, {place: altered(found[-1], rng, bfloat16)})


def final_era(found: Series, rng: np.random.Generator) -> tuple[Series, set[int]]:
    first = int(rng.integers(0, len(found) // 2 - 10))
    return replaced(found, {first + at: altered(found[-12 + at], rng) for at in range(10)})


def other_step(found: Series, rng: np.random.Generator) -> tuple[Series, set[int]]:
    place, source = rng.choice(len(found), 2, replace=False).tolist()
    while abs(place - source) < 5:
        place, source = rng.choice(len(found), 2, replace=False).tolist()
    return replaced(found, {place: altered(found[source], rng)})


def interchanged(apart: int) -> Callable:
    def plant(found: Series, rng: np.random.Generator) -> tuple[Series, set[int]]:
        one = int(rng.integers(0, len(found) - apart))
        return replaced(found, {one: found[one + apart], one + apart: found[one]})

    return plant


def shard(share: float) -> Callable:
    """Take neighbouring tensors that hold about a share of the weights from the final step."""

    def plant(found: Series, rng: np.random.Generator) -> tuple[Series, set[int]]:
        place, names = int(rng.integers(0, len(found) - 5)), sorted(found[0].shapes)
        sizes = np.array([math.prod(found[0].shapes[name]) for name in names])
        start = int(rng.integers(len(names)))
        order = np.roll(np.arange(len(names)), -start)
        taken = order[: int(np.searchsorted(np.cumsum(sizes[order]), share * sizes.sum())) + 1]
        chosen = {names[at]: found[-1].sample[names[at]] for at in taken}
        return replaced(found, {place: dataclasses.replace(found[place], sample=found[place].sample | chosen)})

    return plant


PLANTS = {
    "final weights, changed": final,
    "final weights in bfloat16": lambda found, rng: final(found, rng, bfloat16=True),
    "ten final-era in a row": final_era,
    "another step's weights": other_step,
    "two neighbours interchanged": interchanged(1),
    "neighbour's neighbour interchanged": interchanged(2),
    "ten apart interchanged": interchanged(10),
    "a tenth of the weights from the final": shard(0.1),
    "a third of the weights from the final": shard(1 / 3),
    "two thirds of the weights from the final": shard(2 / 3),
}


# ---- synthetic series: points [checkpoints, DIMENSIONS] at times between 0 and 1


def schedule(rng: np.random.Generator) -> np.ndarray:
    size = int(rng.choice([6, 12, 30, 60, 120]))
    regular = 1000.0 * np.arange(size)
    early = np.array([0, *2.0 ** np.arange(10)])
    steps = [regular, np.concatenate([early, regular[1:]]), np.cumsum(rng.geometric(0.1, size).astype(float))]
    chosen = steps[rng.integers(3)]
    return chosen / chosen[-1]


def moved(rng: np.random.Generator, variances: np.ndarray) -> np.ndarray:
    """Give a random walk with the given variances of its steps."""
    return np.cumsum(unit(rng, len(variances)) * np.sqrt(variances)[:, None], axis=0)


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(size=(count, DIMENSIONS)) / math.sqrt(DIMENSIONS)


def walk(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    return moved(rng, np.diff(times, prepend=0)) + 10 ** rng.uniform(-2, 1) * times[:, None] * unit(rng, 1)


def decay(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    fine = np.linspace(0, 1, 20001)
    rate = np.minimum(fine / 0.02, 1) * (0.01 + 0.99 * (1 + np.cos(np.pi * fine)) / 2)
    travelled, diffused = (np.interp(times, fine, np.cumsum(rate**power) / len(fine)) for power in (1, 2))
    return moved(rng, np.diff(diffused, prepend=0)) + 10 ** rng.uniform(-2, 1) * travelled[:, None] * unit(rng, 1)


def stationary(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    memory = 10 ** rng.uniform(-2.5, -0.5)
    points = unit(rng, len(times))
    for at in range(1, len(times)):
        kept = math.exp((times[at - 1] - times[at]) / memory)
        points[at] = kept * points[at - 1] + math.sqrt(1 - kept**2) * points[at]
    return points + 10 ** rng.uniform(-2, 1) * times[:, None] * unit(rng, 1)


def cyclic(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    rate = 0.1 + 0.9 * (1 + np.cos(2 * np.pi * times * len(times) / rng.uniform(2, 30))) / 2  # [checkpoints]
    slow, swing = 10 ** rng.uniform(-1.5, 0.5, size=2)
    noise = 0.5 * rate[:, None] * unit(rng, len(times))
    return noise + slow * moved(rng, np.diff(times, prepend=0)) + swing * rate[:, None] * unit(rng, 1)


SYNTHETIC = {"walk": walk, "decay": decay, "stationary": stationary, "cyclic": cyclic}


def distances(points: np.ndarray) -> np.ndarray:
    return np.stack([np.linalg.norm(points - point, axis=1) for point in points])


if __name__ == "__main__":
    main()
