"""From changed outputs to edge weights, by sums that add up over positions and prompts.

With y the clean output of a target, y' its output under the ablation and mu its mean over the reference set:

    S = sum |y' - y|^2     A = sum |y' - mu|^2     V = sum |y - mu|^2

- ``variance``: S / 2V, the share of the target's input-dependent signal that depends on the source; about 1 - cos for
  small effects, above 1 for a disruption. Undefined (NaN) where V = 0.
- ``centred-cosine``: [S - (sqrt A - sqrt V)^2] / (2 sqrt(A V)), that is 1 - the pooled cosine of the centred outputs.
- ``cosine``: mean over positions of 1 - cos(y', y), uncentred (arXiv 2509.15269).
- ``l2``: mean over positions of |y' - y| / |y|.
"""

import numpy as np
import torch
from torch import Tensor

from phasegraph.groups import leave_one_out
from phasegraph.types import GROUPS, Measure


def position_sums(measure: Measure, ablated: Tensor, clean: Tensor, mean: Tensor) -> Tensor:
    """Reduce changed outputs to the sums that a measure needs.

    Parameters
    ----------
    measure
        Which measure.
    ablated
        Outputs under the ablations, [R, B, T, ..., F]: rows, prompts, positions, any targets, features.
    clean
        Clean outputs, [B, T, ..., F].
    mean
        Mean outputs over the reference set, [..., F].

    Returns
    -------
    Tensor, shape [R, B, ..., K]
        Sums over positions, K = 2 for ``centred-cosine`` (S and A), else 1.
    """
    change = ablated - clean
    if measure is Measure.VARIANCE:
        return change.square().sum((2, -1))[..., None]
    if measure is Measure.CENTRED_COSINE:
        return torch.stack([change.square().sum((2, -1)), (ablated - mean).square().sum((2, -1))], dim=-1)
    size = change.square().sum(-1)  # [R, B, T, ...]
    before = clean.square().sum(-1)  # [B, T, ...]
    if measure is Measure.L2:
        return _ratio(size.sqrt(), before.sqrt()).sum(2)[..., None]
    after = ablated.square().sum(-1)
    # 1 - cos by the difference of the vectors: 1 - (y'.y)/|y'||y| would lose all digits of a small effect.
    gap = size - (after.sqrt() - before.sqrt()).square()
    cosine = _ratio(gap, 2 * (after * before).sqrt())
    one_is_zero = (after == 0) ^ (before == 0)
    return torch.where(one_is_zero, 1.0, cosine).clamp(min=0).sum(2)[..., None]


def variance_sums(clean: Tensor, mean: Tensor) -> Tensor:
    """V by prompt: [B, T, ..., F] -> [B, ...]."""
    return (clean - mean).square().sum((1, -1))


def weights(measure: Measure, sums: np.ndarray, variance: np.ndarray, positions: int) -> np.ndarray:
    """Turn sums by prompt group into the estimate and its leave-one-group-out replicates.

    Parameters
    ----------
    measure
        Which measure.
    sums
        Sums by group, float64 [GROUPS, N, N, K], row = source, column = target.
    variance
        V by group and target, float64 [GROUPS, N].
    positions
        Number of measured positions in one group.

    Returns
    -------
    ndarray of float64, shape [GROUPS + 1, N, N]
        Index 0 from all prompts, index k without group k.
    """
    sums, variance = leave_one_out(sums), leave_one_out(variance)[:, None, :]  # [17, N, N, K], [17, 1, N]
    counts = leave_one_out(np.full(GROUPS, float(positions)))[:, None, None]  # [17, 1, 1]
    if measure in (Measure.COSINE, Measure.L2):
        return sums[..., 0] / counts
    with np.errstate(invalid="ignore", divide="ignore"):
        if measure is Measure.VARIANCE:
            return np.where(variance > 0, sums[..., 0] / (2 * variance), np.nan)
        change, after = sums[..., 0], sums[..., 1]
        gap = change - (np.sqrt(after) - np.sqrt(variance)) ** 2
        centred = gap / (2 * np.sqrt(after * variance))
        centred = np.where(after > 0, centred, 1.0)  # a target held at its mean has no direction left
        return np.where(variance > 0, np.clip(centred, 0, 2), np.nan)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide, with 0 / 0 = 0: an output that is and stays zero has not changed."""
    safe = torch.where(denominator > 0, denominator, 1.0)
    return torch.where(denominator > 0, numerator / safe, torch.zeros_like(numerator))
