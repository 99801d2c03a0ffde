"""The engine against compiled programs, whose wiring is known exactly."""

from functools import cache
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
import torch
from known.programs import NAMES, Program, program

from phasegraph.edges.engine import measure_edges
from phasegraph.model.components import logits_of, residual_streams
from phasegraph.tasks.induction import Task
from phasegraph.types import Answer, Intervention, Measure, Measurement

EVERYTHING = {"embed": True, "logits": True, "qkv": True, "answer": tuple(Answer)}


@pytest.fixture(scope="module", params=NAMES)
def compiled(request) -> Program:
    return program(request.param)


def examples(known: Program) -> Task:
    """The last output of each word against the letter that follows it in the alphabet."""
    tokens, last = known.inputs[:48], known.inputs.shape[1] - 1
    right = known.outputs[:48, last:]
    assert (right >= 0).all()
    return Task(
        tokens=tokens,
        reference=known.inputs[48:],
        corrupted=np.roll(tokens, 1, axis=0),
        segment=last,
        first_position=1,
        positions={},
        answer_positions=np.array([last]),
        right=right,
        wrong=(right + 1) % known.components.unembedding.shape[1],
    )


def test_programs_run_as_compiled(compiled):
    """The residual streams are tracr's own, and the answers those that plain Python gives."""
    stream = residual_streams(compiled.components, torch.from_numpy(compiled.inputs))[-1]
    np.testing.assert_allclose(stream[: len(compiled.streams)], compiled.streams, atol=1e-5)
    answers = logits_of(compiled.components, stream).argmax(-1).numpy()
    given = compiled.outputs >= 0
    assert given.sum() > 100
    assert (answers == compiled.outputs)[given].all()


def test_reverse_is_one_chain():
    """Length (L0H0, L0MLP), opposite index (L1MLP, L2MLP), and the head that fetches from there."""
    known = program("reverse")
    edges = {(known.nodes[i], known.nodes[j]) for i, j in np.argwhere(known.wiring)}
    chain = ["L0H0", "L0MLP", "L1MLP", "L2MLP", "L3H0", "logits"]
    assert {edge for edge in edges if edge[0] != "embed"} == set(pairwise(chain))


@cache
def zero_ablation(name: str) -> dict[str, np.ndarray]:
    """Zero, since a mean keeps whatever is the same in every prompt."""
    known = program(name)
    return measure_edges(known.components, examples(known), Measurement(Intervention.ZERO, Measure.L2, **EVERYTHING))


def test_direct_effects_are_the_wiring(compiled):
    found = zero_ablation(compiled.name)["direct"]
    np.testing.assert_array_equal(found != 0, np.broadcast_to(compiled.wiring, found.shape))
    assert (found >= 0).all()


def test_direct_effects_tell_queries_keys_and_values_apart(compiled):
    found = zero_ablation(compiled.name)
    for name, wiring in zip("qkv", compiled.wiring_qkv, strict=True):
        expected = wiring & ~_inert(compiled) if name in "qk" else wiring
        matrices = found[f"direct.{name}"]
        np.testing.assert_array_equal(matrices != 0, np.broadcast_to(expected, matrices.shape), err_msg=name)


def _inert(known: Program) -> np.ndarray:
    """Mark the columns of heads that score all keys alike: softmax ignores a score that all keys share, so that what
    their queries and keys read has no effect whatever the input. `reverse` counts its length by such a head."""
    parts, stream = known.components, known.components.embed(torch.from_numpy(known.inputs))
    q, k, _ = parts.qkv(0, stream)  # [E, T, H, d_head]
    scores = torch.einsum("eqhd,ekhd->heqk", q[:, 1:], k)  # the start token's output is not measured
    alike = (scores == scores[..., :1]).all((1, 2, 3)) & (scores != 0).any((1, 2, 3))
    inert = np.zeros_like(known.wiring)
    for head in torch.argwhere(alike).flatten().tolist():
        inert[:, known.nodes.index(f"L0H{head}")] = True
    return inert


def test_only_the_head_that_counts_is_inert():
    assert {name: int(_inert(program(name)).any(0).sum()) for name in NAMES} == {"reverse": 1, "induction": 0}


def test_total_effects_are_the_transitive_closure(compiled):
    found = zero_ablation(compiled.name)["total"]
    closure = nx.transitive_closure(nx.from_numpy_array(compiled.wiring, create_using=nx.DiGraph))
    expected = nx.to_numpy_array(closure, nodelist=range(len(compiled.nodes))) > 0
    np.testing.assert_array_equal(found != 0, np.broadcast_to(expected, found.shape))
    assert (found >= 0).all()


def test_only_what_leads_to_the_logits_changes_the_answer(compiled):
    found = zero_ablation(compiled.name)
    graph = nx.from_numpy_array(compiled.wiring, create_using=nx.DiGraph)
    logits = len(compiled.nodes) - 1
    necessary = np.isin(np.arange(logits + 1), list(nx.ancestors(graph, logits)))
    for answer in Answer:
        total = found[f"answer.{answer}.total"]
        assert (total[:, ~necessary] == 0).all()
        assert (total[:, necessary] > 0.05).all()


def test_mean_ablation_hides_what_is_the_same_everywhere():
    """`reverse` needs its length, but all words are equally long: their mean is the value, and nothing happens."""
    known = program("reverse")
    sources = [known.nodes.index(name) for name in ("L0H0", "L0MLP")]
    reads = list(zip(sources, [known.nodes.index(name) for name in ("L0MLP", "L1MLP")], strict=True))
    for intervention, apparent in ((Intervention.ZERO, True), (Intervention.MEAN, False)):
        found = measure_edges(known.components, examples(known), Measurement(intervention, Measure.L2, **EVERYTHING))
        for edge in reads:
            assert (found["direct"][0][edge] > 0.5) == apparent
            assert (found["direct"][0][edge] < 1e-3) != apparent
        answer = found["answer.logit-difference.total"][0, sources]
        assert ((answer > 0.5) if apparent else (np.abs(answer) < 1e-3)).all()


def test_a_target_that_never_varies_is_not_a_number():
    """In `reverse`, L0H0 puts out 1/5 at every place of every word: its V is 0, and so nothing can be a share of it."""
    known = program("reverse")
    found = measure_edges(known.components, examples(known), Measurement(Intervention.ZERO, embed=True, logits=True))
    assert np.isnan(found["direct"][:, known.nodes.index("embed"), known.nodes.index("L0H0")]).all()
