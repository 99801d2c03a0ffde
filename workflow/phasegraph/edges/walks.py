"""The two ways through the layers: all of them react (total), or each reads one change alone (direct)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from phasegraph.edges.layout import Layout
from phasegraph.edges.passes import Clean
from phasegraph.model.components import Components


@dataclass(frozen=True)
class Sources:
    """Which ablations a walk carries, and in how large slices."""

    first: int
    """Index of the first node."""
    last: int
    """Index after the last node."""
    rows: int
    """Ablations per call of a layer."""
    layout: Layout
    """Which node is which."""

    def start_of(self, layer: int) -> int:
        """Index of a layer's first node, as far as the walk carries it; layer -1 is the embedding."""
        return self._carried(self.layout.heads(layer).start if layer >= 0 else 0)

    def mlp_of(self, layer: int) -> int:
        """Index of a layer's MLP, behind its heads, as far as the walk carries it."""
        return self._carried(self.layout.mlp(layer).start)

    def _carried(self, node: int) -> int:
        return min(max(node, self.first), self.last)

    def slices(self, start: int, stop: int) -> Iterator[slice]:
        """Cut nodes ``start <= u < stop`` into slices."""
        return (slice(first, min(first + self.rows, stop)) for first in range(start, stop, self.rows))

    def before(self, layer: int) -> list[slice]:
        """Cut all nodes before a layer into slices, those of the layer just before apart."""
        neighbours, end = self.start_of(layer - 1), self.start_of(layer)
        return [*self.slices(self.first, neighbours), *self.slices(neighbours, end)]

    def place(self, source: slice) -> slice:
        """Where a slice of nodes lies in the walk's own tensors."""
        return slice(source.start - self.first, source.stop - self.first)


@dataclass(frozen=True)
class Changed:
    """What the targets in one layer put out under R ablations."""

    source: slice
    """The ablated nodes."""
    layer: int
    """The targets' layer; after the last layer comes the reading of the logits."""
    z: Tensor | None = None
    """[R, B, T, H, d_head]"""
    mlp: Tensor | None = None
    """[R, B, T, D]"""
    last: Tensor | None = None
    """The residual stream after all layers, [R, B, T, D]."""
    inputs: dict[str, Tensor] = field(default_factory=dict)
    """z where only the heads' query, key or value input changed."""


def walk_total(
    components: Components, clean: Clean, streams: Tensor, sources: Sources, to_the_end: bool
) -> Iterator[Changed]:
    """Let all layers react, carrying one residual stream per ablation of an earlier layer.

    Parameters
    ----------
    components, clean
        The model and its undisturbed pass over B prompts.
    streams
        What each ablation takes away, [S, B, T, D]; overwritten by the ablated residual streams.
    sources
        The S ablations.
    to_the_end
        Whether the residual stream after the last layer is wanted.

    Yields
    ------
    Changed
    """
    place = sources.place
    if sources.layout.embed and sources.first == 0:
        streams[0] = clean.before[0] - streams[0]
    for layer in range(components.n_layers):
        update = to_the_end or layer < components.n_layers - 1
        for source in sources.before(layer):
            x = streams[place(source)]
            if components.parallel:
                z, mlp = _flat(components.both, layer, x)
                yield Changed(source, layer, z, mlp)
                if update:
                    x.add_(_flat(components.project, layer, z)).add_(mlp)
                continue
            z = _flat(components.attention, layer, x)
            middle = _flat(components.project, layer, z).add_(x)
            mlp = _flat(components.mlp, layer, middle)
            yield Changed(source, layer, z, mlp)
            x.copy_(middle.add_(mlp))
        own, end = sources.start_of(layer), sources.start_of(layer + 1)
        if not components.parallel:  # the MLP still sees the ablation of a head of its own layer
            for source in sources.slices(own, sources.mlp_of(layer)):
                middle = clean.middle[layer] - streams[place(source)]
                mlp = _flat(components.mlp, layer, middle)
                yield Changed(source, layer, mlp=mlp)
                streams[place(source)] = middle.add_(mlp)
            own = sources.mlp_of(layer)
        streams[place(slice(own, end))] = clean.after[layer] - streams[place(slice(own, end))]
    if to_the_end:
        for source in sources.before(components.n_layers):
            yield Changed(source, components.n_layers, last=streams[place(source)])


def walk_direct(
    components: Components,
    clean: Clean,
    removed: Tensor,
    sources: Sources,
    to_the_end: bool,
    *,
    skip_neighbours: bool,
    inputs: bool,
) -> Iterator[Changed]:
    """Let each layer read the clean residual stream less what one ablation of an earlier layer takes away.

    Parameters
    ----------
    components, clean, removed, sources, to_the_end
        As in `walk_total`; nothing is overwritten.
    skip_neighbours
        Whether to leave out the ablations in the layer just before.
    inputs
        Whether queries, keys and values are also changed one at a time.

    Yields
    ------
    Changed
    """
    place = sources.place
    for layer in range(components.n_layers + to_the_end):
        known = sources.start_of(layer - skip_neighbours)
        if layer == components.n_layers:
            for source in sources.slices(sources.first, known):
                yield Changed(source, layer, last=clean.after[-1] - removed[place(source)])
            continue
        kept = components.qkv(layer, clean.before[layer]) if inputs else None
        for source in sources.slices(sources.first, known):
            x = clean.before[layer] - removed[place(source)]
            if inputs:
                yield _by_input(components, layer, source, x, kept)
                if components.parallel:
                    yield Changed(source, layer, mlp=_flat(components.mlp, layer, x))
            elif components.parallel:
                yield Changed(source, layer, *_flat(components.both, layer, x))
            else:
                yield Changed(source, layer, _flat(components.attention, layer, x))
        if not components.parallel:
            for source in sources.slices(sources.first, sources.mlp_of(layer)):
                mlp = _flat(components.mlp, layer, clean.middle[layer] - removed[place(source)])
                yield Changed(source, layer, mlp=mlp)


def _by_input(components: Components, layer: int, source: slice, x: Tensor, kept: tuple[Tensor, ...]) -> Changed:
    """Compute the heads' outputs with all three inputs changed, and with each alone."""
    changed = components.qkv(layer, x.flatten(0, 1))
    clean = [one.repeat(len(x), *[1] * (one.dim() - 1)) for one in kept]  # the prompts again for every ablation
    alone = {}
    for number, name in enumerate("qkv"):
        mixed = [changed[i] if i == number else clean[i] for i in range(3)]
        alone[name] = components.attend(layer, *mixed).unflatten(0, x.shape[:2])
    return Changed(source, layer, components.attend(layer, *changed).unflatten(0, x.shape[:2]), inputs=alone)


def _flat(function, layer: int, x: Tensor):
    """Call a component on [R, B, T, ...] as on [R * B, T, ...]."""
    result = function(layer, x.flatten(0, 1))
    if isinstance(result, tuple):
        return tuple(part.unflatten(0, x.shape[:2]) for part in result)
    return result.unflatten(0, x.shape[:2])
