"""Models of exact shape with random, seeded weights, and prompts for them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
from transformers.utils import logging as transformers_logging

from phasegraph.tasks.induction import Task, induction


@dataclass(frozen=True)
class Shape:
    """The shape of a GPT-NeoX model with parallel blocks and an MLP of four times the width."""

    layers: int
    width: int
    heads: int
    vocabulary: int

    @property
    def nodes(self) -> int:
        """Number of heads and MLPs."""
        return self.layers * (self.heads + 1)


PYTHIA = {"pythia-14m": Shape(6, 128, 4, 50304), "pythia-160m": Shape(12, 768, 12, 50304)}
"""The shapes of the published models; the weights here are random."""


def save_random(shape: Shape, folder: Path, seed: int = 0) -> Path:
    """Write a model with random weights as a Hugging Face folder."""
    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        rotary_pct=0.25,
        use_parallel_residual=True,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    return folder


def prompts_for(shape: Shape, prompts: int, length: int, reference: int) -> Task:
    """Draw prompts of an even length without a start token, so that every position is measured."""
    return induction(
        prompts=prompts,
        reference=reference,
        segment=length // 2,
        seed=0,
        start_token=None,
        token_range=(0, shape.vocabulary),
    )


def block_flops(shape: Shape, length: int) -> int:
    """FLOPs of one block on one prompt: 24 D^2 + 4 T D for each of its T positions."""
    return length * (24 * shape.width**2 + 4 * length * shape.width)


def engine_flops(shape: Shape, prompts: int, length: int, reference: int) -> int:
    """FLOPs of all total effects by the engine's schedule.

    Layer l is called with the clean stream and with one for each of the l (H + 1) nodes before it; the means take
    another clean pass over the reference prompts. The unembedding is not needed.
    """
    ablated = (shape.heads + 1) * shape.layers * (shape.layers - 1) // 2
    return block_flops(shape, length) * (prompts * (shape.layers + ablated) + reference * shape.layers)
