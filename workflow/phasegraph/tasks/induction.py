"""Random tokens repeated once: only a model that looks back at the first copy can predict the second."""

from dataclasses import dataclass

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.groups import group_of


@dataclass(frozen=True)
class Task:
    """Prompts of one length, the same at every checkpoint, and what is asked of them."""

    tokens: np.ndarray
    """int64 [P, T]."""
    reference: np.ndarray
    """Disjoint prompts of the same kind, for mean outputs, int64 [Q, T]."""
    corrupted: np.ndarray
    """Each prompt's partner for the intervention `resample`, int64 [P, T]."""
    segment: int
    """Length of the repeated segment."""
    first_position: int
    """First position whose outputs are measured: 1 after a start token, else 0."""
    positions: dict[str, slice]
    """Position groups by name."""
    answer_positions: np.ndarray
    """Positions whose logits are the answer, int64 [A]."""
    right: np.ndarray
    """The right token at every answer position, int64 [P, A]."""
    wrong: np.ndarray
    """The token that it is compared with, int64 [P, A]."""


def induction(
    *,
    prompts: int = 128,
    reference: int = 64,
    segment: int = 50,
    seed: int = 0,
    start_token: int | None = 0,
    token_range: tuple[int, int],
    answers: int = 1,
) -> Task:
    """Draw repeated random sequences.

    A prompt's corrupted partner has another first copy, which differs at every place; so its second copy repeats
    nothing. The answer is the last token or the last few of the second copy, compared with the tokens that stand in
    the corrupted first copy in the same places.

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
    answers
        Number of answer positions A: the last A tokens of the second copy are predicted.

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

    if not 1 <= answers < segment:
        raise PhasegraphError(
            f"task.answers is {answers}; it must be at least 1 and less than task.segment ({segment})"
        )
    start = int(start_token is not None)

    def draw(stream: int, number: int) -> np.ndarray:
        half = np.random.default_rng([seed, stream]).integers(low, high, size=(number, segment))
        first = [np.full((number, 1), start_token)] * start
        return np.concatenate([*first, half, half], axis=1)  # [number, T]

    tokens = draw(0, prompts)
    first, second = slice(start, start + segment), slice(start + segment, start + 2 * segment)
    shift = np.random.default_rng([seed, 2]).integers(1, high - low, size=(prompts, segment))  # never 0
    corrupted = tokens.copy()
    corrupted[:, first] = low + (tokens[:, first] - low + shift) % (high - low)
    return Task(
        tokens=tokens,
        reference=draw(1, reference),
        corrupted=corrupted,
        segment=segment,
        first_position=start,
        positions={"first": first, "second": second},
        answer_positions=np.arange(second.stop - 1 - answers, second.stop - 1),
        right=tokens[:, second][:, -answers:],
        wrong=corrupted[:, first][:, -answers:],
    )
