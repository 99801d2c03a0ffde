"""The ablation engine: every node's effect on every other node, in a few calls of each layer.

An ablation in layer l leaves all layers up to l alone. So the engine walks through the layers once, carrying one
residual stream per ablation of an earlier layer: layer l is called with 1 + l (H + 1) streams. A new ablation starts
as the clean residual stream after its layer less what the node contributed. The direct effect needs the same calls:
there, layer l reads the clean stream less the contribution of one earlier node. Between neighbouring layers of parallel
blocks nothing lies in between, so both effects are the same number, and it is computed once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from phasegraph.edges.measures import position_sums, variance_sums, weights
from phasegraph.errors import PhasegraphError
from phasegraph.groups import group_of
from phasegraph.model.components import Components
from phasegraph.model.nodes import mask_of, nodes_of
from phasegraph.types import GROUPS, Effect, Intervention, Measure

TOKENS_PER_CALL = 1536
"""A layer is called with about this many tokens at once: the slices then stay in a core's cache."""

STREAM_BYTES = 256 * 2**20
"""Bound on the bytes of all residual streams that are held at once; fewer prompts are taken at a time to keep it."""


@dataclass(frozen=True)
class Clean:
    """One undisturbed pass over B prompts of T positions; everything is listed by layer."""

    before: list[Tensor]
    """The residual stream that the layer's attention reads, [B, T, D]."""
    middle: list[Tensor]
    """The residual stream that its MLP reads, [B, T, D]; in a parallel block the same as `before`."""
    after: list[Tensor]
    """The residual stream that the layer leaves, [B, T, D]."""
    z: list[Tensor]
    """The heads' outputs, [B, T, H, d_head]."""
    mlp: list[Tensor]
    """The MLP's output, [B, T, D]."""


@dataclass(frozen=True)
class Means:
    """Mean outputs over a reference set of prompts and over their positions, by layer."""

    z: list[Tensor]
    """[H, d_head] each."""
    mlp: list[Tensor]
    """[D] each."""


@torch.inference_mode()
def measure_edges(
    components: Components,
    tokens: Tensor,
    reference: Tensor,
    *,
    intervention: Intervention,
    measure: Measure,
    effects: tuple[Effect, ...] = (Effect.TOTAL,),
    first_position: int = 1,
    tokens_per_call: int = TOKENS_PER_CALL,
) -> dict[Effect, np.ndarray]:
    """Measure the influence of every node on every other.

    Parameters
    ----------
    components
        The model.
    tokens
        Prompts, int64 [P, T]; P is a multiple of GROUPS, and group k holds the k-th P / GROUPS of them.
    reference
        Disjoint prompts for the means, int64 [Q, T].
    intervention, measure, effects
        What replaces a node's contribution, what counts as change, along which paths.
    first_position
        First position whose outputs are measured and averaged; the ablation itself acts at every position. The
        default leaves out a start token, which is the same in every prompt and hence carries no signal.
    tokens_per_call
        Size of the slices in which layers are called; changes the speed and nothing else.

    Returns
    -------
    dict of Effect to ndarray of float32, shape [GROUPS + 1, N, N]
        The estimate and its leave-one-group-out replicates; row = source, column = target; 0 where no edge can be,
        NaN where the measure is undefined.

    Raises
    ------
    PhasegraphError
        If the model's outputs are not finite.
    ValueError
        If the prompts do not form GROUPS groups of equal size.
    """
    prompts, length = tokens.shape
    means = _means(components, reference, first_position, tokens_per_call)
    group = torch.from_numpy(group_of(prompts))  # [P]
    n_nodes = components.n_layers * (components.n_heads + 1)
    width = means.mlp[0].shape[-1]
    chunk = max(1, min(tokens_per_call // length, STREAM_BYTES // (8 * n_nodes * length * width)))
    variance = np.zeros((GROUPS, n_nodes))
    sums = {effect: _Sums(measure, means, n_nodes, first_position) for effect in effects}
    for part in torch.arange(prompts).split(chunk):
        clean = _clean_pass(components, tokens[part])
        if not torch.isfinite(clean.after[-1]).all():
            raise PhasegraphError("the model's outputs are not finite; take this checkpoint out of the series")
        removed = _removed(components, clean, means, intervention)  # [N, B, T, D]
        _add_by_group(variance, _variance(clean, means, first_position)[None], group[part])
        rows = max(1, tokens_per_call // (len(part) * length))
        _collect(components, clean, removed, sums, group[part], rows)
    positions = prompts // GROUPS * (length - first_position)
    mask = mask_of(nodes_of(components.n_layers, components.n_heads), components.parallel)
    return {
        effect: np.where(mask, weights(measure, collected.sums, variance, positions), 0).astype(np.float32)
        for effect, collected in sums.items()
    }


def _collect(
    components: Components, clean: Clean, removed: Tensor, sums: dict[Effect, "_Sums"], group: Tensor, rows: int
) -> None:
    """Ablate every node on the prompts of one clean pass, and add what changes to the sums of each effect."""
    shared = components.parallel and len(sums) == len(Effect)
    if Effect.TOTAL in sums:
        for source, layer, z, mlp in _walk_total(components, clean, removed, rows):
            added = sums[Effect.TOTAL].add(source, layer, z, mlp, clean, group)
            if shared and source.start >= (layer - 1) * (components.n_heads + 1):
                sums[Effect.DIRECT].add_sums(source, layer, *added, group)
    if Effect.DIRECT in sums:
        for source, layer, z, mlp in _walk_direct(components, clean, removed, rows, skip_neighbours=shared):
            sums[Effect.DIRECT].add(source, layer, z, mlp, clean, group)


def _clean_pass(components: Components, tokens: Tensor) -> Clean:
    clean = Clean([], [], [], [], [])
    x = components.embed(tokens)  # [B, T, D]
    for layer in range(components.n_layers):
        if components.parallel:
            z, mlp = components.both(layer, x)
            middle, after = x, x + components.project(layer, z) + mlp
        else:
            z = components.attention(layer, x)
            middle = x + components.project(layer, z)
            mlp = components.mlp(layer, middle)
            after = middle + mlp
        for kept, value in zip(
            (clean.before, clean.middle, clean.after, clean.z, clean.mlp), (x, middle, after, z, mlp), strict=True
        ):
            kept.append(value)
        x = after
    return clean


def _means(components: Components, reference: Tensor, first_position: int, tokens_per_call: int) -> Means:
    chunks = reference.split(max(1, tokens_per_call // reference.shape[1]))
    passes = [_clean_pass(components, chunk) for chunk in chunks]
    count = reference.shape[0] * (reference.shape[1] - first_position)
    layers = range(components.n_layers)
    return Means(
        z=[sum(clean.z[layer][:, first_position:].sum((0, 1)) for clean in passes) / count for layer in layers],
        mlp=[sum(clean.mlp[layer][:, first_position:].sum((0, 1)) for clean in passes) / count for layer in layers],
    )


def _removed(components: Components, clean: Clean, means: Means, intervention: Intervention) -> Tensor:
    """Give what each ablation takes out of the residual stream: contribution less replacement, [N, B, T, D]."""
    removed = []
    for layer in range(components.n_layers):
        z, mlp = clean.z[layer], clean.mlp[layer]
        if intervention is Intervention.MEAN:
            z, mlp = z - means.z[layer], mlp - means.mlp[layer]
        removed += [torch.einsum("bthf,hfd->hbtd", z, components.head_weights[layer]), mlp[None]]
    return torch.cat(removed)


_Changed = tuple[slice, int, Tensor | None, Tensor | None]
"""Sources (rows of the matrix), layer of the targets, their changed z [R, B, T, H, d_head], MLP output [R, B, T, D]."""


def _walk_total(components: Components, clean: Clean, removed: Tensor, rows: int) -> Iterator[_Changed]:
    """Let all layers react, carrying one residual stream per ablation of an earlier layer."""
    per_layer = components.n_heads + 1
    streams = torch.empty_like(removed)  # [N, B, T, D], the first l (H + 1) in use
    for layer in range(components.n_layers):
        known = layer * per_layer
        last = layer == components.n_layers - 1
        neighbours = max(0, known - per_layer)  # first node of the layer before
        for source in (*_slices(0, neighbours, rows), *_slices(neighbours, known, rows)):
            x = streams[source]
            if components.parallel:
                z, mlp = _flat(components.both, layer, x)
                yield source, layer, z, mlp
                if not last:
                    streams[source] += _flat(components.project, layer, z) + mlp
            else:
                z = _flat(components.attention, layer, x)
                middle = x + _flat(components.project, layer, z)
                mlp = _flat(components.mlp, layer, middle)
                yield source, layer, z, mlp
                streams[source] = middle + mlp
        if not components.parallel:  # the MLP still sees the ablation of a head of its own layer
            for source in _slices(known, known + components.n_heads, rows):
                middle = clean.middle[layer] - removed[source]
                mlp = _flat(components.mlp, layer, middle)
                yield source, layer, None, mlp
                streams[source] = middle + mlp
            known += components.n_heads
        own = slice(known, (layer + 1) * per_layer)
        streams[own] = clean.after[layer] - removed[own]


def _walk_direct(
    components: Components, clean: Clean, removed: Tensor, rows: int, skip_neighbours: bool
) -> Iterator[_Changed]:
    """Let each layer read the clean residual stream less the contribution of one earlier node."""
    per_layer = components.n_heads + 1
    for layer in range(components.n_layers):
        known = max(0, layer - skip_neighbours) * per_layer
        if components.parallel:
            for source in _slices(0, known, rows):
                yield source, layer, *_flat(components.both, layer, clean.before[layer] - removed[source])
            continue
        for source in _slices(0, known, rows):
            z = _flat(components.attention, layer, clean.before[layer] - removed[source])
            yield source, layer, z, None
        for source in _slices(0, known + components.n_heads, rows):
            mlp = _flat(components.mlp, layer, clean.middle[layer] - removed[source])
            yield source, layer, None, mlp


class _Sums:
    """Sums by prompt group for every pair of nodes, float64 [GROUPS, N, N, K]."""

    def __init__(self, measure: Measure, means: Means, n_nodes: int, first_position: int):
        terms = 2 if measure is Measure.CENTRED_COSINE else 1
        self.sums = np.zeros((GROUPS, n_nodes, n_nodes, terms))
        self.measure, self.means, self.first = measure, means, first_position

    def add(
        self, source: slice, layer: int, z: Tensor | None, mlp: Tensor | None, clean: Clean, group: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Reduce changed outputs and add them; give the sums of heads [R, B, H, K] and MLP [R, B, K]."""
        heads = None if z is None else self._position_sums(z, clean.z[layer], self.means.z[layer])
        mlps = None if mlp is None else self._position_sums(mlp, clean.mlp[layer], self.means.mlp[layer])
        self.add_sums(source, layer, heads, mlps, group)
        return heads, mlps

    def add_sums(self, source: slice, layer: int, heads: Tensor | None, mlps: Tensor | None, group: Tensor) -> None:
        """Add sums that `add` has made."""
        n_heads = self.means.z[layer].shape[0]
        start = layer * (n_heads + 1)
        if heads is not None:
            _add_by_group(self.sums[:, source, start : start + n_heads], heads, group)
        if mlps is not None:
            _add_by_group(self.sums[:, source, start + n_heads], mlps, group)

    def _position_sums(self, ablated: Tensor, clean: Tensor, mean: Tensor) -> Tensor:
        return position_sums(self.measure, ablated[:, :, self.first :], clean[:, self.first :], mean)


def _variance(clean: Clean, means: Means, first_position: int) -> Tensor:
    """V by prompt and node, [B, N]."""
    by_layer = []
    for z, z_mean, mlp, mlp_mean in zip(clean.z, means.z, clean.mlp, means.mlp, strict=True):
        by_layer += [
            variance_sums(z[:, first_position:], z_mean),  # [B, H]
            variance_sums(mlp[:, first_position:], mlp_mean)[:, None],  # [B, 1]
        ]
    return torch.cat(by_layer, dim=1)


def _add_by_group(total: np.ndarray, values: Tensor, group: Tensor) -> None:
    """Add values [R, B, ...] of prompts to the sums of their groups, total [GROUPS, R, ...] (R = 1 may be left out)."""
    values = values.double().transpose(0, 1)  # [B, R, ...]
    summed = torch.zeros(GROUPS, *values.shape[1:], dtype=torch.float64).index_add_(0, group, values)
    total += summed.numpy().reshape(total.shape)


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, stop)) for first in range(start, stop, size))


def _flat(function, layer: int, x: Tensor):
    """Call a component on [R, B, T, ...] as on [R * B, T, ...]."""
    result = function(layer, x.flatten(0, 1))
    if isinstance(result, tuple):
        return tuple(part.unflatten(0, x.shape[:2]) for part in result)
    return result.unflatten(0, x.shape[:2])
