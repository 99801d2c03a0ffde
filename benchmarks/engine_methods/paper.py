"""A loop written after the description of arXiv 2509.15269: everything again for every ablation.

Nodes are hook points and single heads: the embedding, and in each layer q, k, v, z, rotated q, rotated k (whole and
by head) and the hidden layer of the MLP. That makes 1 + 7 L + 6 L H ablations (187 for the 14m shape). Each takes a
full clean pass with a cache and a full pass with hooks, both up to the logits, and reads every cosine by ``.item()``.
Heads of rotated q and k are ablated but not read.

The bridge of transformer_lens 4.3 lists hook points for rotated q and k of GPT-NeoX but never calls them. An ablation
there is a run of the same cost that changes nothing, so they count; what they would read is missing.
"""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformer_lens.model_bridge import TransformerBridge

from engine_methods.models import Shape

BY_HEAD = ("hook_q", "hook_k", "hook_v", "hook_z")
ROTATED = ("hook_rot_q", "hook_rot_k")

Ablation = tuple[str, int | None]
"""Hook point and head (None: the whole)."""


def points(layers: int, mlp: str = "mlp.hook_post") -> list[str]:
    """Name the hook points."""
    names = [*(f"attn.{name}" for name in (*BY_HEAD, *ROTATED)), mlp]
    return ["hook_embed", *(f"blocks.{layer}.{name}" for layer in range(layers) for name in names)]


def number_of_ablations(shape: Shape) -> int:
    """Count the ablations of one checkpoint: every hook point, and every head of those in the attention."""
    per_layer = len(BY_HEAD) + len(ROTATED)
    return len(points(shape.layers)) + shape.layers * per_layer * shape.heads


def some_ablations(shape: Shape, number: int) -> list[Ablation]:
    """Take heads at `hook_z` and whole hook points by turns, spread over the layers."""
    layers = [round((i + 0.5) * shape.layers / number - 0.5) for i in range(number)]
    return [
        (f"blocks.{layer}.attn.hook_z", i % shape.heads) if i % 2 == 0 else (f"blocks.{layer}.mlp.hook_post", None)
        for i, layer in enumerate(layers)
    ]


@torch.inference_mode()
def paper_rows(
    bridge: TransformerBridge, tokens: Tensor, ablations: list[Ablation], names: list[str]
) -> list[dict[tuple[str, int | None], float]]:
    """Ablate by zeros; give each ablation's cosine similarity with the clean pass at every hook point and head."""
    return [_row(bridge, tokens, ablation, names) for ablation in ablations]


def _row(bridge: TransformerBridge, tokens: Tensor, ablation: Ablation, names: list[str]) -> dict:
    point, head = ablation
    clean_logits, clean = bridge.run_with_cache(tokens)
    kept: dict[str, Tensor] = {}

    def ablate(output: Tensor, hook: object) -> Tensor:
        output = output.clone()
        if head is None:
            output[:] = 0
        else:
            output[:, :, head] = 0
        return output

    def keep(name: str):
        def hook(output: Tensor, hook: object) -> None:
            kept[name] = output

        return name, hook

    logits = bridge.run_with_hooks(tokens, fwd_hooks=[(point, ablate), *map(keep, names)])
    row = {}
    for name, output in kept.items():
        before = clean[name]
        row[name, None] = cosine_similarity(before, output, dim=-1).mean().item()
        if name.endswith(BY_HEAD):
            for target in range(output.shape[2]):
                row[name, target] = cosine_similarity(before[:, :, target], output[:, :, target], dim=-1).mean().item()
    row["logits", None] = cosine_similarity(clean_logits, logits, dim=-1).mean().item()
    return row
