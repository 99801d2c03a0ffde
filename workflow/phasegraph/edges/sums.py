"""Sums by prompt group, added up while a walk yields changed outputs."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from phasegraph.edges.layout import Layout
from phasegraph.edges.measures import position_terms, terms_of, variance_terms, weights
from phasegraph.edges.passes import Clean, Outputs, Readout
from phasegraph.edges.walks import Changed
from phasegraph.types import GROUPS, Measure


class Targets:
    """Clean outputs of all possible targets, with their means: what changed outputs are compared with."""

    def __init__(self, layout: Layout, clean: Clean, means: Outputs, readout: Readout | None):
        self.layout, self.clean, self.means, self.readout = layout, clean, means, readout
        self.last = readout(clean.after[-1]) if readout else None  # [B, T, F]

    def compare(self, changed: Changed) -> Iterable[tuple[slice, Tensor, Tensor, Tensor]]:
        """List (columns, outputs under R ablations [R, B, T, targets, F], clean outputs, means)."""
        layer, clean, means = changed.layer, self.clean, self.means
        if changed.z is not None:
            yield self.layout.heads(layer), changed.z, clean.z[layer], means.z[layer]
        if changed.mlp is not None:
            yield self.layout.mlp(layer), changed.mlp[..., None, :], clean.mlp[layer][..., None, :], means.mlp[layer]
        if changed.last is not None and self.readout:
            yield self.layout.last, self.readout(changed.last)[..., None, :], self.last[..., None, :], means.last

    def by_input(self, changed: Changed, name: str) -> Iterable[tuple[slice, Tensor, Tensor, Tensor]]:
        """List the same for the heads of which only one input changed."""
        if name in changed.inputs:
            layer = changed.layer
            yield self.layout.heads(layer), changed.inputs[name], self.clean.z[layer], self.means.z[layer]


class Variance:
    """V of every node by position span and prompt group."""

    def __init__(self, layout: Layout, spans: dict[str, slice], device: torch.device):
        self.layout, self.spans = layout, spans
        self.sums = torch.zeros(len(spans), GROUPS, layout.size, dtype=torch.float64, device=device)

    def add(self, targets: Targets, group: Tensor) -> None:
        """Add the clean outputs of B prompts, whose groups are int64 [B]."""
        layout, clean, means = self.layout, targets.clean, targets.means
        outputs = [(layout.heads(i), clean.z[i], means.z[i]) for i in range(layout.n_layers)]
        outputs += [(layout.mlp(i), clean.mlp[i][:, :, None], means.mlp[i]) for i in range(layout.n_layers)]
        if layout.logits:
            outputs.append((layout.last, targets.last[:, :, None], means.last))
        for columns, y, mean in outputs:
            terms = variance_terms(y, mean)  # [B, T, targets]
            for number, span in enumerate(self.spans.values()):
                self.sums[number, :, columns] += by_group(terms[:, span].sum(1), group)


class Sums:
    """The sums of a measure for every pair of nodes, by position span and prompt group."""

    def __init__(self, measure: Measure, layout: Layout, spans: dict[str, slice], device: torch.device):
        self.measure, self.spans = measure, spans
        size = layout.size
        self.sums = torch.zeros(len(spans), terms_of(measure), GROUPS, size, size, dtype=torch.float64, device=device)
        self.prompts = np.zeros((size, size), dtype=np.int64)

    def add(self, source: slice, outputs: Iterable[tuple[slice, Tensor, Tensor, Tensor]], group: Tensor) -> None:
        """Add what `Targets` lists for a slice of sources, on B prompts whose groups are int64 [B]."""
        for columns, changed, clean, mean in outputs:
            terms = position_terms(self.measure, changed, clean, mean)  # [K, R, B, T, targets]
            for number, span in enumerate(self.spans.values()):
                by_prompt = terms[:, :, :, span].sum(3).movedim(2, 0)  # [B, K, R, targets]
                self.sums[number, :, :, source, columns] += by_group(by_prompt, group).movedim(0, 1)
            self.prompts[source, columns] += len(group)

    def weights(self, variance: Variance, mask: np.ndarray, prompts: int) -> dict[str, np.ndarray]:
        """Turn sums into weights by position span, float32 [GROUPS + 1, N, N] each, 0 outside the mask."""
        sums, signal = self.sums.cpu().numpy(), variance.sums.cpu().numpy()
        result = {}
        for number, (name, span) in enumerate(self.spans.items()):
            positions = prompts // GROUPS * (span.stop - span.start)
            found = weights(self.measure, sums[number], signal[number], positions)
            result[name] = np.where(mask, found, 0).astype(np.float32)
        return result


def by_group(values: Tensor, group: Tensor) -> Tensor:
    """Add up values [B, ...] of prompts by their groups: float64 [GROUPS, ...]."""
    summed = torch.zeros(GROUPS, *values.shape[1:], dtype=torch.float64, device=values.device)
    return summed.index_add_(0, group, values.double())
