"""The parts of a model that the ablation engine calls, a layer at a time, on a batch of residual streams.

`bridge_components` works for every architecture whose TransformerBridge has the parts ``ln1``, ``attn`` (with its
output projection ``o``), ``ln2`` and ``mlp``. A faster implementation of the same parts may replace it
(`phasegraph.model.neox`) once it has shown that it gives the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from phasegraph.model.nodes import is_parallel


@dataclass(frozen=True)
class Components:
    """A model as functions on residual streams of shape [R, T, D] (rows, positions, width)."""

    n_layers: int
    """Number of layers L."""
    n_heads: int
    """Number of (query) heads H in a layer."""
    parallel: bool
    """Whether attention and MLP of a layer read the same residual stream."""
    embed: Callable[[Tensor], Tensor]
    """Token ids [R, T] -> residual stream before layer 0 [R, T, D]."""
    attention: Callable[[int, Tensor], Tensor]
    """Layer, residual stream [R, T, D] -> the heads' outputs z [R, T, H, d_head], before the output projection."""
    project: Callable[[int, Tensor], Tensor]
    """Layer, z [R, T, H, d_head] -> what the attention adds to the residual stream [R, T, D], bias included."""
    mlp: Callable[[int, Tensor], Tensor]
    """Layer, residual stream [R, T, D] -> what the MLP adds to it [R, T, D]."""
    both: Callable[[int, Tensor], tuple[Tensor, Tensor]]
    """Layer, residual stream [R, T, D] -> (z, MLP output) of a parallel block."""
    head_weights: list[Tensor]
    """Per layer the output projection by head [H, d_head, D]: z[..., h, :] @ head_weights[l][h] is h's contribution."""


def bridge_components(bridge: TransformerBridge, length: int) -> Components:
    """Take a bridge apart, for prompts of one length.

    Parameters
    ----------
    bridge
        A loaded model.
    length
        Number of positions T of the residual streams that will be passed.

    Returns
    -------
    Components
        Calls of the bridge's own modules, with the keyword arguments (mask, rotary angles) of a recorded pass.
    """
    blocks = bridge.blocks
    heads, layers = bridge.cfg.n_heads, bridge.cfg.n_layers
    keywords = _attention_keywords(bridge, length)
    captured: dict[str, Tensor] = {}

    def keep(z: Tensor, hook: object) -> None:
        captured["z"] = z

    for layer in range(layers):
        bridge.add_hook(f"blocks.{layer}.attn.hook_z", keep)

    def attention(layer: int, x: Tensor) -> Tensor:
        blocks[layer].attn(blocks[layer].ln1(x), **keywords[layer])
        return captured.pop("z").reshape(*x.shape[:-1], heads, -1)  # [R, T, H, d_head]

    def project(layer: int, z: Tensor) -> Tensor:
        return blocks[layer].attn.o.original_component(z.flatten(-2))

    def mlp(layer: int, x: Tensor) -> Tensor:
        return blocks[layer].mlp(blocks[layer].ln2(x))

    return Components(
        n_layers=layers,
        n_heads=heads,
        parallel=is_parallel(bridge),
        embed=lambda tokens: bridge(tokens, stop_at_layer=0),
        attention=attention,
        project=project,
        mlp=mlp,
        both=lambda layer, x: (attention(layer, x), mlp(layer, x)),
        head_weights=[block.attn.W_O for block in blocks],
    )


def residual_streams(components: Components, tokens: Tensor) -> list[Tensor]:
    """Run a model undisturbed: the residual stream before layer 0 and after every layer, [R, T, D] each."""
    streams = [components.embed(tokens)]
    for layer in range(components.n_layers):
        x = streams[-1]
        middle = x + components.project(layer, components.attention(layer, x))
        streams.append(middle + components.mlp(layer, x if components.parallel else middle))
    return streams


def _attention_keywords(bridge: TransformerBridge, length: int) -> list[dict]:
    """Record what the attention of each layer is called with, on one prompt, so that it fits every batch size."""
    recorded: list[dict] = [{} for _ in bridge.blocks]
    handles = [
        block.attn.register_forward_pre_hook(
            lambda module, arguments, keywords, kept=kept: kept.update(keywords), with_kwargs=True
        )
        for block, kept in zip(bridge.blocks, recorded, strict=True)
    ]
    try:
        bridge(torch.zeros(1, length, dtype=torch.long), return_type=None, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return recorded
