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
    """The node's output on the corrupted prompt that the task pairs with each prompt."""
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


class Answer(StrEnum):
    """How an ablation's effect on the answer is expressed, at the answer positions of the task."""

    LOGIT_DIFFERENCE = "logit-difference"
    """Clean less ablated difference of the right and the wrong token's logits: positive where the node helps."""
    KL = "kl"
    """Kullback-Leibler divergence of the ablated from the clean prediction, in nats."""


class Backbone(StrEnum):
    """Which edges stand for a dense graph where there is room for few (see `phasegraph.network.backbones`)."""

    TOP10 = "top10"
    """The strongest 10 % of the possible edges."""
    DISPARITY = "disparity"
    """Those that carry more of an end's strength than chance would give them."""
    PERCOLATION = "percolation"
    """Those that are at least as strong as the weakest edge of the widest path from the first to the last layer."""


class Kind(StrEnum):
    """What a node is."""

    EMBED = "embed"
    """The embedding of tokens (and positions, where they are embedded): a source only."""
    HEAD = "head"
    """An attention head."""
    MLP = "mlp"
    """The MLP of a layer."""
    LOGITS = "logits"
    """The logits: a target only."""


@dataclass(frozen=True)
class Node:
    """One component of the model that can be ablated and observed."""

    index: int
    """Row and column of the node in every matrix."""
    layer: int
    """Layer, counted from 0; -1 for the embedding, the number of layers for the logits."""
    kind: Kind
    """What the node is."""
    head: int | None = None
    """Number of the head in its layer; None for all other kinds."""

    @property
    def name(self) -> str:
        """``L3H1`` for head 1 of layer 3, ``L3MLP`` for its MLP, ``embed``, ``logits``."""
        if self.kind in (Kind.EMBED, Kind.LOGITS):
            return str(self.kind)
        return f"L{self.layer}H{self.head}" if self.kind is Kind.HEAD else f"L{self.layer}MLP"


@dataclass(frozen=True)
class Measurement:
    """What a study measures at every checkpoint."""

    intervention: Intervention = Intervention.MEAN
    """What replaces a node's contribution."""
    measure: Measure = Measure.VARIANCE
    """How change becomes a weight."""
    direct: bool = True
    """Whether direct effects are measured beside the total ones."""
    embed: bool = False
    """Whether the embedding is a node (the first)."""
    logits: bool = False
    """Whether the logits are a node (the last)."""
    qkv: bool = False
    """Whether direct effects are also measured on each head's query, key and value input alone."""
    by_position: bool = False
    """Whether effects are also measured in each position group of the task alone."""
    control: bool = False
    """Whether effects are also measured of random vectors as long as those that the intervention takes away."""
    answer: tuple[Answer, ...] = ()
    """Which effects on the answer are measured."""
