"""Which metrics make up the suite, of which effect, and which are compared with null graphs at which cost.

Metrics of weights are of the total effect. What composes edges (triangles, paths, flow) is of the direct effect too
where it was measured, and only there is it compared with null graphs: a total effect contains every detour already.
"""

from dataclasses import dataclass

import numpy as np

from phasegraph.network.clustering import PLACES, triangles
from phasegraph.network.communities import Communities, adjusted_rand, communities
from phasegraph.network.expectation import expected_weights
from phasegraph.network.flow import max_flow, widest_path
from phasegraph.network.graph import are_components, between_components
from phasegraph.network.metrics import mixing_metrics, path_metrics, strength_metrics, weight_metrics
from phasegraph.network.paths import shortest_paths, tree_betweenness
from phasegraph.network.scores import classes
from phasegraph.types import Node

SMALL = 100
"""Nodes up to which nothing needs to be saved."""
LARGE = 1000
"""Nodes above which paths are not compared with null graphs, and communities not searched for in every replicate."""
Metrics = dict[str, np.ndarray]
"""Name -> values [B] of as many graphs."""


@dataclass(frozen=True)
class Structure:
    """What a graph between components is made of, whatever its weights are."""

    mask: np.ndarray
    """Possible edges between components, bool [N, N]."""
    layers: np.ndarray
    """Layer of each node, int [N]."""
    classes: np.ndarray
    """Class of each node, int [N]; nodes of the same layer and kind are peers."""
    components: np.ndarray
    """Heads and MLPs, and not embedding and logits, bool [N]."""

    @property
    def first(self) -> np.ndarray:
        """Components of the first layer, bool [N]."""
        return self.components & (self.layers == self.layers[self.components].min(initial=0))

    @property
    def last(self) -> np.ndarray:
        """Components of the last layer, bool [N]; none if that is the first."""
        return self.components & (self.layers == self.layers[self.components].max(initial=0)) & ~self.first


def structure_of(nodes: list[Node], possible: np.ndarray) -> Structure:
    """Describe the graph between components, given all nodes and all possible edges, bool [N, N]."""
    components = are_components(nodes)
    layers = np.array([node.layer for node in nodes])
    return Structure(between_components(possible, components), layers, classes(nodes), components)


@dataclass(frozen=True)
class Draws:
    """How many null graphs the metrics of different cost are compared with."""

    cheap: int
    """Metrics that take a sum or a product of matrices."""
    paths: int
    """Metrics of shortest paths and triangles, and those of weights, which take sorting."""
    searches: int
    """Modularity, which takes a search for communities, and the maximum flow."""


def planned_draws(nodes: int, wanted: int | None = None) -> Draws:
    """Choose the numbers of null graphs by the size of the graph.

    Parameters
    ----------
    nodes
        Size of the graph.
    wanted
        Number for the cheap metrics. The others take as many up to their default, and more in the proportion of the
        defaults. None for the default.

    Returns
    -------
    Draws
        The standard deviation of a z near 3 is .54, .24 and .07 for 19, 99 and 999 draws.
    """
    default = Draws(499, 499, 99) if nodes <= SMALL else Draws(99, 49, 19) if nodes <= LARGE else Draws(49, 0, 0)
    if wanted is None:
        return default
    paths, searches = (
        min(wanted, max(number, wanted * number // default.cheap)) for number in (default.paths, default.searches)
    )
    return Draws(wanted, paths, searches)


def restarts(nodes: int) -> int:
    """Choose how often communities are searched for; the same for a graph and its nulls, since the best one counts."""
    return 5 if nodes <= SMALL else 1


def of_weights(weights: np.ndarray, structure: Structure) -> Metrics:
    """Metrics of the weights one by one, whatever they connect."""
    return weight_metrics(weights, structure.mask)


def of_strengths(weights: np.ndarray, structure: Structure) -> Metrics:
    """Metrics that add the weights up by node or by layer."""
    return strength_metrics(weights, structure.mask) | mixing_metrics(weights, structure.layers)


def of_triangles(weights: np.ndarray, structure: Structure) -> Metrics:
    """Mean clustering of the nodes, by their place in triangles."""
    return mean_clustering(triangles(weights, structure.mask))


def mean_clustering(values: np.ndarray) -> Metrics:
    """Means over the nodes of what `phasegraph.network.clustering.triangles` gives, [B, 3, N]."""
    closed = np.isfinite(values[0])  # [3, N], by the mask
    return {
        f"clustering_{place}": values[:, i, closed[i]].mean(-1) if closed[i].any() else np.full(len(values), np.nan)
        for i, place in enumerate(PLACES)
    }


def of_paths(weights: np.ndarray, structure: Structure) -> Metrics:
    """Metrics of paths; equally short paths are not told apart, which among continuous weights there are none of."""
    # In a large graph rounding to 7 digits moves a mean of null graphs by less than their number does.
    lengths = weights if len(structure.mask) <= SMALL else weights.astype(np.float32)
    trees = shortest_paths(lengths, structure.mask)
    through = tree_betweenness(trees.before, structure.mask)
    return path_metrics(trees, through, structure.mask) | of_width(weights, structure)


def of_width(weights: np.ndarray, structure: Structure) -> Metrics:
    """Width of the widest path from the first to the last layer."""
    return {"width": widest_path(weights, structure.mask, structure.first, structure.last)[0]}


def of_flow(weights: np.ndarray, structure: Structure) -> Metrics:
    """Maximum flow from the first to the last layer."""
    return {"max_flow": max_flow(weights, structure.mask, structure.first, structure.last)}


def of_communities(weights: np.ndarray, structure: Structure) -> Metrics:
    """Masked modularity, number of communities with more than one node, and their agreement with the layers."""
    found = partitions(weights, structure, restarts(len(structure.mask)))
    layers = structure.layers[structure.components]
    modularity = np.array([partition.modularity for partition in found])
    several = [float((np.bincount(partition.labels) > 1).sum()) for partition in found]
    agreement = [adjusted_rand(partition.labels, layers) for partition in found]
    return {
        "modularity": modularity,
        "communities": np.where(np.isnan(modularity), np.nan, several),
        "layer_agreement": np.where(np.isnan(modularity), np.nan, agreement),
    }


def partitions(weights: np.ndarray, structure: Structure, tries: int) -> list[Communities]:
    """Search the communities of graphs [B, N, N], of their components alone (embedding and logits are in none)."""
    inner = np.ix_(structure.components, structure.components)
    mask, graphs = structure.mask[inner], weights[:, *inner]
    expected = expected_weights(graphs, mask)
    return [communities(graph, mask, tries, expected=by) for graph, by in zip(graphs, expected, strict=True)]
