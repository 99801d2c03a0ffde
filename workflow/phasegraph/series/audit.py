"""Whether published checkpoints are what they claim: every fault of a series by name, before anything is measured.

Each checkpoint is read once; afterwards a sample of its weights stands for it (`weights.SAMPLE` numbers of every
tensor, at the same places in every checkpoint), and what the samples raise is verified with all the weights.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.series import weights
from phasegraph.series.line import Place, is_better, out_of_line
from phasegraph.series.suspects import duplicates, foreign_tensors, sample_distances

logger = logging.getLogger(__name__)

KINDS = ("missing", "unreadable", "not finite", "other architecture", "duplicate", "out of line")

ARCHITECTURE = ("model_type", "num_hidden_layers", "n_layer", "num_attention_heads", "n_head", "num_key_value_heads")
"""Keys of config.json in which the checkpoints of a series must agree beside the weights' shapes."""

ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float8_e4m3fn": 2.0**-3, "float8_e5m2": 2.0**-2}
"""Relative difference that a conversion to a number format can make, with a factor 2 to spare."""


@dataclass(frozen=True)
class Flag:
    """One fault of a checkpoint."""

    kind: str
    """One of `KINDS`."""
    sentence: str
    """What was found, for a reader."""
    of: int | None = None
    """Of a duplicate, the step that it repeats."""


@dataclass
class Audited:
    """What the audit says about one step. Numbers are None where the weights cannot be read."""

    step: int
    folder: str | None
    flags: list[Flag] = field(default_factory=list)
    digest: str | None = None
    """SHA-256 of the weights (`weights.content_digest`)."""
    bytes: int | None = None
    """Size of the files of weights."""
    dtype: str | None = None
    """Number format of the weights; several are separated by commas."""
    parameters: int | None = None
    """Number of weights."""
    distance: float | None = None
    """Euclidean distance of the weights from the previous good checkpoint."""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.flags


@dataclass
class _Readable:
    """A checkpoint whose weights could be read."""

    row: Audited
    folder: Path
    found: weights.Description
    config: dict


def audit(
    checkpoints: Iterable[tuple[int, str | Path]], expected: Iterable[int] = (), *, progress: bool = True
) -> list[Audited]:
    """Check a series.

    A duplicate counts once (see `suspects.duplicates`), and does not count as a neighbour of others.

    Parameters
    ----------
    checkpoints
        Step and folder of each, in any order.
    expected
        Steps that should be there; those of `checkpoints` always should.
    progress
        Whether to log every tenth part.

    Returns
    -------
    list of Audited
        One for every step, sorted. Each flagged one is logged.

    Raises
    ------
    PhasegraphError
        If a step is given twice.
    """
    folders: dict[int, Path] = {}
    for step, folder in checkpoints:
        if step in folders:
            raise PhasegraphError(f"checkpoint {step} is given twice: {folders[step]} and {folder}; give one of them")
        folders[step] = Path(folder)
    rows, readable = [], []
    steps = sorted({*folders, *expected})
    for number, step in enumerate(steps, start=1):
        row = Audited(step, folders[step].as_posix() if step in folders else None)
        rows.append(row)
        readable += _read(row, folders.get(step))
        if progress and number * 10 // len(steps) > (number - 1) * 10 // len(steps):
            logger.info("%d of %d checkpoints read", number, len(steps))
    line = _of_one_architecture(readable)
    _flag_suspects(line)
    _measure(line)
    for row in rows:
        for flag in row.flags:
            logger.warning("checkpoint %d: %s: %s", row.step, flag.kind, flag.sentence)
    return rows


def write_audit(path: str | Path, rows: Iterable[Audited]) -> None:
    """Write what `audit` found as JSON: one object per checkpoint, with the fields of `Audited`."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({"checkpoints": [asdict(row) for row in rows]}, indent=1) + "\n")


def _read(row: Audited, folder: Path | None) -> list[_Readable]:
    """Describe a checkpoint, or flag it; a list of one or none."""
    if folder is None:
        row.flags.append(Flag("missing", "there is no checkpoint of this step"))
        return []
    try:
        found = weights.describe(folder)
        config = weights.configuration(folder)
        if config is None:
            raise FileNotFoundError(f"{folder} holds no config.json, so no model can be made of its weights")
    except FileNotFoundError as error:
        row.flags.append(Flag("missing", str(error)))
        return []
    except (PhasegraphError, OSError) as error:
        row.flags.append(Flag("unreadable", str(error)))
        return []
    row.digest, row.bytes, row.parameters = found.digest, found.bytes, found.parameters
    row.dtype = ",".join(found.dtypes)
    if found.nonfinite:
        name, count = max(found.nonfinite.items(), key=lambda item: item[1])
        tensors = f"{len(found.nonfinite)} tensor{'s' * (len(found.nonfinite) > 1)}"
        total = sum(found.nonfinite.values())
        row.flags.append(
            Flag("not finite", f"{total} infinite or NaN weights in {tensors}, most of them ({count}) in {name}")
        )
    return [_Readable(row, folder, found, {key: config[key] for key in ARCHITECTURE if config.get(key) is not None})]


def _of_one_architecture(readable: list[_Readable]) -> list[_Readable]:
    """Flag what differs from the majority (of equal ones, the later) and give the finite rest."""
    same = readable
    for describe in (lambda one: one.found.shapes, lambda one: one.config):
        signatures = [json.dumps(describe(one), sort_keys=True) for one in same]
        if len(set(signatures)) > 1:
            usual = max(Counter(signatures).items(), key=lambda item: (item[1], signatures[::-1].index(item[0]) * -1))[
                0
            ]
            model = same[signatures.index(usual)]
            for one, signature in zip(same, signatures, strict=True):
                if signature != usual:
                    sentence = _difference(describe(one), describe(model), signatures.count(usual))
                    one.row.flags.append(Flag("other architecture", sentence))
            same = [one for one, signature in zip(same, signatures, strict=True) if signature == usual]
    return [one for one in same if not one.found.nonfinite]


def _difference(mine: dict, usual: dict, count: int) -> str:
    names = [name for name in sorted({*mine, *usual}) if mine.get(name) != usual.get(name)]
    name = names[0]
    more = f" (and {len(names) - 1} more differences)" if len(names) > 1 else ""
    return f"{name} is {mine.get(name, 'absent')}, but {usual.get(name, 'absent')} in {count} checkpoints{more}"


def _flag_suspects(line: list[_Readable]) -> None:
    """Flag duplicates; among the rest, what is out of line; among the rest, what is so in a part of its tensors."""
    found = [one.found for one in line]
    distances = sample_distances(found)
    repeats = duplicates(found, distances, lambda one, other: _rounded(line[one], line[other]))
    for at, repeat in repeats.items():
        line[at].row.flags.append(_duplicate(line[at], line[repeat.of], repeat.beside))
    left = [at for at in range(len(line)) if at not in repeats]
    line = [line[at] for at in left]
    for at, place in out_of_line(distances[np.ix_(left, left)]).items():
        if sentence := _verified(line, at, place):
            line[at].row.flags.append(Flag("out of line", f"its weights {sentence}"))
    line = [one for one in line if one.row.good]
    for at, places in foreign_tensors([one.found for one in line]).items():
        place = Counter(places.values()).most_common(1)[0][0]
        if sentence := _verified(line, at, place, list(places)):
            share = sum(math.prod(line[at].found.shapes[name]) for name in places) / line[at].found.parameters
            tensors = f"{len(places)} of its {len(line[at].found.shapes)} tensors ({share:.0%} of the weights"
            line[at].row.flags.append(Flag("out of line", f"{tensors}, such as {min(places)}) {sentence}"))


def _duplicate(one: _Readable, good: _Readable, beside: bool) -> Flag:
    sentence = f"duplicate of step {good.row.step}"
    if one.found.digest != good.found.digest:
        sentence += f" but for rounding ({one.row.dtype}, not {good.row.dtype})"
    if not beside:
        sentence += ", where these weights fit better between their neighbours"
    return Flag("duplicate", sentence, good.row.step)


def _rounded(one: _Readable, other: _Readable) -> bool:
    """Whether two checkpoints of different number formats hold the same weights but for rounding."""
    if one.found.dtypes == other.found.dtypes:
        return False
    tolerance = max(ROUNDING.get(name, 2.0**-22) for name in (*one.found.dtypes, *other.found.dtypes))

    def close(first: np.ndarray, second: np.ndarray) -> bool:
        return np.allclose(first, second, rtol=tolerance, atol=2.0**-24)  # the least step of float16

    sample = other.found.sample
    return all(close(numbers, sample[name]) for name, numbers in one.found.sample.items()) and all(
        close(first, second)
        for (_, first), (_, second) in zip(weights.tensors(one.folder), weights.tensors(other.folder), strict=True)
    )


def _verified(line: list[_Readable], at: int, place: Place, names: list[str] | None = None) -> str:
    """Apply the rule to the distances of all weights; the end of a sentence, or nothing if they deny it."""

    def far(first: int, second: int) -> float:
        return weights.distance(line[first].folder, line[second].folder, names)

    here = tuple(far(at, other) for other in place.here)
    there = (far(at, place.better[0]), far(at, place.better[1]))
    between = (far(*place.here) if len(place.here) == 2 else 0.0, far(*place.better))
    if not is_better(here, there, between):
        return ""
    steps = [line[other].row.step for other in (*place.here, *place.better)]
    away = " and ".join(f"{distance:.3g} from step {step}" for distance, step in zip(here, steps, strict=False))
    left, right = steps[-2:]
    return f"are {away}, but only {there[0]:.3g} from step {left} and {there[1]:.3g} from step {right}"


def _measure(line: list[_Readable]) -> None:
    previous = None
    for one in line:
        if previous is not None:
            one.row.distance = weights.distance(previous.folder, one.folder)
        if one.row.good:
            previous = one
