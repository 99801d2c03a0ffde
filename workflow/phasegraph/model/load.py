"""From a checkpoint folder to a runnable model, offline and without a tokenizer."""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from phasegraph.errors import PhasegraphError
from phasegraph.model.components import Components, bridge_components, residual_streams
from phasegraph.model.neox import neox_components, neox_difference

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, at which a fast implementation counts as equal."""


def load(folder: str | Path) -> TransformerBridge:
    """Load a checkpoint into a bridge with its raw weights: nothing is folded, nothing is centred.

    Parameters
    ----------
    folder
        A standard Hugging Face folder: ``config.json`` and ``model.safetensors``.

    Returns
    -------
    TransformerBridge
        The model in float32 with eager attention, in evaluation mode.

    Raises
    ------
    PhasegraphError
        As in `read`.
    """
    return _bridge(read(folder))


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
    tokens = _some_tokens(length, model.config.vocab_size)
    with torch.inference_mode():
        if model.config.model_type == "gpt_neox":
            fast = neox_components(model, length)
            gap = neox_difference(model, fast, tokens)
            if gap <= TOLERANCE:
                return fast
            print(f"the fast path is off by {gap:.1e}, using the bridge's own modules", file=sys.stderr)
        bridge = _bridge(model)
        components = bridge_components(bridge, length)
        _check_sum(bridge, components, tokens)
    return components


def compare_with_bridge(folder: str | Path, length: int = 16) -> float:
    """Compare what `components_of` gives for a checkpoint with the outputs of every node in its bridge.

    Returns
    -------
    float
        Largest difference over all node outputs, relative to the largest output of the same kind and layer.
    """
    found = components_of(read(folder), length)
    bridge = load(folder)
    expected = bridge_components(bridge, length)
    with torch.inference_mode():
        streams = residual_streams(expected, _some_tokens(length, bridge.cfg.d_vocab))
        return max(
            float((one - other).abs().max() / one.abs().max().clamp(min=1e-30))
            for layer, x in enumerate(streams[:-1])
            for one, other in zip(expected.both(layer, x), found.both(layer, x), strict=True)
        )


def read(folder: str | Path) -> PreTrainedModel:
    """Load a checkpoint as transformers has it: float32, eager attention, evaluation mode.

    Raises
    ------
    PhasegraphError
        If the folder lacks a file, or its weights are truncated or do not fit its configuration.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise PhasegraphError(f"{folder}: {name} is missing; restore it or take this step out of the series")
    os.environ["HF_HUB_OFFLINE"] = "1"  # a checkpoint is a folder; nothing may look further
    transformers_logging.disable_progress_bar()
    try:
        # No trust_remote_code, no pickle: a checkpoint is data.
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",  # the only implementation that exposes attention patterns
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a damaged file raises, the user needs the folder's name
        raise PhasegraphError(f"{folder}: cannot be loaded ({_first_line(error)}); fetch or train it again") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise PhasegraphError(
            f"{folder}: {len(missing)} weights are missing, {missing[0]} among them; fetch or train it again"
        )
    return model.eval().requires_grad_(False)


def _bridge(model: PreTrainedModel) -> TransformerBridge:
    return build_bridge_from_module(model, model.config.architectures[0], hf_config=model.config)


def _check_sum(bridge: TransformerBridge, components: Components, tokens: Tensor) -> None:
    """Refuse a model whose embedding and node outputs do not add up to the residual stream that it really computes."""
    final: list[Tensor] = []
    bridge.run_with_hooks(tokens, fwd_hooks=[("ln_final.hook_in", lambda x, hook: final.append(x))], return_type=None)
    if not final[0].isfinite().all():
        raise PhasegraphError("the model's outputs are not finite; take this step out of the series")
    gap = float((residual_streams(components, tokens)[-1] - final[0]).abs().max() / final[0].abs().max())
    if gap > TOLERANCE:
        architecture = bridge.cfg.architecture
        raise PhasegraphError(
            f"{architecture} is not supported: its node outputs miss the residual stream by {gap:.1e}; "
            "take a model of another architecture"
        )


def _some_tokens(length: int, vocabulary: int) -> Tensor:
    return (torch.arange(2 * length) * 7919 % vocabulary).view(2, length)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
