"""GPT-NeoX's blocks in plain torch: the same numbers as the bridge's, in fewer operations on less memory.

The affine part of each layer norm and the attention's scale are folded into the linear maps that follow. The rotary
dimensions of queries and keys are put side by side in pairs, which leaves their products alone and makes the rotation
one complex multiplication.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.activations import ACT2FN, GELUActivation

from phasegraph.model.components import Components, logits_of

_Linear = tuple[Tensor, Tensor]
"""Bias [out] and transposed weight [in, out]: the order in which a matrix product is fastest."""

QUERIES = 64
"""Positions whose attention is computed at once."""


def neox_components(model: PreTrainedModel, length: int) -> Components:
    """Take a GPT-NeoX model apart, for prompts of one length.

    Parameters
    ----------
    model
        A ``GPTNeoXForCausalLM`` (not yet wrapped by a bridge, which would replace its modules).
    length
        Number of positions T.

    Returns
    -------
    Components
        Equal to `phasegraph.model.components.bridge_components` up to rounding.
    """
    config, stack = model.config, model.gpt_neox
    heads, width = config.num_attention_heads, config.hidden_size
    turn = _rotation(model, length)
    layers = [_fold_layer(block, heads, 2 * turn.shape[-1]) for block in stack.layers]
    weight = stack.layers[0].mlp.dense_h_to_4h.weight
    future = torch.full((length, length), -torch.inf, dtype=weight.dtype, device=weight.device).triu(1)
    activation = _activation(config.hidden_act)

    def normalise(x: Tensor) -> Tensor:
        return functional.layer_norm(x, (width,), eps=config.layer_norm_eps)

    def heads_of(layer: int, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = _linear(y, layers[layer][0])  # [R, T, 3 * D]
        qkv = qkv.view(*y.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4).contiguous()  # [3, R, H, T, d_head]
        _rotate(qkv[:2], turn)
        return qkv.unbind()

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Small products, one per head, which are not slower here than the fused attention kernel; some queries at a
        # time, so that keys far in their future need not be looked at.
        z = q.new_empty(len(q), length, heads, q.shape[-1])
        q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)  # [R * H, T, d_head]
        for start in range(0, length, QUERIES):
            end = min(start + QUERIES, length)
            pattern = torch.bmm(q[:, start:end], k[:, :end].transpose(1, 2))  # [R * H, queries, keys]
            pattern = pattern.add_(future[start:end, :end]).softmax(-1)
            z[:, start:end] = torch.bmm(pattern, v[:, :end]).unflatten(0, (-1, heads)).transpose(1, 2)
        return z

    def mlp_of(layer: int, y: Tensor) -> Tensor:
        return _linear(activation(_linear(y, layers[layer][1])), layers[layer][2])

    def both(layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        y = normalise(x)  # the same for both; their own scales and shifts are folded away
        return attend(layer, *heads_of(layer, y)), mlp_of(layer, y)

    return Components(
        n_layers=config.num_hidden_layers,
        n_heads=heads,
        parallel=config.use_parallel_residual,
        embed=stack.embed_in,
        attention=lambda layer, x: attend(layer, *heads_of(layer, normalise(x))),
        qkv=lambda layer, x: heads_of(layer, normalise(x)),
        attend=attend,
        project=lambda layer, z: _linear(z.flatten(-2), layers[layer][3]),
        mlp=lambda layer, x: mlp_of(layer, normalise(x)),
        both=both,
        head_weights=[layer[3][1].unflatten(0, (heads, -1)) for layer in layers],
        final=stack.final_layer_norm,
        unembedding=model.get_output_embeddings().weight.T,
        unembedding_bias=None,
    )


def neox_difference(model: PreTrainedModel, components: Components, tokens: Tensor, streams: list[Tensor]) -> float:
    """Compare the residual stream after every layer, and the logits, with those of the model itself.

    Returns
    -------
    float
        Largest difference relative to the largest value; infinite if the model's own outputs are not finite.
    """
    output = model(tokens, output_hidden_states=True, use_cache=False)
    # transformers' last hidden state is already normalised; the logits stand for it
    expected = (*output.hidden_states[:-1], output.logits)
    found = (*streams[:-1], logits_of(components, streams[-1]))
    gaps = [float((one - other).abs().max() / one.abs().max()) for one, other in zip(expected, found, strict=True)]
    return max(gaps) if torch.isfinite(torch.tensor(gaps)).all() else torch.inf


def _fold_layer(block: torch.nn.Module, heads: int, d_rotary: int) -> tuple[_Linear, _Linear, _Linear, _Linear]:
    """Give a block's linear maps: normalised stream -> query, key, value; -> MLP; MLP -> stream; heads -> stream."""
    qkv, mlp, out = block.attention.query_key_value, block.mlp, block.attention.dense
    width = qkv.weight.shape[1]
    d_head = width // heads
    # rotary dimension i of the first half turns with dimension i of the second: make them neighbours
    turning = torch.arange(d_rotary).view(2, -1).T.flatten()
    order = torch.cat([turning, torch.arange(d_rotary, d_head)])
    rows = []
    for values in (qkv.weight, qkv.bias[:, None]):
        values = values.unflatten(0, (heads, 3, d_head)).transpose(0, 1).clone()  # [3, H, d_head, D or 1]
        values[:2] = values[:2, :, order]
        values[0] *= d_head**-0.5
        rows.append(values.flatten(0, 2))
    return (
        _fold(block.input_layernorm, rows[0], rows[1][:, 0]),
        _fold(block.post_attention_layernorm, mlp.dense_h_to_4h.weight, mlp.dense_h_to_4h.bias),
        (mlp.dense_4h_to_h.bias, mlp.dense_4h_to_h.weight.T.contiguous()),
        (out.bias, out.weight.T.contiguous()),
    )


def _fold(norm: torch.nn.LayerNorm, weight: Tensor, bias: Tensor) -> _Linear:
    """Fold a layer norm's scale and shift into the linear map that reads it."""
    return bias + weight @ norm.bias, (weight * norm.weight).T.contiguous()


def _linear(x: Tensor, layer: _Linear) -> Tensor:
    return torch.addmm(layer[0], x.flatten(0, 1), layer[1]).unflatten(0, x.shape[:2])


def _rotation(model: PreTrainedModel, length: int) -> Tensor:
    """Give the turn of every pair of rotary dimensions at every position, complex64 [T, d_rotary / 2]."""
    device = model.gpt_neox.embed_in.weight.device
    like = torch.zeros(1, 1, device=device)
    cos, sin = model.gpt_neox.rotary_emb(like, torch.arange(length, device=device)[None])  # [1, T, d_rotary] each
    half = cos.shape[-1] // 2
    return torch.complex(cos[0, :, :half].float(), sin[0, :, :half].float())


def _rotate(qk: Tensor, turn: Tensor) -> None:
    """Turn the first dimensions of queries and keys [..., T, d_head] in place."""
    pairs = qk[..., : 2 * turn.shape[-1]].unflatten(-1, (-1, 2))
    if qk.dtype is torch.float32:
        torch.view_as_complex(pairs).mul_(turn)
    else:
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * turn))


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    function = ACT2FN[name]
    if isinstance(function, GELUActivation):
        return torch.ops.aten.gelu_  # in place, on what only this function sees
    return function
