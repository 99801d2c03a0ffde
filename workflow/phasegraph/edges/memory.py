"""How to cut the work so that it fits a memory budget; the cuts change nothing in the result."""

import ctypes
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from phasegraph.errors import PhasegraphError
from phasegraph.model.components import Components

BUDGET = 2**30
"""Bytes that the engine may use for its tensors, besides the weights, unless told otherwise."""

TOKENS_PER_CALL = {"cpu": 1536, "cuda": 65536}
"""A layer is called with about this many tokens at once. On a CPU the slices then stay in a core's cache."""


@dataclass(frozen=True)
class Cuts:
    """Sizes of the pieces."""

    prompts: int
    """Prompts in one undisturbed pass."""
    sources: int
    """Ablations that are carried through the layers at once."""
    rows: int
    """Ablations in one call of a layer."""


def cut(
    components: Components,
    *,
    prompts: int,
    length: int,
    width: int,
    sources: int,
    answers: int,
    budget: int,
    tokens_per_call: int,
    item: int = 4,
) -> Cuts:
    """Choose the sizes.

    Parameters
    ----------
    components
        The model.
    prompts, length, width, sources
        Numbers of prompts, positions T, dimensions D of the residual stream, and ablated nodes.
    answers
        Number of positions whose logits over the whole vocabulary are needed.
    budget
        Bytes for everything but the weights and the results.
    tokens_per_call
        Tokens in one call of a layer.
    item
        Bytes of a number.

    Returns
    -------
    Cuts

    Raises
    ------
    PhasegraphError
        If a single prompt with a single ablation needs more.
    """
    stream = length * width * item  # one residual stream of one prompt
    kept = 10 * components.n_layers * stream  # an undisturbed pass, and that of a corrupted prompt
    logits = 3 * 4 * answers * components.unembedding.shape[1]  # of one prompt under one ablation
    # Inside a call: the MLP's hidden layers, queries, keys and values twice, the attention patterns, differences.
    per_row = 32 * stream + 4 * components.n_heads * length * length * item + logits
    least = kept + 2 * stream + per_row + logits
    if least > budget:
        raise PhasegraphError(
            f"model.memory_budget is {budget / 2**20:.0f} MiB, but one prompt of this model needs "
            f"{least / 2**20:.0f} MiB; raise it or take a shorter task.segment"
        )
    in_call = max(1, min(tokens_per_call // length, int((budget - kept) / 2 / per_row)))  # prompts x ablations
    room = budget - in_call * per_row
    at_once = max(1, min(prompts, in_call, room // (kept + logits + 2 * sources * stream)))
    carried = max(1, min(sources, (room - at_once * (kept + logits)) // (2 * at_once * stream)))
    return Cuts(at_once, carried, max(1, min(carried, in_call // at_once)))


def usual_tokens(device: torch.device) -> int:
    """Give the tokens in one call of a layer that suit a device."""
    return TOKENS_PER_CALL.get(device.type, TOKENS_PER_CALL["cpu"])


def keep_freed_memory() -> None:
    """Tell the C library to keep freed memory for the next tensor instead of giving it back: a fifth of the time."""
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 2**30)
        mallopt(mmap_threshold, 2**25)  # glibc takes no more


def release_memory() -> None:
    """Give freed memory back, so that it can be had in pieces of another size."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where CUDA is not in use
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
