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
    qkv: Callable[[int, Tensor], tuple[Tensor, Tensor, Tensor]]
    """Layer, residual stream [R, T, D] -> queries, keys and values as `attend` takes them, [R, ...]."""
    attend: Callable[[int, Tensor, Tensor, Tensor], Tensor]
    """Layer, queries, keys, values -> z: ``attend(layer, *qkv(layer, x))`` is ``attention(layer, x)``."""
    project: Callable[[int, Tensor], Tensor]
    """Layer, z [R, T, H, d_head] -> what the attention adds to the residual stream [R, T, D], bias included."""
    mlp: Callable[[int, Tensor], Tensor]
    """Layer, residual stream [R, T, D] -> what the MLP adds to it [R, T, D]."""
    both: Callable[[int, Tensor], tuple[Tensor, Tensor]]
    """Layer, residual stream [R, T, D] -> (z, MLP output) of a parallel block."""
    head_weights: list[Tensor]
    """Per layer the output projection by head [H, d_head, D]: z[..., h, :] @ head_weights[l][h] is h's contribution."""
    final: Callable[[Tensor], Tensor]
    """Last residual stream [R, T, D] -> what the unembedding reads [R, T, D]."""
    unembedding: Tensor
    """[D, vocabulary]."""
    unembedding_bias: Tensor | None
    """[vocabulary], if there is one."""


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

    def keep(name: str, value: Tensor) -> None:
        captured[name] = value

    for layer in range(layers):
        bridge.add_hook(f"blocks.{layer}.attn.hook_z", lambda z, hook: keep("z", z))

    def attention(layer: int, x: Tensor) -> Tensor:
        blocks[layer].attn(blocks[layer].ln1(x), **keywords[layer])
        return captured.pop("z").reshape(*x.shape[:-1], heads, -1)  # [R, T, H, d_head]

    def qkv(layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hooks = [
            (f"blocks.{layer}.attn.hook_{name}", lambda value, hook, name=name: keep(name, value)) for name in "qkv"
        ]
        with bridge.hooks(fwd_hooks=hooks):
            attention(layer, x)
        return captured.pop("q"), captured.pop("k"), captured.pop("v")  # [R, T, heads of each, d_head]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        hooks = [
            (f"blocks.{layer}.attn.hook_{name}", lambda old, hook, value=value: value)
            for name, value in zip("qkv", (q, k, v), strict=True)
        ]
        anything = q.new_zeros(*q.shape[:2], bridge.cfg.d_model)
        with bridge.hooks(fwd_hooks=hooks):
            return attention(layer, anything)

    def project(layer: int, z: Tensor) -> Tensor:
        return blocks[layer].attn.o.original_component(z.flatten(-2))

    return Components(
        n_layers=layers,
        n_heads=heads,
        parallel=is_parallel(bridge),
        embed=lambda tokens: bridge(tokens, stop_at_layer=0),
        attention=attention,
        qkv=qkv,
        attend=attend,
        project=project,
        mlp=lambda layer, x: _call_mlp(blocks[layer], x),
        both=lambda layer, x: (attention(layer, x), _call_mlp(blocks[layer], x)),
        head_weights=[block.attn.W_O for block in blocks],
        final=bridge.ln_final,
        unembedding=bridge.W_U,
        unembedding_bias=bridge.b_U if bridge.b_U is not None and bridge.b_U.any() else None,
    )


def logits_of(components: Components, x: Tensor) -> Tensor:
    """Read the logits off the last residual stream: [..., D] -> [..., vocabulary]."""
    logits = components.final(x) @ components.unembedding
    return logits if components.unembedding_bias is None else logits + components.unembedding_bias


def residual_streams(components: Components, tokens: Tensor) -> list[Tensor]:
    """Run a model undisturbed: the residual stream before layer 0 and after every layer, [R, T, D] each."""
    streams = [components.embed(tokens)]
    for layer in range(components.n_layers):
        x = streams[-1]
        middle = x + components.project(layer, components.attention(layer, x))
        streams.append(middle + components.mlp(layer, x if components.parallel else middle))
    return streams


def _call_mlp(block: torch.nn.Module, x: Tensor) -> Tensor:
    norm = getattr(block, "ln2", block.ln1)  # GPT-J normalises once for both
    if block.mlp.name is not None:
        return block.mlp(norm(x))
    # OPT has its MLP's layers in the block itself, and their bridges reshape what passes in the block's own call
    parts = block.mlp.submodules
    first, second = parts["in"].original_component, parts["out"].original_component
    return second(block.original_component.activation_fn(first(norm.original_component(x))))


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
        bridge(torch.zeros(1, length, dtype=torch.long, device=bridge.cfg.device), return_type=None, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    for keywords in recorded:
        keywords.pop("hidden_states", None)  # what it reads, which some architectures pass by name
    return recorded
