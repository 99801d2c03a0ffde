"""The compiled programs that `compile_programs.py` has stored, as `Components`: their wiring is known exactly."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from phasegraph.model.components import Components

NAMES = ("reverse", "induction")


@dataclass(frozen=True)
class Program:
    """A compiled program and all that is known of it."""

    name: str
    """One of `NAMES`."""
    components: Components
    """The Transformer: sequential blocks, no layer norm, ReLU, no biases."""
    nodes: list[str]
    """Names of the nodes, from ``embed`` to ``logits``."""
    wiring: np.ndarray
    """Which node reads what which node writes, bool [N, N], row = source, column = target."""
    wiring_qkv: np.ndarray
    """The same by the input through which a head reads: query, key, value, bool [3, N, N]."""
    inputs: np.ndarray
    """Token ids after a start token, int64 [E, T]."""
    outputs: np.ndarray
    """What the program is to give for each input, int64 [E, T]; -1 where it gives nothing."""
    streams: np.ndarray
    """The last residual stream of the first few inputs, as tracr computes it, float32 [., T, D]."""


def program(name: str) -> Program:
    """Load a stored program.

    Parameters
    ----------
    name
        One of `NAMES`.
    """
    with np.load(Path(__file__).with_name(f"{name}.npz"), allow_pickle=False) as arrays:
        stored = dict(arrays)
    known = {key: stored[key] for key in ("wiring", "wiring_qkv", "inputs", "outputs", "streams")}
    return Program(name=name, components=_components(stored), nodes=stored["nodes"].tolist(), **known)


def _components(stored: dict[str, np.ndarray]) -> Components:
    """Compute as tracr does; every head of a layer that a program leaves out has weights of zero."""
    tokens, places, w_q, w_k, w_v, w_o, mlp_in, mlp_out, unembedding = (
        torch.from_numpy(stored[part])
        for part in (
            *("token_embedding", "position_embedding", "query", "key", "value", "output"),
            *("mlp_in", "mlp_out", "unembedding"),
        )
    )
    n_layers, n_heads, _, d_head = w_q.shape
    length = stored["inputs"].shape[1]
    masked = torch.zeros(length, length)
    if stored["causal"]:
        masked = torch.full((length, length), -torch.inf).triu(1)  # [T, T]

    def qkv(layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(torch.einsum("rtd,hde->rthe", x, weight[layer]) for weight in (w_q, w_k, w_v))

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("rqhe,rkhe->rhqk", q, k) / d_head**0.5 + masked
        return torch.einsum("rhqk,rkhe->rqhe", scores.softmax(-1), v)  # [R, T, H, d_head]

    def attention(layer: int, x: Tensor) -> Tensor:
        return attend(layer, *qkv(layer, x))

    def mlp(layer: int, x: Tensor) -> Tensor:
        return (x @ mlp_in[layer]).relu() @ mlp_out[layer]

    return Components(
        n_layers=n_layers,
        n_heads=n_heads,
        parallel=False,
        embed=lambda ids: tokens[ids] + places[: ids.shape[1]],
        attention=attention,
        qkv=qkv,
        attend=attend,
        project=lambda layer, z: torch.einsum("rthe,hed->rtd", z, w_o[layer]),
        mlp=mlp,
        both=lambda layer, x: (attention(layer, x), mlp(layer, x)),
        head_weights=list(w_o),
        final=lambda x: x,
        unembedding=unembedding,
        unembedding_bias=None,
    )
