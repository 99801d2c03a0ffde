"""The ablation engine: against the slow reference, closed forms and invariances."""

import dataclasses

import numpy as np
import pytest
import torch

from phasegraph.edges import engine
from phasegraph.edges.engine import measure_edges
from phasegraph.edges.measures import position_sums, weights
from phasegraph.edges.reference import reference_edges
from phasegraph.errors import PhasegraphError
from phasegraph.model.components import Components
from phasegraph.model.load import components_of, load, read
from phasegraph.model.nodes import mask_of, nodes_of
from phasegraph.types import GROUPS, Effect, Intervention, Measure


def prompts(task):
    return torch.from_numpy(task.tokens), torch.from_numpy(task.reference)


@pytest.mark.parametrize("effect", list(Effect))
@pytest.mark.parametrize("intervention", [Intervention.MEAN, Intervention.ZERO])
@pytest.mark.parametrize("name", ["parallel", "sequential", "gpt2"])
def test_engine_equals_the_slow_reference(models, task, name, intervention, effect):
    tokens, reference = prompts(task)
    components = components_of(read(models[name]), tokens.shape[1])
    truth = reference_edges(load(models[name]), tokens, reference, intervention=intervention, effect=effect)
    for measure, expected in truth.items():
        options = {"intervention": intervention, "measure": measure, "effects": (effect,)}
        found = measure_edges(components, tokens, reference, **options)[effect]
        assert found.shape == (GROUPS + 1, 9, 9)
        assert found.dtype == np.float32
        assert expected.max() > 0.01  # there is something to compare
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0, err_msg=measure)


@pytest.mark.parametrize("name", ["parallel", "sequential", "gpt2"])
def test_both_effects_together_are_those_measured_alone(models, task, name):
    tokens, reference = prompts(task)
    components = components_of(read(models[name]), tokens.shape[1])
    options = {"intervention": Intervention.MEAN, "measure": Measure.CENTRED_COSINE}
    together = measure_edges(components, tokens, reference, **options, effects=tuple(Effect))
    for effect in Effect:
        alone = measure_edges(components, tokens, reference, **options, effects=(effect,))[effect]
        np.testing.assert_allclose(together[effect], alone, atol=1e-6)


@pytest.mark.parametrize("name", ["parallel", "sequential"])
def test_slices_change_nothing(models, task, name):
    tokens, reference = prompts(task)
    components = components_of(read(models[name]), tokens.shape[1])
    options = {"intervention": Intervention.MEAN, "measure": Measure.VARIANCE, "effects": tuple(Effect)}
    whole = measure_edges(components, tokens, reference, **options, tokens_per_call=10**6)
    for size in (1, 50, 64):
        sliced = measure_edges(components, tokens, reference, **options, tokens_per_call=size)
        for effect in Effect:
            np.testing.assert_allclose(sliced[effect], whole[effect], atol=1e-6)


def test_little_memory_changes_nothing(models, task, monkeypatch):
    tokens, reference = prompts(task)
    components = components_of(read(models["parallel"]), tokens.shape[1])
    options = {"intervention": Intervention.ZERO, "measure": Measure.COSINE}
    whole = measure_edges(components, tokens, reference, **options)[Effect.TOTAL]
    monkeypatch.setattr(engine, "STREAM_BYTES", 1)
    np.testing.assert_allclose(measure_edges(components, tokens, reference, **options)[Effect.TOTAL], whole, atol=1e-6)


def test_doubling_the_prompts_changes_nothing(models, task):
    tokens, reference = prompts(task)
    components = components_of(read(models["parallel"]), tokens.shape[1])
    options = {"intervention": Intervention.MEAN, "measure": Measure.VARIANCE}
    once = measure_edges(components, tokens, reference, **options)[Effect.TOTAL]
    twice = measure_edges(components, tokens.repeat_interleave(2, 0), reference, **options)[Effect.TOTAL]
    np.testing.assert_allclose(twice, once, atol=1e-6)


def linear_model(width: int, seed: int) -> Components:
    """Three layers of one 'head' and one 'MLP', all linear maps of the residual stream, position by position."""
    generator = torch.Generator().manual_seed(seed)
    maps = [[torch.randn(width, width, generator=generator) / width**0.5 for _ in range(2)] for _ in range(3)]
    table = torch.randn(29, width, generator=generator)

    def attention(layer, x):
        return (x @ maps[layer][0])[:, :, None, :]

    def mlp(layer, x):
        return x @ maps[layer][1]

    return (
        Components(
            n_layers=3,
            n_heads=1,
            parallel=True,
            embed=lambda tokens: table[tokens],
            attention=attention,
            project=lambda layer, z: z[:, :, 0],
            mlp=mlp,
            both=lambda layer, x: (attention(layer, x), mlp(layer, x)),
            head_weights=[torch.eye(width)[None]] * 3,
        ),
        maps,
        table,
    )


def test_linear_model_has_closed_form_weights(task):
    """With linear nodes the change of v is the removed signal times the sum over paths (total) or times v's map."""
    tokens, reference = prompts(task)
    components, maps, table = linear_model(6, seed=5)
    found = measure_edges(
        components, tokens, reference, intervention=Intervention.MEAN, measure=Measure.VARIANCE, effects=tuple(Effect)
    )
    maps = [[m.double().numpy() for m in layer] for layer in maps]
    x0 = table.double().numpy()[task.tokens][:, 1:]  # [P, T - 1, D]
    mean0 = table.double().numpy()[task.reference][:, 1:].mean((0, 1))
    step = [np.eye(6) + layer[0] + layer[1] for layer in maps]  # the residual stream's map through each layer
    reads = [np.eye(6), step[0], step[0] @ step[1]]  # embedding -> what layer l reads
    for source in range(6):
        for target in range(6):
            ls, lt = source // 2, target // 2
            if ls >= lt:
                assert found[Effect.TOTAL][:, source, target].tolist() == [0] * 17
                continue
            between = np.eye(6)
            for layer in range(ls + 1, lt):
                between = between @ step[layer]
            removed = (x0 - mean0) @ reads[ls] @ maps[ls][source % 2]
            signal = (x0 - mean0) @ reads[lt] @ maps[lt][target % 2]
            for effect, through in ((Effect.TOTAL, between), (Effect.DIRECT, np.eye(6))):
                change = removed @ through @ maps[lt][target % 2]
                expected = (change**2).sum() / (2 * (signal**2).sum())
                np.testing.assert_allclose(found[effect][0, source, target], expected, rtol=2e-6)


def test_permuting_heads_permutes_the_matrix(models, task):
    tokens, reference = prompts(task)
    components = components_of(read(models["parallel"]), tokens.shape[1])
    swapped = dataclasses.replace(
        components,
        attention=lambda layer, x: components.attention(layer, x).flip(2),
        project=lambda layer, z: components.project(layer, z.flip(2)),
        both=lambda layer, x: (components.attention(layer, x).flip(2), components.mlp(layer, x)),
        head_weights=[weight.flip(0) for weight in components.head_weights],
    )
    options = {"intervention": Intervention.MEAN, "measure": Measure.VARIANCE}
    one = measure_edges(components, tokens, reference, **options)[Effect.TOTAL]
    other = measure_edges(swapped, tokens, reference, **options)[Effect.TOTAL]
    order = [1, 0, 2, 4, 3, 5, 7, 6, 8]
    np.testing.assert_allclose(other, one[:, order][:, :, order], atol=1e-6)


@pytest.mark.parametrize("effect", list(Effect))
def test_a_head_that_writes_nothing_has_no_influence(models, task, effect):
    tokens, reference = prompts(task)
    components = components_of(read(models["sequential"]), tokens.shape[1])

    def silence(layer, z):
        z = z.clone()
        if layer == 0:
            z[:, :, 1] = 0
        return components.project(layer, z)

    weights_0 = components.head_weights[0].clone()
    weights_0[1] = 0
    silenced = dataclasses.replace(components, project=silence, head_weights=[weights_0, *components.head_weights[1:]])
    options = {"intervention": Intervention.ZERO, "measure": Measure.VARIANCE, "effects": (effect,)}
    found = measure_edges(silenced, tokens, reference, **options)[effect]
    assert (found[:, 1] < 1e-12).all()
    assert (found[0, 0, [2, 3, 5]] > 1e-4).all()


def test_nothing_outside_the_mask(models, task):
    tokens, reference = prompts(task)
    for name, parallel in (("parallel", True), ("sequential", False)):
        components = components_of(read(models[name]), tokens.shape[1])
        mask = mask_of(nodes_of(3, 2), parallel)
        for measure in Measure:
            found = measure_edges(components, tokens, reference, intervention=Intervention.ZERO, measure=measure)
            assert (found[Effect.TOTAL][:, ~mask] == 0).all()
            assert (found[Effect.TOTAL][:, mask] > 0).all()


def test_measures_of_known_vectors():
    clean = torch.tensor([[[[3.0, 4.0]]]])  # [B, T, targets, F]
    mean = torch.zeros(1, 2)
    turned = torch.tensor([[[[[-4.0, 3.0]]]]])  # a right angle
    halved = clean[None] / 2
    for ablated, expected in ((turned, (1.0, 1.0, 1.0, 2**0.5)), (halved, (0.125, 0.0, 0.0, 0.5))):
        for measure, value in zip(Measure, expected, strict=True):
            sums = position_sums(measure, ablated, clean, mean)[:, 0, :, :]  # [R, targets, K]
            by_group = np.repeat(sums.double().numpy()[None], GROUPS, axis=0)
            found = weights(measure, by_group, np.full((GROUPS, 1), 25.0), positions=1)
            np.testing.assert_allclose(found, value, atol=1e-7, err_msg=measure)


def test_a_zero_output_that_stays_zero_has_not_changed():
    zero, one = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    for measure in (Measure.COSINE, Measure.L2):
        assert position_sums(measure, zero[None], zero, torch.zeros(1, 2)).item() == 0
    assert position_sums(Measure.COSINE, zero[None], one, torch.zeros(1, 2)).item() == 1


def test_no_variance_is_not_a_number():
    nothing = np.zeros((GROUPS, 1, 1, 1))
    assert np.isnan(weights(Measure.VARIANCE, nothing, np.zeros((GROUPS, 1)), 1)).all()


def test_small_effects_keep_their_digits():
    """1 - cos in single precision, by the naive formula, is off by 100 % here."""
    clean = torch.tensor([[[[1.0, 0.0]]]])
    turned = torch.tensor([[[[[1.0, 1e-4]]]]])
    found = position_sums(Measure.COSINE, turned, clean, torch.zeros(1, 2)).item()
    assert found == pytest.approx(1 - 1 / (1 + 1e-8) ** 0.5, rel=1e-3)


def test_infinite_outputs_are_refused(models, task):
    tokens, reference = prompts(task)
    components = components_of(read(models["parallel"]), tokens.shape[1])
    broken = dataclasses.replace(components, embed=lambda tokens: components.embed(tokens) * torch.inf)
    with pytest.raises(PhasegraphError, match="not finite"):
        measure_edges(broken, tokens, reference, intervention=Intervention.MEAN, measure=Measure.VARIANCE)
