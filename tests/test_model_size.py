"""The size that a configuration tells is the size of the model that transformers makes of it. About 6 seconds."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from phasegraph.errors import PhasegraphError
from phasegraph.model.size import _FAMILIES, Size, size_of, size_of_recipe
from phasegraph.series.optimiser import Learner
from phasegraph.series.recipe import Recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

config_of = importlib.import_module("scaling").config_of

GROUPED = {"num_attention_heads": 16, "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True}
VARIANTS = [
    ("gpt_neox", {"attention_bias": False, "intermediate_size": 100}),
    ("gpt_neox", {"use_parallel_residual": False, "tie_word_embeddings": True}),
    ("gpt2", {"n_inner": 100, "tie_word_embeddings": False}),
    ("gptj", {"n_inner": 100, "n_layer": 3}),
    ("opt", {"word_embed_proj_dim": 512, "do_layer_norm_before": False}),
    ("opt", {"enable_bias": False, "layer_norm_elementwise_affine": False}),
    ("llama", GROUPED),
    ("llama", {"head_dim": 64, "tie_word_embeddings": True}),
    ("qwen2", GROUPED),
    ("qwen3", GROUPED),
    ("olmo", GROUPED),
    ("olmo2", GROUPED),
]


@pytest.mark.parametrize(("family", "changes"), [*((family, {}) for family in _FAMILIES), *VARIANTS])
def test_parameters_are_those_of_the_model(family, changes, tmp_path):
    """Counted on a model without storage, made of the configuration whose saved file is read."""
    config = AutoConfig.for_model(family, **changes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.save_pretrained(tmp_path)
    size = size_of(json.loads((tmp_path / "config.json").read_text()))
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (size.layers, size.heads) == (config.num_hidden_layers, config.num_attention_heads)
    assert (size.width, size.vocabulary) == (config.hidden_size, config.vocab_size)


def test_pythia_has_its_published_numbers_of_parameters():
    """As Biderman et al. 2023 and the model cards give them."""
    published = {"14m": 14_067_712, "70m": 70_426_624, "160m": 162_322_944, "410m": 405_334_016, "1b": 1_011_781_632}
    published |= {"1.4b": 1_414_647_808, "2.8b": 2_775_208_960, "6.9b": 6_857_302_016, "12b": 11_846_072_320}
    assert {model: size_of(config_of(model)).parameters for model in published} == published


def test_blocks_tell_whether_they_are_parallel():
    assert size_of(config_of("14m")).parallel
    assert not size_of(config_of("14m") | {"use_parallel_residual": False}).parallel
    assert not size_of(
        {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 9, "n_positions": 4}
    ).parallel


def test_a_recipe_is_the_model_that_it_trains():
    recipe = Recipe(layers=2, heads=2, d_model=16, d_mlp=24, vocab=32)
    model = Learner(recipe).model
    assert size_of_recipe(recipe) == size_of(model.config.to_dict())
    assert size_of_recipe(recipe).parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "key", ["model_type", "num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size", "vocab_size"]
)
def test_a_missing_key_is_named(key):
    config = config_of("14m")
    del config[key]
    with pytest.raises(PhasegraphError, match=key):
        size_of(config)


def test_a_family_without_a_formula_is_named():
    with pytest.raises(PhasegraphError, match="'mamba'"):
        size_of({"model_type": "mamba"})


def test_heads_are_as_wide_as_the_model_allows_unless_told():
    assert Size(1, 4, 64, 256, 100, 0).head_width == 16
    assert Size(1, 4, 64, 256, 100, 0, head_width=32).head_width == 32
