"""Prompt groups: every estimate is made from all prompts and again without each group."""

import numpy as np

from phasegraph.types import GROUPS


def group_of(prompts: int) -> np.ndarray:
    """Group of each prompt: the k-th ``prompts / GROUPS`` prompts form group k.

    Parameters
    ----------
    prompts
        Number of prompts, a multiple of GROUPS.

    Returns
    -------
    ndarray of int64, shape [prompts]

    Raises
    ------
    ValueError
        If the groups would not be of equal size.
    """
    if prompts < GROUPS or prompts % GROUPS:
        raise ValueError(f"{prompts} prompts do not form {GROUPS} groups of equal size")
    return np.arange(prompts) * GROUPS // prompts


def leave_one_out(by_group: np.ndarray) -> np.ndarray:
    """Sum over all groups and over all but one: [GROUPS, ...] -> [GROUPS + 1, ...]."""
    total = by_group.sum(0)
    return np.concatenate([total[None], total - by_group])
