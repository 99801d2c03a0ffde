"""The patching helpers of transformer_lens 4.3 (`transformer_lens.patching`), on the bridge.

None of them gives the effect of a node on other nodes: each patched pass ends in one number made of the logits. The
nearest are ``generic_activation_patch`` with the setter of ``get_act_patch_attn_head_out_all_pos`` (mean ablation of a
head -> one number) and ``get_act_patch_direct_path`` (a head's contribution on the path into a later head's query, key
or value alone -> one number; heads only). A cache of means makes the patch a mean ablation.
"""

import contextlib
import io

import pandas
import torch
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

Cache = dict[str, Tensor]
"""Hook point -> heads' outputs [P, T, H, d_head]."""


@torch.inference_mode()
def caches(bridge: TransformerBridge, tokens: Tensor, reference: Tensor) -> tuple[Cache, Cache]:
    """Give the heads' mean outputs over the reference prompts, and their outputs on the prompts."""
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(bridge.cfg.n_layers)]
    clean = bridge.run_with_cache(tokens, names_filter=names)[1]
    means = bridge.run_with_cache(reference, names_filter=names)[1]
    return {name: means[name].mean((0, 1)).expand_as(clean[name]) for name in names}, {n: clean[n] for n in names}


@torch.inference_mode()
def patch_heads(bridge: TransformerBridge, tokens: Tensor, means: Cache, heads: list[tuple[int, int]]) -> Tensor:
    """Ablate heads (layer, head) one at a time; give the answer's mean logit under each, [len(heads)]."""
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be switched off
        return patching.generic_activation_patch(
            bridge,
            tokens,
            means,
            _answer(tokens),
            patching.layer_head_vector_patch_setter,
            "z",
            index_df=pandas.DataFrame(heads, columns=["layer", "head"]),
        )


@torch.inference_mode()
def patch_paths(bridge: TransformerBridge, tokens: Tensor, means: Cache, clean: Cache, source_layer: int) -> Tensor:
    """Ablate head 0 of a layer on the path into each later head's query; give the answer's mean logit, [L, H]."""
    return patching.get_act_patch_direct_path(
        bridge, tokens, means, clean, _answer(tokens), src_layer=source_layer, src_head=0, component="q", verbose=False
    )


def _answer(tokens: Tensor):
    rows = torch.arange(len(tokens))
    return lambda logits: logits[rows, -2, tokens[:, -1]].mean()
