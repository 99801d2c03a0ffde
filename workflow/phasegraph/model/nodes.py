"""The nodes of a model and the mask of possible edges between them."""

import csv
from pathlib import Path

import numpy as np
from transformer_lens.model_bridge import TransformerBridge

from phasegraph.files import atomic
from phasegraph.types import Kind, Node


def nodes_of(n_layers: int, n_heads: int, *, embed: bool = False, logits: bool = False) -> list[Node]:
    """List the nodes: the embedding if wanted, layer by layer the heads and the MLP, the logits if wanted.

    Returns
    -------
    list of Node
        ``n_layers * (n_heads + 1)`` nodes and up to two more; a node's place is its row and column in every matrix.
    """
    kinds = [(-1, Kind.EMBED, None)] if embed else []
    for layer in range(n_layers):
        kinds += [*((layer, Kind.HEAD, head) for head in range(n_heads)), (layer, Kind.MLP, None)]
    kinds += [(n_layers, Kind.LOGITS, None)] if logits else []
    return [Node(index, *kind) for index, kind in enumerate(kinds)]


def mask_of(nodes: list[Node], parallel: bool) -> np.ndarray:
    """Say which edges the architecture allows.

    An edge ``u -> v`` is possible if u's output can reach v: u lies in an earlier layer (the embedding before, the
    logits after all of them) or, where the MLP reads the residual stream after the attention of its own layer
    (sequential blocks), u is a head and v that layer's MLP.

    Parameters
    ----------
    nodes
        As `nodes_of` lists them.
    parallel
        Whether attention and MLP of a layer read the same residual stream (GPT-NeoX, GPT-J).

    Returns
    -------
    ndarray of bool, shape [N, N]
        Row = source, column = target.
    """
    layer = np.array([node.layer for node in nodes])
    mask = layer[:, None] < layer[None, :]  # [N, N]
    if not parallel:
        is_mlp = np.array([node.kind is Kind.MLP for node in nodes])
        mask |= (layer[:, None] == layer[None, :]) & ~is_mlp[:, None] & is_mlp[None, :]
    return mask


def is_parallel(bridge: TransformerBridge) -> bool:
    """Whether the loaded model's MLPs read the residual stream before the attention of their own layer."""
    return bool(bridge.cfg.parallel_attn_mlp)


def write_nodes(nodes: list[Node], path: str | Path) -> None:
    """Write the nodes as a tab-separated table: index, name, layer, kind, head (empty but for heads)."""
    with atomic(path) as temporary, temporary.open("w", newline="") as handle:
        table = csv.writer(handle, delimiter="\t", lineterminator="\n")
        table.writerow(["index", "name", "layer", "kind", "head"])
        for node in nodes:
            table.writerow([node.index, node.name, node.layer, node.kind, "" if node.head is None else node.head])


def describe_graph(nodes: list[Node], mask: np.ndarray) -> dict[str, np.ndarray]:
    """Put nodes and mask into arrays, so that the results of one checkpoint can be read without those of another.

    Returns
    -------
    dict of str to ndarray
        ``layer`` int64 [N], ``kind`` str [N], ``head`` int64 [N] (-1 but for heads) and ``mask`` bool [N, N].
    """
    return {
        "layer": np.array([node.layer for node in nodes]),
        "kind": np.array([str(node.kind) for node in nodes]),
        "head": np.array([-1 if node.head is None else node.head for node in nodes]),
        "mask": mask,
    }
