"""The slow truth: one node at a time, with hooks on the whole model, written to be read and not to be fast.

The tests compare the engine with this module; nothing else uses it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from phasegraph.edges.passes import random_of_same_length
from phasegraph.groups import group_of
from phasegraph.model.nodes import is_parallel, nodes_of
from phasegraph.tasks.induction import Task
from phasegraph.types import GROUPS, Answer, Intervention, Kind, Measure, Measurement, Node

Values = dict[int | str, np.ndarray]
"""Node index -> its outputs on all prompts, float64 [P, T, F]; "q0", "k0", ... -> inputs of a layer's attention."""


@dataclass(frozen=True)
class _Model:
    bridge: TransformerBridge
    nodes: list[Node]
    task: Task

    @property
    def heads(self) -> int:
        return self.bridge.cfg.n_heads

    def layers(self) -> range:
        return range(self.bridge.cfg.n_layers)


@torch.inference_mode()
def reference_edges(bridge: TransformerBridge, task: Task, measurement: Measurement) -> dict[Measure, dict]:
    """Measure as `phasegraph.edges.engine.measure_edges` does, one whole pass per source (and target layer).

    Returns
    -------
    dict of Measure to dict of str to ndarray of float64
        What `measure_edges` gives, by every measure, since they are made of the same passes.
    """
    sizes = bridge.cfg.n_layers, bridge.cfg.n_heads
    nodes = nodes_of(*sizes, embed=measurement.embed, logits=measurement.logits)
    model = _Model(bridge, nodes, task)
    clean = _run(model, task.tokens, [])
    on_reference = _run(model, task.reference, [])
    means = {i: y[:, task.first_position :].mean((0, 1)) for i, y in on_reference.items()}
    replacements = _replacements(model, measurement.intervention, means)
    spans = {"": slice(task.first_position, None)} | (task.positions if measurement.by_position else {})
    results: dict[Measure, dict] = {measure: {} for measure in Measure}
    for source in nodes:
        if source.kind is Kind.LOGITS:
            continue
        removed = _contribution(model, source, clean[source.index] - replacements[source.index])
        for way, after in _ways(model, source, replacements[source.index], removed, measurement).items():
            for span, positions in spans.items():
                name = way + (f".{span}" if span else "")
                _fill(results, name, model, source, clean, after, means, positions)
            for kind in measurement.answer:
                prefix, effect = ("control.", way[8:]) if way.startswith("control.") else ("", way)
                effects = _answers(kind, task, clean["logits"], after["logits"])
                for found in results.values():
                    rows = found.setdefault(f"{prefix}answer.{kind}.{effect}", np.zeros((GROUPS + 1, len(nodes))))
                    rows[:, source.index] = effects
        for name in "qkv" if measurement.qkv else "":
            after = _direct_input(model, source, removed, name, clean)
            _fill(results, f"direct.{name}", model, source, clean, after, means, spans[""])
    return results


def _replacements(model: _Model, intervention: Intervention, means: Values) -> Values:
    """Give what each node's output is replaced by."""
    if intervention is Intervention.RESAMPLE:
        return _run(model, model.task.corrupted, [])
    return means if intervention is Intervention.MEAN else {i: 0 * y for i, y in means.items()}


def _ways(
    model: _Model, source: Node, replacement: np.ndarray, removed: Tensor, measurement: Measurement
) -> dict[str, Values]:
    """Run one source's ablation in every way that is wanted."""
    tokens = model.task.tokens
    ways = {"total": _run(model, tokens, [_replace(model, source, replacement)])}
    if measurement.direct:
        ways["direct"] = _direct(model, source, removed)
    if measurement.control:
        random = random_of_same_length(removed[None], source.index, list(range(len(tokens))))[0]
        ways["control.total"] = _run(model, tokens, [_subtract(_written(source), random)])
        if measurement.direct:
            ways["control.direct"] = _direct(model, source, random)
    return ways


def _fill(
    results: dict, name: str, model: _Model, source: Node, clean: Values, after: Values, means: Values, span: slice
):
    """Compute all measures of one source's effects, in one span of positions."""
    for target in model.nodes:
        if target.index not in after or not _possible(source, target, is_parallel(model.bridge)):
            continue
        outputs = clean[target.index][:, span], after[target.index][:, span], means[target.index]
        for measure, found in results.items():
            matrices = found.setdefault(name, np.zeros((GROUPS + 1, len(model.nodes), len(model.nodes))))
            matrices[:, source.index, target.index] = _weights(measure, *outputs)


def _possible(source: Node, target: Node, parallel: bool) -> bool:
    if source.layer == target.layer:
        return not parallel and source.kind is Kind.HEAD and target.kind is Kind.MLP
    return source.layer < target.layer


def _place(node: Node) -> str:
    """Name the hook point of a node's output."""
    if node.kind is Kind.EMBED:
        return "blocks.0.hook_resid_pre"
    return f"blocks.{node.layer}.hook_mlp_out" if node.kind is Kind.MLP else f"blocks.{node.layer}.attn.hook_z"


def _written(node: Node) -> str:
    """Name the hook point of what a node's layer part writes to the residual stream."""
    return f"blocks.{node.layer}.hook_attn_out" if node.kind is Kind.HEAD else _place(node)


def _replace(model: _Model, source: Node, replacement: np.ndarray) -> tuple:
    """Make a hook that puts `replacement` in the place of a node's output, at every position."""
    value = torch.tensor(replacement, dtype=torch.float32)

    def hook(output: Tensor, hook: object) -> Tensor:
        output = output.clone()
        if source.kind is Kind.HEAD:
            output.view(*output.shape[:2], model.heads, -1)[:, :, source.head] = value
        else:
            output[:] = value
        return output

    return _place(source), hook


def _subtract(place: str, removed: Tensor) -> tuple:
    """Make a hook that takes something out of what passes a hook point."""
    return place, lambda stream, hook: stream - removed


def _run(model: _Model, tokens: np.ndarray, hooks: list) -> Values:
    """Run the whole model, and keep every node's output, the logits, and the inputs of every attention."""
    kept: Values = {}

    def keep(key: int | str, head: int | None = None):
        def hook(output: Tensor, hook: object) -> None:
            values = output.double().numpy()
            if head is not None:
                values = values.reshape(*values.shape[:2], model.heads, -1)[:, :, head]
            kept[key] = values.copy()

        return hook

    keeping = [(_place(n), keep(n.index, n.head)) for n in model.nodes if n.kind is not Kind.LOGITS]
    keeping += [(f"blocks.{i}.attn.hook_{name}", keep(f"{name}{i}")) for i in model.layers() for name in "qkv"]
    logits = model.bridge.run_with_hooks(torch.as_tensor(tokens), fwd_hooks=[*hooks, *keeping])
    kept["logits"] = logits.double().numpy()
    kept |= {node.index: kept["logits"] for node in model.nodes if node.kind is Kind.LOGITS}
    return kept


def _direct(model: _Model, source: Node, removed: Tensor) -> Values:
    """For each reader in turn, take the source's contribution out of what it reads, and of nothing else."""
    result: Values = {}
    tokens = model.task.tokens
    for layer in range(max(source.layer, 0), len(model.layers())):
        for kind, reads in ((Kind.HEAD, f"blocks.{layer}.ln1.hook_in"), (Kind.MLP, f"blocks.{layer}.ln2.hook_in")):
            found = _run(model, tokens, [_subtract(reads, removed)])
            result |= {n.index: found[n.index] for n in model.nodes if n.layer == layer and n.kind is kind}
    found = _run(model, tokens, [_subtract("ln_final.hook_in", removed)])
    result |= {key: found[key] for key in ("logits", *(n.index for n in model.nodes if n.kind is Kind.LOGITS))}
    return result


def _direct_input(model: _Model, source: Node, removed: Tensor, name: str, clean: Values) -> Values:
    """For each layer in turn, let the heads' queries (or keys, or values) alone miss the source's contribution."""
    result: Values = {}
    for layer in range(source.layer + 1, len(model.layers())):
        hooks = [_subtract(f"blocks.{layer}.ln1.hook_in", removed)]
        for other in set("qkv") - {name}:
            value = torch.tensor(clean[f"{other}{layer}"], dtype=torch.float32)
            hooks.append((f"blocks.{layer}.attn.hook_{other}", lambda old, hook, value=value: value))
        found = _run(model, model.task.tokens, hooks)
        result |= {n.index: found[n.index] for n in model.nodes if n.layer == layer and n.kind is Kind.HEAD}
    return result


def _contribution(model: _Model, source: Node, output: np.ndarray) -> Tensor:
    """Give what an output adds to the residual stream, without the bias that the heads share."""
    values = torch.tensor(output, dtype=torch.float32)
    if source.kind is not Kind.HEAD:
        return values
    z = torch.zeros(*values.shape[:2], model.heads, values.shape[-1])
    z[:, :, source.head] = values
    project = model.bridge.blocks[source.layer].attn.o.original_component
    return project(z.flatten(2)) - project(torch.zeros_like(z).flatten(2))


def _replicates(prompts: int) -> list[np.ndarray]:
    """List all prompts, and all but each group."""
    every, group = np.arange(prompts), group_of(prompts)
    return [every, *[every[group != k] for k in range(GROUPS)]]


def _weights(measure: Measure, clean: np.ndarray, after: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Compute the measure as its definition reads, on all prompts and without each group: float64 [GROUPS + 1]."""
    return np.array([_weight(measure, clean[kept], after[kept], mean) for kept in _replicates(len(clean))])


def _weight(measure: Measure, clean: np.ndarray, after: np.ndarray, mean: np.ndarray) -> float:
    length = np.linalg.norm
    if measure is Measure.COSINE:
        lengths = length(clean, axis=-1) * length(after, axis=-1)
        cosine = np.divide((clean * after).sum(-1), lengths, out=np.zeros_like(lengths), where=lengths > 0)
        return float(np.mean(1 - cosine))  # nothing has no direction in common with anything
    if measure is Measure.L2:
        return float(np.mean(length(after - clean, axis=-1) / length(clean, axis=-1)))
    change, signal, moved = (after - clean).ravel(), (clean - mean).ravel(), (after - mean).ravel()
    if measure is Measure.VARIANCE:
        return float(change @ change / (2 * signal @ signal))
    return float(1 - signal @ moved / (length(signal) * length(moved)))


def _answers(kind: Answer, task: Task, clean: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Compute the effect on the answer from whole logits [P, T, vocabulary]: float64 [GROUPS + 1]."""
    effects = []
    for number, position in enumerate(task.answer_positions):
        before, now = clean[:, position], after[:, position]
        if kind is Answer.LOGIT_DIFFERENCE:
            right, wrong = task.right[:, number, None], task.wrong[:, number, None]
            drop = np.take_along_axis(before - now, right, 1) - np.take_along_axis(before - now, wrong, 1)
            effects.append(drop[:, 0])
        else:
            p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (before, now))
            effects.append((p * np.log(p / q)).sum(1))
    by_prompt = np.mean(effects, axis=0)
    return np.array([by_prompt[kept].mean() for kept in _replicates(len(by_prompt))])
