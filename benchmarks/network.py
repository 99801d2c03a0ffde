"""What the metrics of a graph cost: phasegraph beside igraph and networkx, and the suite of a checkpoint as it is run.

    python benchmarks/network.py            # about 15 minutes of one core
    python benchmarks/network.py --quick    # small graphs, three repeats
    python benchmarks/network.py --only suite

Prints two tables and writes benchmarks/network.json. Graphs are those of parallel blocks, where every component reaches
all later layers; weights are random (a lognormal times an outer product of strengths). Seconds are those of one thread
(wall clock, so that the machine should be idle): medians of interleaved runs.

Routines: milliseconds a graph, and how many times as long the others take. "x 290" are so many null graphs in one call.
igraph and leidenalg get a graph that is made already, as phasegraph gets its matrix. Each gives what a metric needs:
distances between all pairs, betweenness of all nodes, clustering by Fagiolo, communities against the expectation on the
mask (one search). Before the timing their numbers are compared.

Suite: `phasegraph.network.checkpoint.checkpoint` on files of 17 replicates, with null graphs as by default, none for
the largest; and what a series of 154 takes on two cores.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import leidenalg
import networkx as nx
import numpy as np
from engine_methods.table import markdown, number

from phasegraph.files import atomic
from phasegraph.model.nodes import describe_graph, nodes_of
from phasegraph.network.checkpoint import checkpoint
from phasegraph.network.clustering import triangles
from phasegraph.network.communities import communities, modularity
from phasegraph.network.expectation import expected_weights
from phasegraph.network.graph import to_igraph
from phasegraph.network.paths import betweenness, shortest_paths, tree_betweenness

GRAPHS = {30: (6, 4), 156: (12, 12), 408: (24, 16)}
"""Nodes: layers and heads; each layer has an MLP too."""
SUITES = {30: (6, 4), 408: (24, 16), 1476: (36, 40)}
BATCH = 290
"""Null graphs of 30 nodes in one call, as many as `phasegraph.network.nulls.draw` gives at once."""
PATIENCE = 10.0
"""Seconds that one call of networkx may take; it is left out of larger graphs."""
SERIES, CORES = 154, 2
LARGE = 1000
"""Nodes above which the suite is timed on one effect, without null graphs."""


def possible_edges(layers: int, heads: int) -> np.ndarray:
    layer = np.array([node.layer for node in nodes_of(layers, heads)])
    return layer[:, None] < layer


def random_weights(mask: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw weights [count, N, N]."""
    rng = np.random.default_rng(seed)
    strengths = np.outer(*rng.lognormal(-2, 0.5, (2, len(mask))))
    return np.exp(rng.normal(0, 1, (count, *mask.shape))) * strengths * mask


def routines(weights: np.ndarray, mask: np.ndarray) -> dict[str, dict[str, Callable]]:
    """Give metric -> method -> call, for graphs [B, N, N]; all but ours take the first."""
    size = len(mask)
    graph = to_igraph(weights[0], mask)
    of_networkx = nx.DiGraph()
    of_networkx.add_nodes_from(range(size))
    for edge in graph.es:
        of_networkx.add_edge(*edge.tuple, weight=edge["weight"], length=edge["length"])
    expected = expected_weights(weights[0], mask)
    gains = ((weights[0] - expected) / weights[0].sum())[tuple(np.array(graph.get_edgelist()).T)].tolist()
    unnormalised = {"normalized": False, "weight": "length"}
    search = {"weights": gains, "resolution_parameter": 0, "n_iterations": -1, "seed": 0}

    def ours_between() -> np.ndarray:
        return betweenness(weights[0], shortest_paths(weights[:1], mask).distances[0], mask)

    def of_leidenalg() -> float:
        found = leidenalg.find_partition(graph, leidenalg.CPMVertexPartition, **search)
        return modularity(np.array(found.membership), weights[0], expected)

    def of_pairs() -> np.ndarray:
        rows = nx.all_pairs_dijkstra_path_length(of_networkx, weight="length")
        return np.array([[found.get(target, np.inf) for target in range(size)] for _, found in rows])

    return {
        "distances": {
            "phasegraph": lambda: shortest_paths(weights[:1], mask).distances[0],
            "igraph": lambda: np.array(graph.distances(weights="length")),
            "networkx": of_pairs,
            f"phasegraph x {BATCH}": lambda: shortest_paths(weights, mask).distances,
        },
        "betweenness": {
            "phasegraph": ours_between,
            "igraph": lambda: np.array(graph.betweenness(weights="length")),
            "networkx": lambda: np.array([*nx.betweenness_centrality(of_networkx, **unnormalised).values()]),
            f"phasegraph x {BATCH}": lambda: tree_betweenness(shortest_paths(weights, mask).before, mask),
        },
        "clustering": {
            "phasegraph": lambda: triangles(weights[:1], mask),
            "networkx": lambda: nx.clustering(of_networkx, weight="weight"),
            f"phasegraph x {BATCH}": lambda: triangles(weights, mask),
        },
        "communities": {
            "phasegraph": lambda: communities(weights[0], mask, 1, expected=expected).modularity,
            "leidenalg": of_leidenalg,
        },
    }


def compare(found: dict[str, dict[str, object]], size: int) -> dict[str, float]:
    """Largest relative differences from ours, of one graph; modularity: theirs less ours."""
    differences = {}
    for metric, by_method in found.items():
        ours = by_method["phasegraph"]
        for method, theirs in by_method.items():
            if method == "phasegraph" or metric == "clustering" or " x " in method:
                continue
            if metric == "communities":
                differences[f"{size} {metric} {method}"] = theirs - ours
                continue
            some = np.isfinite(ours)
            gaps = np.abs(theirs[some] - ours[some])
            differences[f"{size} {metric} {method}"] = float(gaps.max() / np.abs(ours[some]).max())
    return differences


def time_routines(sizes: list[int], repeats: int) -> tuple[list[dict], dict[str, float]]:
    """Time every method at every size, taking turns."""
    rows, differences = [], {}
    for size in sizes:
        mask = possible_edges(*GRAPHS[size])
        of_metrics = routines(random_weights(mask, BATCH if size == 30 else 1, size), mask)
        found, seconds = {}, {}
        for repeat in range(repeats + 1):  # the first is not timed, but compared
            for metric, methods in of_metrics.items():
                for method, call in methods.items():
                    if " x " in method and size != 30:
                        continue
                    if method == "networkx" and seconds.get((metric, method), [0])[0] > PATIENCE / 4 and repeat > 1:
                        continue  # once will do
                    begin = time.perf_counter()
                    result = call()
                    taken = time.perf_counter() - begin
                    if not repeat:
                        found.setdefault(metric, {})[method] = result
                        if taken > PATIENCE:
                            of_metrics[metric] = {name: other for name, other in methods.items() if name != method}
                        continue
                    seconds.setdefault((metric, method), []).append(taken / (BATCH if " x " in method else 1))
        differences |= compare(found, size)
        for (metric, method), times in seconds.items():
            ours = statistics.median(seconds[metric, "phasegraph"])
            median = statistics.median(times)
            rows.append(
                {"nodes": size, "metric": metric, "method": method, "ms": 1000 * median, "ratio": median / ours}
            )
        say(f"{size} nodes: routines")
    return rows, differences


def save_checkpoint(folder: Path, layers: int, heads: int) -> None:
    """Write the files of a checkpoint as the edges stage does."""
    nodes, mask = nodes_of(layers, heads), possible_edges(layers, heads)
    rng = np.random.default_rng(0)
    np.savez(folder / "0.more.npz", **describe_graph(nodes, mask))
    for seed, suffix in enumerate(("", ".direct")):
        edges = np.empty((17, *mask.shape), np.float32)
        edges[:] = random_weights(mask, 1, seed)
        for replicate in edges:
            replicate *= np.exp(rng.normal(0, 0.05, mask.shape))
        np.save(folder / f"0{suffix}.npy", edges)


def time_suites(sizes: list[int], repeats: int) -> list[dict]:
    """Time what is computed of one checkpoint, taking turns."""
    seconds = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {size: Path(temporary) / str(size) for size in sizes}
        for size, folder in folders.items():
            folder.mkdir()
            save_checkpoint(folder, *SUITES[size])
        for _ in range(repeats):
            for size, folder in folders.items():
                large = size > LARGE
                begin = time.perf_counter()
                direct = None if large else folder / "0.direct.npy"
                files = folder / "0.npy", direct, folder / "0.more.npz", folder / "out.npz", folder / "backbones"
                checkpoint(*files, 0 if large else None)
                seconds[size].append(time.perf_counter() - begin)
                say(f"{size} nodes: suite, {seconds[size][-1]:.1f} s")
    return [
        {
            "nodes": size,
            "effects": 1 if size > LARGE else 2,
            "nulls": size <= LARGE,
            "seconds": statistics.median(times),
            "minutes_of_a_series": statistics.median(times) * SERIES / CORES / 60,
            "all_seconds": times,
        }
        for size, times in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the largest graphs, at most three repeats")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of the routines; of the suite at most 3")
    parser.add_argument("--only", choices=["routines", "suite"], help="measure one anew, keep the JSON's other")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"), help="JSON to write")
    arguments = parser.parse_args()
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if not one_thread.items() <= os.environ.items():  # numpy has read them already
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | one_thread)
    repeats = min(arguments.repeats, 3) if arguments.quick else arguments.repeats
    result = json.loads(arguments.out.read_text()) if arguments.only and arguments.out.exists() else {}
    result["load_average"] = os.getloadavg()
    if arguments.only != "suite":
        sizes = [*GRAPHS][:2] if arguments.quick else [*GRAPHS]
        result["routines"], result["largest_differences"] = time_routines(sizes, repeats)
    if arguments.only != "routines":
        result["suite"] = time_suites([*SUITES][:2] if arguments.quick else [*SUITES], min(repeats, 3))
    with atomic(arguments.out) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")
    if "routines" in result:
        rows = [
            [str(r["nodes"]), r["metric"], r["method"], number(r["ms"]), number(r["ratio"])] for r in result["routines"]
        ]
        print(markdown(["nodes", "metric", "method", "ms a graph", "relative"], rows, 3))
    if "suite" in result:
        rows = [
            [
                str(r["nodes"]),
                str(r["effects"]),
                "yes" if r["nulls"] else "no",
                number(r["seconds"]),
                number(r["minutes_of_a_series"]),
            ]
            for r in result["suite"]
        ]
        print(
            "\n"
            + markdown(
                ["nodes", "effects", "null graphs", "s a checkpoint", f"min for {SERIES} on {CORES} cores"], rows, 3
            )
        )


def say(line: str) -> None:
    """Report progress."""
    print(f"{time.process_time():6.0f} CPU s  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
