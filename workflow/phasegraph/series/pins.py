"""Which commit each step of a series is: a table that is written once, so that a moving branch moves nothing.

Only the standard library is imported (the Snakefile reads this).
"""

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.series.fault import CheckpointFault


@dataclass(frozen=True)
class Pin:
    """One checkpoint of a series in a repository."""

    step: int
    """Training step."""
    repo: str
    """Repository, as owner/name."""
    revision: str
    """Branch or tag; empty if the repository has none for this step."""
    commit: str
    """What the revision pointed to when it was resolved: 40 hexadecimal digits; empty if there is no revision."""
    tokens: int | None = None
    """Tokens seen, if known."""
    stage: str | None = None
    """Stage of the training, if the revision's name says so."""


COLUMNS = tuple(field.name for field in fields(Pin))


def write_pins(pins: Iterable[Pin], path: str | Path) -> None:
    """Write pins as a table separated by tabs, sorted by step; what is unknown stays empty."""
    with atomic(path) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(pin) for pin in sorted(pins, key=lambda pin: pin.step))


def read_pins(path: str | Path) -> list[Pin]:
    """Read the table that `write_pins` wrote.

    Raises
    ------
    PhasegraphError
        If the file is missing or not such a table.
    """
    try:
        with Path(path).open(newline="") as handle:
            return [
                Pin(
                    step=int(row["step"]),
                    repo=row["repo"],
                    revision=row["revision"],
                    commit=row["commit"],
                    tokens=int(row["tokens"]) if row["tokens"] else None,
                    stage=row["stage"] or None,
                )
                for row in csv.DictReader(handle, delimiter="\t")
            ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PhasegraphError(
            f"{path} cannot be read as a table of pins ({error!r}); delete it and resolve again"
        ) from error


def pin_of(path: str | Path, step: int) -> Pin:
    """Give the pin of one step.

    Raises
    ------
    CheckpointFault
        If the table says that the repository lacks the step.
    PhasegraphError
        If it does not list the step.
    """
    for pin in read_pins(path):
        if pin.step == step:
            if not pin.commit:
                raise CheckpointFault("missing", f"step {step} has no revision in {pin.repo}; leave the step out")
            return pin
    raise PhasegraphError(f"{path} does not list step {step}; resolve the series again")
