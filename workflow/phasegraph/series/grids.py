"""Which revisions of a repository are a series: named grids of steps, and patterns that read a revision's name.

A pattern is a revision's name with fields in braces:

- ``{step}``: the training step, leading zeros allowed
- ``{index}``: the number of the checkpoint, where the name holds no step; it counts as the step, times
  ``steps_per_index`` (1 unless the user knows better). Checkpoints at uneven steps need a table {step: revision}.
- ``{tokens}``: tokens seen; a K, M, B or T right behind the field is its unit
- ``{stage}``: any text, the stage of the training

Only the standard library is imported (the Snakefile reads this).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from phasegraph.errors import PhasegraphError
from phasegraph.series.steps import expand_steps

LINEAR = range(1000, 143_001, 1000)
GRIDS: Mapping[str, tuple[int, ...]] = {
    "pythia": (0, *(2**power for power in range(10)), *LINEAR),
    "pythia-linear": tuple(LINEAR),
}
"""The 154 checkpoints of a Pythia model, and the 143 of arXiv 2509.15269."""

FIELDS = {"step": r"\d+", "index": r"\d+", "tokens": r"\d+(?:\.\d+)?", "stage": r".+?"}
UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
SHOWN = 6
"""How many revisions an error message gives as examples."""


@dataclass(frozen=True)
class Place:
    """What the name of a revision says about its place in the training."""

    step: int
    """Training step."""
    tokens: int | None = None
    """Tokens seen, where the name says so."""
    stage: str | None = None
    """Stage of the training, where the name says so."""


def series_steps(spec: str | Mapping[str, object] | Sequence[int], key: str = "steps") -> list[int]:
    """Spell out the steps of a series.

    Parameters
    ----------
    spec
        The name of a grid (see `GRIDS`), or whatever `expand_steps` takes: steps, or start, stop, every and also.
    key
        What the schedule is called in the user's file, for error messages.

    Raises
    ------
    PhasegraphError
        If there is no grid of that name, or the schedule is not one.
    """
    if not isinstance(spec, str):
        return expand_steps(spec, key)
    if spec not in GRIDS:
        raise PhasegraphError(f"{key}: there is no grid {spec!r}; there is {', '.join(GRIDS)}, or give steps")
    return list(GRIDS[spec])


def parse(pattern: str, revision: str, steps_per_index: int = 1) -> Place | None:
    """Read a revision's name; None if the pattern is of another form.

    Raises
    ------
    PhasegraphError
        If the pattern itself is wrong.

    Examples
    --------
    >>> parse("stage{stage}-step{step}-tokens{tokens}B", "stage1-step1000-tokens3B")
    Place(step=1000, tokens=3000000000, stage='1')
    """
    expression, unit = _compile(pattern)
    match = expression.fullmatch(revision)
    if not match:
        return None
    fields = match.groupdict()
    step = int(fields["step"]) if "step" in fields else int(fields["index"]) * steps_per_index
    tokens = round(float(fields["tokens"]) * unit) if "tokens" in fields else None
    return Place(step, tokens, fields.get("stage"))


def spell(pattern: str, place: Place, steps_per_index: int = 1) -> str | None:
    """Give the name of a revision; None if the pattern has a field that `place` leaves open.

    Only names without leading zeros can be spelt; the others are found by reading the repository's branches (`find`).

    Examples
    --------
    >>> spell("checkpoint-{step}", Place(400))
    'checkpoint-400'
    """
    expression, unit = _compile(pattern)
    values: dict[str, object] = {"step": place.step, "stage": place.stage}
    if place.step % steps_per_index == 0:
        values["index"] = place.step // steps_per_index
    if place.tokens is not None:
        values["tokens"] = place.tokens // unit if place.tokens % unit == 0 else place.tokens / unit
    if any(values.get(field) is None for field in expression.groupindex):
        return None
    return re.sub(r"\{(\w+)\}", lambda field: str(values[field[1]]), pattern)


def find(
    pattern: str, names: Iterable[str], repo: str, steps: Iterable[int] | None = None, steps_per_index: int = 1
) -> dict[int, tuple[str, Place]]:
    """Find the revision of every step among a repository's branches and tags.

    Parameters
    ----------
    pattern
        How the revisions are named.
    names
        All that there are.
    repo
        The repository, for error messages.
    steps
        The steps that matter; all that match the pattern if None.
    steps_per_index
        Steps between two values of ``{index}``.

    Returns
    -------
    dict of int to (str, Place)
        Revision and what its name says, by step, ascending. Steps without a revision are absent.

    Raises
    ------
    PhasegraphError
        If the pattern is wrong or matches nothing, or two revisions have the same step.
    """
    names = sorted(names)
    matched = [(place.step, name, place) for name in names if (place := parse(pattern, name, steps_per_index))]
    if not matched:
        raise PhasegraphError(f"no revision of {repo} matches the pattern {pattern!r}; {examples(names)}")
    wanted = None if steps is None else set(steps)
    found: dict[int, tuple[str, Place]] = {}
    for step, name, place in sorted(matched, key=lambda item: item[:2]):
        if wanted is not None and step not in wanted:
            continue
        if step in found:
            raise PhasegraphError(
                f"step {step} of {repo} has two revisions, {found[step][0]} and {name}, by the pattern {pattern!r};"
                " write the stage into the pattern, or give a table of steps and revisions"
            )
        found[step] = name, place
    return found


def examples(names: Iterable[str]) -> str:
    """Say which revisions there are: a few, in the order of the numbers in them."""
    ordered = sorted(
        names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )
    if not ordered:
        return "it has no branches"
    return f"there is {', '.join(ordered[:SHOWN])}" + (f", ... ({len(ordered)})" if len(ordered) > SHOWN else "")


@cache
def _compile(pattern: str) -> tuple[re.Pattern[str], int]:
    """Give the regular expression of a pattern, and the unit of its tokens."""
    expression, unit, seen = "", 1, set()
    parts = re.split(r"\{([^{}]*)\}", pattern)  # text, field, text, field, ..., text
    for text, field in zip(parts[::2], [*parts[1::2], None], strict=True):
        if "{" in text or "}" in text:
            raise PhasegraphError(f"pattern {pattern!r} has a brace without its partner; write fields as {{step}}")
        expression += re.escape(text)
        if field is None:
            continue
        if field not in FIELDS:
            known = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise PhasegraphError(f"pattern {pattern!r}: {{{field}}} is not a field; the fields are {known}")
        if field in seen:
            raise PhasegraphError(f"pattern {pattern!r} has {{{field}}} twice; once is enough")
        seen.add(field)
        expression += f"(?P<{field}>{FIELDS[field]})"
    if len(seen & {"step", "index"}) != 1:
        raise PhasegraphError(f"pattern {pattern!r} must have either {{step}} or {{index}}, as in step{{step}}")
    if suffix := re.search(r"\{tokens\}([KMBT])", pattern, re.IGNORECASE):
        unit = UNITS[suffix[1].upper()]
    return re.compile(expression), unit
