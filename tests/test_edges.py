"""The ablation engine: against the slow reference, transformer_lens, closed forms and invariances."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformer_lens import patching

from phasegraph.edges import engine
from phasegraph.edges.engine import measure_edges
from phasegraph.edges.measures import position_terms, variance_terms, weights
from phasegraph.edges.passes import random_of_same_length
from phasegraph.edges.reference import reference_edges
from phasegraph.errors import PhasegraphError
from phasegraph.model.components import Components
from phasegraph.model.load import components_of, load, read
from phasegraph.model.nodes import mask_of, nodes_of
from phasegraph.tasks.induction import Task
from phasegraph.types import GROUPS, Answer, Intervention, Measure, Measurement

ARCHITECTURES = ["parallel", "sequential", "gpt2", "opt", "llama", "gptj"]

EVERYTHING = Measurement(
    embed=True, logits=True, qkv=True, by_position=True, control=True, answer=tuple(Answer), measure=Measure.VARIANCE
)

KEYS = {
    *("total", "direct", "total.first", "total.second", "direct.first", "direct.second"),
    *("direct.q", "direct.k", "direct.v"),
    *("control.total", "control.total.first", "control.total.second"),
    *("control.direct", "control.direct.first", "control.direct.second"),
    *(f"{way}answer.{kind}.{effect}" for way in ("", "control.") for kind in Answer for effect in ("total", "direct")),
}


@pytest.fixture(scope="module")
def components(models, task) -> dict[str, Components]:
    """Every model, taken apart."""
    return {name: components_of(read(folder), task.tokens.shape[1]) for name, folder in models.items()}


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, rtol=2e-6, err_msg=name)


@pytest.mark.parametrize("intervention", list(Intervention))
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "gptj"])  # gptj has no ln2 to hook
def test_engine_equals_the_slow_reference(models, components, task, name, intervention):
    """Every measure, effect, position group, input, control and answer, with embedding and logits as nodes."""
    measurement = dataclasses.replace(EVERYTHING, intervention=intervention)
    truth = reference_edges(load(models[name]), task, measurement)
    size = components[name].n_layers * (components[name].n_heads + 1) + 2
    for measure, expected in truth.items():
        found = measure_edges(components[name], task, dataclasses.replace(measurement, measure=measure))
        assert found.keys() == expected.keys() == KEYS
        for key, values in found.items():
            assert values.dtype == np.float32
            assert values.shape == (GROUPS + 1, size) if "answer" in key else (GROUPS + 1, size, size)
            assert abs(expected[key]).max() > 1e-4
            np.testing.assert_allclose(values, expected[key], atol=1e-5, rtol=0, err_msg=f"{measure} {key}")


@pytest.mark.parametrize("name", ["parallel", "llama"])
def test_what_is_asked_for_is_what_is_given(components, task, name):
    """Each option alone gives the numbers of all together, and nothing that was not asked for."""
    everything = measure_edges(components[name], task, EVERYTHING)
    inner = slice(1, -1)
    plain = measure_edges(components[name], task, Measurement(direct=False))
    assert plain.keys() == {"total"}
    np.testing.assert_allclose(plain["total"], everything["total"][:, inner, inner], atol=1e-6)
    for change, keys in {
        "direct": {"total", "direct"},
        "qkv": {"total", "direct", "direct.q", "direct.k", "direct.v"},
        "by_position": {"total", "direct", *(f"{e}.{p}" for e in ("total", "direct") for p in task.positions)},
        "control": {"total", "direct"} | {"control.total", "control.direct"},
    }.items():
        found = measure_edges(components[name], task, Measurement(**{change: True}))
        assert found.keys() == keys
        for key in keys - {"control.total", "control.direct"}:  # directions are drawn by the node's number
            np.testing.assert_allclose(found[key], everything[key][:, inner, inner], atol=1e-6, err_msg=key)


@pytest.mark.parametrize("cuts", [(4, 4, 1), (3, 4, 3), (32, 2, 5), (5, 100, 2)], ids=str)
@pytest.mark.parametrize("name", ["parallel", "sequential", "llama"])
def test_cuts_change_nothing(components, task, monkeypatch, name, cuts):
    """Prompts at a time, ablations carried at a time, ablations in a call: layers and kinds are cut anywhere."""
    whole = measure_edges(components[name], task, EVERYTHING, tokens_per_call=10**6, memory_budget=2**40)
    monkeypatch.setattr(engine, "cut", lambda *_, **__: engine.Cuts(*cuts))
    assert_same(measure_edges(components[name], task, EVERYTHING), whole)


@pytest.mark.parametrize("size", [1, 50, 64])
def test_the_size_of_calls_changes_nothing(components, task, size):
    whole = measure_edges(components["parallel"], task, tokens_per_call=10**6)
    assert_same(measure_edges(components["parallel"], task, tokens_per_call=size), whole)


def test_memory_stays_within_the_budget():
    """In a process of its own, the peak of resident memory grows by less than the budget, which otherwise it passes."""
    script = """
import sys, torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
from phasegraph.edges.engine import measure_edges
from phasegraph.model.load import components_of
from phasegraph.tasks.induction import induction
from phasegraph.types import Measurement
torch.set_num_threads(1)
sizes = dict(vocab_size=64, hidden_size=256, num_hidden_layers=3, num_attention_heads=8, intermediate_size=256)
config = GPTNeoXConfig(**sizes, attn_implementation="eager")
model = GPTNeoXForCausalLM(config).eval()
components = components_of(model, 65)
task = induction(prompts=16, reference=16, segment=32, token_range=(1, 64))
small = Measurement(control=True)
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
warm = induction(prompts=16, reference=16, segment=2, token_range=(1, 64))
measure_edges(components_of(model, 5), warm, small)  # libraries load what they need
open("/proc/self/clear_refs", "w").write("5")
before = peak()
measure_edges(components, task, small, memory_budget=int(sys.argv[1]) * 2**20, tokens_per_call=10**6)
print(peak() - before)
"""
    runs = [
        subprocess.Popen([sys.executable, "-c", script, str(budget)], stdout=subprocess.PIPE, text=True)
        for budget in (30, 120)
    ]
    small, large = (float(run.communicate()[0]) for run in runs)
    assert small < 30 < large < 120


def test_too_little_memory_is_named(components, task):
    with pytest.raises(PhasegraphError, match=r"model.memory_budget is 0 MiB, but one prompt of this model needs"):
        measure_edges(components["parallel"], task, memory_budget=1000)


def repeated(task: Task, times: int) -> Task:
    """Show every prompt several times."""
    names = ("tokens", "corrupted", "right", "wrong")
    return dataclasses.replace(task, **{name: np.repeat(getattr(task, name), times, axis=0) for name in names})


@pytest.mark.parametrize("intervention", list(Intervention))
def test_doubling_the_prompts_changes_nothing(components, task, intervention):
    measurement = dataclasses.replace(EVERYTHING, intervention=intervention, control=False)
    once = measure_edges(components["parallel"], task, measurement)
    assert_same(measure_edges(components["parallel"], repeated(task, 2), measurement), once)


def linear_model(width: int, seed: int) -> tuple:
    """Three layers of one 'head' and one 'MLP', all linear maps of the residual stream, position by position."""
    generator = torch.Generator().manual_seed(seed)
    maps = [[torch.randn(width, width, generator=generator) / width**0.5 for _ in range(2)] for _ in range(3)]
    table = torch.randn(29, width, generator=generator)
    unembedding = torch.randn(width, 29, generator=generator)

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
            qkv=lambda layer, x: (x, x, x),
            attend=lambda layer, q, k, v: attention(layer, v),
            project=lambda layer, z: z[:, :, 0],
            mlp=mlp,
            both=lambda layer, x: (attention(layer, x), mlp(layer, x)),
            head_weights=[torch.eye(width)[None]] * 3,
            final=lambda x: x,
            unembedding=unembedding,
            unembedding_bias=torch.randn(29, generator=generator),
        ),
        maps,
        table,
    )


def test_linear_model_has_closed_form_weights(task):
    """With linear nodes the change of v is the removed signal times the sum over paths (total) or times v's map."""
    components, maps, table = linear_model(6, seed=5)
    found = measure_edges(components, task, Measurement(embed=True, logits=True))
    maps = [[m.double().numpy() for m in layer] for layer in maps]
    x0 = table.double().numpy()[task.tokens][:, 1:]  # [P, T - 1, D]
    mean0 = table.double().numpy()[task.reference][:, 1:].mean((0, 1))
    step = [np.eye(6) + layer[0] + layer[1] for layer in maps]  # the residual stream's map through each layer
    reads = [np.eye(6), step[0], step[0] @ step[1], step[0] @ step[1] @ step[2]]  # embedding -> what layer l reads
    out = [np.eye(6), *(m for layer in maps for m in layer), components.unembedding.double().numpy()]
    layers = [-1, 0, 0, 1, 1, 2, 2, 3]
    for source, target in np.ndindex(8, 8):
        ls, lt = layers[source], layers[target]
        if ls >= lt:
            assert found["total"][:, source, target].tolist() == [0] * 17
            continue
        between = np.eye(6)
        for layer in range(ls + 1, lt):
            between = between @ step[layer]
        removed = (x0 - mean0) @ (reads[ls] if ls >= 0 else np.eye(6)) @ out[source]
        signal = (x0 - mean0) @ reads[lt] @ out[target]
        for effect, through in (("total", between), ("direct", np.eye(6))):
            change = removed @ through @ out[target]
            expected = (change**2).sum() / (2 * (signal**2).sum())
            np.testing.assert_allclose(found[effect][0, source, target], expected, rtol=2e-6, atol=1e-6)


def with_heads_swapped(components: Components) -> Components:
    """Number the two heads of every layer the other way round."""
    return dataclasses.replace(
        components,
        attention=lambda layer, x: components.attention(layer, x).flip(2),
        attend=lambda layer, q, k, v: components.attend(layer, q, k, v).flip(2),
        project=lambda layer, z: components.project(layer, z.flip(2)),
        both=lambda layer, x: (components.attention(layer, x).flip(2), components.mlp(layer, x)),
        head_weights=[weight.flip(0) for weight in components.head_weights],
    )


@pytest.mark.parametrize("name", ["parallel", "sequential", "gpt2", "opt"])
def test_permuting_heads_permutes_the_matrix(components, task, name):
    measurement = dataclasses.replace(EVERYTHING, control=False)  # random directions go by the node's number
    one = measure_edges(components[name], task, measurement)
    other = measure_edges(with_heads_swapped(components[name]), task, measurement)
    order = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 10]
    assert_same(other, {k: v[:, order] if "answer" in k else v[:, order][:, :, order] for k, v in one.items()})


@pytest.mark.parametrize("measure", list(Measure))
@pytest.mark.parametrize("name", ["parallel", "sequential", "gpt2"])
def test_a_dead_head_has_a_zero_row_and_column(components, task, capsys, name, measure):
    """All others keep the numbers that they have without it; where nothing varies, shares are undefined."""
    alive = components[name]

    def dead(z):
        z = z.clone()
        z[:, :, 1] = 0
        return z

    def project(layer, z):
        return alive.project(layer, dead(z))

    killed = dataclasses.replace(
        alive,
        attention=lambda layer, x: dead(alive.attention(layer, x)),
        both=lambda layer, x: (dead(alive.attention(layer, x)), alive.mlp(layer, x)),
        project=project,
    )
    found = measure_edges(killed, task, Measurement(measure=measure, answer=(Answer.KL,)))
    for effect in ("total", "direct"):
        assert (found[effect][:, [1, 4, 7]] == 0)[~np.isnan(found[effect][:, [1, 4, 7]])].all()
        column = found[effect][:, [0, 2], 4]
        share = measure in (Measure.VARIANCE, Measure.CENTRED_COSINE)
        assert np.isnan(column).all() if share else (column == 0).all()
        assert (found[effect][:, [0, 2], 3] > 1e-6).all()
    assert (found["answer.kl.total"][:, [1, 4, 7]] == 0).all()
    assert "nothing to take away from L0H1, L1H1, L2H1: the rows" in capsys.readouterr().err


def test_nothing_outside_the_mask(components, task):
    for name, parallel in (("parallel", True), ("sequential", False)):
        mask = mask_of(nodes_of(3, 2), parallel)
        for measure in Measure:
            found = measure_edges(components[name], task, Measurement(Intervention.ZERO, measure))
            for effect in ("total", "direct"):
                assert (found[effect][:, ~mask] == 0).all()
                assert (found[effect][:, mask] > 0).all()


@pytest.mark.parametrize("component", ["q", "k", "v"])
@pytest.mark.parametrize("name", ["parallel", "sequential", "gpt2"])
def test_direct_effects_agree_with_path_patching_of_transformer_lens(models, components, task, name, component):
    """`get_act_patch_direct_path` patches the path from one head into the query, key or value input of each later head.

    Its metric sees the logits only; here it looks at the heads' outputs, which a hook keeps. In the receiver's layer
    no other head changes, so the first layer where one does shows the receiver.
    """
    bridge = load(models[name])
    tokens = torch.from_numpy(task.tokens)
    places = [f"blocks.{layer}.attn.hook_z" for layer in range(3)]
    with torch.inference_mode():
        clean = bridge.run_with_cache(tokens, names_filter=places)[1]
        on_reference = bridge.run_with_cache(torch.from_numpy(task.reference), names_filter=places)[1]
    clean = {place: clean[place].clone() for place in places}
    mean = {place: on_reference[place][:, 1:].mean((0, 1)) for place in places}  # [H, d_head]
    kept = {}
    for place in places:
        bridge.add_hook(place, lambda z, hook, place=place: kept.__setitem__(place, z.detach().clone()))

    def change(logits):
        by_layer = [(kept[p][:, 1:] - clean[p][:, 1:]).double().square().sum() for p in places]
        return next((change for change in by_layer if change > 1e-9), torch.tensor(0.0))

    variance = np.array([(clean[p][:, 1:] - mean[p]).double().square().sum((0, 1, 3)).numpy() for p in places])
    found = measure_edges(components[name], task, Measurement(qkv=True))[f"direct.{component}"][0]
    heads = [0, 1, 3, 4, 6, 7]
    compared = 0
    for layer, head in np.ndindex(2, 2):
        with torch.inference_mode():
            patched = patching.get_act_patch_direct_path(
                bridge,
                tokens,
                {p: mean[p].expand_as(clean[p]) for p in places},
                clean,
                change,
                src_layer=layer,
                src_head=head,
                component=component,
                verbose=False,
            )
        expected = patched.double().numpy() / (2 * variance)  # [L, H]
        ours = found[3 * layer + head, heads].reshape(3, 2)
        np.testing.assert_allclose(ours[layer + 1 :], expected[layer + 1 :], atol=1e-5)
        assert (expected[layer + 1 :] > 0).all()
        compared += expected[layer + 1 :].size
    assert compared == 12


def test_random_directions_do_not_depend_on_the_cuts(rng):
    removed = torch.from_numpy(rng.normal(size=(4, 6, 3, 5)).astype(np.float32))
    whole = random_of_same_length(removed, 2, [7, 8, 9, 10, 11, 12])
    torch.testing.assert_close(whole.norm(dim=-1), removed.norm(dim=-1))
    part = random_of_same_length(removed[1:3, 2:4], 3, [9, 10])
    torch.testing.assert_close(part, whole[1:3, 2:4], rtol=0, atol=0)
    cosine = torch.nn.functional.cosine_similarity(whole, removed, dim=-1)
    assert abs(float(cosine.mean())) < 0.2  # 72 directions in five dimensions: a standard error of .05


def test_half_precision_is_close(models, task):
    exact = measure_edges(components_of(read(models["parallel"]), 9), task, EVERYTHING)
    for dtype, tolerance in ((torch.float16, 0.01), (torch.bfloat16, 0.1)):
        found = measure_edges(components_of(read(models["parallel"], dtype), 9), task, EVERYTHING)
        for name in ("total", "direct", "direct.k", "total.second"):
            gap = abs(found[name] - exact[name]).max() / exact[name].max()
            assert 1e-6 < gap < tolerance, (name, dtype)


def test_an_intervention_that_changes_nothing_is_an_error(components, task):
    same = dataclasses.replace(task, corrupted=task.tokens)
    with pytest.raises(PhasegraphError, match="no ablation takes anything away: resample leaves every node"):
        measure_edges(components["parallel"], same, Measurement(Intervention.RESAMPLE))


@pytest.mark.parametrize("walk", ["walk_total", "walk_direct"])
def test_an_edge_that_was_not_measured_is_an_error(components, task, monkeypatch, walk):
    whole = getattr(engine, walk)
    monkeypatch.setattr(engine, walk, lambda *a, **k: (c for c in whole(*a, **k) if c.source.start != 0))
    with pytest.raises(RuntimeError, match="did not measure every possible edge"):
        measure_edges(components["sequential"], task)


def test_an_ablation_lost_to_rounding_is_an_error_in_half_precision(models, task):
    components = components_of(read(models["parallel"], torch.bfloat16), 9)
    faint = dataclasses.replace(components, head_weights=[1e-6 * weight for weight in components.head_weights])
    with pytest.raises(
        PhasegraphError, match=r"ablating L0H0, L0H1, L1H0, L1H1, L2H0, L2H1 changes nothing.*set dtype: float32"
    ):
        measure_edges(faint, task)


def test_measures_of_known_vectors():
    clean = torch.tensor([[[[3.0, 4.0]]]])  # [B, T, targets, F]
    mean = torch.zeros(1, 2)
    turned = torch.tensor([[[[[-4.0, 3.0]]]]])  # a right angle
    halved = clean[None] / 2
    for ablated, expected in ((turned, (1.0, 1.0, 1.0, 2**0.5)), (halved, (0.125, 0.0, 0.0, 0.5))):
        for measure, value in zip(Measure, expected, strict=True):
            sums = position_terms(measure, ablated, clean, mean)[:, :, 0, 0]  # [K, R, targets]
            by_group = np.repeat(sums.double().numpy()[:, None], GROUPS, axis=1)  # [K, GROUPS, R, targets]
            found = weights(measure, by_group, np.full((GROUPS, 1), 25.0), positions=1)
            np.testing.assert_allclose(found, value, atol=1e-7, err_msg=measure)


def test_outputs_of_zero():
    zero, one = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    for measure in (Measure.COSINE, Measure.L2):
        assert position_terms(measure, zero[None], zero, torch.zeros(1, 2)).item() == 0  # has not changed
        assert position_terms(measure, one[None], zero, torch.zeros(1, 2)).item() == 1
        assert position_terms(measure, zero[None], one, torch.zeros(1, 2)).item() == 1


def test_no_variance_is_not_a_number():
    nothing = np.zeros((1, GROUPS, 1, 1))
    assert np.isnan(weights(Measure.VARIANCE, nothing, np.zeros((GROUPS, 1)), 1)).all()


def test_small_effects_keep_their_digits():
    """1 - cos in single precision, by the naive formula, is off by 100 % here."""
    clean = torch.tensor([[[[1.0, 0.0]]]])
    turned = torch.tensor([[[[[1.0, 1e-4]]]]])
    found = position_terms(Measure.COSINE, turned, clean, torch.zeros(1, 2)).item()
    assert found == pytest.approx(1 - 1 / (1 + 1e-8) ** 0.5, rel=1e-3)


def test_an_output_that_is_its_mean_up_to_rounding_has_no_variance():
    clean = torch.full((16, 3, 1, 4), 0.2)
    mean = clean.mean((0, 1)) + 1e-8
    assert (mean != 0.2).any()
    assert (variance_terms(clean, mean) == 0).all()
    assert (variance_terms(clean * (1 + 1e-4), mean) > 0).all()


def test_infinite_outputs_are_refused(components, task):
    whole = components["parallel"]
    broken = dataclasses.replace(whole, embed=lambda tokens: whole.embed(tokens) * torch.inf)
    with pytest.raises(PhasegraphError, match="not finite"):
        measure_edges(broken, task)
