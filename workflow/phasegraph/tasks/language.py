"""Sequences with statistics of language: few frequent tokens and many rare ones, and pairs that can be predicted.

Frequencies follow Zipf's law in the order of the ids, roughly as in byte-pair vocabularies, whose ids, after those of
single bytes, go from frequent to rare: the r-th of V tokens has a frequency proportional to 1 / r (Zipf, Human Behavior
and the Principle of Least Effort, 1949). A sequence is a Markov chain of first order, and every place of it has exactly
these frequencies.

The chain: lay the tokens side by side on [0, 1), each as long as its frequency, cut each into `PIECES` equal pieces,
and lay all pieces out again in a random order. Then every point of [0, 1) has moved, and lengths are what they were.
What follows a token is found by drawing a point on it at random: the token that lies where this point went. The point
is uniform on [0, 1), and so is the place where it went; hence the next token has the same frequencies. A rare token
thus has about `PIECES` successors and a frequent one more, as function words do, but of all V^2 pairs at most
(PIECES + 1) V are likely. With probability 1 - `LIKELY` the next token does not depend on the one before.
"""

from functools import cache

import numpy as np

LIKELY = 0.75
"""Probability that a token is one of the likely successors of the token before."""
PIECES = 4
"""Pieces of every token: the likely successors, or runs of successors with neighbouring ids."""
ORDER_SEED = 0
"""Seed of the order of the pieces. It is the language, and the same for all seeds of prompts."""


def frequencies(vocabulary: int) -> np.ndarray:
    """Frequencies of V tokens by Zipf's law, float64 [V], falling."""
    weights = 1 / np.arange(1, vocabulary + 1)
    return weights / weights.sum()


def sequences(
    rng: np.random.Generator, number: int, length: int, vocabulary: int, other: np.ndarray | None = None
) -> np.ndarray:
    """Draw sequences of the chain.

    Parameters
    ----------
    rng
        Source of the draws.
    number, length
        Size of the result.
    vocabulary
        Number of tokens V, at least 2.
    other
        int [number, length]. If given, the result differs from it at every place: where a token is the same, it is
        drawn again, given the token before.

    Returns
    -------
    ndarray
        int64 [number, length]: 0 is the most frequent token, V - 1 the rarest.
    """
    drawn = np.empty((number, length), dtype=np.int64)
    for place in range(length):
        before = drawn[:, place - 1] if place else None
        drawn[:, place] = _next(rng, before, number, vocabulary)
        while other is not None and (same := drawn[:, place] == other[:, place]).any():
            drawn[same, place] = _next(rng, None if before is None else before[same], int(same.sum()), vocabulary)
    return drawn


def piece_starts(vocabulary: int) -> np.ndarray:
    """Where the pieces of each token begin after all were laid out again, float64 [V, PIECES]."""
    lengths = np.repeat(frequencies(vocabulary) / PIECES, PIECES)
    order = np.random.default_rng(ORDER_SEED).permutation(len(lengths))
    starts = np.empty_like(lengths)
    starts[order] = np.append(0, lengths[order].cumsum()[:-1])
    return starts.reshape(vocabulary, PIECES)


def _next(rng: np.random.Generator, before: np.ndarray | None, number: int, vocabulary: int) -> np.ndarray:
    """Draw the tokens that follow `before`, int64 [number], or first tokens if it is None."""
    point = rng.random(number)
    if before is not None:
        depends = rng.random(number) < LIKELY
        at = point * PIECES  # on the token before: the number of the piece, and how far along it
        piece = at.astype(np.int64)
        moved = _starts(vocabulary)[before, piece] + (at - piece) * frequencies(vocabulary)[before] / PIECES
        point = np.where(depends, moved, point)
    ends = frequencies(vocabulary).cumsum()
    return np.minimum(np.searchsorted(ends, point, side="right"), vocabulary - 1)  # the last end may be rounded down


_starts = cache(piece_starts)
