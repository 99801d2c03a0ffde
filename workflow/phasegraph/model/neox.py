"""GPT-NeoX's blocks in plain torch: the same numbers as the bridge's, in fewer and larger operations.

The affine part of each layer norm and the attention's scale are folded into the linear maps that follow, and a
parallel block computes query, key, value and the MLP's first layer in one product.
"""

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from phasegraph.model.components import Components, residual_streams


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
    d_head = width // heads
    activation = ACT2FN[config.hidden_act]
    epsilon = config.layer_norm_eps
    cos, sin = stack.rotary_emb(torch.zeros(1, 1), torch.arange(length)[None])  # [1, T, d_rotary] each
    cos, sin = cos[0], sin[0]
    d_rotary = cos.shape[-1]
    layers = []
    for block in stack.layers:
        qkv = block.attention.query_key_value
        # [H, 3, d_head, D] -> query rows of all heads, then key rows, then value rows
        weight = qkv.weight.view(heads, 3, d_head, width).transpose(0, 1).reshape(3 * width, width).clone()
        bias = qkv.bias.view(heads, 3, d_head).transpose(0, 1).reshape(3 * width).clone()
        weight[:width] *= d_head**-0.5
        bias[:width] *= d_head**-0.5
        attention_in = _fold(block.input_layernorm, weight, bias)
        mlp_in = _fold(block.post_attention_layernorm, block.mlp.dense_h_to_4h.weight, block.mlp.dense_h_to_4h.bias)
        joint = tuple(torch.cat(pair) for pair in zip(attention_in, mlp_in, strict=True))
        out = block.mlp.dense_4h_to_h
        layers.append((attention_in, mlp_in, joint, (out.weight, out.bias), block.attention.dense))

    turn = torch.cat([-sin[:, : d_rotary // 2], sin[:, d_rotary // 2 :]], dim=-1)  # [T, d_rotary]
    future = torch.full((length, length), -torch.inf).triu(1)  # [T, T]

    def attend(qkv: Tensor) -> Tensor:  # [R, T, 3 * D]
        # One copy puts heads first; each [R, T, T] pattern is then one small product, which at the lengths used here
        # is faster than the fused attention kernel.
        qkv = qkv.view(*qkv.shape[:2], 3, heads, d_head).permute(2, 0, 3, 1, 4).contiguous()  # [3, R, H, T, d_head]
        rotary = qkv[:2, ..., :d_rotary]
        rotary.copy_(rotary * cos + rotary.roll(d_rotary // 2, -1) * turn)
        q, k, v = qkv.flatten(1, 2)  # [R * H, T, d_head] each
        pattern = torch.baddbmm(future, q, k.transpose(1, 2)).softmax(-1)  # [R * H, T, T]
        return torch.bmm(pattern, v).unflatten(0, (-1, heads)).transpose(1, 2)  # [R, T, H, d_head]

    def normalise(x: Tensor) -> Tensor:
        return functional.layer_norm(x, (width,), eps=epsilon)

    def attention(layer: int, x: Tensor) -> Tensor:
        return attend(functional.linear(normalise(x), *layers[layer][0]))

    def project(layer: int, z: Tensor) -> Tensor:
        return layers[layer][4](z.flatten(-2))

    def mlp(layer: int, x: Tensor) -> Tensor:
        return functional.linear(activation(functional.linear(normalise(x), *layers[layer][1])), *layers[layer][3])

    def both(layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        joint = functional.linear(normalise(x), *layers[layer][2])  # [R, T, 3 * D + d_mlp]
        out = functional.linear(activation(joint[..., 3 * width :]), *layers[layer][3])
        return attend(joint[..., : 3 * width]), out

    return Components(
        n_layers=config.num_hidden_layers,
        n_heads=heads,
        parallel=config.use_parallel_residual,
        embed=stack.embed_in,
        attention=attention,
        project=project,
        mlp=mlp,
        both=both,
        head_weights=[layer[4].weight.T.reshape(heads, d_head, width) for layer in layers],
    )


def neox_difference(model: PreTrainedModel, components: Components, tokens: Tensor) -> float:
    """Compare the residual stream after every layer, and the logits, with those of the model itself.

    Returns
    -------
    float
        Largest difference relative to the largest value; infinite if the model's own outputs are not finite.
    """
    output = model(tokens, output_hidden_states=True, use_cache=False)
    streams = residual_streams(components, tokens)
    logits = model.get_output_embeddings()(model.gpt_neox.final_layer_norm(streams[-1]))
    # transformers' last hidden state is already normalised; the logits stand for it
    pairs = [*zip(output.hidden_states[:-1], streams[:-1], strict=True), (output.logits, logits)]
    gaps = [float((one - other).abs().max() / one.abs().max()) for one, other in pairs]
    return max(gaps) if torch.isfinite(torch.tensor(gaps)).all() else torch.inf


def _fold(norm: torch.nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Fold a layer norm's scale and shift into the linear map that reads it."""
    return weight * norm.weight, bias + weight @ norm.bias
