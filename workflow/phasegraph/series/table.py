"""What the audit says about each checkpoint, as a row in memory and as a row of ``series.tsv``.

Only the standard library is imported (the Snakefile and the command lines read the table).
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path

from phasegraph.errors import PhasegraphError

KINDS = ("missing", "unreadable", "not finite", "other architecture", "duplicate", "out of line")
"""What can be wrong with a checkpoint."""

UNMEASURABLE = KINDS[:4]
"""What leaves no weights to measure, or such as cannot be compared with the rest of the series."""

COLUMNS = {
    **{"step": int, "path": str, "revision": str, "commit": str, "sha256": str, "bytes": float, "dtype": str},
    **{"parameters": float, "tokens": float, "stage": str, "displacement": float, "arc_length": float},
    **{"flags": str, "used": bool},
}
"""The columns of ``series.tsv`` and their types (an empty number is NaN; used is yes or no)."""


@dataclass(frozen=True)
class Flag:
    """One fault of a checkpoint."""

    kind: str
    """One of `KINDS`."""
    sentence: str
    """What was found, for a reader."""
    of: int | None = None
    """Of a duplicate, the step that it repeats."""

    def __str__(self) -> str:
        return self.sentence if self.sentence.startswith(self.kind) else f"{self.kind}: {self.sentence}"


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
    """Euclidean distance of the weights from the previous used checkpoint; None in the first, and where weights cannot
    be compared."""
    used: bool = False
    """Whether the analysis takes it: nothing is wrong, or it was included all the same."""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.flags


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Read a manifest's rows as text.

    Raises
    ------
    PhasegraphError
        If the file is missing or not a manifest.
    """
    try:
        with Path(path).open(newline="") as handle:
            table = csv.DictReader(handle, delimiter="\t")
            rows, names = list(table), table.fieldnames or ()
        if lost := [name for name in COLUMNS if name not in names]:
            raise ValueError(f"it has no column {lost[0]}")
        if bad := [row for row in rows if None in (*row, *row.values()) or row["used"] not in ("yes", "no")]:
            raise ValueError(f"the row of step {bad[0]['step']} is damaged")
        return rows
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PhasegraphError(f"{path} cannot be read as a manifest ({reason}); delete it and run again") from error


def used_steps(path: str | Path) -> list[int]:
    """Give the steps of a manifest that the analysis takes, ascending.

    Raises
    ------
    PhasegraphError
        If there is none, or the file is missing or not a manifest.
    """
    rows = read_rows(path)
    steps = sorted(_step(path, row) for row in rows if row["used"] == "yes")
    if not steps:
        message = f"all {len(rows)} are flagged" if rows else "it lists none"
        raise PhasegraphError(f"{path}: no checkpoint is usable; {message}, so correct the series' source or its steps")
    return steps


def flags_of(path: str | Path) -> dict[int, str]:
    """Give what is wrong with the flagged steps of a manifest, used or not. Raises what `read_rows` raises."""
    return {_step(path, row): row["flags"] for row in read_rows(path) if row["flags"]}


def left_out(path: str | Path) -> dict[int, str]:
    """Give the steps of a manifest that are not used, and why. Raises what `read_rows` raises."""
    return {_step(path, row): row["flags"] for row in read_rows(path) if row["used"] == "no"}


def _step(path: str | Path, row: dict[str, str]) -> int:
    try:
        return int(row["step"])
    except ValueError as error:
        raise PhasegraphError(f"{path} cannot be read as a manifest ({error}); delete it and run again") from error
