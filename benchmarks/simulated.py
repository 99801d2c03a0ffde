"""Graphs whose truth is known, and what a study of so many prompts would measure of them.

The sizes of all effects are those of the embedded demonstration (total effects of 32 prompts of 17 tokens, at steps 28
to 572): there the logarithms of the weights have a standard deviation of 1.2 to 1.4, most of which is differences
between sources (.8 to 1.2 without the first MLP) and targets (.2 to .4, of direct effects .9 to 1.3); .2 to .4 are left
to the single edges. One prompt's share in an edge has a median coefficient of variation of .5 to .7. Half of that noise
is common to the edges of one source, and a quarter to those of one target.

In another model the single edges may differ more, so that there are graphs of two kinds.
"""

import numpy as np

from phasegraph.groups import group_of, leave_one_out
from phasegraph.network.suite import Structure, structure_of
from phasegraph.types import GROUPS, Kind, Node

MEDIAN = 0.01
"""Median weight of an edge to the next layer."""
OUT, INTO = 1.1, 0.4
"""Standard deviations, over nodes, of the logarithms of what makes up a weight."""
EDGES = (0.35, 1.0)
"""The same over edges: as in the demonstration, and with a long tail that strengths do not explain."""
DECAY = 0.2
"""By how much the logarithm of a weight falls with every layer that the edge climbs."""
PROMPT_SOURCE, PROMPT_TARGET, PROMPT_EDGE = 0.42, 0.25, 0.40
"""Standard deviations, over prompts, of the logarithm of an effect."""
PROMPT_VARIANCE = 0.5
"""Standard deviation, over prompts, of the logarithm of a target's variance."""
COMMON = 0.9
"""Share of the noise of single edges that two checkpoints have in common, since they see the same prompts."""


def layered(layers: int, heads: int) -> tuple[list[Node], Structure]:
    """Layers of heads and one MLP each, where all layers see all earlier ones (parallel blocks)."""
    places = [(layer, head) for layer in range(layers) for head in [*range(heads), None]]
    nodes = [Node(i, layer, Kind.MLP if head is None else Kind.HEAD, head) for i, (layer, head) in enumerate(places)]
    of_nodes = np.array([layer for layer, _ in places])
    return nodes, structure_of(nodes, of_nodes[:, None] < of_nodes)


def heterogeneous(
    structure: Structure, rng: np.random.Generator, edge: float, out: float = OUT, into: float = INTO
) -> np.ndarray:
    """Draw weights [N, N] without structure but for strengths: an outer product times lognormal noise.

    The decay with distance is part of the outer product: exp(-d (l_v - l_u)) = exp(d l_u) exp(-d l_v).
    """
    size = len(structure.mask)
    logs = out * rng.normal(size=(size, 1)) + into * rng.normal(size=size) + edge * rng.normal(size=(size, size))
    gaps = structure.layers - structure.layers[:, None]
    return np.where(structure.mask, MEDIAN * np.exp(logs - DECAY * (gaps - 1)), 0)


def measured(
    weights: np.ndarray,
    structure: Structure,
    prompts: int,
    rng: np.random.Generator,
    modules: np.ndarray | None = None,
    module: float = 0.0,
) -> np.ndarray:
    """Measure true weights with a number of prompts, as edges/<step>.npy holds them.

    Parameters
    ----------
    weights
        [S, N, N]: the true weights of S checkpoints, which see the same prompts.
    structure
        Of the graphs.
    prompts
        A multiple of 16.
    rng
        Source of randomness.
    modules, module
        int [N] and the standard deviation of the logarithm of what the edges within a module have in common in a
        prompt.

    Returns
    -------
    ndarray
        float64 [S, 17, N, N]: ratios of sums over prompts, w = sum S / 2 sum V, from all prompts and without each
        group. With S_uv = 2 w_uv V_v exp(noise) and E exp(noise) = 1, independent of V, the truth E S / 2 E V is w.
    """
    tails, heads = np.nonzero(structure.mask)
    size, steps = len(structure.mask), len(weights)
    by_group = np.zeros((GROUPS, steps, len(tails)))
    variances = np.zeros((GROUPS, size))
    for group in range(GROUPS):
        count = int((group_of(prompts) == group).sum())
        noise = PROMPT_EDGE * (
            np.sqrt(COMMON) * rng.normal(size=(count, 1, len(tails)))
            + np.sqrt(1 - COMMON) * rng.normal(size=(count, steps, len(tails)))
        )
        noise += PROMPT_SOURCE * rng.normal(size=(count, 1, size))[..., tails]
        noise += PROMPT_TARGET * rng.normal(size=(count, 1, size))[..., heads]
        noise -= (PROMPT_EDGE**2 + PROMPT_SOURCE**2 + PROMPT_TARGET**2) / 2
        if modules is not None:
            within = modules[tails] == modules[heads]
            shared = module * rng.normal(size=(count, 1, modules.max() + 1)) - module**2 / 2
            noise += np.where(within, shared[..., modules[tails]], 0)
        variance = np.exp(PROMPT_VARIANCE * rng.normal(size=(count, size)))  # [prompts, N]
        by_group[group] = (np.exp(noise) * variance[:, None, heads]).sum(0)
        variances[group] = variance.sum(0)
    ratios = leave_one_out(by_group) / leave_one_out(variances)[:, None, heads]  # [17, S, E]
    result = np.zeros((steps, GROUPS + 1, size, size))
    result[:, :, tails, heads] = weights[:, None, tails, heads] * ratios.swapaxes(0, 1)
    return result


def planted_modules(
    weights: np.ndarray, rng: np.random.Generator, factor: float, count: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Multiply the weights [N, N] within each of `count` random modules; gives the weights, and the modules [N]."""
    modules = rng.integers(count, size=len(weights))
    return np.where(np.equal.outer(modules, modules), factor * weights, weights), modules


def planted_triangles(
    weights: np.ndarray, structure: Structure, rng: np.random.Generator, factor: float, count: int
) -> np.ndarray:
    """Multiply the three weights of feed-forward triangles that share no edge."""
    planted, used = weights.copy(), np.zeros(structure.mask.shape, dtype=bool)
    while count:
        u, w, v = sorted(rng.integers(len(weights), size=3).tolist())
        edges = ([u, w, u], [w, v, v])
        if structure.mask[edges].all() and not used[edges].any():
            planted[edges] *= factor
            used[edges] = True
            count -= 1
    return planted


def planted_clique(
    weights: np.ndarray, structure: Structure, rng: np.random.Generator, factor: float, size: int
) -> np.ndarray:
    """Multiply all weights between some nodes of different layers: many triangles that share their edges."""
    layers = rng.choice(np.unique(structure.layers), size, replace=False)
    chosen = [int(rng.choice(np.flatnonzero(structure.layers == layer))) for layer in layers]
    planted = weights.copy()
    planted[np.ix_(chosen, chosen)] *= factor
    return planted


def planted_assortativity(structure: Structure, rng: np.random.Generator, edge: float, strength: float) -> np.ndarray:
    """Draw weights [N, N] where what strong sources have to spare goes to strong targets."""
    source, target = rng.normal(size=(2, len(structure.mask)))
    base = heterogeneous(structure, rng, edge, out=0, into=0)
    return base * np.exp(OUT * source[:, None] + INTO * target + strength * source[:, None] * target)
