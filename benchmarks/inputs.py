"""Which series should the change test see? Whole films of a network, without and with a planted transition.

    python benchmarks/inputs.py                          # 100 films of every scene; three hours of one core
    python benchmarks/inputs.py --runs 40 --jobs 2       # what the JSON beside this file has is kept
    python benchmarks/inputs.py --tables                 # the table of docs/phases.md, from that JSON
    python benchmarks/inputs.py --calibrate results/demo # the films' speeds beside those of a study, and nothing else

A film has 6 layers of 4 heads and an MLP and 146 checkpoints, whose displacement falls from 1 to .15. Its scenes:

- stationary: noise around fixed weights, as large as the displacement, so that change per displacement is even;
- smooth: the weights start fast, drift slowly and wander at random, and prompts are noisy;
- small, medium, large: the same, and over 30 checkpoints the edges from heads of layer 1 to heads of layers 2 to 4
  (13 % of all) are reorganised.

Test A has a constant null and test B a spline along the arc length. Kernel segmentations are no tests: before them a
line is taken out of the rank vectors in the columns of A, and the spline in those of B.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from engine_methods.table import markdown
from ruptures import KernelCPD
from scipy.signal import lfilter
from scipy.stats import rankdata
from simulated import EDGES, heterogeneous, layered
from threadpoolctl import threadpool_limits

from phasegraph.files import atomic
from phasegraph.network.blocks import block_changes, blocks_of, log_weights
from phasegraph.network.graph import read_mask, read_nodes
from phasegraph.network.metrics import strength_metrics, weight_metrics
from phasegraph.phases.rates import block_rates, rates
from phasegraph.phases.steps import trend_basis
from phasegraph.phases.test import NULLS, phase_test

N, LAST_PACE = 146, 0.15
START, START_TIME, DRIFT = 2.5, 4.0, 0.35
"""Root mean square of what log edges move at first, beside all else; checkpoints in which 63 % of it is done; root mean
square amplitude of each of three waves of drift, of one half to one and a half periods."""
WANDER, DECAYED = 0.14, 0.5
"""Standard deviation of a checkpoint's random step at displacement 1. Its variance is proportional to the displacement;
in every second film the standard deviation per root of the displacement also falls, to `DECAYED` in the end."""
MEASUREMENT, SHARES = 0.05, (0.35, 0.35, 0.30)
"""Standard deviation of a checkpoint's own noise of a log edge; shares of sources, targets and edges in variances."""
VOLATILITY, COMMON, LASTING = 0.6, 0.4, 0.3
"""Standard deviations of the logarithm of a step's size, of single nodes and of all alike; their autocorrelation."""
SIZES = {"small": 0.75, "medium": 1.5, "large": 3.0}
"""Root mean square change of a reorganised log edge; half of the variance is common to a block."""
LENGTH, MARGIN = 30, 5
"""Checkpoints of a transition, and how many more on either side count as within it."""
SCENES = ("stationary", "smooth", *SIZES)
ALPHA, BOOTSTRAPS, PENALTY = 0.05, 99, 5


class Film(NamedTuple):
    """What a study measures: log weights of the possible edges, arc length, and the blocks that edges belong to."""

    logs: np.ndarray  # [N, E]
    arc: np.ndarray  # [N]
    mask: np.ndarray  # bool [nodes, nodes]
    names: list[str]  # [B]
    block: np.ndarray  # int [E]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"), help="JSON to write and read")
    parser.add_argument("--runs", type=int, default=100, help="films of every scene")
    names = [*TESTED, *SEGMENTED]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SERIES", help="test these alone")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--tables", action="store_true", help="print the table from the JSON, and run nothing")
    parser.add_argument("--calibrate", type=Path, metavar="PATH", help="results/<study>, its series beside it")
    arguments = parser.parse_args()
    if arguments.calibrate:
        print(calibration(arguments.calibrate))
        return
    result = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    cells = list(product(range(0 if arguments.tables else arguments.runs), SCENES))
    left = [[name for name in arguments.only if name not in result.get(f"{scene} {run}", {})] for run, scene in cells]
    missing = [(*cell, names) for cell, names in zip(cells, left, strict=True) if names]
    with Pool(arguments.jobs) as pool:
        for (run, scene, _), found in zip(missing, pool.imap(simulate, missing), strict=True):
            print(f"simulated: {scene} {run}", file=sys.stderr, flush=True)
            result[f"{scene} {run}"] = result.get(f"{scene} {run}", {}) | found
            with atomic(arguments.out) as path:
                path.write_text("{\n" + ",\n".join(f'"{key}": {json.dumps(result[key])}' for key in result) + "\n}\n")
    print(table(result))


# ---- films


def film(run: int, scene: str) -> tuple[Film, int]:
    """Draw a film, and the checkpoint at which its transition starts or would start.

    All scenes of a run but the stationary one have the same noise, so that they differ in the transition alone.
    """
    rng = np.random.default_rng([11, run])
    nodes, structure = layered(6, 4)
    mask = structure.mask
    u, v = np.nonzero(mask)
    names, block = blocks_of(nodes, mask)
    arc = np.concatenate([[0], (LAST_PACE + (1 - LAST_PACE) * (1 + np.cos(np.pi * np.linspace(0, 1, N - 1))) / 2)])
    pace, arc = arc[1:], arc.cumsum()
    first = int(rng.integers(N // 4, 3 * N // 4 - LENGTH))
    base = np.log(heterogeneous(structure, rng, EDGES[0])[mask])

    def draw(count: int, volatility: float = 0.0, common: float = 0.0) -> np.ndarray:
        """Changes [count, E] of unit variance with what edges of a node have in common, some larger than others."""
        spread = np.array([*[volatility] * 2 * len(mask), common])
        logs = spread * rng.normal(size=(count, len(spread)))
        sizes = np.exp(lfilter([np.sqrt(1 - LASTING**2)], [1, -LASTING], logs, axis=0) - spread**2)
        out, into = np.split(sizes[:, :-1] * rng.normal(size=(count, 2 * len(mask))), 2, axis=1)
        parts = out[:, u], into[:, v], rng.normal(size=(count, len(u)))
        return sizes[:, -1:] * sum(np.sqrt(share) * part for share, part in zip(SHARES, parts, strict=True))

    decay = np.linspace(1, DECAYED if run % 2 else 1, N - 1)
    steps = WANDER * (np.sqrt(pace) * decay)[:, None] * draw(N - 1, VOLATILITY, COMMON)
    noise = draw(N, VOLATILITY, COMMON)
    x = arc / arc[-1]
    waves = np.cos(np.pi * np.outer(x, [1, 2, 3]) + 2 * np.pi * rng.random(3))  # [N, 3]
    smooth = DRIFT * waves @ draw(3) - START * np.exp(-np.arange(N) / START_TIME)[:, None] * draw(1)
    moved = np.sqrt(0.5) * (rng.normal(size=len(names))[block] + rng.normal(size=len(u)))
    if scene == "stationary":
        logs = base + WANDER * np.concatenate([pace[:1], pace])[:, None] * noise / np.sqrt(2)
        return Film(logs, arc, mask, names, block), first
    source, target = (np.array([nodes[i].layer if nodes[i].head is not None else -1 for i in side]) for side in (u, v))
    moved[(source != 1) | (target < 2) | (target > 4)] = 0
    along = 1 / (1 + np.exp(-10 * ((np.arange(N) - first) / LENGTH - 0.5)))
    logs = base + smooth + np.insert(steps.cumsum(0), 0, 0, axis=0) + MEASUREMENT * noise
    logs += SIZES.get(scene, 0) * np.outer(along, moved)
    return Film(logs, arc, mask, names, block), first


# ---- candidates


def of_metrics(of: Film) -> np.ndarray:
    edges = np.zeros((len(of.logs), *of.mask.shape))
    edges[:, of.mask] = np.exp(of.logs)
    levels = weight_metrics(edges, of.mask) | strength_metrics(edges, of.mask)
    names = ("mean_weight", "gini", "n_eff_entropy", "gini_out_strength", "gini_in_strength")
    ranks = spearman(of)
    churn = np.insert(1 - (ranks[1:] * ranks[:-1]).sum(1), 0, 0)
    return rates(np.arange(len(churn)), of.arc, {name: levels[name] for name in names}, {"churn": churn}).values


def of_blocks(of: Film, scale: Callable = np.asarray) -> np.ndarray:
    values = scale(of.logs)
    changes = block_changes(values[:-1], values[1:], of.block)  # [n - 1, B]
    by_name = {name: np.insert(changes[:, i], 0, 0)[None] for i, name in enumerate(of.names)}
    return block_rates(np.arange(len(values)), of.arc, by_name).values


def of_components(of: Film, count: int) -> np.ndarray:
    speeds = of_blocks(of)
    return components((speeds - speeds.mean(0)) / speeds.std(0), count)


def of_kinks(of: Film, count: int) -> np.ndarray:
    return np.diff(components(of.logs - of.logs.mean(0), count), axis=0) / np.diff(of.arc)[:, None]


def of_directions(of: Film) -> np.ndarray:
    velocity = np.diff(of.logs, axis=0) @ np.eye(len(of.names))[of.block] / np.bincount(of.block)
    return velocity / np.linalg.norm(velocity, axis=1, keepdims=True)


def components(centred: np.ndarray, count: int) -> np.ndarray:
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return (u * s)[:, :count]


def spearman(of: Film) -> np.ndarray:
    """Unit vectors [N, E] whose products are Spearman's correlations."""
    ranks = rankdata(of.logs, axis=1) - (of.logs.shape[1] + 1) / 2
    return ranks / np.linalg.norm(ranks, axis=1, keepdims=True)


TESTED: dict[str, Callable[[Film], np.ndarray]] = {
    "metrics": of_metrics,
    "blocks, log": of_blocks,
    "blocks, sqrt": partial(of_blocks, scale=lambda logs: np.exp(logs / 2)),
    **{f"blocks, {count} components": partial(of_components, count=count) for count in (3, 6, 10)},
    **{f"kinks, {count} components": partial(of_kinks, count=count) for count in (3, 6)},
    "directions": of_directions,
}
SEGMENTED = {"similarity, linear kernel": "linear", "similarity, rbf kernel": "rbf"}


def segmented(of: Film, kernel: str, null: str) -> list[int]:
    """Segment the similarity matrix; the rank vectors' distances are scaled to a mean square of 1."""
    trend = np.column_stack([np.ones(N), of.arc]) if null == NULLS[0] else trend_basis(null, of.arc)
    basis, ranks = np.linalg.qr(trend)[0], spearman(of)
    left = ranks - basis @ (basis.T @ ranks)
    left /= np.sqrt((left**2).sum(1).mean())
    return [int(at) for at in KernelCPD(kernel=kernel, min_size=5).fit(left).predict(pen=PENALTY)[:-1]]


def simulate(cell: tuple[int, str, list[str]]) -> dict:
    """Search one film in all ways: candidate -> checkpoints where new regimes start, of test A and of test B."""
    run, scene, names = cell
    of, first = film(run, scene)
    options = {"axis": of.arc[1:], "alpha": ALPHA, "bootstraps": BOOTSTRAPS, "seed": run}
    options["max_changes"] = 1 if scene == "stationary" else 3  # there it only counts whether there is any
    found: dict = {"first": first}
    with threadpool_limits(1):
        for name in names:
            if name in SEGMENTED:
                found[name] = [segmented(of, SEGMENTED[name], null) for null in NULLS]
            else:
                tests = [phase_test(TESTED[name](of), null=null, **options) for null in NULLS]
                found[name] = [[at + 1 for at in test.boundaries] for test in tests]
    return found


# ---- tables


def table(result: dict) -> str:
    """Share of films with any boundary; within the transition, and by how much more than in the film without one."""
    columns = ["series", "films"]
    for test in "AB":
        columns += [f"{test}: stationary", "smooth", *(f"{size}: within, more, elsewhere" for size in SIZES)]
    rows = []
    for name in [*TESTED, *SEGMENTED]:
        runs = [i for i in range(len(result)) if all(name in result.get(f"{scene} {i}", {}) for scene in SCENES)]
        cells = [str(len(runs))]
        for test in range(len(NULLS)):
            cells += [percent([bool(result[f"{scene} {run}"][name][test]) for run in runs]) for scene in SCENES[:2]]
            control = [any(inside(result, "smooth", run, name, test)) for run in runs]
            for size in SIZES:
                within = [list(inside(result, size, run, name, test)) for run in runs]
                hits, outside = [any(one) for one in within], [not one for of in within for one in of]
                more = 100 * (np.mean(hits) - np.mean(control)) if runs else 0
                cells.append(f"{percent(hits)}, {more:+.0f}, {percent(outside)}")
        rows.append([name, *cells])
    return markdown(columns, rows, left=1)


def inside(result: dict, scene: str, run: int, name: str, test: int) -> Iterator[bool]:
    """Say of every boundary whether it is where the run's transition is."""
    one = result[f"{scene} {run}"]
    return (one["first"] - MARGIN <= at <= one["first"] + LENGTH + MARGIN for at in one[name][test])


def percent(found: list[bool]) -> str:
    return f"{100 * np.mean(found):.0f} %" if found else "none"


def calibration(path: Path) -> str:
    """Speeds of a study, and of films, side by side."""
    nodes = read_nodes(path / "nodes.tsv")
    mask = read_mask(path / "mask.npy", len(nodes))
    steps = sorted(int(file.stem) for file in (path / "edges").glob("*.npy") if file.stem.isdigit())
    logs = log_weights(np.stack([np.load(path / "edges" / f"{step}.npy")[0][mask] for step in steps]))
    manifest = pl.read_csv(path.parent / "series" / path.name / "series.tsv", separator="\t", infer_schema_length=None)
    arc = dict(manifest.select("step", "arc_length").iter_rows())
    way = np.array([arc[step] for step in steps], dtype=float)
    study = Film(logs, way / np.quantile(np.diff(way), 0.95), mask, *blocks_of(nodes, mask))
    films = {f"film {run}, {scene}": film(run, scene)[0] for scene in ("smooth", "medium") for run in range(4)}
    rows = {name: looks(one) for name, one in {path.name: study, **films}.items()}
    cells = [[name, *(row[name] for row in rows.values())] for name in rows[path.name]]
    return markdown(["", *rows], cells, left=1)


def looks(of: Film) -> dict[str, str]:
    """What a film and a study should have in common; the displacement's largest value is 1."""
    moved = np.diff(of.arc)
    size = np.sqrt((np.diff(of.logs, axis=0) ** 2).mean(1)) / moved
    logs = np.log(block_changes(of.logs[:-1], of.logs[1:], of.block) / moved[:, None])  # [n - 1, B]
    trend = np.linalg.qr(trend_basis(NULLS[1], of.arc[1:]))[0]
    left = logs - trend @ (trend.T @ logs)
    parts = np.array_split(size, 12)
    found = {f"change per displacement, part {i} of 12": f"{part.mean():.2f}" for i, part in enumerate(parts, 1)}
    for name, values in (("log block speeds", logs), ("the same without a spline", left)):
        z = (values - values.mean(0)) / values.std(0)
        found[f"{name}: sd"] = f"{np.median(values.std(0)):.2f}"
        found[f"{name}: AR(1)"] = f"{np.median((z[1:] * z[:-1]).mean(0)):.2f}"
        found[f"{name}: correlation of blocks"] = f"{np.median(np.corrcoef(z.T)):.2f}"
    middle = of.logs[20:100]
    for lag in (1, 2, 4, 8, 16, 32):
        found[f"change over {lag} checkpoints, middle"] = f"{np.sqrt(((middle[lag:] - middle[:-lag]) ** 2).mean()):.2f}"
    return found


if __name__ == "__main__":
    main()
