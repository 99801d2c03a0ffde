"""The vocabulary: the few documented types that every stage shares."""

from dataclasses import dataclass
from enum import StrEnum

GROUPS = 16
"""Number of prompt groups of equal size; every estimate comes with GROUPS leave-one-group-out replicates."""


class Intervention(StrEnum):
    """What replaces a node's contribution to the residual stream, at every position."""

    MEAN = "mean"
    """The node's mean output over a disjoint reference set, over prompts and positions."""
    RESAMPLE = "resample"
    """The node's output on a matched corrupted prompt."""
    ZERO = "zero"
    """Nothing (the intervention of arXiv 2509.15269)."""


class Effect(StrEnum):
    """Along which paths an ablation is allowed to act."""

    TOTAL = "total"
    """Everything downstream reacts."""
    DIRECT = "direct"
    """Only the path source -> residual stream -> target changes; all other nodes keep their clean outputs."""


class Measure(StrEnum):
    """How the change of a target's output becomes the weight of an edge (see `phasegraph.edges.measures`)."""

    VARIANCE = "variance"
    """Share of the target's input-dependent signal that depends on the source."""
    CENTRED_COSINE = "centred-cosine"
    """1 - pooled cosine of the centred outputs, in [0, 2]."""
    COSINE = "cosine"
    """1 - cosine of the raw outputs, averaged over positions (the measure of arXiv 2509.15269)."""
    L2 = "l2"
    """Length of the change relative to the clean output, averaged over positions."""


class Kind(StrEnum):
    """What a node is."""

    HEAD = "head"
    """An attention head."""
    MLP = "mlp"
    """The MLP of a layer."""


@dataclass(frozen=True)
class Node:
    """One component of the model that can be ablated and observed."""

    index: int
    """Row and column of the node in every matrix."""
    layer: int
    """Layer, counted from 0."""
    kind: Kind
    """Head or MLP."""
    head: int | None = None
    """Number of the head in its layer; None for an MLP."""

    @property
    def name(self) -> str:
        """``L3H1`` for head 1 of layer 3, ``L3MLP`` for its MLP."""
        return f"L{self.layer}H{self.head}" if self.kind is Kind.HEAD else f"L{self.layer}MLP"
