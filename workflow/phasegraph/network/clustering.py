"""How strongly the triangles of the graph are wired, by the place that a node has in them.

A directed acyclic graph has one kind of triangle, the feed-forward loop u -> w -> v with u -> v, and three places in
it: the source u, the middleman w, the target v. Fagiolo's other type is a cycle and does not exist here.
"""

import numpy as np

SCALE = 2.0
"""Weight that counts as 1. Fixed, since dividing by the largest weight would make every value depend on one edge; 2 is
the largest possible 1 - cosine."""
PLACES = ("out", "middleman", "in")
"""Names of the three places: both edges of the node lead out, one in and one out, both in."""


def triangles(weights: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean intensity of the possible triangles of every node, by its place in them.

    Parameters
    ----------
    weights
        float [B, N, N], >= 0, 0 outside the mask.
    mask
        bool [N, N], a strict partial order.

    Returns
    -------
    ndarray
        float [B, 3, N], in the order of `PLACES`: mean over the triangles that the mask allows of the geometric mean of
        their three weights, divided by `SCALE`; NaN for a node without one.

    Notes
    -----
    Intensities of Onnela et al., PRE 71 (2005); types of Fagiolo, PRE 76 (2007). His denominators also count pairs of
    neighbours that the mask does not let be connected, as of one layer.
    """
    roots = np.cbrt(weights / SCALE)
    possible = _by_place(mask[None].astype(weights.dtype))
    with np.errstate(invalid="ignore"):
        return _by_place(roots) / np.where(possible > 0, possible, np.nan)


def _by_place(matrices: np.ndarray) -> np.ndarray:
    """Sum over triangles of the product of their three entries, for matrices [B, N, N]: [B, 3, N]."""
    closed = (matrices @ matrices) * matrices  # [B, N, N], over the middlemen of a source and a target
    shared = (matrices @ matrices.swapaxes(-1, -2)) * matrices  # over the targets of a source and a middleman
    return np.stack([closed.sum(-1), shared.sum(-2), closed.sum(-2)], axis=-2)
