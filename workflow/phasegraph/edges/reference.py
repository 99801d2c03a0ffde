"""The slow truth: one node at a time, with hooks on the whole model, written to be read and not to be fast.

The tests compare the engine with this module; nothing else uses it.
"""

import numpy as np
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from phasegraph.groups import group_of
from phasegraph.model.nodes import is_parallel, nodes_of
from phasegraph.types import GROUPS, Effect, Intervention, Kind, Measure, Node

Outputs = dict[int, np.ndarray]
"""Node index -> its outputs on all prompts, float64 [P, T, F]."""


@torch.inference_mode()
def reference_edges(
    bridge: TransformerBridge,
    tokens: Tensor,
    reference: Tensor,
    *,
    intervention: Intervention,
    effect: Effect,
    first_position: int = 1,
) -> dict[Measure, np.ndarray]:
    """Measure edges as `phasegraph.edges.engine.measure_edges` does, one whole pass per source (and target layer).

    Returns
    -------
    dict of Measure to ndarray of float64, shape [GROUPS + 1, N, N]
        By every measure, since they are made of the same passes.
    """
    nodes = nodes_of(bridge.cfg.n_layers, bridge.cfg.n_heads)
    clean = _outputs(bridge, tokens, nodes, [])
    on_reference = _outputs(bridge, reference, nodes, [])
    means = {i: y[:, first_position:].mean((0, 1)) for i, y in on_reference.items()}
    result = {measure: np.zeros((GROUPS + 1, len(nodes), len(nodes))) for measure in Measure}
    for source in nodes:
        replacement = means[source.index] if intervention is Intervention.MEAN else 0 * means[source.index]
        if effect is Effect.TOTAL:
            changed = _outputs(bridge, tokens, nodes, [_replace(source, replacement)])
        else:
            changed = _direct_outputs(bridge, tokens, nodes, source, replacement, clean)
        for target, after in changed.items():
            if not _possible(source, nodes[target], is_parallel(bridge)):
                continue
            outputs = clean[target][:, first_position:], after[:, first_position:], means[target]
            for measure, matrices in result.items():
                matrices[:, source.index, target] = _weights(measure, *outputs)
    return result


def _possible(source: Node, target: Node, parallel: bool) -> bool:
    if source.layer == target.layer:
        return not parallel and source.kind is Kind.HEAD and target.kind is Kind.MLP
    return source.layer < target.layer


def _replace(source: Node, replacement: np.ndarray):
    """Make a hook that puts `replacement` in the place of a node's output, at every position."""
    value = torch.tensor(replacement, dtype=torch.float32)

    def hook(output: Tensor, hook: object) -> Tensor:
        output = output.clone()
        if source.kind is Kind.MLP:
            output[:] = value
        else:
            by_head = output.view(*output.shape[:2], -1, len(value))
            by_head[:, :, source.head] = value
        return output

    return _hook_name(source), hook


def _hook_name(node: Node) -> str:
    return f"blocks.{node.layer}.hook_mlp_out" if node.kind is Kind.MLP else f"blocks.{node.layer}.attn.hook_z"


def _outputs(bridge: TransformerBridge, tokens: Tensor, nodes: list[Node], hooks: list) -> Outputs:
    """Run the whole model and keep every node's output."""
    kept: Outputs = {}

    def keep(node: Node):
        def hook(output: Tensor, hook: object) -> None:
            values = output.double().numpy()
            if node.kind is Kind.HEAD:
                values = values.reshape(*values.shape[:2], bridge.cfg.n_heads, -1)[:, :, node.head]
            kept[node.index] = values.copy()

        return _hook_name(node), hook

    bridge.run_with_hooks(tokens, fwd_hooks=[*hooks, *[keep(node) for node in nodes]], return_type=None)
    return kept


def _direct_outputs(
    bridge: TransformerBridge,
    tokens: Tensor,
    nodes: list[Node],
    source: Node,
    replacement: np.ndarray,
    clean: Outputs,
) -> Outputs:
    """For each layer in turn, take the source's contribution out of what that layer reads, and of nothing else."""
    removed = _contribution(bridge, source, clean[source.index] - replacement)

    def subtract(stream: Tensor, hook: object) -> Tensor:
        return stream - removed

    result: Outputs = {}
    for layer in range(source.layer, bridge.cfg.n_layers):
        heads = [node for node in nodes if node.layer == layer and node.kind is Kind.HEAD]
        mlp = [node for node in nodes if node.layer == layer and node.kind is Kind.MLP]
        attention_reads, mlp_reads = f"blocks.{layer}.ln1.hook_in", f"blocks.{layer}.ln2.hook_in"
        result |= _outputs(bridge, tokens, heads, [(attention_reads, subtract)])
        result |= _outputs(bridge, tokens, mlp, [(mlp_reads, subtract)])
    return result


def _contribution(bridge: TransformerBridge, source: Node, output: np.ndarray) -> Tensor:
    """Give what an output adds to the residual stream, without the bias that the heads share."""
    values = torch.tensor(output, dtype=torch.float32)
    if source.kind is Kind.MLP:
        return values
    z = torch.zeros(*values.shape[:2], bridge.cfg.n_heads, values.shape[-1])
    z[:, :, source.head] = values
    project = bridge.blocks[source.layer].attn.o.original_component
    return project(z.flatten(2)) - project(torch.zeros_like(z).flatten(2))


def _weights(measure: Measure, clean: np.ndarray, after: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Compute the measure as its definition reads, on all prompts and without each group: float64 [GROUPS + 1]."""
    prompts, group = np.arange(len(clean)), group_of(len(clean))
    return np.array(
        [
            _weight(measure, clean[kept], after[kept], mean)
            for kept in [prompts, *[prompts[group != k] for k in range(GROUPS)]]
        ]
    )


def _weight(measure: Measure, clean: np.ndarray, after: np.ndarray, mean: np.ndarray) -> float:
    length = np.linalg.norm
    if measure is Measure.COSINE:
        return float(np.mean(1 - (clean * after).sum(-1) / (length(clean, axis=-1) * length(after, axis=-1))))
    if measure is Measure.L2:
        return float(np.mean(length(after - clean, axis=-1) / length(clean, axis=-1)))
    change, signal, moved = (after - clean).ravel(), (clean - mean).ravel(), (after - mean).ravel()
    if measure is Measure.VARIANCE:
        return float(change @ change / (2 * signal @ signal))
    return float(1 - signal @ moved / (length(signal) * length(moved)))
