"""Random tokens repeated once: only a model that looks back at the first copy can predict the second."""

from dataclasses import dataclass

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.groups import group_of


@dataclass(frozen=True)
class Task:
    """Prompts of one length, the same at every checkpoint."""

    tokens: np.ndarray
    """int64 [P, T]."""
    reference: np.ndarray
    """Disjoint prompts of the same kind, for mean outputs, int64 [Q, T]."""
    segment: int
    """Length of the repeated segment."""
    first_position: int
    """Where the segment begins: 1 after a start token, else 0."""


def induction(
    *,
    prompts: int = 128,
    reference: int = 64,
    segment: int = 50,
    seed: int = 0,
    start_token: int | None = 0,
    token_range: tuple[int, int],
) -> Task:
    """Draw repeated random sequences.

    Parameters
    ----------
    prompts
        Number of prompts P, a multiple of the number of groups.
    reference
        Number of reference prompts Q.
    segment
        Length of the segment that is drawn uniformly and then repeated; T = 2 segment (+ 1 with a start token).
    seed
        Seed of the generator; reference prompts come from a stream of their own.
    start_token
        Token id put before the sequence, or None.
    token_range
        First and last-plus-one token id that may be drawn.

    Returns
    -------
    Task

    Raises
    ------
    PhasegraphError
        If the numbers cannot be met; the message names the key of the configuration.
    """
    low, high = token_range
    if high - low < 2:
        raise PhasegraphError(f"task.token_range is [{low}, {high}]; it must hold at least two token ids")
    try:
        group_of(prompts)
    except ValueError as error:
        raise PhasegraphError(f"task.prompts: {error}") from error

    def draw(stream: int, number: int) -> np.ndarray:
        half = np.random.default_rng([seed, stream]).integers(low, high, size=(number, segment))
        start = [] if start_token is None else [np.full((number, 1), start_token)]
        return np.concatenate([*start, half, half], axis=1)  # [number, T]

    return Task(draw(0, prompts), draw(1, reference), segment, first_position=int(start_token is not None))
