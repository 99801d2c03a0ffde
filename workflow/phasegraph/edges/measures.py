"""From changed outputs to edge weights, by sums that add up over positions and prompts.

With y the clean output of a target, y' its output under the ablation and mu its mean over the reference set:

    S = sum |y' - y|^2     A = sum |y' - mu|^2     V = sum |y - mu|^2

- ``variance``: S / 2V, the share of the target's input-dependent signal that depends on the source; about 1 - cos for
  small effects, above 1 for a disruption. Undefined (NaN) where V = 0.
- ``centred-cosine``: [S - (sqrt A - sqrt V)^2] / (2 sqrt(A V)), that is 1 - the pooled cosine of the centred outputs.
- ``cosine``: mean over positions of 1 - cos(y', y), uncentred (arXiv 2509.15269).
- ``l2``: mean over positions of |y' - y| / |y|; an output that appears where there was none has changed by 1.
"""

import numpy as np
import torch
from torch import Tensor

from phasegraph.groups import leave_one_out
from phasegraph.types import GROUPS, Measure

ROUNDING = 1e-6
"""An output that differs from its mean by less than this share of the mean's length is taken as constant."""


def position_terms(measure: Measure, ablated: Tensor, clean: Tensor, mean: Tensor) -> Tensor:
    """Reduce changed outputs to what a measure adds up, position by position.

    Parameters
    ----------
    measure
        Which measure.
    ablated
        Outputs under the ablations, [R, B, T, ..., F]: rows, prompts, positions, any targets, features.
    clean
        Clean outputs, [B, T, ..., F].
    mean
        Mean outputs over the reference set, float32 [..., F].

    Returns
    -------
    Tensor of float32, shape [K, R, B, T, ...]
        K = 2 for ``centred-cosine`` (S and A), else 1.
    """
    ablated, clean = ablated.float(), clean.float()
    size = _square(ablated - clean)  # [R, B, T, ...]
    if measure is Measure.VARIANCE:
        return size[None]
    if measure is Measure.CENTRED_COSINE:
        return torch.stack([size, _square(ablated - mean)])
    before = _square(clean)  # [B, T, ...]
    if measure is Measure.L2:
        return torch.where((before == 0) & (size > 0), 1.0, _ratio(size.sqrt(), before.sqrt()))[None]
    after = _square(ablated)
    # 1 - cos by the difference of the vectors: 1 - (y'.y)/|y'||y| would lose all digits of a small effect.
    gap = size - (after.sqrt() - before.sqrt()).square()
    cosine = _ratio(gap, 2 * (after * before).sqrt())
    one_is_zero = (after == 0) ^ (before == 0)
    return torch.where(one_is_zero, 1.0, cosine).clamp(min=0)[None]


def terms_of(measure: Measure) -> int:
    """Count the sums K that a measure needs."""
    return 2 if measure is Measure.CENTRED_COSINE else 1


def variance_terms(clean: Tensor, mean: Tensor) -> Tensor:
    """Give V by position: [B, T, ..., F] -> [B, T, ...]; 0 where an output is its mean up to rounding."""
    signal = _square(clean.float() - mean)
    return torch.where(signal > ROUNDING**2 * _square(mean), signal, 0.0)


def weights(measure: Measure, sums: np.ndarray, variance: np.ndarray, positions: int) -> np.ndarray:
    """Turn sums by prompt group into the estimate and its leave-one-group-out replicates.

    Parameters
    ----------
    measure
        Which measure.
    sums
        Sums by group, float64 [K, GROUPS, N, N], row = source, column = target.
    variance
        V by group and target, float64 [GROUPS, N].
    positions
        Number of measured positions in one group.

    Returns
    -------
    ndarray of float64, shape [GROUPS + 1, N, N]
        Index 0 from all prompts, index k without group k.
    """
    change = leave_one_out(sums[0])  # [17, N, N]
    variance = leave_one_out(variance)[:, None, :]  # [17, 1, N]
    counts = leave_one_out(np.full(GROUPS, float(positions)))[:, None, None]  # [17, 1, 1]
    if measure in (Measure.COSINE, Measure.L2):
        return change / counts
    with np.errstate(invalid="ignore", divide="ignore"):
        if measure is Measure.VARIANCE:
            return np.where(variance > 0, change / (2 * variance), np.nan)
        after = leave_one_out(sums[1])
        gap = change - (np.sqrt(after) - np.sqrt(variance)) ** 2
        centred = gap / (2 * np.sqrt(after * variance))
        centred = np.where(after > 0, centred, 1.0)  # a target held at its mean has no direction left
        return np.where(variance > 0, np.clip(centred, 0, 2), np.nan)


def _square(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1).square()  # one pass over memory less than x.square().sum(-1)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide, with 0 / 0 = 0: an output that is and stays zero has not changed."""
    safe = torch.where(denominator > 0, denominator, 1.0)
    return torch.where(denominator > 0, numerator / safe, torch.zeros_like(numerator))
