"""The edges that induction should be made of: from the previous-token head to the heads that match prefixes."""

from dataclasses import dataclass

import numpy as np

from phasegraph.jackknife import Jackknife, delete_group
from phasegraph.report.study import StudyData
from phasegraph.types import Effect, Node

ATTENDS = 0.3
"""Least score, a mean share of attention, of what is called an induction head or a previous-token head here."""
MOST = 6
"""Most induction heads whose edges are listed, the strongest first."""


@dataclass(frozen=True)
class Head:
    """A head and one of its behaviour scores at the last checkpoint."""

    node: Node
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Circuit:
    """Heads found by what they attend to, not by their edges."""

    previous: Head
    """The strongest previous-token head of the last checkpoint."""
    strongest: Head
    """The head with the largest prefix-matching score."""
    induction: list[Head]
    """Heads that match prefixes and that the previous-token head can reach, the strongest first; at most `MOST`."""
    peers: list[Head]
    """Heads of the previous-token head's layer that are no previous-token heads themselves."""


def find_circuit(study: StudyData) -> Circuit:
    """Find the heads by their behaviour scores at the last checkpoint."""
    previous, *others = _ranked(study, "previous_token")
    peers = [head for head in others if head.node.layer == previous.node.layer and head.score < ATTENDS]
    matching = _ranked(study, "prefix_matching")
    reached = [head for head in matching if head.score >= ATTENDS and study.mask[previous.node.index, head.node.index]]
    return Circuit(previous, matching[0], reached[:MOST], peers)


def circuit_edges(study: StudyData, circuit: Circuit, step: int, effect: Effect) -> dict[str, Jackknife]:
    """Weights of the circuit's edges at one checkpoint.

    Parameters
    ----------
    study, circuit
        Of `find_circuit`.
    step
        Checkpoint.
    effect
        Total or direct.

    Returns
    -------
    dict of str to Jackknife
        Name of the target -> weight of the edge to it; ``mean`` -> the mean of them; ``peers`` -> the mean weight of
        the edges from `Circuit.peers` to the same targets, if there are peers.
    """
    edges = study.edges(step, effect)  # [17, N, N]
    source = circuit.previous.node
    targets = [head.node.index for head in circuit.induction]
    found = {head.node.name: delete_group(edges[:, source.index, head.node.index]) for head in circuit.induction}
    found["mean"] = delete_group(edges[:, source.index, targets].mean(1))
    if circuit.peers:
        peers = [head.node.index for head in circuit.peers]
        found["peers"] = delete_group(edges[:, peers][:, :, targets].mean((1, 2)))
    return found


def _ranked(study: StudyData, quantity: str) -> list[Head]:
    names, scores = study.node_scores(quantity)
    by_name = {node.name: node for node in study.nodes}
    order = np.argsort(-scores["estimate"][:, -1], kind="stable")
    columns = [scores[column][:, -1].tolist() for column in ("estimate", "low", "high")]
    return [Head(by_name[names[i]], *(column[i] for column in columns)) for i in order]
