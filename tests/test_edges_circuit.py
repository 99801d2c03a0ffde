"""The engine against an induction circuit written by hand into GPT-NeoX weights, whose wiring is known."""

from collections.abc import Callable
from functools import cache
from math import exp, log, sqrt

import networkx as nx
import numpy as np
import pytest
import torch
from known.circuit import ANCHOR_SIZE, LOGIT_GAP, TRUE_EDGES, VOCABULARY, induction_circuit

from phasegraph.edges.engine import measure_edges
from phasegraph.model.components import bridge_components
from phasegraph.model.load import components_of, load, read
from phasegraph.model.nodes import nodes_of
from phasegraph.tasks.induction import Task
from phasegraph.types import Answer, Intervention, Measure, Measurement

SEGMENT = 15
CIRCUIT_NODES = [node.name for node in nodes_of(2, 4, embed=True, logits=True)]
LIVE = [CIRCUIT_NODES.index(name) for name in ("embed", "L0H0", "L1H1", "logits")]
DEAD = [i for i in range(len(CIRCUIT_NODES)) if i not in LIVE]
EVERYTHING = {"embed": True, "logits": True, "qkv": True, "answer": tuple(Answer)}

Measured = Callable[[Measurement], dict[str, np.ndarray]]
"""A model on its task: measurement -> matrices, each measured once."""


def repeated_segments(prompts: int = 32, reference: int = 32) -> Task:
    """Segments without repeated tokens, twice: then the circuit's answer is never ambiguous."""
    rng = np.random.default_rng(0)
    first, second = slice(1, SEGMENT + 1), slice(SEGMENT + 1, 2 * SEGMENT + 1)

    def draw(number: int) -> np.ndarray:
        half = rng.permuted(np.tile(np.arange(1, VOCABULARY), (number, 1)), axis=1)[:, :SEGMENT]
        return np.concatenate([np.zeros((number, 1), int), half, half], axis=1)

    tokens = draw(prompts)
    corrupted = tokens.copy()
    corrupted[:, first] = 1 + tokens[:, first] % (VOCABULARY - 1)  # the next token of the alphabet
    return Task(
        tokens=tokens,
        reference=draw(reference),
        corrupted=corrupted,
        segment=SEGMENT,
        first_position=1,
        positions={"first": first, "second": second},
        answer_positions=np.arange(second.start, second.stop - 1),
        right=tokens[:, second][:, 1:],
        wrong=corrupted[:, first][:, 1:],
    )


def edges_by_input(found: dict[str, np.ndarray]) -> dict[tuple, np.ndarray]:
    """Direct edges of the hand circuit with a head's inputs told apart: (source, target, input) -> [17]."""
    edges = {}
    for i, source in enumerate(CIRCUIT_NODES):
        for j, target in enumerate(CIRCUIT_NODES):
            inputs = "qkv" if "H" in target else (None,)
            for name in inputs:
                edges[source, target, name] = found["direct" if name is None else f"direct.{name}"][:, i, j]
    return edges


# ---- the induction circuit


def test_the_circuit_does_induction_by_two_heads_alone(tmp_path):
    task = repeated_segments()
    tokens, right = torch.from_numpy(task.tokens), torch.from_numpy(task.right)

    @torch.no_grad()
    def loss_and_accuracy(silent: tuple[int, int] | None = None) -> tuple[float, float]:
        model = induction_circuit()
        if silent is not None:
            layer, head = silent
            model.gpt_neox.layers[layer].attention.dense.weight[:, 32 * head : 32 * (head + 1)] = 0
        logits = model(tokens).logits[:, task.answer_positions]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), right.flatten())
        return loss.item(), (logits.argmax(-1) == right).float().mean().item()

    ideal = log(1 + (VOCABULARY - 1) * exp(-LOGIT_GAP))
    assert loss_and_accuracy() == (pytest.approx(ideal, rel=1e-3), 1.0)
    for layer in range(2):
        for head in range(4):
            loss, accuracy = loss_and_accuracy((layer, head))
            if (layer, head) in ((0, 0), (1, 1)):
                assert loss > 3
                assert accuracy < 0.1
            else:
                assert (loss, accuracy) == loss_and_accuracy()

    induction_circuit().save_pretrained(tmp_path)
    written, loaded = induction_circuit().state_dict(), read(tmp_path).state_dict()
    assert written.keys() == loaded.keys()
    assert all(torch.equal(written[name], loaded[name]) for name in written)


@pytest.fixture(scope="module", params=["neox", "bridge"])
def circuit(request, tmp_path_factory) -> Measured:
    """Measure the circuit in the fast and in the general form of its components."""
    folder = tmp_path_factory.mktemp("circuit")
    induction_circuit().save_pretrained(folder)
    length = 2 * SEGMENT + 1
    fast = request.param == "neox"
    components = components_of(read(folder), length) if fast else bridge_components(load(folder), length)
    return cache(lambda measurement: measure_edges(components, repeated_segments(), measurement))


@pytest.mark.parametrize("intervention", list(Intervention))
def test_the_five_true_edges_dominate(circuit, intervention):
    """All else is the layer norms' doing, which the anchor keeps four orders of magnitude below."""
    edges = edges_by_input(circuit(Measurement(intervention, **EVERYTHING)))
    weakest = min(edges[edge].min() for edge in TRUE_EDGES)
    others = [values for edge, values in edges.items() if edge not in TRUE_EDGES]
    assert weakest > 1000 * np.nanmax(others)
    if intervention is not Intervention.RESAMPLE:  # which leaves the second copy as it is, where the queries matter
        assert weakest > 0.4


def test_edges_of_the_circuit_have_closed_forms(circuit):
    found = circuit(Measurement(Intervention.ZERO, **EVERYTHING))
    edges = edges_by_input(found)
    # What reads nothing but the removed vector becomes zero: S = V, but for the mean
    for edge in (("embed", "L0H0", "v"), ("embed", "L1H1", "v")):
        np.testing.assert_allclose(edges[edge], 0.5, atol=0.005)
    # Layer norm: the stream holds the anchor and two centred one-hot vectors, and one of those is removed
    one_hot = 1 - 1 / VOCABULARY
    shrinks = sqrt((ANCHOR_SIZE**2 + 2 * one_hot) / (ANCHOR_SIZE**2 + one_hot)) - 1
    np.testing.assert_allclose(edges["L0H0", "L1H1", "v"], shrinks**2 / 2, rtol=0.02)
    # L0H0 attends by position, whatever it reads
    assert (edges["embed", "L0H0", "q"] == 0).all()
    assert (edges["embed", "L0H0", "k"] == 0).all()


def test_the_circuits_total_effects_are_its_paths(circuit):
    found = circuit(Measurement(Intervention.ZERO, **EVERYTHING))["total"]
    wired = nx.DiGraph((source, target) for source, target, _ in TRUE_EDGES)
    reachable = set(nx.transitive_closure(wired).edges)
    for i, source in enumerate(CIRCUIT_NODES):
        for j, target in enumerate(CIRCUIT_NODES):
            if (source, target) in reachable:
                assert (found[:, i, j] > 0.4).all()
            else:
                assert (np.isnan(found[:, i, j]) | (found[:, i, j] == 0)).all()


@pytest.mark.parametrize("measure", list(Measure))
def test_dead_nodes_have_no_edges(circuit, measure):
    """Exactly zero, or not a number where the target's output never varies and the measure divides by that."""
    found = circuit(Measurement(Intervention.ZERO, measure, **EVERYTHING))
    undefined = measure in (Measure.VARIANCE, Measure.CENTRED_COSINE)
    layers = np.array(_layers())
    for effect in ("total", "direct", "direct.q", "direct.k", "direct.v"):
        matrices = found[effect]
        assert (matrices[:, DEAD][:, :, LIVE] == 0).all()
        for target in DEAD:
            if "MLP" in CIRCUIT_NODES[target] and "." in effect:
                continue  # an MLP has no queries, keys and values
            column = matrices[:, layers < layers[target], target]
            assert (np.isnan(column) if undefined else column == 0).all()
    answers = [name for name in found if name.startswith("answer.")]
    assert answers
    for name in answers:
        assert (found[name][:, DEAD] == 0).all()


def _layers() -> list[int]:
    return [node.layer for node in nodes_of(2, 4, embed=True, logits=True)]


@pytest.mark.parametrize("intervention", list(Intervention))
def test_both_heads_make_the_answer(circuit, intervention):
    found = circuit(Measurement(intervention, **EVERYTHING))
    difference, divergence = found["answer.logit-difference.total"], found["answer.kl.total"]
    for name in ("L0H0", "L1H1"):
        node = CIRCUIT_NODES.index(name)
        assert (difference[:, node] > 0.9 * LOGIT_GAP).all()
        assert (divergence[:, node] > 2).all()
    if intervention is Intervention.ZERO:  # without L1H1 all logits are equal
        p = 1 / (1 + (VOCABULARY - 1) * exp(-LOGIT_GAP))
        to_uniform = log(VOCABULARY) + p * log(p) + (1 - p) * log((1 - p) / (VOCABULARY - 1))
        node = CIRCUIT_NODES.index("L1H1")
        np.testing.assert_allclose(divergence[:, node], to_uniform, rtol=1e-3)
        np.testing.assert_allclose(difference[:, node], LOGIT_GAP, rtol=1e-3)


def test_induction_happens_in_the_second_copy(circuit):
    """In the first copy no key matches, so that L1H1 looks everywhere with L0H0 and without it."""
    found = circuit(Measurement(Intervention.ZERO, by_position=True, embed=True))
    previous, copies = CIRCUIT_NODES.index("L0H0"), CIRCUIT_NODES.index("L1H1")
    for effect in ("total", "direct"):
        assert (found[f"{effect}.first"][:, previous, copies] < 1e-4).all()
        assert (found[f"{effect}.second"][:, previous, copies] > 0.4).all()


@pytest.mark.parametrize("intervention", [Intervention.MEAN, Intervention.ZERO])
def test_the_true_edges_stand_out_of_noise(intervention):
    """Only into live nodes: the measure is relative, and what little a dead head now says, it says of what it reads."""
    task = repeated_segments()
    components = components_of(induction_circuit(noise=0.01, seed=0), task.tokens.shape[1])
    edges = edges_by_input(measure_edges(components, task, Measurement(intervention, **EVERYTHING)))
    weakest = min(edges[edge].min() for edge in TRUE_EDGES)
    live = [CIRCUIT_NODES[i] for i in LIVE]
    others = [values for edge, values in edges.items() if edge not in TRUE_EDGES and edge[1] in live]
    assert weakest > 10 * np.max(others)
    assert np.max(others) > 0


# ---- compiled programs
