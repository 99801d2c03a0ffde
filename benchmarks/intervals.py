"""How often a nominal 90 % interval covers the truth, for every metric and score, with and without bias correction.

    python benchmarks/intervals.py                # about ten minutes of one core
    python benchmarks/intervals.py --repeats 20 --only 6x5
    python benchmarks/intervals.py --tables       # the tables of docs/network.md, from benchmarks/intervals.json

Every repeat draws a true graph, of the two kinds in simulated.py by turns, and a second one for the checkpoint after
it, and measures both with the same prompts. An interval is what `phasegraph.jackknife.delete_group` makes of the
estimate and its 16 leave-one-group-out replicates. "Corrected" and "plain" intervals have the same width, and lie
around the bias-corrected value and around the estimate; the suite uses one of them, by
`phasegraph.network.tables.IN_STEPS`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from engine_methods.table import markdown
from simulated import EDGES, heterogeneous, layered, measured

from phasegraph.files import atomic
from phasegraph.jackknife import delete_group
from phasegraph.network import distances, suite
from phasegraph.network.centrality import hubs_and_authorities
from phasegraph.network.distances import ENDINGS
from phasegraph.network.paths import shortest_paths, tree_betweenness
from phasegraph.network.roles import ROLES, holder_count
from phasegraph.network.scores import betweenness_scores, strength_scores
from phasegraph.network.stability import agreements, with_the_one_before
from phasegraph.network.suite import Structure
from phasegraph.network.tables import moves_in_steps
from phasegraph.types import GROUPS

PROMPTS = (32, 128, 512)
LEVEL = 0.90
DRIFT = 0.3
"""Standard deviation of the change of log weights from the first checkpoint to the second."""
ROUNDING = 1e-9
"""An end of an interval that misses the truth by this, relative to the truth, does so by rounding."""
SAME = 0.015
"""Mean difference of coverage that is no difference: its standard error is about that."""


class Size(NamedTuple):
    """A kind of graph, and how often it is simulated."""

    layers: int
    heads: int
    repeats: int


SIZES = {"6x5": Size(6, 4, 200), "12x9": Size(12, 8, 30)}
PARTS = ("metrics", "scores", "neighbours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"), help="JSON to write and read")
    parser.add_argument("--repeats", type=int, help="repeats of every size, instead of the usual number")
    parser.add_argument("--only", choices=SIZES, help="simulate this size and keep the JSON's other")
    parser.add_argument("--tables", action="store_true", help="print the tables of docs/network.md, and run nothing")
    arguments = parser.parse_args()
    if not arguments.tables:
        result = json.loads(arguments.out.read_text()) if arguments.only and arguments.out.exists() else {}
        for name, size in SIZES.items():
            if arguments.only in (None, name):
                result[name] = simulate(name, size._replace(repeats=arguments.repeats or size.repeats))
        with atomic(arguments.out) as path:
            path.write_text(json.dumps(result, indent=1) + "\n")
    print("\n\n".join(tables(json.loads(arguments.out.read_text()))))


def simulate(name: str, size: Size) -> dict:
    """Simulate graphs of one size.

    Returns
    -------
    dict
        Part -> name -> prompts -> what `summary` tells; and the number of repeats.
    """
    nodes, structure = layered(size.layers, size.heads)
    found: dict[str, dict[str, dict[int, list]]] = {part: {} for part in PARTS}
    for repeat in range(size.repeats):
        rng = np.random.default_rng([len(nodes), repeat])
        first = heterogeneous(structure, rng, EDGES[repeat % 2])
        true = np.stack([first, first * np.exp(DRIFT * rng.normal(size=first.shape))])  # [2, N, N]
        truth = everything(true[:, None], structure)
        for prompts in PROMPTS:
            seen = everything(measured(true, structure, prompts, rng), structure)
            for part in PARTS:
                for quantity, values in seen[part].items():
                    rows = found[part].setdefault(quantity, {}).setdefault(prompts, [])
                    rows.append(covers(values, truth[part][quantity], quantity))
        if (repeat + 1) % 10 == 0:
            print(f"{name}: {repeat + 1} of {size.repeats} repeats", file=sys.stderr, flush=True)
    summaries = {
        part: {quantity: {str(p): summary(rows) for p, rows in by.items()} for quantity, by in found[part].items()}
        for part in PARTS
    }
    return {"repeats": size.repeats} | summaries


def everything(weights: np.ndarray, structure: Structure) -> dict[str, dict[str, np.ndarray]]:
    """Compute all that has an interval.

    Parameters
    ----------
    weights
        [2, R, N, N], R replicates (or one, the truth) of two checkpoints; metrics and scores are those of the first.

    Returns
    -------
    dict
        ``metrics``: name -> [R]; ``scores``: name -> [R, N]; ``neighbours``, which compare both: name -> [R].
    """
    first = weights[0]
    metrics = {}
    for family in (
        suite.of_weights, suite.of_strengths, suite.of_communities, suite.of_triangles, suite.of_paths, suite.of_flow
    ):  # fmt: skip
        metrics |= family(first, structure)
    metrics["singular_ratio"] = hubs_and_authorities(first)[2]
    both = [node_scores(of, structure) for of in weights]
    k = holder_count(int(structure.components.sum()))
    neighbours = churns(weights[:, :, structure.mask])
    for role, score in ROLES.items():
        for kind in ("raw", "block"):
            pair = np.stack([scores[f"{score}.{kind}"] for scores in both])  # [2, R, N]
            for quantity, values in with_the_one_before(agreements(pair, k)).items():
                neighbours[f"{quantity}_{role}_{kind}"] = values[1]
    return {"metrics": metrics, "scores": both[0], "neighbours": neighbours}


def node_scores(weights: np.ndarray, structure: Structure) -> dict[str, np.ndarray]:
    """Scores of the roles, [R, N] each; NaN for nodes that cannot play the role."""
    mask = structure.mask
    scores = strength_scores(weights, mask, structure.classes, structure.components)
    through = tree_betweenness(shortest_paths(weights, mask).before, mask) / mask.sum()
    scores |= betweenness_scores(through, mask, structure.classes)
    possible = {"out_strength": mask.any(1), "in_strength": mask.any(0), "betweenness": mask.any(1) & mask.any(0)}
    return {name: np.where(possible[name.split(".")[0]], values, np.nan) for name, values in scores.items()}


def churns(edges: np.ndarray) -> dict[str, np.ndarray]:
    """Churn [R] and excess churn [R] (the estimate's only) between two checkpoints' edges [2, R, E]."""
    found = {}
    splits = distances.half_splits(GROUPS)[: distances.split_count(edges.shape[-1])]
    for kind, ending in ENDINGS.items():
        before, after = (distances.prepare(of, kind) for of in edges)
        found[f"churn{ending}"] = distances.distance(before, after, kind)
        if edges.shape[1] > 1:
            parted = np.stack([distances.halves(of, splits) for of in edges], axis=2)  # [2, K, 2, E]
            excess = distances.compare(edges[:, 0], parted.swapaxes(0, 1), kind)[1][0, 1]
            # As in metrics.parquet: around the excess, as wide as churn's.
            found[f"excess_churn{ending}"] = found[f"churn{ending}"] - found[f"churn{ending}"][0] + excess
        else:
            found[f"excess_churn{ending}"] = found[f"churn{ending}"]
    return found


def covers(replicates: np.ndarray, truth: np.ndarray, name: str) -> tuple[np.ndarray, ...]:
    """Whether the corrected and the plain interval hold the truth [1, ...], and the error of both middles."""
    result = []
    for smooth in (True, False):
        interval = delete_group(replicates, smooth, LEVEL)
        slack = ROUNDING * np.abs(truth[0])
        inside = (interval.low - slack <= truth[0]) & (truth[0] <= interval.high + slack)
        known = np.isfinite(interval.low) & np.isfinite(truth[0])
        if name.startswith("betweenness"):  # nodes that no path ever passes are no achievement
            known &= (truth[0] != 0) | (replicates != 0).any(0)
        if smooth and name.startswith("excess"):  # which is corrected for its noise already
            known = np.zeros_like(known)
        result += [np.where(known, inside, np.nan), interval.corrected - truth[0]]
    return tuple(result)


def summary(rows: list[tuple[np.ndarray, ...]]) -> dict:
    """Coverage of both intervals, and the bias of the estimate and of the corrected value.

    The bias is in standard deviations of the estimate's error over repeats (and nodes, for scores).
    """
    corrected, corrected_error, plain, error = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    error, corrected_error = (
        np.where(np.isfinite(known), of, np.nan)
        for known, of in zip((plain, corrected), (error, corrected_error), strict=True)
    )
    spread = np.nanstd(error)
    return {
        "corrected": mean(corrected),
        "plain": mean(plain),
        "bias": mean(error / spread) if spread else None,
        "corrected_bias": mean(corrected_error / spread) if spread else None,
        "known": float(np.isfinite(plain).mean()),
    }


def mean(values: np.ndarray) -> float | None:
    """Mean of those that are not NaN; None without any."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


# ---- tables


def tables(result: dict) -> list[str]:
    """Markdown tables of metrics, node scores and what compares two checkpoints."""
    return [table({size: of[part] for size, of in result.items()}) for part in PARTS]


def table(sizes: dict[str, dict]) -> str:
    """Markdown table of one part, with one row a quantity."""
    columns = [""]
    for size in sizes:
        columns += [f"{size}: corrected", "plain", "bias"]
    rows = []
    for name in sizes["6x5"]:
        cells, gains = [], []
        for of_size in sizes.values():
            found = [of_size[name][str(prompts)] for prompts in PROMPTS]
            for key, write in (("corrected", percent), ("plain", percent), ("bias", signed)):
                cells.append(" ".join(write(one[key]) for one in found))
            gains += [one["corrected"] - one["plain"] for one in found if one["corrected"] is not None]
        rows.append([f"`{name}`", *cells, better(gains), in_use(name)])
    return markdown([*columns, "better", "in use"], rows, left=1)


def better(gains: list[float]) -> str:
    """Which of two equally wide intervals covers more, given how much more the corrected one does."""
    if not gains:
        return "-"
    gain = np.mean(gains)
    return "either" if abs(gain) < SAME else "corrected" if gain > 0 else "plain"


def in_use(name: str) -> str:
    """Which interval the result files give."""
    step = moves_in_steps(name) or name.startswith("excess_churn") or "." in name  # a score's name has a dot
    return "plain" if step else "corrected"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


if __name__ == "__main__":
    main()
