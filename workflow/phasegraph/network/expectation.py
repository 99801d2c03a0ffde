"""What the weights would be if only position and strengths mattered: the maximum-entropy expectation on a mask.

Ordinary directed modularity and its like expect an edge between any two nodes. Of a Transformer's graph half of those
are impossible, so that communities and assortativity against that expectation are little but layers. Here the mass lies
on the possible edges only (the dense, weighted form of the random directed acyclic graphs of Karrer & Newman, PRL 102,
2009).
"""

import numpy as np

TOLERANCE = 1e-9
"""Largest relative error of a strength, of the larger of the strength itself and the mean strength of that side."""
ITERATIONS = 1000
"""Rounds after which balancing gives up."""


def expected_weights(weights: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Give the weights of largest entropy with these strengths on these edges, ``E_ij = a_i b_j M_ij``.

    Parameters
    ----------
    weights
        [..., N, N], >= 0, 0 outside the mask.
    mask
        bool [N, N], the possible edges.

    Returns
    -------
    ndarray
        float64 [..., N, N], with the out- and in-strengths of `weights`; NaN throughout where `balance` fails.
    """
    kernels = np.broadcast_to(mask.astype(np.float64), weights.shape)
    balanced, found = balance(kernels, weights.sum(-1), weights.sum(-2))
    return np.where(found[..., None, None], balanced, np.nan)


def balance(
    kernels: np.ndarray, out: np.ndarray, into: np.ndarray, iterations: int = ITERATIONS
) -> tuple[np.ndarray, np.ndarray]:
    """Scale rows and columns until they have given sums: iterative proportional fitting.

    Parameters
    ----------
    kernels
        [..., N, N], >= 0.
    out, into
        [..., N], sums that the rows and the columns shall have; the sum over both is the same.
    iterations
        Rounds after which to give up.

    Returns
    -------
    balanced : ndarray
        float64 [..., N, N]: ``a_i K_ij b_j``.
    found : ndarray
        bool [...]: whether all sums are met within `TOLERANCE`. They cannot be if a kernel has zeros in the wrong
        places.

    Notes
    -----
    Deming & Stephan, Ann. Math. Stat. 11 (1940); also Sinkhorn, Ann. Math. Stat. 35 (1964).
    """
    scale = np.maximum(out, out.mean(-1, keepdims=True))
    rows, columns = np.zeros_like(out), np.ones_like(into)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for _ in range(iterations):
            reached = _times(kernels, columns)  # [..., N]
            found = (np.abs(rows * reached - out) <= TOLERANCE * scale).all(-1)
            if found.all():
                break
            rows = np.where(out > 0, out / reached, 0)
            columns = np.where(into > 0, into / _times(kernels.swapaxes(-1, -2), rows), 0)
        return rows[..., None] * kernels * columns[..., None, :], found


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Multiply every matrix [..., N, N] with its vector [..., N]; one matrix for all (stride 0) is one product."""
    if vectors.ndim == 2 and matrices.strides[0] == 0:
        return vectors @ matrices[0].T
    return (matrices @ vectors[..., None])[..., 0]
