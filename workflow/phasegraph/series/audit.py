"""Whether published checkpoints are what they claim: every fault of a series by name.

Each checkpoint is read once; afterwards a sample of its weights stands for it (`weights.SAMPLE` numbers of every
tensor, at the same places in every checkpoint), and what the samples raise is verified with all the weights.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.series import weights
from phasegraph.series.fault import read_fault
from phasegraph.series.line import Place, is_better, out_of_line
from phasegraph.series.manifest import write_audit, write_manifest
from phasegraph.series.pins import Pin
from phasegraph.series.suspects import duplicates, foreign_tensors, sample_distances
from phasegraph.series.table import UNMEASURABLE, Audited, Flag

logger = logging.getLogger(__name__)

ARCHITECTURE = ("model_type", "num_hidden_layers", "n_layer", "num_attention_heads", "n_head", "num_key_value_heads")
"""Keys of config.json in which the checkpoints of a series must agree beside the weights' shapes."""

SHOWN = 3
"""Flagged checkpoints that an error names."""

ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float8_e4m3fn": 2.0**-3, "float8_e5m2": 2.0**-2}
"""Relative difference that a conversion to a number format can make, with a factor 2 to spare."""


@dataclass
class _Readable:
    """A checkpoint whose weights could be read."""

    row: Audited
    folder: Path
    found: weights.Description
    config: dict


def list_series(
    checkpoints: Iterable[tuple[int, str | Path | None]],
    out: str | Path,
    findings: str | Path,
    *,
    flagged: Literal["exclude", "include", "stop"] | Collection[int] = "exclude",
    pins: Iterable[Pin] = (),
    tokens_per_step: int | None = None,
) -> None:
    """Audit a series and write what was found, with one line in the log for every fault and one in all.

    Parameters
    ----------
    checkpoints
        Step and folder of each; None for a missing one.
    out
        The manifest to write (`manifest.write_manifest`).
    findings
        The JSON file to write (`manifest.write_audit`).
    flagged
        What becomes of flagged checkpoints: the analysis leaves them out, takes what can be measured, takes the steps
        given here, or there is none (nothing is written).
    pins, tokens_per_step
        See `manifest.write_manifest`.

    Raises
    ------
    PhasegraphError
        If no checkpoint is usable, or one is flagged and `flagged` is stop; and what `audit` raises.
    """
    include = {"include": "all"}.get(flagged, ()) if isinstance(flagged, str) else flagged
    rows = audit(checkpoints, include=include)
    bad = [f"{row.step} ({', '.join(flag.kind for flag in row.flags)})" for row in rows if row.flags]
    named = ", ".join(bad[:SHOWN]) + f" and {len(bad) - SHOWN} more" * (len(bad) > SHOWN)
    share = f"{len(bad)} of {len(rows)} checkpoints are flagged: {named}; the log above says why"
    if bad and flagged == "stop":
        raise PhasegraphError(f"{share}; take them out of steps, or set flagged: exclude")
    if not any(row.used for row in rows):
        raise PhasegraphError(f"{out}: no checkpoint is usable; {share}; correct the series' source or its steps")
    write_manifest(rows, out, pins=pins, tokens_per_step=tokens_per_step)
    write_audit(findings, rows)
    logger.info("%d checkpoints, %d flagged, %d used", len(rows), len(bad), sum(row.used for row in rows))


def audit(
    checkpoints: Iterable[tuple[int, str | Path | None]],
    expected: Iterable[int] = (),
    include: Literal["all"] | Collection[int] = (),
    progress: bool = True,
) -> list[Audited]:
    """Check a series.

    A duplicate counts once (see `suspects.duplicates`), and does not count as a neighbour of others.

    Parameters
    ----------
    checkpoints
        Step and folder of each, in any order; no folder stands for a missing one.
    expected
        Steps that should be there; those of `checkpoints` always should.
    include
        Steps that are used although they are flagged; ``"all"`` means every one that can be measured.
    progress
        Whether to log every tenth part.

    Returns
    -------
    list of Audited
        One for every step, sorted. Each flagged one is logged.

    Raises
    ------
    PhasegraphError
        If a step is given twice, or a step to include is not in the series or cannot be measured.
    """
    folders: dict[int, Path | None] = {}
    for step, folder in checkpoints:
        if step in folders:
            raise PhasegraphError(f"checkpoint {step} is given twice: {folders[step]} and {folder}; give one of them")
        folders[step] = Path(folder) if folder else None
    rows, readable = [], []
    steps = sorted({*folders, *expected})
    for number, step in enumerate(steps, start=1):
        folder = folders.get(step)
        rows.append(Audited(step, folder.as_posix() if folder else None))
        readable += _read(rows[-1], folder)
        if progress and number * 10 // len(steps) > (number - 1) * 10 // len(steps):
            logger.info("%d of %d checkpoints read", number, len(steps))
    line = _of_one_architecture(readable)
    _flag_suspects(line)
    for row in rows:
        for flag in row.flags:
            logger.warning("checkpoint %d: %s", row.step, flag)
    _choose(rows, include)
    _measure(line)
    return rows


def _read(row: Audited, folder: Path | None) -> list[_Readable]:
    """Describe a checkpoint, or flag it; a list of one or none."""
    if folder is None:
        row.flags.append(Flag("missing", "there is no checkpoint of this step"))
        return []
    if fault := read_fault(folder):
        row.flags.append(Flag(fault.kind, str(fault)))
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


def _choose(rows: list[Audited], include: Literal["all"] | Collection[int]) -> None:
    """Note which rows are used."""
    if include != "all" and (unknown := sorted({*include} - {row.step for row in rows})):
        raise PhasegraphError(f"checkpoint {unknown[0]} cannot be included: the series has no such step")
    for row in rows:
        obstacles = [flag for flag in row.flags if flag.kind in UNMEASURABLE]
        if obstacles and include != "all" and row.step in include:
            why = f"checkpoint {row.step} is flagged and cannot be included all the same"
            raise PhasegraphError(f"{why} ({obstacles[0]})")
        row.used = row.good or (not obstacles and (include == "all" or row.step in include))


def _measure(line: list[_Readable]) -> None:
    """Measure how far each lies from the previous used one."""
    previous = None
    for one in line:
        if previous is not None:
            one.row.distance = weights.distance(previous.folder, one.folder)
        if one.row.used:
            previous = one
