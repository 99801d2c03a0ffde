"""How often graphs without, and graphs with, planted structure stand out against the null models.

    python benchmarks/null_calibration.py                # about ten minutes of one core
    python benchmarks/null_calibration.py --only plain roles     # these again, and the JSON's others are kept
    python benchmarks/null_calibration.py --tables       # the tables of docs/network.md, from the JSON beside this file

All graphs have 6 layers of 4 heads and an MLP (see simulated.py), and are compared with 199 null graphs. What takes a
search for communities is computed of fewer graphs and 49 null graphs: then the least p is .04, and if all is well 4 %
are at most .05, and none at most .01. Every condition has graphs of its own:

- drawn: the observed graph is itself a draw of the null it is compared with, of a graph with planted modules;
- plain: an outer product of strengths times lognormal noise, and nothing more; noisy: the same, measured with 32
  prompts; modular: the same, with noise that the edges within a random module have in common in every prompt;
- modules, triangles, clique, assortative: with planted structure, known exactly or (noisy) measured with 32 prompts;
- long: where strengths explain less of the weights, which have a longer tail.

And Spearman's correlation of the scores of the roles with the layer, in graphs whose nodes differ in strength but have
no roles.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from engine_methods.table import markdown
from intervals import node_scores
from scipy.stats import spearmanr
from simulated import (
    EDGES,
    heterogeneous,
    layered,
    measured,
    planted_assortativity,
    planted_clique,
    planted_modules,
    planted_triangles,
)

from phasegraph.files import atomic
from phasegraph.network import suite
from phasegraph.network.nulls import NULLS, compare, draw
from phasegraph.network.suite import Structure

DRAWS, SEARCHES = 199, 49
PROMPTS = 32
NOISE_OF_MODULES = 0.5
"""Standard deviation of the logarithm of what a prompt does to all edges within a module."""
TRIANGLES, CLIQUE = 15, 6
"""Planted triangles, and nodes of a planted clique, which has 20 triangles."""
REPEATS = {True: 200, False: 100}
"""Graphs of a condition: without planted structure, and with."""
SEARCHED = 100
"""Graphs at most whose communities are searched for."""
ROLE_SIZES = {"6x5": (6, 4), "12x9": (12, 8)}
ROLE_GRAPHS = 200

CHEAP = (suite.of_weights, suite.of_strengths, suite.of_triangles, suite.of_paths, suite.of_flow)
ALL = (*CHEAP, suite.of_communities)

Maker = Callable[[Structure, np.random.Generator], np.ndarray]


class Condition(NamedTuple):
    """Graphs that are compared with null graphs."""

    make: Maker
    """Draws a graph [N, N]."""
    nulls: tuple[str, ...] = NULLS
    families: tuple[Callable, ...] = ALL
    """What is computed of it."""


# ---- graphs


def plain(edge: float = EDGES[0]) -> Maker:
    return lambda structure, rng: heterogeneous(structure, rng, edge)


def modular_noise(structure: Structure, rng: np.random.Generator) -> np.ndarray:
    modules = rng.integers(3, size=len(structure.mask))
    weights = plain()(structure, rng)[None]
    return measured(weights, structure, PROMPTS, rng, modules, NOISE_OF_MODULES)[0, 0]


def noisy(make: Maker) -> Maker:
    """Measure what `make` draws."""
    return lambda structure, rng: measured(make(structure, rng)[None], structure, PROMPTS, rng)[0, 0]


def drawn(null: str, edge: float = EDGES[0]) -> Maker:
    """Draw from the null model of a graph with modules."""

    def make(structure: Structure, rng: np.random.Generator) -> np.ndarray:
        base, _ = planted_modules(plain(edge)(structure, rng), rng, 1.5)
        return next(draw(null, base, structure.mask, structure.classes, 1, [int(rng.integers(2**31))]))[0]

    return make


def modules(factor: float) -> Maker:
    return lambda structure, rng: planted_modules(plain()(structure, rng), rng, factor)[0]


def triangles(factor: float) -> Maker:
    return lambda structure, rng: planted_triangles(plain()(structure, rng), structure, rng, factor, TRIANGLES)


def clique(factor: float) -> Maker:
    return lambda structure, rng: planted_clique(plain()(structure, rng), structure, rng, factor, CLIQUE)


def assortative(strength: float) -> Maker:
    return lambda structure, rng: planted_assortativity(structure, rng, EDGES[0], strength)


RATIO = ("ratio",)
IN_MODULES, IN_TRIANGLES, IN_STRENGTHS = (suite.of_communities,), (suite.of_triangles,), (suite.of_strengths,)
STRUCTURELESS = {
    "drawn block": Condition(drawn("block"), ("block",)),
    "drawn ratio": Condition(drawn("ratio"), RATIO),
    "drawn ratio long": Condition(drawn("ratio", EDGES[1]), RATIO),
    "plain": Condition(plain()),
    "noisy": Condition(noisy(plain()), RATIO),
    "modular": Condition(modular_noise, RATIO),
    "plain long": Condition(plain(EDGES[1]), RATIO),
}
PLANTED = {
    "modules x 1.5": Condition(modules(1.5), NULLS, IN_MODULES),
    "modules x 1.5, noisy": Condition(noisy(modules(1.5)), NULLS, IN_MODULES),
    "modules x 2": Condition(modules(2), NULLS, IN_MODULES),
    "triangles x 2": Condition(triangles(2), NULLS, IN_TRIANGLES),
    "triangles x 4": Condition(triangles(4), NULLS, IN_TRIANGLES),
    "clique x 2": Condition(clique(2), NULLS, IN_TRIANGLES),
    "clique x 2, noisy": Condition(noisy(clique(2)), NULLS, IN_TRIANGLES),
    "clique x 4": Condition(clique(4), NULLS, IN_TRIANGLES),
    "assortative .1": Condition(assortative(0.1), NULLS, IN_STRENGTHS),
    "assortative .1, noisy": Condition(noisy(assortative(0.1)), NULLS, IN_STRENGTHS),
    "assortative .2": Condition(assortative(0.2), NULLS, IN_STRENGTHS),
}
TOLD = ("modularity", "clustering", "assortativity")
"""Beginnings of the names of the metrics that the table of planted structure shows."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"), help="JSON to write and read")
    names = [*STRUCTURELESS, *PLANTED, "roles"]
    parser.add_argument("--only", nargs="+", choices=names, help="simulate these and keep the JSON's others")
    parser.add_argument("--tables", action="store_true", help="print the tables of docs/network.md, and run nothing")
    arguments = parser.parse_args()
    result = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in [] if arguments.tables else arguments.only or names:
        print(f"simulating: {name}", file=sys.stderr, flush=True)
        result[name] = roles() if name == "roles" else simulate(name)
        with atomic(arguments.out) as path:
            path.write_text(json.dumps(result, indent=1) + "\n")
    print("\n\n".join(tables(result)))


def simulate(name: str) -> dict:
    """Compare many graphs with their nulls: null -> metric -> what `summary` tells."""
    condition = (STRUCTURELESS | PLANTED)[name]
    number = [*STRUCTURELESS, *PLANTED].index(name)
    _, structure = layered(6, 4)
    found: dict[str, dict[str, list]] = {null: {} for null in condition.nulls}
    for repeat in range(REPEATS[name in STRUCTURELESS]):
        weights = condition.make(structure, np.random.default_rng([number, repeat]))
        families = [one for one in condition.families if one is not suite.of_communities or repeat < SEARCHED]
        for null in condition.nulls:
            for metric, p, z in against(null, weights, structure, families, [number, repeat]):
                found[null].setdefault(metric, []).append((p, z))
    return {null: {metric: summary(rows) for metric, rows in of.items()} for null, of in found.items()}


def against(
    null: str, weights: np.ndarray, structure: Structure, families: list[Callable], seed: list[int]
) -> Iterator[tuple[str, float, float]]:
    """Give name, p and z of every metric that the null model does not keep."""
    graphs = np.concatenate(list(draw(null, weights, structure.mask, structure.classes, DRAWS, seed)))
    for family in families:
        count = SEARCHES if family is suite.of_communities else DRAWS
        observed, values = family(weights[None], structure), family(graphs[:count], structure)
        for metric in observed:
            compared = compare(observed[metric], values[metric][:, None])
            if np.isfinite(compared.p[0]):
                yield metric, float(compared.p[0]), float(compared.z[0])


def summary(rows: list[tuple[float, float]]) -> dict[str, float]:
    """Shares of small p, the largest distance of the distribution of p from a uniform one, mean and sd of z."""
    p, z = np.array(rows).T
    levels = np.unique(np.round(p, 9))
    below = (p[:, None] <= levels + 1e-9).mean(0)
    return {
        "p05": float((p <= 0.05 + 1e-9).mean()),
        "p01": float((p <= 0.01 + 1e-9).mean()),
        "distance": float(np.abs(below - levels).max()),
        "z_mean": float(z.mean()),
        "z_sd": float(z.std(ddof=1)),
        "graphs": len(p),
    }


def roles() -> dict[str, dict[str, dict[str, float]]]:
    """Correlate scores with the layer, over graphs: size -> score -> mean, standard deviation and mean size of rho."""
    return {size: _roles(*shape) for size, shape in ROLE_SIZES.items()}


def _roles(layers: int, heads: int) -> dict[str, dict[str, float]]:
    nodes, structure = layered(layers, heads)
    found: dict[str, list[float]] = {}
    for repeat in range(ROLE_GRAPHS):
        rng = np.random.default_rng([len(nodes), repeat])
        weights = heterogeneous(structure, rng, EDGES[repeat % 2])
        for name, scores in node_scores(weights[None], structure).items():
            known = np.isfinite(scores[0])
            rho = spearmanr(scores[0, known], structure.layers[known]).statistic
            found.setdefault(name, []).append(float(rho))
    return {
        name: {"mean": float(np.mean(rho)), "sd": float(np.std(rho, ddof=1)), "size": float(np.mean(np.abs(rho)))}
        for name, rho in found.items()
    }


# ---- tables


def tables(result: dict) -> list[str]:
    """Markdown tables: level; graphs without structure; power; roles."""
    return [level(result), structureless(result), power(result), of_roles(result)]


def level(result: dict) -> str:
    """Graphs that are draws of the null, side by side."""
    columns, rows = ["metric"], []
    for null in NULLS:
        columns += [f"{null}: p ≤ .05", "p ≤ .01", "z", "distance"]
    for metric in metrics_of(result):
        cells = []
        for null in NULLS:
            one = result[f"drawn {null}"][null].get(metric)
            z = f"{one['z_mean']:+.1f} ± {one['z_sd']:.1f}" if one else ""
            cells += [percent(one["p05"]), percent(one["p01"]), z, decimals(one["distance"])] if one else NOTHING
        rows.append([f"`{metric}`", *cells])
    return markdown(columns, rows, left=1)


NOTHING = ["kept", "", "", ""]
"""Of a metric that a null model keeps."""


def structureless(result: dict) -> str:
    """Share of p <= .05 and mean z where there is nothing but strengths, and noise."""
    kinds = [
        ("block", "plain"),
        *(("ratio", kind) for kind in ("plain", "noisy", "modular", "plain long", "drawn ratio long")),
    ]
    columns = ["metric", *(f"{null}, {kind.replace('ratio ', '')}" for null, kind in kinds)]
    rows = []
    for metric in metrics_of(result):
        found = [result[kind][null].get(metric) for null, kind in kinds]
        rows.append([f"`{metric}`", *map(told, found)])
    return markdown(columns, rows, left=1)


def power(result: dict) -> str:
    """Share of p <= .05 and mean z of planted structure."""
    rows = []
    for name in PLANTED:
        for metric, ratio in result[name]["ratio"].items():
            if metric.startswith(TOLD):
                rows.append([name, f"`{metric}`", told(result[name]["block"].get(metric)), told(ratio)])
    return markdown(["planted", "metric", "block", "ratio"], rows, left=2)


def of_roles(result: dict) -> str:
    """Correlation of scores with the layer."""
    columns = ["score"]
    for size in ROLE_SIZES:
        columns += [f"{size}: mean ± sd", "mean size"]
    rows = []
    for name in result["roles"]["6x5"]:
        cells = []
        for size in ROLE_SIZES:
            one = result["roles"][size][name]
            cells += [f"{decimals(one['mean'])} ± {decimals(one['sd'])}", decimals(one["size"])]
        rows.append([f"`{name}`", *cells])
    return markdown(columns, rows, left=1)


def metrics_of(result: dict) -> list[str]:
    """All metrics that some null model changes, but for rounding and rare cases."""
    found = result["plain"]["ratio"] | result["plain"]["block"]
    return [metric for metric, one in found.items() if one["graphs"] > SEARCHED / 2]


def told(one: dict | None) -> str:
    return f"{percent(one['p05'])} ({one['z_mean']:+.1f})" if one and one["graphs"] > SEARCHED / 2 else "kept"


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def decimals(value: float) -> str:
    return f"{value:.2f}"


if __name__ == "__main__":
    main()
