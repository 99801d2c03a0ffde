"""Intervals from the 16 leave-one-group-out replicates."""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit


class Jackknife(NamedTuple):
    """What the delete-group jackknife says; all arrays have the shape of one replicate."""

    estimate: np.ndarray
    """From all groups."""
    corrected: np.ndarray
    """Without the bias of order 1/groups if the statistic is smooth, else the estimate."""
    standard_error: np.ndarray
    low: np.ndarray
    """Lower end of the interval, which lies around `corrected`."""
    high: np.ndarray
    """Upper end."""


def pseudo_values(replicates: np.ndarray) -> np.ndarray:
    """Recover the groups' own values: G t - (G - 1) t_k (Tukey, Ann. Math. Stat. 29, 1958).

    Parameters
    ----------
    replicates
        [G + 1, ...], as of `delete_group`.

    Returns
    -------
    ndarray
        [G, ...]; exact if the statistic is a mean over groups.
    """
    groups = len(replicates) - 1
    return groups * replicates[0] - (groups - 1) * replicates[1:]


def delete_group(replicates: np.ndarray, smooth: bool | np.ndarray = True, level: float = 0.90) -> Jackknife:
    """Delete-a-group jackknife with G groups of equal size (here 16).

    Parameters
    ----------
    replicates
        [G + 1, ...]: the estimate from all groups, then the estimates without group 1..G.
    smooth
        Whether to correct the bias: True for smooth functions of the weights (means, Ginis, efficiency), False for
        those that move in steps (ranks, betweenness). One value or an array that broadcasts against a replicate.
    level
        Coverage of the interval.

    Returns
    -------
    Jackknife
        Where a replicate is NaN everything but the estimate is NaN: a replicate that fails is not missing at random.

    Notes
    -----
    With m the mean of the leave-one-out estimates t_k: corrected = G t - (G - 1) m, variance = (G - 1) / G times the
    sum of (t_k - m)^2, interval = corrected +- t_(G-1) standard errors. Bias: Quenouille, Biometrika 43 (1956);
    variance and interval: Tukey, Ann. Math. Stat. 29 (1958); with groups of observations: Kott, J. Official Statistics
    17 (2001). Exact for means.

    Without `smooth` the interval lies around the estimate: the correction multiplies a jump of one replicate by G - 1
    while there is no bias of order 1/G to be had. On 60 simulated graphs of 30 nodes, nominal 90 % intervals covered
    77-95 % for metrics of weights with the correction (17-95 % without), but for betweenness and agreements of rankings
    18-73 % with it and 73-100 % without.
    """
    groups = len(replicates) - 1
    estimate, left_out = replicates[0], replicates[1:]
    mean = left_out.mean(0)
    standard_error = np.sqrt((groups - 1) / groups * ((left_out - mean) ** 2).sum(0))
    corrected = np.where(smooth, groups * estimate - (groups - 1) * mean, estimate + 0 * mean)  # NaN where mean is
    margin = stdtrit(groups - 1, (1 + level) / 2) * standard_error
    return Jackknife(estimate, corrected, standard_error, corrected - margin, corrected + margin)
