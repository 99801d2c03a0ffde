"""Loading a checkpoint, its nodes and its mask: against transformers, and against what ablations really reach."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from phasegraph.errors import PhasegraphError
from phasegraph.model import load as load_module
from phasegraph.model.__main__ import main
from phasegraph.model.components import bridge_components, logits_of, residual_streams
from phasegraph.model.load import compare_with_bridge, components_of, load, read
from phasegraph.model.neox import neox_components
from phasegraph.model.nodes import is_parallel, mask_of, nodes_of, write_nodes
from phasegraph.series.fault import CheckpointFault, write_fault
from phasegraph.series.manifest import write_manifest
from phasegraph.series.table import Audited
from phasegraph.types import Kind

EVERY = ["parallel", "sequential", "gpt2", "opt", "llama", "gptj"]


@pytest.mark.parametrize("name", EVERY)
def test_the_bridge_gives_the_logits_of_transformers(models, task, name):
    tokens = torch.from_numpy(task.tokens)
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(models[name], local_files_only=True)(tokens).logits
        found = load(models[name])(tokens)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", EVERY)
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


def test_embedding_and_logits_are_the_first_and_the_last_node():
    nodes = nodes_of(2, 1, embed=True, logits=True)
    assert [node.name for node in nodes] == ["embed", "L0H0", "L0MLP", "L1H0", "L1MLP", "logits"]
    mask = mask_of(nodes, parallel=True)
    assert mask[0, 1:].all() and not mask[:, 0].any()  # a source only, of everything
    assert mask[:-1, -1].all() and not mask[-1].any()  # a target only, of everything
    np.testing.assert_array_equal(mask[1:-1, 1:-1], mask_of(nodes_of(2, 1), parallel=True))


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
            torch.testing.assert_close(fast.attend(layer, *fast.qkv(layer, x)), z, atol=1e-5, rtol=1e-5)
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


@pytest.mark.parametrize("name", EVERY)
def test_components_have_the_bridges_outputs(models, name):
    components, bridge = components_of(read(models[name]), 9), load(models[name])
    assert compare_with_bridge(components, bridge, 9) < 1e-5
    off = dataclasses.replace(components, both=lambda layer, x: (components.attention(layer, x) * 1.01, x))
    assert compare_with_bridge(off, bridge, 9) > 1e-3


@pytest.mark.parametrize("name", EVERY)
def test_components_give_the_logits_of_transformers(models, task, name):
    tokens = torch.from_numpy(task.tokens)
    components = components_of(read(models[name]), tokens.shape[1])
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(models[name], local_files_only=True)(tokens).logits
        found = logits_of(components, residual_streams(components, tokens)[-1])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["parallel", "llama"])
def test_half_precision_is_close_and_really_half(models, name, dtype):
    components = components_of(read(models[name], dtype), 9)
    exact = components_of(read(models[name]), 9)
    tokens = torch.arange(9)[None]
    with torch.inference_mode():
        found, expected = residual_streams(components, tokens)[-1], residual_streams(exact, tokens)[-1]
    assert found.dtype is dtype
    gap = float((found - expected).abs().max() / expected.abs().max())
    assert 1e-5 < gap < 16 * torch.finfo(dtype).eps


UNFIT = {
    "bloom": (BloomForCausalLM, BloomConfig(vocab_size=29, hidden_size=16, n_layer=2, n_head=2)),
    "gemma2": (  # norms behind attention and MLP: what a head writes is not what arrives
        Gemma2ForCausalLM,
        Gemma2Config(
            vocab_size=29,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=24,
        ),
    ),
    "opt, norm behind": (
        OPTForCausalLM,
        OPTConfig(
            vocab_size=29,
            hidden_size=16,
            word_embed_proj_dim=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=24,
            do_layer_norm_before=False,
        ),
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_architecture_whose_nodes_do_not_add_up_is_refused_by_name(tmp_path, name):
    architecture, config = UNFIT[name]
    architecture(config).save_pretrained(tmp_path / "model")
    with pytest.raises(PhasegraphError, match=f"^{architecture.__name__} is not supported") as error:
        components_of(read(tmp_path / "model"), 9)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["sequential", "gpt2"])
def test_outputs_that_do_not_add_up_are_refused(models, monkeypatch, name):
    def doubled(bridge, length):
        components = bridge_components(bridge, length)
        return dataclasses.replace(components, mlp=lambda layer, x: 2 * components.mlp(layer, x))

    monkeypatch.setattr(load_module, "neox_difference", lambda *_: float("inf"))
    components_of(read(models[name]), 9)
    monkeypatch.setattr(load_module, "bridge_components", doubled)
    with pytest.raises(PhasegraphError, match=r"(GPTNeoX|GPT2).* is not supported .its node outputs do not add up"):
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


def test_a_model_whose_components_do_not_reach_each_other_is_refused(models, tmp_path, monkeypatch):
    config = GPTNeoXConfig(
        vocab_size=29, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, bos_token_id=0
    )
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "8")
    write_manifest([Audited(8, "8", used=True)], tmp_path / "series.tsv")
    files = {name: tmp_path / name for name in ("nodes.tsv", "mask.npy")}
    outputs = ["--nodes", files["nodes.tsv"], "--mask", files["mask.npy"], "--embed", "--logits"]
    words = ["phasegraph.model", f"8={tmp_path / '8'}", "--manifest", tmp_path / "series.tsv", *outputs]
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    with pytest.raises(PhasegraphError, match=r"/8: no head or MLP can reach another; study a model of more layers"):
        main()
    assert not any(path.exists() for path in files.values())
    monkeypatch.setattr(sys, "argv", [*map(str, words[:1]), f"8={models['parallel']}", *map(str, words[2:])])
    main()
    assert np.load(files["mask.npy"])[1:-1, 1:-1].any()


def test_infinite_weights_are_refused(models, tmp_path):
    shutil.copytree(models["parallel"], tmp_path / "40")
    tensors = load_file(tmp_path / "40" / "model.safetensors")
    tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"][0, 0] = torch.inf
    save_file(tensors, tmp_path / "40" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointFault, match=r"mlp.dense_h_to_4h.weight holds infinite or NaN weights") as error:
        read(tmp_path / "40")
    assert error.value.kind == "not finite"


def test_finite_weights_whose_outputs_are_not_are_refused(models, tmp_path):
    shutil.copytree(models["parallel"], tmp_path / "40")
    tensors = load_file(tmp_path / "40" / "model.safetensors")
    tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"] *= 1e38
    save_file(tensors, tmp_path / "40" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PhasegraphError, match="not finite"):
        components_of(read(tmp_path / "40"), 9)


@pytest.mark.parametrize("form", ["a pickle", "an old pickle", "shards", "shards of pickles"])
def test_every_format_of_the_weights_gives_the_same_model(models, tmp_path, form):
    folder = tmp_path / "40"
    shutil.copytree(models["parallel"], folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save, whole = (torch.save, "pytorch_model.bin") if "pickle" in form else (save_file, "model.safetensors")
    if "shards" in form:
        stem, dot, suffix = whole.partition(".")
        names = [f"{stem}-{number}-of-2{dot}{suffix}" for number in (1, 2)]
        places = {name: names[number % 2] for number, name in enumerate(sorted(tensors))}
        for shard in names:
            save({name: tensors[name] for name, place in places.items() if place == shard}, folder / shard)
        (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    else:
        settings = {"_use_new_zipfile_serialization": False} if form == "an old pickle" else {}
        save(tensors, folder / whole, **settings)
    expected = read(models["parallel"]).state_dict()
    found = read(folder).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class Trap:
    """Runs code when it is unpickled by a careless reader."""

    def __reduce__(self):
        return (pytest.fail, ("code of a checkpoint was run",))


def test_a_pickle_with_code_is_not_run(models, tmp_path):
    folder = tmp_path / "40"
    shutil.copytree(models["parallel"], folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors | {"trap": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointFault, match=str(folder)) as error:
        read(folder)
    assert error.value.kind == "unreadable"


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        ("no weights", "missing"),
        ("no config", "missing"),
        ("marked", "missing"),
        ("truncated", "unreadable"),
        ("a weight missing", "unreadable"),
        ("garbage config", "unreadable"),
        ("unknown model", None),
    ],
)
def test_a_damaged_checkpoint_is_named(models, tmp_path, harm, kind):
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
    elif harm == "marked":
        write_fault(folder, CheckpointFault("missing", f"{folder}: the repository has no such revision"))
    elif harm == "garbage config":
        (folder / "config.json").write_text('{"model_type": ')
    else:
        (folder / "config.json").write_text(json.dumps({"model_type": "nothing we know"}))
    with pytest.raises(PhasegraphError, match=str(folder)) as error:
        load(folder)
    assert "\n" not in str(error.value)
    assert getattr(error.value, "kind", None) == kind
