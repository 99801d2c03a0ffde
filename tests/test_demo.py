"""The induction circuit in the demonstration: found by behaviour, seen in the edges, on the real training run."""

import numpy as np
import pytest

from phasegraph.edges.engine import measure_edges
from phasegraph.model.load import components_of, read
from phasegraph.series.recipe import Recipe
from phasegraph.series.training import train
from phasegraph.tasks.behaviour import behaviour
from phasegraph.tasks.induction import induction
from phasegraph.types import Answer, Effect, Measurement

BEFORE, AFTER = 200, 340
"""Steps that lie before and after the transition for each of five seeds of the recipe."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Train the demonstration up to the end of its transition, and measure both steps as the study demo does."""
    folder = train(Recipe(seed=1), [BEFORE, AFTER], tmp_path_factory.mktemp("demo"))
    task = induction(prompts=32, reference=32, segment=15, token_range=(1, 64))
    result = {}
    for step in (BEFORE, AFTER):
        model = read(folder / str(step))
        behaves = behaviour(model, task)
        components = components_of(model, task.tokens.shape[1])
        result[step] = behaves, measure_edges(components, task, Measurement(answer=tuple(Answer)))
    return result


def test_the_model_learns_to_repeat(measured):
    before, after = measured[BEFORE][0], measured[AFTER][0]
    assert before["loss_second"][0] > 3.4
    assert after["loss_second"][0] < 0.9
    assert after["prefix_matching"][0].max() > 0.6
    assert after["previous_token"][0].max() > 0.6


@pytest.mark.parametrize("effect", list(Effect))
def test_edges_from_the_previous_token_head_to_the_induction_heads_double(measured, effect):
    after = measured[AFTER][0]
    previous = np.unravel_index(after["previous_token"][0].argmax(), (6, 4))
    induction_heads = np.argwhere(after["prefix_matching"][0] > 0.3)
    assert previous[0] == 0
    assert (induction_heads[:, 0] > previous[0]).all()
    source = previous[0] * 5 + previous[1]
    targets = induction_heads[:, 0] * 5 + induction_heads[:, 1]
    one, other = (measured[step][1][effect][:, source, targets].mean(1) for step in (BEFORE, AFTER))  # [17] each
    assert other[0] >= 2 * one[0]
    assert (other[1:] >= 2 * one[1:]).all()  # whichever prompts are left out
