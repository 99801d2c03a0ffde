"""Null models: graphs that share something with a given one, and are random otherwise.

Both keep every weight on an edge that the architecture allows, between the same two classes of nodes (layer and kind):

- ``block``, the layer-block shuffle, permutes the weights within the edges between the same two classes. It keeps what
  position explains, and says whether it matters *which* component does what.
- ``ratio``, the strength-preserving ratio shuffle, does so with the ratios of weights to their expectation from
  strengths (`phasegraph.network.expectation`), and then restores all strengths. It keeps how strong every component is
  on both sides and, nearly, the distribution of the weights, and says whether there is more to the wiring than that.
  Restoring the strengths alone would take out of the ratios what they have in common by row and by column, so that all
  null graphs would be more even than the observed one. So the ratios get their observed values back, in their new
  order, and then the strengths again, a few times, as in surrogates of time series (Schreiber & Schmitz, PRL 77, 1996).

What stands out against the first but not against the second is explained by differences of strength.
"""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from phasegraph.network.expectation import balance, expected_weights

NULLS = ("block", "ratio")
"""Names of the null models."""
ROUGH = 8
"""Rounds of balancing that suffice where only the order of the ratios counts."""
BOUND = 2.0
"""No measure of similarity gives a weight above 2; a null graph may reach it or the largest observed weight."""
ROUNDS = 2
"""How often ratios get their values back. More change z by less than .1 at 30 and at 156 nodes."""
KEPT = 1e-6
"""Null values whose relative standard deviation is not above this are equal but for rounding."""
FEWEST = 19
"""Null values that it takes to say anything: the two-sided p of an extreme one is .1."""


class Blocks:
    """The edges between the same two classes of nodes, made ready to be permuted.

    Attributes
    ----------
    tails, heads
        int [E], the ends of every possible edge.
    """

    def __init__(self, mask: np.ndarray, classes: np.ndarray) -> None:
        self.tails, self.heads = np.nonzero(mask)
        block = classes[self.tails] * (classes.max(initial=0) + 1) + classes[self.heads]
        order = np.argsort(block, kind="stable")
        _, starts, sizes = np.unique(block[order], return_index=True, return_counts=True)
        # Blocks of one size are permuted at once: there are a few sizes, but hundreds of blocks.
        self._members = [order[starts[sizes == size, None] + np.arange(size)] for size in np.unique(sizes)]

    def permuted(self, values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Permute values [E] within their blocks, [draws, E]; however many at a time, the same ones."""
        return self.ordered(values, rng.random((draws, len(values))))

    def ordered(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Arrange values [E] within their blocks in the order of keys [D, E]: the least where the least key is."""
        result = np.empty(keys.shape, dtype=values.dtype)
        for members in self._members:  # [blocks, size]
            ascending = np.sort(values[members], axis=-1)
            order = keys[:, members].argsort(-1)  # [D, blocks, size]
            sources = np.broadcast_to(members, order.shape)
            result[np.arange(len(keys))[:, None, None], np.take_along_axis(sources, order, -1)] = ascending
        return result


def shuffle_blocks(
    weights: np.ndarray, mask: np.ndarray, blocks: Blocks, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw graphs of the layer-block shuffle.

    Parameters
    ----------
    weights
        float64 [N, N], 0 outside the mask.
    mask
        bool [N, N], the possible edges.
    blocks
        Of the same mask.
    draws
        Number of graphs D.
    rng
        Source of randomness.

    Returns
    -------
    ndarray
        float64 [D, N, N].
    """
    return _filled(blocks.permuted(weights[blocks.tails, blocks.heads], draws, rng), mask, blocks)


def shuffle_ratio(
    weights: np.ndarray,
    mask: np.ndarray,
    blocks: Blocks,
    draws: int,
    rng: np.random.Generator,
    expected: np.ndarray | None = None,
) -> np.ndarray:
    """Draw graphs of the strength-preserving ratio shuffle.

    Parameters
    ----------
    weights, mask, draws, rng
        As of `shuffle_blocks`.
    blocks
        Of the same mask, or of the edges of it that are expected to have a weight.
    expected
        float64 [N, N], of `expected_weights` if that is known.

    Returns
    -------
    ndarray
        float64 [<= D, N, N], with the strengths of `weights`. Draws whose strengths cannot be restored, because zeros
        came to lie in the wrong places, are left out. Weights above `BOUND` and above all observed ones are lowered to
        that, at the cost of the strengths at their ends.
    """
    expected = expected_weights(weights, mask) if expected is None else expected
    scale = expected[blocks.tails, blocks.heads]  # [E]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(scale > 0, weights[blocks.tails, blocks.heads] / scale, 0)
    scale = np.nan_to_num(scale)
    drawn = blocks.permuted(ratios, draws, rng)  # [D, E]
    for _ in range(ROUNDS):
        balanced, _ = balance(_filled(drawn * scale, mask, blocks), weights.sum(1), weights.sum(0), ROUGH)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = blocks.ordered(ratios, balanced[:, blocks.tails, blocks.heads] / scale)
    balanced, found = balance(_filled(drawn * scale, mask, blocks), weights.sum(1), weights.sum(0))
    return np.minimum(balanced[found], max(BOUND, weights.max(initial=0)))


def draw(
    null: str, weights: np.ndarray, mask: np.ndarray, classes: np.ndarray, draws: int, seed: list[int]
) -> Iterator[np.ndarray]:
    """Draw null graphs, as many at a time as fit into a cache; the first of many are those of few.

    Parameters
    ----------
    null
        Name of the null model.
    weights, mask
        The graph, [N, N].
    classes
        int [N], of `phasegraph.network.scores.classes`.
    draws
        Number of graphs.
    seed
        Seeds of the generator.

    Yields
    ------
    ndarray
        float64 [b, N, N]. How many at a time changes weights of the ratio shuffle by less than a millionth, if any.
    """
    if not draws:
        return
    expected = expected_weights(weights, mask) if null == "ratio" else None
    # An edge at a node of strength 0 has weight 0 in all graphs of these strengths, and takes part in no permutation.
    blocks = Blocks(mask if expected is None else mask & (expected > 0), classes)
    rng = np.random.default_rng([NULLS.index(null), *seed])
    at_once = max(8, 2**18 // max(len(mask), 1) ** 2)
    for first in range(0, draws, at_once):
        count = min(at_once, draws - first)
        if null == "block":
            yield shuffle_blocks(weights, mask, blocks, count, rng)
        else:
            yield shuffle_ratio(weights, mask, blocks, count, rng, expected)


class Comparison(NamedTuple):
    """Where an observed value stands among those of null graphs; all arrays have the shape of the value."""

    mean: np.ndarray
    standard_deviation: np.ndarray
    low: np.ndarray
    """5th percentile of the null values."""
    high: np.ndarray
    """95th percentile."""
    z: np.ndarray
    """(value - mean) / standard deviation; means what it seems to only as far as the null values are normal."""
    p: np.ndarray
    """Two-sided rank probability, at least 2 / (draws + 1)."""
    draws: np.ndarray
    """Number of null values."""


def compare(observed: np.ndarray, drawn: np.ndarray) -> Comparison:
    """Set observed values beside those of null graphs.

    Parameters
    ----------
    observed
        [m].
    drawn
        [D, m]; NaN where a null graph has no value.

    Returns
    -------
    Comparison
        NaN, but for ``draws``, of fewer than `FEWEST` values. Of a value that the null model keeps (all of `drawn` are
        equal, within `KEPT`) there is no z and no p: NaN.

    Notes
    -----
    With r the number of null values at least (or at most) as large, p = 2 min (r + 1) / (D + 1), at most 1 (Davison &
    Hinkley, Bootstrap Methods and Their Application, 1997, section 4.2). A z near 3 has a standard deviation of .54,
    .24 and .07 for 19, 99 and 999 draws.
    """
    draws = np.isfinite(drawn).sum(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of metrics that have no value in any graph
        mean, deviation = np.nanmean(drawn, 0), np.nanstd(drawn, 0, ddof=1)
        low, high = np.nanquantile(drawn, (0.05, 0.95), axis=0)
        above, below = (drawn >= observed).sum(0), (drawn <= observed).sum(0)
        p = np.minimum(1, 2 * (np.minimum(above, below) + 1) / (draws + 1))
        kept = ~(deviation > KEPT * np.abs(mean))
        z = np.where(kept, np.nan, (observed - mean) / deviation)
    p = np.where(kept | np.isnan(observed), np.nan, p)
    few = draws < FEWEST
    values = (np.where(few, np.nan, value) for value in (mean, deviation, low, high, z, p))
    return Comparison(*values, draws)


def _filled(values: np.ndarray, mask: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Matrices [D, N, N] of the values [D, E] of the possible edges."""
    matrices = np.zeros((len(values), *mask.shape))
    matrices[:, blocks.tails, blocks.heads] = values
    return matrices
