"""A random segment repeated once: only a model that looks back at the first copy can predict the second.

There are two families of prompts, with tokens that are

- uniform: independent, all equally likely;
- structured: with statistics of language, see `phasegraph.tasks.language`. A segment then has frequent tokens, tokens
  that occur more than once, and pairs that can be predicted without a first copy. So the first copy is easier than that
  of uniform tokens to a model that knows the language. The second copy is harder for one that looks back for the same
  token: it finds several, with different successors.

Positions mean the same in both: what is called prefix matching is attention to the token that followed *in the same
place* of the first copy, whatever else follows the same token elsewhere.
"""

from dataclasses import dataclass

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.groups import group_of
from phasegraph.tasks.language import sequences

TOKENS = ("uniform", "structured")
"""Families of prompts."""


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
    tokens: str = "uniform",
) -> Task:
    """Draw repeated random sequences.

    A prompt's corrupted partner has another first copy of the same family, which differs at every place; so its second
    copy repeats nothing in place. (Single pairs of tokens may occur in both by chance, likely pairs of structured
    tokens more often.) The answer is the last token or the last few of the second copy, compared with the tokens that
    stand in the corrupted first copy in the same places, and so are never the same.

    Parameters
    ----------
    prompts
        Number of prompts P, a multiple of the number of groups.
    reference
        Number of reference prompts Q.
    segment
        Length of the segment that is drawn and then repeated; T = 2 segment (+ 1 with a start token).
    seed
        Seed of the generator; reference prompts come from a stream of their own, and so do those of another family.
    start_token
        Token id put before the sequence, or None.
    token_range
        First and last-plus-one token id that may be drawn.
    answers
        Number of answer positions A: the last A tokens of the second copy are predicted.
    tokens
        ``uniform`` or ``structured``. Structured tokens are most frequent at the low end of the range.

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
    if tokens not in TOKENS:
        raise PhasegraphError(f"task.tokens is {tokens!r}; it must be {' or '.join(TOKENS)}")
    start = int(start_token is not None)
    draw, redraw = {"uniform": (_uniform, _shifted), "structured": (_structured, _other_structured)}[tokens]
    segments = low + draw(seed, 0, (prompts, segment), high - low)
    others = low + redraw(seed, segments - low, high - low)

    def sequence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.concatenate([np.full((len(first), start), start_token or 0), first, second], axis=1)  # [P, T]

    first, second = slice(start, start + segment), slice(start + segment, start + 2 * segment)
    further = low + draw(seed, 1, (reference, segment), high - low)
    return Task(
        tokens=sequence(segments, segments),
        reference=sequence(further, further),
        corrupted=sequence(others, segments),
        segment=segment,
        first_position=start,
        positions={"first": first, "second": second},
        answer_positions=np.arange(second.stop - 1 - answers, second.stop - 1),
        right=segments[:, -answers:],
        wrong=others[:, -answers:],
    )


def _uniform(seed: int, stream: int, shape: tuple[int, int], vocabulary: int) -> np.ndarray:
    return np.random.default_rng([seed, stream]).integers(0, vocabulary, size=shape)


def _shifted(seed: int, drawn: np.ndarray, vocabulary: int) -> np.ndarray:
    """Draw another uniform token for every one of `drawn`."""
    shift = np.random.default_rng([seed, 2]).integers(1, vocabulary, size=drawn.shape)  # never 0
    return (drawn + shift) % vocabulary


def _structured(seed: int, stream: int, shape: tuple[int, int], vocabulary: int) -> np.ndarray:
    # Streams of their own: the same bits, turned into other tokens, would tie the families' draws together.
    return sequences(np.random.default_rng([seed, 3 + stream]), *shape, vocabulary)


def _other_structured(seed: int, drawn: np.ndarray, vocabulary: int) -> np.ndarray:
    """Draw sequences of the same language that differ from `drawn` at every place."""
    return sequences(np.random.default_rng([seed, 5]), *drawn.shape, vocabulary, other=drawn)
