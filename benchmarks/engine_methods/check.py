"""Before anything is timed: do all methods give the same numbers?"""

from pathlib import Path

import numpy as np
import torch

from engine_methods import ours, paper
from engine_methods.hooks import hook_edges
from engine_methods.models import PYTHIA, prompts_for
from phasegraph.model.components import bridge_components
from phasegraph.model.load import components_of, load, read
from phasegraph.model.nodes import nodes_of
from phasegraph.types import GROUPS, Intervention, Kind, Measure

TOLERANCE = 1e-4
LENGTH = 32


def check(folder: Path, name: str = "pythia-14m") -> dict[str, float]:
    """Compare the methods at the smaller shape; stop with a message if they differ.

    Returns
    -------
    dict of str to float
        Largest differences between edges, relative to the larger of the edge and the median edge.
    """
    shape = PYTHIA[name]
    task = prompts_for(shape, GROUPS, LENGTH, GROUPS)
    tokens, reference = torch.from_numpy(task.tokens), torch.from_numpy(task.reference)
    bridge = load(folder)
    fast = components_of(read(folder), LENGTH)
    zero = {"intervention": Intervention.ZERO, "measure": Measure.COSINE}
    mean = {"intervention": Intervention.MEAN, "measure": Measure.VARIANCE}
    found = ours.measured(fast, task, direct=True, **mean)
    by_bridge = ours.measured(bridge_components(load(folder), LENGTH), task, direct=True, **mean)
    found_zero = ours.measured(fast, task, direct=False, **zero)["total"][0]
    differences = {
        "hooks, mean and variance": _gap(hook_edges(bridge, tokens, reference, **mean), found["total"][0]),
        "hooks, zero and cosine": _gap(hook_edges(bridge, tokens, reference, **zero), found_zero),
        "bridge, total": _gap(by_bridge["total"][0], found["total"][0]),
        "bridge, direct": _gap(by_bridge["direct"][0], found["direct"][0]),
        "paper, zero and cosine": _gap(*_paper_rows(bridge, tokens, found_zero)),
    }
    for what, gap in differences.items():
        if not gap <= TOLERANCE:
            raise SystemExit(f"the methods disagree by {gap:.1e} ({what}); nothing was timed")
    return differences


def _paper_rows(bridge, tokens: torch.Tensor, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take a head and an MLP of two layers through the paper's loop, with the MLPs at their outputs."""
    nodes = nodes_of(bridge.cfg.n_layers, bridge.cfg.n_heads)
    places = [
        (f"blocks.{n.layer}.attn.hook_z", n.head) if n.kind is Kind.HEAD else (f"blocks.{n.layer}.hook_mlp_out", None)
        for n in nodes
    ]
    per_layer = bridge.cfg.n_heads + 1
    sources = [1, per_layer - 1, 3 * per_layer + 2, 4 * per_layer - 1]
    points = paper.points(bridge.cfg.n_layers, mlp="hook_mlp_out")
    rows = paper.paper_rows(bridge, tokens, [places[source] for source in sources], points)
    later = [[nodes[source].layer < node.layer for node in nodes] for source in sources]
    return np.where(later, [[1 - row[place] for place in places] for row in rows], 0), edges[sources]


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    return float((np.abs(one - other) / np.maximum(np.abs(other), np.median(other[other > 0]))).max())
