"""From a checkpoint folder to a runnable model, offline and without a tokenizer."""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from phasegraph.errors import PhasegraphError, first_line
from phasegraph.model.components import Components, bridge_components, logits_of, residual_streams
from phasegraph.model.device import is_out_of_memory, memory_for
from phasegraph.model.neox import neox_components, neox_difference
from phasegraph.series.fault import CheckpointFault, read_fault
from phasegraph.series.layout import CONFIG, WEIGHTS, layout

TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-1}
"""Largest difference, relative to the largest output, at which two implementations count as equal."""


def load(
    folder: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> TransformerBridge:
    """Load a checkpoint into a bridge with its raw weights: nothing is folded, nothing is centred.

    Parameters
    ----------
    folder, dtype, device
        As in `read`.

    Returns
    -------
    TransformerBridge
        The model with eager attention, in evaluation mode.

    Raises
    ------
    PhasegraphError
        As in `read`.
    """
    return _bridge(read(folder, dtype, device))


def components_of(model: PreTrainedModel, length: int) -> Components:
    """Take a model apart for the ablation engine, by the fastest implementation that is right.

    Where there is one for the architecture, it is compared with the model itself on a few tokens, and given up (with a
    line on standard error) if the residual stream after any layer differs by more than `TOLERANCE` of its largest
    value. Everywhere else the model is wrapped by a bridge.

    Parameters
    ----------
    model
        As `read` gives it. A bridge replaces its modules, so do not use it afterwards.
    length
        Number of positions T of the prompts.

    Returns
    -------
    Components
        The model as functions on residual streams.

    Raises
    ------
    PhasegraphError
        If the model's outputs are not finite, or the node outputs of its architecture do not add up to its residual
        stream, so that taking one away would not mean what it says.
    """
    tokens = _some_tokens(length, model.config.vocab_size).to(model.device)
    tolerance = TOLERANCE[model.dtype]
    with torch.inference_mode():
        if model.config.model_type == "gpt_neox":
            fast = neox_components(model, length)
            streams = residual_streams(fast, tokens)
            gap = max(neox_difference(model, fast, tokens, streams), _inconsistency(fast, streams[:-1]))
            if gap <= tolerance:
                return fast
            print(f"the fast path is off by {gap:.1e}, using the bridge's own modules", file=sys.stderr)
        return _bridge_components(model, length, tokens, tolerance)


def compare_with_bridge(components: Components, bridge: TransformerBridge, length: int) -> float:
    """Compare components with the outputs of every node of the same model in a bridge.

    Returns
    -------
    float
        Largest difference over all node outputs, relative to the largest output of the same kind and layer.
    """
    expected = bridge_components(bridge, length)
    tokens = _some_tokens(length, bridge.cfg.d_vocab).to(components.unembedding.device)
    with torch.inference_mode():
        streams = residual_streams(expected, tokens)
        return max(
            _gap(one, other)
            for layer, x in enumerate(streams[:-1])
            for one, other in zip(expected.both(layer, x), components.both(layer, x), strict=True)
        )


def read(folder: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> PreTrainedModel:
    """Load a checkpoint as transformers has it: eager attention, evaluation mode.

    Parameters
    ----------
    folder
        A standard Hugging Face folder: ``config.json``, and the weights in one file or in shards, as safetensors or
        as torch pickles them.
    dtype
        float32, bfloat16 or float16, whatever the file holds.
    device
        Where the weights go.

    Raises
    ------
    CheckpointFault
        If the folder lacks a file, or its weights are truncated, not finite or do not fit its configuration.
    PhasegraphError
        If transformers knows no model of its configuration, or there is no memory for the weights.
    """
    folder = Path(folder)
    with memory_for(folder):
        return _read(folder, dtype, device)


def _read(folder: Path, dtype: torch.dtype, device: str | torch.device) -> PreTrainedModel:
    if fault := read_fault(folder):
        raise fault
    way_out = "restore it or take this step out of the series"
    if not (folder / CONFIG).is_file():
        raise CheckpointFault("missing", f"{folder}: {CONFIG} is missing; {way_out}")
    try:
        weights = layout(folder)
    except FileNotFoundError as error:
        raise CheckpointFault("missing", f"{error}; {way_out}") from error
    os.environ["HF_HUB_OFFLINE"] = "1"  # a checkpoint is a folder; nothing may look further
    transformers_logging.disable_progress_bar()
    try:
        AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a file that is no JSON is the checkpoint's fault, a model that nobody knows is not
        damaged = "is not a valid JSON file" in str(error)
        sentence = f"{folder}: {CONFIG} names no model that transformers knows ({first_line(error)})"
        raise CheckpointFault("unreadable", sentence) if damaged else PhasegraphError(sentence) from error
    try:
        # No trust_remote_code, and of a pickle the tensors alone: a checkpoint is data.
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="eager",  # the only implementation that exposes attention patterns
            local_files_only=True,
            use_safetensors=weights.name.startswith(WEIGHTS),
            weights_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a damaged file raises, the user needs the folder's name
        if is_out_of_memory(error):
            raise  # not the checkpoint's fault
        sentence = f"{folder}: cannot be loaded ({first_line(error)}); fetch or train it again"
        raise CheckpointFault("unreadable", sentence) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        sentence = f"{folder}: {len(missing)} weights are missing, {missing[0]} among them; fetch or train it again"
        raise CheckpointFault("unreadable", sentence)
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise CheckpointFault("not finite", f"{folder}: {name} holds infinite or NaN weights; {way_out}")
    return model.eval().requires_grad_(False).to(device)


def _bridge(model: PreTrainedModel) -> TransformerBridge:
    return build_bridge_from_module(model, model.config.architectures[0], hf_config=model.config)


def _bridge_components(model: PreTrainedModel, length: int, tokens: Tensor, tolerance: float) -> Components:
    """Take a model's bridge apart, or refuse it by the name of its architecture."""
    architecture, name = model.config.architectures[0], model.name_or_path
    refusal = f"{architecture} is not supported ({{why}}); take a model of another architecture"
    try:
        bridge = _bridge(model)
        components = bridge_components(bridge, length)
        *streams, last = residual_streams(components, tokens)
        gaps = {
            "its node outputs do not add up to its residual stream": _bridge_difference(
                bridge, components, tokens, last
            ),
            "its attention cannot be taken apart": _inconsistency(components, streams),
        }
    except PhasegraphError:
        raise
    except Exception as error:  # a bridge without the parts that are needed fails in any way
        if is_out_of_memory(error):
            raise
        raise PhasegraphError(refusal.format(why=first_line(error))) from error
    if not all(gap < torch.inf for gap in gaps.values()):
        raise PhasegraphError(f"{name}: the model's outputs are not finite; take this checkpoint out of the series")
    for why, gap in gaps.items():
        if gap > tolerance:
            raise PhasegraphError(refusal.format(why=f"{why}: off by {gap:.1e}"))
    return components


def _bridge_difference(bridge: TransformerBridge, components: Components, tokens: Tensor, last: Tensor) -> float:
    """Compare embedding plus node outputs with the residual stream that the model computes, and its logits."""
    kept: list[Tensor] = []
    logits = bridge.run_with_hooks(tokens, fwd_hooks=[("ln_final.hook_in", lambda x, hook: kept.append(x))])
    return max(_gap(kept[0], last), _gap(logits, logits_of(components, last)))


def _inconsistency(components: Components, streams: list[Tensor]) -> float:
    """Compare attention with its own parts: heads that add up, and queries, keys and values that give z."""
    gaps = []
    for layer, x in enumerate(streams):
        z = components.attention(layer, x)
        written = components.project(layer, z) - components.project(layer, torch.zeros_like(z))
        by_head = torch.einsum("rthf,hfd->rtd", z, components.head_weights[layer])
        again = components.attend(layer, *components.qkv(layer, x))
        gaps += [_gap(written, by_head), _gap(z, again)]
    return max(gaps)


def _gap(expected: Tensor, found: Tensor) -> float:
    """Largest difference relative to the largest value; infinite if a value is not finite."""
    gap = float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-30))
    return gap if gap == gap else torch.inf


def _some_tokens(length: int, vocabulary: int) -> Tensor:
    return (torch.arange(2 * length) * 7919 % vocabulary).view(2, length)
