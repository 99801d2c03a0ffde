"""The causal graph of a checkpoint: read from the files of the edges stage, checked, and handed to igraph."""

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import igraph
import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.types import GROUPS, Kind, Node

REPLICATES = GROUPS + 1
"""Length of the first axis of an edges file: the estimate, then the estimate without prompt group 1..GROUPS."""
FLOOR = 1e-7
"""Weights up to here are "no edge" for path metrics: a length 1/w may not be infinite, and float32 resolves no more."""
NEGATIVE = -1e-6
"""Weights down to here are rounding errors of a zero; what lies below is a mistake."""
HEADER = ["index", "name", "layer", "kind", "head"]


def read_nodes(path: str | Path) -> list[Node]:
    """Read ``nodes.tsv``.

    Parameters
    ----------
    path
        Tab-separated file with the header ``index name layer kind head``; ``head`` is empty but for heads. The
        embedding may stand first (layer -1), the logits last (the layer after the last).

    Returns
    -------
    list of Node
        In the order of their index, 0..N-1.

    Raises
    ------
    PhasegraphError
        If the file is missing or not of this form.
    """
    path = Path(path)
    if not path.is_file():
        raise PhasegraphError(f"{path}: no such file; run the edges stage first")
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    nodes = []
    for number, row in enumerate(rows):
        try:
            head = int(row["head"]) if row["head"] else None
            node = Node(int(row["index"]), int(row["layer"]), Kind(row["kind"]), head)
            wellformed = (node.index, node.name) == (number, row["name"]) and (head is None) != (node.kind is Kind.HEAD)
            wellformed = wellformed and _in_place(node, nodes, len(rows))
        except (KeyError, ValueError, TypeError):
            wellformed = False
        if not wellformed:
            raise PhasegraphError(
                f"{path}: line {number + 2} is not the node of index {number}; "
                f"expected the columns {', '.join(HEADER)} and one line per node in order of index"
            )
        nodes.append(node)
    if not nodes:
        raise PhasegraphError(f"{path}: no nodes; run the edges stage again")
    return nodes


def are_components(nodes: list[Node]) -> np.ndarray:
    """Which nodes are components of the model, heads and MLPs, and not its ends (embedding, logits): bool [N]."""
    return np.array([node.kind in (Kind.HEAD, Kind.MLP) for node in nodes])


def between_components(mask: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Possible edges that neither leave the embedding nor reach the logits.

    The graph as a whole is described on these. The embedding is all that the model knows of its prompt: without it no
    output varies, so that the weights of its total effects say little but that, at any checkpoint. They would outweigh
    all others in concentration and churn, and what is found must not depend on whether the ends are measured too.

    Parameters
    ----------
    mask
        bool [N, N], the possible edges.
    components
        bool [N], of `are_components`.

    Returns
    -------
    ndarray
        bool [N, N].
    """
    return mask & components[:, None] & components


def read_mask(path: str | Path, size: int) -> np.ndarray:
    """Read the mask of possible edges.

    Parameters
    ----------
    path
        ``mask.npy``, bool [N, N], row = source, column = target.
    size
        N, the number of nodes.

    Returns
    -------
    ndarray
        bool [N, N].

    Raises
    ------
    PhasegraphError
        If it is unreadable, of another shape, or not a strict partial order. Information flows one way along
        the residual stream, so the possible edges of any Transformer are such an order (u -> v and v -> t imply
        u -> t, and nothing reaches itself); the normalisation of path metrics relies on it.
    """
    path = Path(path)
    mask = _load(path)
    if mask.dtype != bool or mask.shape != (size, size):
        raise PhasegraphError(
            f"{path}: {mask.dtype} {list(mask.shape)}, expected bool [{size}, {size}] as in nodes.tsv; "
            f"run the edges stage again"
        )
    _check_order(mask, path)
    return mask


def read_graph(path: str | Path) -> tuple[list[Node], np.ndarray]:
    """Read nodes and mask of one checkpoint, from what was measured there.

    Parameters
    ----------
    path
        ``edges/<step>.more.npz``, with the arrays of `phasegraph.model.nodes.describe_graph`.

    Returns
    -------
    list of Node, ndarray
        The nodes in order of index, and the possible edges, bool [N, N].

    Raises
    ------
    PhasegraphError
        If it is unreadable, or the mask is not as `read_mask` wants it.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            columns = zip(file["layer"].tolist(), file["kind"].tolist(), file["head"].tolist(), strict=True)
            mask = file["mask"]
        nodes = [
            Node(index, layer, Kind(kind), head if head >= 0 else None)
            for index, (layer, kind, head) in enumerate(columns)
        ]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise PhasegraphError(f"{path}: missing or damaged; delete it and run the edges stage again") from error
    _check_order(mask, path)
    return nodes, mask


def read_edges(path: str | Path, mask: np.ndarray, nodes: Sequence[Node] = ()) -> np.ndarray:
    """Read and check the edges of one checkpoint.

    Parameters
    ----------
    path
        ``edges/<step>.npy`` or ``edges/<step>.direct.npy``, floating point [17, N, N].
    mask
        bool [N, N], the possible edges.
    nodes
        What messages name an edge's ends by; without it, by index.

    Returns
    -------
    ndarray
        float64 [17, N, N], >= 0, 0 outside the mask. Negative rounding errors (down to -1e-6) are set to 0.

    Raises
    ------
    PhasegraphError
        If the file is unreadable, of another shape, not finite on the mask, not 0 outside it, or clearly negative.
    """
    path = Path(path)
    edges = _load(path)
    expected = (REPLICATES, *mask.shape)
    if edges.dtype.kind != "f" or edges.shape != expected:
        raise PhasegraphError(
            f"{path}: {edges.dtype} {list(edges.shape)}, expected float32 {list(expected)} "
            f"(the estimate and {GROUPS} leave-one-group-out replicates); delete it and run the edges stage again"
        )
    edges = edges.astype(np.float64)
    again = "; delete the file and run the edges stage again"
    silent = "is NaN: the target does not vary over the prompts; use more varied prompts or exclude this checkpoint"
    for wrong, why in (
        (np.isnan(edges) & mask, silent),
        (np.isinf(edges) & mask, "is infinite" + again),
        ((edges != 0) & ~mask, "is not a possible edge (mask.npy)" + again),
        (edges < NEGATIVE, "is negative, and no measure of influence is" + again),
    ):
        if wrong.any():
            replicate, *ends = np.argwhere(wrong)[0].tolist()
            source, target = (nodes[end].name if nodes else f"node {end}" for end in ends)
            raise PhasegraphError(f"{path}: weight {source} -> {target}, replicate {replicate}, {why}")
    return np.maximum(edges, 0)


def to_igraph(weights: np.ndarray, mask: np.ndarray, floor: float = FLOOR) -> igraph.Graph:
    """Directed igraph graph of the edges that carry anything.

    Parameters
    ----------
    weights
        float64 [N, N], one replicate.
    mask
        bool [N, N].
    floor
        Edges of weight <= floor are left out.

    Returns
    -------
    igraph.Graph
        N vertices; edge attributes ``weight`` = w and ``length`` = 1/w (the connection length of Rubinov & Sporns,
        NeuroImage 52, 2010; multiplying all weights changes no shortest path).
    """
    sources, targets = np.nonzero(mask & (weights > floor))
    kept = weights[sources, targets]
    graph = igraph.Graph(len(mask), list(zip(sources.tolist(), targets.tolist(), strict=True)), directed=True)
    graph.es["weight"] = kept.tolist()
    graph.es["length"] = (1 / kept).tolist()
    return graph


def _in_place(node: Node, before: list[Node], count: int) -> bool:
    """Whether the node of this kind may stand after those before, in a list of `count`."""
    if node.kind is Kind.EMBED:
        return not before and node.layer == -1
    if node.kind is Kind.LOGITS:
        return len(before) == count - 1 and node.layer == max((other.layer for other in before), default=-1) + 1
    return node.layer >= 0


def _load(path: Path) -> np.ndarray:
    if not path.is_file():
        raise PhasegraphError(f"{path}: no such file; run the edges stage first")
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise PhasegraphError(f"{path}: not a readable .npy file; delete it and run the edges stage again") from error


def _check_order(mask: np.ndarray, path: Path) -> None:
    two_steps = mask.astype(np.float32) @ mask.astype(np.float32) > 0  # [N, N]; float32 for the BLAS product
    if mask.diagonal().any() or (two_steps & ~mask).any():
        raise PhasegraphError(
            f"{path}: not a strict partial order (u -> u is possible, or u -> v -> t without u -> t); "
            f"run the edges stage again"
        )
