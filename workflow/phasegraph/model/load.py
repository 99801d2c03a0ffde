"""From a checkpoint folder to a TransformerBridge, offline and without a tokenizer."""

import json
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
from phasegraph.model.components import Components, bridge_components
from phasegraph.model.neox import neox_components

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, at which a fast implementation counts as equal."""


def vocabulary_of(folder: str | Path) -> int:
    """Read the number of token ids that a checkpoint's configuration declares.

    Raises
    ------
    PhasegraphError
        If the configuration is missing or does not say.
    """
    path = Path(folder) / "config.json"
    try:
        return int(json.loads(path.read_text())["vocab_size"])
    except (OSError, ValueError, KeyError) as error:
        raise PhasegraphError(f"{path}: has no vocab_size ({_first_line(error)}); restore the file") from error


def load(folder: str | Path) -> TransformerBridge:
    """Load a checkpoint with its raw weights: nothing is folded, nothing is centred.

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
        If the folder lacks a file, or its weights are truncated or do not fit its configuration.
    """
    return _bridge(_read(Path(folder)))


def load_components(folder: str | Path, length: int) -> tuple[TransformerBridge, Components]:
    """Load a checkpoint for the ablation engine, by the fastest implementation that is right.

    Where there is one for the architecture, it is compared with the bridge on a few tokens, and given up (with a
    line on standard error) if any output differs by more than `TOLERANCE` of the largest one.

    Parameters
    ----------
    folder
        As in `load`.
    length
        Number of positions T of the prompts.

    Returns
    -------
    tuple of TransformerBridge and Components
        The model, and the same model as functions on residual streams.

    Raises
    ------
    PhasegraphError
        As in `load`, or if the architecture's node outputs do not add up to its residual stream, so that taking one
        away would not mean what it says.
    """
    model = _read(Path(folder))
    with torch.inference_mode():
        fast = neox_components(model, length) if model.config.model_type == "gpt_neox" else None
        bridge = _bridge(model)
        components = bridge_components(bridge, length)
        _check_sum(folder, bridge, components, length)
        if fast is not None:
            gap = _largest_difference(components, fast, length, model.config.vocab_size)
            if gap <= TOLERANCE:
                return bridge, fast
            print(f"{folder}: the fast path is off by {gap:.1e}, using the bridge's own modules", file=sys.stderr)
    return bridge, components


def _read(folder: Path) -> PreTrainedModel:
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


def _check_sum(folder: str | Path, bridge: TransformerBridge, components: Components, length: int) -> None:
    """Refuse a model whose embedding and node outputs do not add up to the residual stream that it really computes."""
    tokens = _some_tokens(length, bridge.cfg.d_vocab)
    final: list[Tensor] = []
    bridge.run_with_hooks(tokens, fwd_hooks=[("ln_final.hook_in", lambda x, hook: final.append(x))], return_type=None)
    x = components.embed(tokens)
    for layer in range(components.n_layers):
        middle = x + components.project(layer, components.attention(layer, x))
        x = middle + components.mlp(layer, x if components.parallel else middle)
    if not final[0].isfinite().all():
        raise PhasegraphError(f"{folder}: its outputs are not finite; take this step out of the series")
    gap = float((x - final[0]).abs().max() / final[0].abs().max())
    if not gap <= TOLERANCE:  # also if it is not a number
        architecture = bridge.cfg.architecture
        raise PhasegraphError(
            f"{architecture} is not supported: its node outputs miss the residual stream by {gap:.1e}; "
            "take a model of another architecture"
        )


def _some_tokens(length: int, vocabulary: int) -> Tensor:
    return (torch.arange(2 * length) * 7919 % vocabulary).view(2, length)


def _largest_difference(one: Components, other: Components, length: int, vocabulary: int) -> float:
    """Largest difference between two implementations over all node outputs, relative to the largest output."""
    x, gap = one.embed(_some_tokens(length, vocabulary)), 0.0
    for layer in range(one.n_layers):
        z, mlp = one.both(layer, x)
        for expected, found in zip((z, mlp), other.both(layer, x), strict=True):
            gap = max(gap, float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-30)))
        x = x + one.project(layer, z) + mlp
    return gap


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
