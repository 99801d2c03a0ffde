"""Loading a checkpoint, its nodes and its mask: against transformers, and against what ablations really reach."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from phasegraph.errors import PhasegraphError
from phasegraph.model import load as load_module
from phasegraph.model.components import bridge_components
from phasegraph.model.load import compare_with_bridge, components_of, load, read
from phasegraph.model.neox import neox_components
from phasegraph.model.nodes import is_parallel, mask_of, nodes_of, write_nodes
from phasegraph.types import Kind


@pytest.mark.parametrize("name", ["parallel", "sequential", "gpt2"])
def test_the_bridge_gives_the_logits_of_transformers(models, task, name):
    tokens = torch.from_numpy(task.tokens)
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(models[name], local_files_only=True)(tokens).logits
        found = load(models[name])(tokens)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["parallel", "sequential", "gpt2"])
def test_the_mask_is_what_an_ablation_reaches(models, task, name):
    """Replace each node's output by noise in the whole model: exactly the targets in its row change."""
    bridge = load(models[name])
    nodes = nodes_of(bridge.cfg.n_layers, bridge.cfg.n_heads)
    mask = mask_of(nodes, is_parallel(bridge))
    tokens = torch.from_numpy(task.tokens[:2])

    def place(node):
        return f"blocks.{node.layer}.hook_mlp_out" if node.kind is Kind.MLP else f"blocks.{node.layer}.attn.hook_z"

    def by_head(output):
        return output.reshape(*output.shape[:2], bridge.cfg.n_heads, -1)

    def outputs(hooks):
        kept = {}

        def keep(node):
            def hook(output, hook):
                kept[node.index] = (output if node.kind is Kind.MLP else by_head(output)[:, :, node.head]).clone()

            return place(node), hook

        with torch.inference_mode():
            bridge.run_with_hooks(tokens, fwd_hooks=[*hooks, *map(keep, nodes)], return_type=None)
        return kept

    def noise(node):
        def hook(output, hook):
            output = output.clone()
            part = output if node.kind is Kind.MLP else by_head(output)[:, :, node.head]
            part += torch.randn(part.shape, generator=torch.Generator().manual_seed(0))
            return output

        return place(node), hook

    clean = outputs([])
    for source in nodes:
        changed = outputs([noise(source)])
        reached = [bool((changed[target.index] != clean[target.index]).any()) for target in nodes]
        reached[source.index] = False  # the noise itself
        np.testing.assert_array_equal(mask[source.index], reached, err_msg=source.name)


def test_number_of_possible_edges():
    nodes = nodes_of(6, 4)
    assert [node.name for node in nodes[:6]] == ["L0H0", "L0H1", "L0H2", "L0H3", "L0MLP", "L1H0"]
    assert [node.index for node in nodes] == list(range(30))
    assert mask_of(nodes, parallel=True).sum() == 375  # 25 pairs of nodes for each of 15 pairs of layers
    assert mask_of(nodes, parallel=False).sum() == 375 + 6 * 4  # and head -> MLP in each layer


@pytest.mark.parametrize("name", ["parallel", "sequential"])
def test_the_fast_path_equals_the_bridge(models, task, name):
    length = task.tokens.shape[1]
    model = AutoModelForCausalLM.from_pretrained(models[name], attn_implementation="eager")
    with torch.inference_mode():
        fast, slow = neox_components(model, length), bridge_components(load(models[name]), length)
        x = slow.embed(torch.from_numpy(task.tokens))
        torch.testing.assert_close(fast.embed(torch.from_numpy(task.tokens)), x)
        for layer in range(3):
            z = slow.attention(layer, x)
            torch.testing.assert_close(fast.attention(layer, x), z, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(fast.mlp(layer, x), slow.mlp(layer, x), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(fast.project(layer, z), slow.project(layer, z))
            torch.testing.assert_close(fast.head_weights[layer], slow.head_weights[layer])
            for one, other in zip(fast.both(layer, x), slow.both(layer, x), strict=True):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
            x = x + slow.project(layer, z)


@pytest.mark.parametrize("name", ["parallel", "sequential"])
def test_a_wrong_fast_path_is_given_up(models, monkeypatch, capsys, name):
    def wrong(model, length):
        components = neox_components(model, length)
        return dataclasses.replace(components, mlp=lambda layer, x: 1.001 * components.mlp(layer, x))

    assert "neox" in components_of(read(models[name]), 9).mlp.__qualname__
    monkeypatch.setattr(load_module, "neox_components", wrong)
    assert "bridge" in components_of(read(models[name]), 9).mlp.__qualname__
    assert "the fast path is off by" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["parallel", "sequential", "gpt2"])
def test_components_have_the_bridges_outputs(models, monkeypatch, name):
    assert compare_with_bridge(models[name]) < 1e-5
    original = load_module.components_of

    def off(model, length):
        components = original(model, length)
        return dataclasses.replace(components, both=lambda layer, x: (components.attention(layer, x) * 1.01, x))

    monkeypatch.setattr(load_module, "components_of", off)
    assert compare_with_bridge(models[name]) > 1e-3


@pytest.mark.parametrize("name", ["sequential", "gpt2"])
def test_outputs_that_do_not_add_up_are_refused(models, monkeypatch, name):
    def doubled(bridge, length):
        components = bridge_components(bridge, length)
        return dataclasses.replace(components, mlp=lambda layer, x: 2 * components.mlp(layer, x))

    monkeypatch.setattr(load_module, "neox_difference", lambda *_: float("inf"))
    components_of(read(models[name]), 9)
    monkeypatch.setattr(load_module, "bridge_components", doubled)
    with pytest.raises(PhasegraphError, match=r"(GPTNeoX|GPT2).* is not supported: its node outputs miss"):
        components_of(read(models[name]), 9)


def test_a_wrong_idea_of_the_block_is_refused(models, monkeypatch):
    """Reading parallel blocks as sequential ones would draw edges that cannot be."""
    monkeypatch.setattr(load_module, "neox_difference", lambda *_: float("inf"))
    monkeypatch.setattr("phasegraph.model.components.is_parallel", lambda bridge: False)
    with pytest.raises(PhasegraphError, match="is not supported"):
        components_of(read(models["parallel"]), 9)


def test_nodes_table(tmp_path):
    write_nodes(nodes_of(1, 2), tmp_path / "nodes.tsv")
    assert (tmp_path / "nodes.tsv").read_text() == (
        "index\tname\tlayer\tkind\thead\n0\tL0H0\t0\thead\t0\n1\tL0H1\t0\thead\t1\n2\tL0MLP\t0\tmlp\t\n"
    )


def test_infinite_weights_are_refused(models, tmp_path):
    shutil.copytree(models["parallel"], tmp_path / "40")
    tensors = load_file(tmp_path / "40" / "model.safetensors")
    tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"][0, 0] = torch.inf
    save_file(tensors, tmp_path / "40" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PhasegraphError, match="not finite"):
        components_of(read(tmp_path / "40"), 9)


@pytest.mark.parametrize("harm", ["no weights", "no config", "truncated", "a weight missing", "garbage config"])
def test_a_damaged_checkpoint_is_named(models, tmp_path, harm):
    folder = tmp_path / "40"
    shutil.copytree(models["parallel"], folder)
    weights = folder / "model.safetensors"
    if harm == "no weights":
        weights.unlink()
    elif harm == "no config":
        (folder / "config.json").unlink()
    elif harm == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif harm == "a weight missing":
        tensors = load_file(weights)
        del tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    else:
        (folder / "config.json").write_text(json.dumps({"model_type": "nothing we know"}))
    with pytest.raises(PhasegraphError, match=str(folder)) as error:
        load(folder)
    assert "\n" not in str(error.value)
