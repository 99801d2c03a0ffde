"""A series that someone else wrote into a folder, used in place: which checkpoints there are, and what is in them.

Only the standard library is imported (the Snakefile reads this).
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic, sha256
from phasegraph.series.grids import examples, parse
from phasegraph.series.layout import files_of

TRAINER = "checkpoint-{step}"
"""How the Trainer of transformers names the folders of its checkpoints."""

STATE = "trainer_state.json"
"""Where it says at which step a checkpoint was written."""

BIG = 2 * 1000**3
"""Bytes from which on the first reading of a folder is announced."""


def find_checkpoints(path: str | Path, pattern: str | None = None, steps_per_index: int = 1) -> dict[int, Path]:
    """Find the folders of checkpoints and their steps, whether the checkpoints in them are whole or not.

    Parameters
    ----------
    path
        The folder that holds them.
    pattern
        How they are named (see `phasegraph.series.grids`), the step being what the name says. With None they are named
        as the Trainer of transformers does, and the step is what their trainer_state.json says, if there is one.
    steps_per_index
        Steps between two values of ``{index}`` in the pattern.

    Returns
    -------
    dict of int to Path
        Folder by step, ascending.

    Raises
    ------
    PhasegraphError
        If there is no such folder, or no checkpoint in it, or two have the same step.
    """
    path = Path(path)
    if not path.is_dir():
        raise PhasegraphError(f"path: there is no folder {path}")
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    found: dict[int, Path] = {}
    for name in names:
        place = parse(TRAINER if pattern is None else pattern, name, steps_per_index)
        if place is None:
            continue
        step = place.step if pattern is not None else _step_of_trainer(path / name, place.step)
        if step in found:
            raise PhasegraphError(
                f"step {step} has two folders, {found[step]} and {path / name}; move one away, or give a pattern that"
                " fits only the right one"
            )
        found[step] = path / name
    if not found:
        there = examples(names) if names else "there is none at all"
        raise PhasegraphError(
            f"path: no folder in {path} is named like {pattern or TRAINER}; {there}; give pattern their form of name"
        )
    return dict(sorted(found.items()))


def contents_of(folders: Mapping[int, Path], memory: str | Path | None) -> dict[int, str]:
    """Tell checkpoints apart by content: a digest of the names and the bytes of their files.

    A file of unchanged size and modification time is not read again, if it was read before.

    Parameters
    ----------
    folders
        Folder by step, as `find_checkpoints` gives them.
    memory
        Where the digests of files are remembered, or None to read everything.

    Returns
    -------
    dict of int to str
        64 hexadecimal digits by step; empty for a folder without any file of a model.
    """
    known = _read_memory(memory)
    files = {step: files_of(folder) for step, folder in folders.items()}
    stamps = {path: _stamp(path) for paths in files.values() for path in paths}
    new = [path for path, stamp in stamps.items() if known.get(str(path), ("",))[0] != stamp]
    if (size := sum(path.stat().st_size for path in new)) > BIG:
        print(f"phasegraph: reading {len(new)} files ({size / 1e9:.0f} GB) once", file=sys.stderr)
    digests = {str(path): known[str(path)] for path in stamps if path not in new}
    digests |= {str(path): (stamps[path], sha256(path)) for path in new}
    if memory is not None and digests != known:
        with atomic(memory) as temporary:
            temporary.write_text(json.dumps(digests, indent=0) + "\n")
    return {step: _together(paths, lambda path: digests[str(path)][1]) for step, paths in files.items()}


def _together(paths: list[Path], digest_of: Callable[[Path], str]) -> str:
    lines = "".join(f"{digest_of(path)}  {path.name}\n" for path in sorted(paths))
    return hashlib.sha256(lines.encode()).hexdigest() if paths else ""


def _step_of_trainer(folder: Path, otherwise: int) -> int:
    """Read the step from a checkpoint of the Trainer; one that is being written has no state yet."""
    try:
        step = json.loads((folder / STATE).read_text())["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return otherwise  # none, half written, or damaged: the audit tells if the weights are, too
    return step if isinstance(step, int) and step >= 0 else otherwise


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _read_memory(memory: str | Path | None) -> dict[str, tuple[str, str]]:
    try:
        noted = json.loads(Path(memory).read_text()) if memory is not None else {}
        return {path: (stamp, digest) for path, (stamp, digest) in noted.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # new, or damaged: the files are read again
