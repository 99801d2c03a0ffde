"""The training data: random repeats, and a class Markov chain whose entropies are known.

A sequence starts with token 0. Of every batch `Recipe.repeat_share` are a uniformly random segment, tiled; only
copying predicts them. The others come from a Markov chain of order 2 over 8 word classes: word i belongs to class
(i - 1) mod 8, and within a class the words follow Zipf's law. Its n-gram entropies are the loss levels that a model
without copying can reach.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from phasegraph.series.recipe import Recipe

CLASSES = 8
CURRENT_WEIGHT = 2.5
"""Standard deviation of the next class's logits over the current class."""
PREVIOUS_WEIGHT = 1.5
"""The same, over the class before."""
ZIPF = 0.7
"""Exponent of the frequencies inside a class."""


class Chain(NamedTuple):
    """The background language."""

    transition: np.ndarray
    """float64 [classes, classes, classes]: P(next class | previous class, current class)."""
    stationary: np.ndarray
    """float64 [classes, classes]: P(previous class, current class) in the long run."""
    words: np.ndarray
    """float64 [classes, vocab]: P(token | class)."""


class Entropies(NamedTuple):
    """Conditional entropies of the next token, in nats."""

    unigram: float
    """Nothing before it is known."""
    bigram: float
    """The current token is known."""
    trigram: float
    """The current token and the one before are known; for this chain, all that helps."""


@cache
def chain(lang_seed: int, vocab: int) -> Chain:
    """Draw the background language that `lang_seed` names.

    The logits of the next class are ``2.5 A[current] + 1.5 B[previous]`` with standard normal A and B.
    """
    rng = np.random.default_rng(lang_seed)
    current = CURRENT_WEIGHT * rng.normal(size=(CLASSES, CLASSES))
    previous = PREVIOUS_WEIGHT * rng.normal(size=(CLASSES, CLASSES))
    weights = np.exp(previous[:, None, :] + current[None, :, :])  # [previous, current, next]
    transition = weights / weights.sum(-1, keepdims=True)
    return Chain(transition, _stationary(transition), _words(vocab))


def entropies(language: Chain) -> Entropies:
    """Entropies of the language, from its tables.

    A word tells its class and the words are independent given the classes, so each entropy is that of the classes
    plus the mean entropy inside a class.
    """
    pair = language.stationary
    single = pair.sum(0)
    inside = single @ _entropy(language.words)
    classes = (
        _entropy(single),
        pair.sum(1) @ _entropy(pair / pair.sum(1, keepdims=True)),
        np.sum(pair * _entropy(language.transition)),
    )
    return Entropies(*(float(entropy + inside) for entropy in classes))


def batch(recipe: Recipe, step: int) -> np.ndarray:
    """Make the batch of one optimiser step, from the recipe and the step's number alone.

    Parameters
    ----------
    recipe
        Sizes, shares and seeds.
    step
        Number of the update, from 1 on.

    Returns
    -------
    numpy.ndarray
        int64 [batch, length]: first the repeats, then the background.
    """
    rng = np.random.default_rng([recipe.seed, step])
    repeats = round(recipe.batch * recipe.repeat_share)
    tokens = np.zeros((recipe.batch, recipe.length), dtype=np.int64)
    tokens[:repeats, 1:] = _repeats(rng, recipe, repeats)
    tokens[repeats:, 1:] = background(
        rng, chain(recipe.lang_seed, recipe.vocab), recipe.batch - repeats, recipe.length - 1
    )
    return tokens


def background(rng: np.random.Generator, language: Chain, sequences: int, length: int) -> np.ndarray:
    """Sample sequences of the background language, from its stationary distribution on.

    Returns
    -------
    numpy.ndarray
        int64 [sequences, length], without the start token.
    """
    classes = np.empty((sequences, length + 1), dtype=np.int64)
    first = _draw(rng.random(sequences), language.stationary.ravel()[None, :])
    classes[:, 0], classes[:, 1] = np.divmod(first, CLASSES)
    uniform = rng.random((length - 1, sequences))
    for place in range(2, length + 1):
        given = language.transition[classes[:, place - 2], classes[:, place - 1]]  # [sequences, classes]
        classes[:, place] = _draw(uniform[place - 2], given)
    drawn = classes[:, 1:].ravel()
    return _draw(rng.random(drawn.size), language.words[drawn]).reshape(sequences, length)


def _repeats(rng: np.random.Generator, recipe: Recipe, sequences: int) -> np.ndarray:
    segment = rng.integers(1, recipe.vocab, size=(sequences, recipe.period_max))
    period = rng.integers(recipe.period_min, recipe.period_max + 1, size=(sequences, 1))
    return np.take_along_axis(segment, np.arange(recipe.length - 1) % period, axis=1)  # [sequences, length - 1]


def _draw(uniform: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """One draw per row of probabilities, by inversion."""
    cumulative = probabilities.cumsum(-1)
    # Scaling by the last sum keeps rounding from ever giving an outcome beyond the last one that is possible.
    return (uniform[:, None] * cumulative[:, -1:] >= cumulative).sum(-1)


def _words(vocab: int) -> np.ndarray:
    word = np.arange(1, vocab)
    table = np.zeros((CLASSES, vocab))
    table[(word - 1) % CLASSES, word] = ((word - 1) // CLASSES + 1.0) ** -ZIPF
    return table / table.sum(1, keepdims=True)


def _stationary(transition: np.ndarray) -> np.ndarray:
    """Long-run distribution of pairs of classes: the left eigenvector of the pair chain to eigenvalue 1."""
    pairs = np.zeros((CLASSES, CLASSES, CLASSES, CLASSES))  # from (previous, current) to (current, next)
    for current in range(CLASSES):
        pairs[:, current, current, :] = transition[:, current, :]
    matrix = pairs.reshape(CLASSES**2, CLASSES**2).T - np.eye(CLASSES**2)
    system = np.vstack([matrix, np.ones(CLASSES**2)])
    target = np.append(np.zeros(CLASSES**2), 1.0)
    return np.linalg.lstsq(system, target)[0].reshape(CLASSES, CLASSES)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return -(probabilities * logs).sum(-1)
