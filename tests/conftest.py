"""Small seeded models and prompts that several tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from phasegraph.tasks.induction import Task, induction


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run side by side; more threads would only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture
def own_hub_settings(monkeypatch, tmp_path) -> None:
    """Keep the user's token, cache and proxy out of it."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def save(model: torch.nn.Module, folder: Path) -> Path:
    """Give every parameter a seeded random value, so that no bias is zero and no scale is one, and save the model."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoint folders by kind of architecture: three layers, two heads (llama: four that share two keys), random."""
    sizes = dict(vocab_size=29, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24)
    rotary = dict(rotary_pct=0.5, max_position_embeddings=32, bos_token_id=0, eos_token_id=0)
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    opt = dict(word_embed_proj_dim=16, max_position_embeddings=32, ffn_dim=24)
    opt |= {key: value for key, value in sizes.items() if key != "intermediate_size"}
    llama = sizes | dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32)
    small_gptj = dict(vocab_size=29, n_embd=16, n_layer=3, n_head=2, n_inner=24, n_positions=32, rotary_dim=4)
    return {
        "parallel": save(GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, **rotary)), root / "parallel"),
        "sequential": save(
            GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, **rotary, use_parallel_residual=False)), root / "sequential"
        ),
        "gpt2": save(
            GPT2LMHeadModel(
                GPT2Config(vocab_size=29, n_embd=16, n_layer=3, n_head=2, n_inner=24, n_positions=32, bos_token_id=0)
            ),
            root / "gpt2",
        ),
        "opt": save(OPTForCausalLM(OPTConfig(**opt)), root / "opt"),  # sequential, learned positions, ReLU
        "llama": save(LlamaForCausalLM(LlamaConfig(**llama)), root / "llama"),  # RMSNorm, gated MLP, grouped queries
        "gptj": save(GPTJForCausalLM(GPTJConfig(**small_gptj)), root / "gptj"),  # one norm for both halves of a block
    }


@pytest.fixture(scope="session")
def task() -> Task:
    """32 short prompts: two in each group."""
    return induction(prompts=32, reference=16, segment=4, seed=0, start_token=0, token_range=(1, 29), answers=2)


@pytest.fixture
def rng() -> np.random.Generator:
    """Give a seeded generator."""
    return np.random.default_rng(0)
