"""Which results of a study belong to checkpoints that count."""

from collections.abc import Iterable
from pathlib import Path

from phasegraph.errors import PhasegraphError
from phasegraph.series.table import read_rows, used_steps


def used_files(files: Iterable[str | Path], manifest: str | Path) -> list[Path]:
    """Choose the files of those checkpoints that the audit does not leave out.

    A study may look at fewer checkpoints than its series has: of the others there are no files.

    Parameters
    ----------
    files
        One per checkpoint of the study, named ``<step>.<suffix>``.
    manifest
        ``series.tsv``.

    Returns
    -------
    list of Path
        In the order of the steps.

    Raises
    ------
    PhasegraphError
        If a step has two files, or one that counts is empty; if a file is not named by a step, or by one that the
        manifest does not list; if none counts, or the manifest cannot be read.
    """
    by_step: dict[int, Path] = {}
    for file in map(Path, files):
        if not (file.stem.isascii() and file.stem.isdecimal()):
            raise PhasegraphError(f"{file}: its name is no step; give files named like 500{file.suffix}")
        if int(file.stem) in by_step:
            raise PhasegraphError(f"{file}: the same step as {by_step[int(file.stem)]}; leave one out")
        by_step[int(file.stem)] = file
    listed = {int(row["step"]) for row in read_rows(manifest)}
    if unknown := sorted(by_step.keys() - listed):
        raise PhasegraphError(f"{by_step[unknown[0]]}: {manifest} does not list step {unknown[0]}; run the workflow")
    chosen = []
    for step in used_steps(manifest):
        if step not in by_step:
            continue
        if by_step[step].is_file() and not by_step[step].stat().st_size:
            raise PhasegraphError(
                f"{by_step[step]} is empty: step {step} could not be measured, but {manifest} counts it; delete the"
                " file and run again, and look into its log if that does not help"
            )
        chosen.append(by_step[step])
    if not chosen:
        raise PhasegraphError(f"{manifest} counts none of these {len(by_step)} checkpoints; correct the study's steps")
    return chosen
