"""Undisturbed passes, and what an ablation takes out of the residual stream."""

from dataclasses import dataclass

import torch
from torch import Tensor

from phasegraph.edges.layout import Layout
from phasegraph.model.components import Components


@dataclass(frozen=True)
class Clean:
    """One undisturbed pass over B prompts of T positions; everything is listed by layer."""

    before: list[Tensor]
    """The residual stream that the layer's attention reads, [B, T, D]."""
    middle: list[Tensor]
    """The residual stream that its MLP reads, [B, T, D]; in a parallel block the same as `before`."""
    after: list[Tensor]
    """The residual stream that the layer leaves, [B, T, D]."""
    z: list[Tensor]
    """The heads' outputs, [B, T, H, d_head]."""
    mlp: list[Tensor]
    """The MLP's output, [B, T, D]."""


@dataclass(frozen=True)
class Outputs:
    """Outputs of all nodes that write to the residual stream, or their means."""

    embed: Tensor
    """[..., D]"""
    z: list[Tensor]
    """By layer, [..., H, d_head]."""
    mlp: list[Tensor]
    """By layer, [..., D]."""
    last: Tensor
    """The residual stream after all layers or, as a mean, the mean of the logits as `Readout` gives them, [..., F]."""


class Readout:
    """The logits as a node, by vectors that have the same inner products and are far shorter.

    With W the unembedding [D, vocabulary] and W^T = QR, the logits W^T a have the inner products of R a. A bias is one
    more row of W, read by a constant 1.
    """

    def __init__(self, components: Components):
        rows = components.unembedding.float()
        self.bias = components.unembedding_bias is not None
        if self.bias:
            rows = torch.cat([rows, components.unembedding_bias.float()[None]])
        self.root = torch.linalg.qr(rows.T, mode="r").R.T.contiguous()  # [D (+ 1), F]
        self.final = components.final

    def __call__(self, x: Tensor) -> Tensor:
        """Last residual stream [..., D] -> vectors that stand for the logits, float32 [..., F]."""
        a = self.final(x).float()
        return a @ self.root[:-1] + self.root[-1] if self.bias else a @ self.root


def clean_pass(components: Components, tokens: Tensor) -> Clean:
    """Run prompts [B, T] undisturbed."""
    clean = Clean([], [], [], [], [])
    x = components.embed(tokens)  # [B, T, D]
    for layer in range(components.n_layers):
        if components.parallel:
            z, mlp = components.both(layer, x)
            middle, after = x, x + components.project(layer, z) + mlp
        else:
            z = components.attention(layer, x)
            middle = x + components.project(layer, z)
            mlp = components.mlp(layer, middle)
            after = middle + mlp
        for kept, value in zip(
            (clean.before, clean.middle, clean.after, clean.z, clean.mlp), (x, middle, after, z, mlp), strict=True
        ):
            kept.append(value)
        x = after
    return clean


def mean_outputs(
    components: Components, reference: Tensor, first_position: int, prompts: int, readout: Readout | None
) -> Outputs:
    """Average every node's output over reference prompts [Q, T] and their positions, `prompts` of them at a time."""
    layers = range(components.n_layers)
    count = reference.shape[0] * (reference.shape[1] - first_position)
    total: list[Tensor] | None = None
    for chunk in reference.split(prompts):
        clean = clean_pass(components, chunk)
        last = readout(clean.after[-1]) if readout else clean.after[-1]
        outputs = (clean.before[0], *clean.z, *clean.mlp, last)
        sums = [y[:, first_position:].float().sum((0, 1)) for y in outputs]
        total = sums if total is None else [one + other for one, other in zip(total, sums, strict=True)]
    means = [one / count for one in total]
    return Outputs(
        embed=means[0],
        z=[means[1 + layer] for layer in layers],
        mlp=[means[1 + components.n_layers + layer] for layer in layers],
        last=means[-1],
    )


def taken_away(
    components: Components, clean: Clean, replacement: Outputs | None, first: int, last: int, layout: Layout
) -> Tensor:
    """Give what the ablation of each node takes out of the residual stream: its contribution less the replacement's.

    Parameters
    ----------
    components, clean
        The model and its undisturbed pass over B prompts.
    replacement
        What is put in the place of the nodes' outputs (shapes that broadcast); None for nothing.
    first, last
        Nodes ``first <= u < last`` are wanted.
    layout
        Which node is which.

    Returns
    -------
    Tensor, shape [last - first, B, T, D]
    """
    result = clean.before[0].new_empty(last - first, *clean.before[0].shape)
    if layout.embed and first == 0:
        result[0] = _less(clean.before[0], replacement and replacement.embed)
    for layer in range(components.n_layers):
        start, mlp = layout.heads(layer).start, layout.mlp(layer).start
        heads = slice(max(first - start, 0), max(min(last, mlp) - start, 0))
        if heads.start < heads.stop:
            z = _less(clean.z[layer], replacement and replacement.z[layer])[:, :, heads]
            into = slice(start + heads.start - first, start + heads.stop - first)
            result[into] = torch.einsum("bthf,hfd->hbtd", z, components.head_weights[layer][heads])
        if first <= mlp < last:
            result[mlp - first] = _less(clean.mlp[layer], replacement and replacement.mlp[layer])
    return result


def random_of_same_length(removed: Tensor, first: int, prompts: list[int]) -> Tensor:
    """Draw random vectors as long as given ones, at every position: the matched control.

    Parameters
    ----------
    removed
        What ablations take away, [S, B, T, D].
    first
        Index of the first node.
    prompts
        Indices of the B prompts. A direction depends on its node and prompt only, not on how the work is cut up.

    Returns
    -------
    Tensor, shape [S, B, T, D]
    """
    result = torch.empty_like(removed)
    for row, node in enumerate(range(first, first + len(removed))):
        for column, prompt in enumerate(prompts):
            generator = torch.Generator().manual_seed(node * 2**32 + prompt)
            direction = torch.randn(removed.shape[2:], generator=generator).to(removed.device)  # [T, D]
            length = removed[row, column].float().norm(dim=-1, keepdim=True)
            result[row, column] = direction * (length / direction.norm(dim=-1, keepdim=True))
    return result


def _less(output: Tensor, replacement: Tensor | None) -> Tensor:
    return output if replacement is None else output - replacement.to(output.dtype)
