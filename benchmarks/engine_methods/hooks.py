"""One node at a time with hooks on the bridge, without waste.

The clean pass is run once; only points after the ablated one have hooks; a pass ends before the final norm.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from phasegraph.model.nodes import nodes_of
from phasegraph.types import Intervention, Kind, Measure, Node


class _Done(Exception):
    """The last layer has run."""


@torch.inference_mode()
def hook_edges(
    bridge: TransformerBridge,
    tokens: Tensor,
    reference: Tensor,
    *,
    intervention: Intervention,
    measure: Measure,
    sources: list[int] | None = None,
) -> np.ndarray:
    """Measure total effects, all positions counting.

    Parameters
    ----------
    tokens, reference
        int64 [P, T] and [Q, T].
    intervention, measure
        Mean and variance, or zero and cosine.
    sources
        Nodes to ablate; all if None.

    Returns
    -------
    ndarray of float64, shape [N, N]
        Row = source, column = target; rows of other nodes are 0.
    """
    nodes = nodes_of(bridge.cfg.n_layers, bridge.cfg.n_heads)
    points = [point for layer in range(bridge.cfg.n_layers) for point in (_z(layer), _mlp(layer))]
    clean = _outputs(bridge, tokens, points)
    means = {point: y.mean((0, 1)) for point, y in _outputs(bridge, reference, points).items()}
    compare = _variance if measure is Measure.VARIANCE else _cosine
    edges = np.zeros((len(nodes), len(nodes)))
    for index in range(len(nodes)) if sources is None else sources:
        source = nodes[index]
        value = means[_point(source)] if intervention is Intervention.MEAN else torch.zeros(())
        hooks = [(_point(source), _replace(source, value))]
        for layer in range(source.layer + 1, bridge.cfg.n_layers):
            start = layer * (bridge.cfg.n_heads + 1)
            columns = {_z(layer): slice(start, start + bridge.cfg.n_heads), _mlp(layer): start + bridge.cfg.n_heads}
            for point, column in columns.items():
                put = _put(edges[index], column, compare, clean[point], means[point])
                hooks.append((point, put))
        _run(bridge, tokens, hooks)
    return edges


def _z(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_z"


def _mlp(layer: int) -> str:
    return f"blocks.{layer}.hook_mlp_out"


def _point(node: Node) -> str:
    return _z(node.layer) if node.kind is Kind.HEAD else _mlp(node.layer)


def _replace(source: Node, value: Tensor) -> Callable:
    def hook(output: Tensor, hook: object) -> Tensor:
        output = output.clone()
        if source.kind is Kind.HEAD:
            output[:, :, source.head] = value[source.head] if value.ndim else value
        else:
            output[:] = value
        return output

    return hook


def _put(row: np.ndarray, column: slice | int, compare: Callable, clean: Tensor, mean: Tensor) -> Callable:
    def hook(output: Tensor, hook: object) -> None:
        row[column] = compare(output, clean, mean).numpy()

    return hook


def _variance(output: Tensor, clean: Tensor, mean: Tensor) -> Tensor:
    """S / 2V of each target, [H] or a scalar."""
    over = (0, 1, -1)
    return (output - clean).square().sum(over) / (2 * (clean - mean).square().sum(over))


def _cosine(output: Tensor, clean: Tensor, mean: Tensor) -> Tensor:
    return 1 - torch.nn.functional.cosine_similarity(output, clean, dim=-1).mean((0, 1))


def _outputs(bridge: TransformerBridge, tokens: Tensor, points: list[str]) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}

    def keep(point: str):
        def hook(output: Tensor, hook: object) -> None:
            kept[point] = output

        return point, hook

    _run(bridge, tokens, list(map(keep, points)))
    return kept


def _run(bridge: TransformerBridge, tokens: Tensor, hooks: list) -> None:
    def stop(x: Tensor, hook: object) -> None:
        raise _Done

    # Neither return_type=None nor stop_at_layer=L leaves the unembedding out; an exception does, and the bridge takes
    # its hooks away on the way.
    try:
        bridge.run_with_hooks(tokens, fwd_hooks=[*hooks, ("ln_final.hook_in", stop)], return_type=None, use_cache=False)
    except _Done:
        return
