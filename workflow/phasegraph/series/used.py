"""Which results of a study belong to checkpoints that count."""

from collections.abc import Iterable
from pathlib import Path

from phasegraph.errors import PhasegraphError
from phasegraph.series.table import used_steps


def used_files(files: Iterable[str | Path], manifest: str | Path) -> list[Path]:
    """Choose the files of those checkpoints that the audit does not leave out.

    Parameters
    ----------
    files
        One per checkpoint, named ``<step>.<suffix>``.
    manifest
        ``series.tsv``.

    Returns
    -------
    list of Path
        In the order of the steps.

    Raises
    ------
    PhasegraphError
        If a step has no file, an empty one or two, or a file is not named by a step, or the manifest cannot be read.
    """
    by_step: dict[int, Path] = {}
    for file in map(Path, files):
        if not (file.stem.isascii() and file.stem.isdecimal()):
            raise PhasegraphError(f"{file}: its name is no step; give files named like 500{file.suffix}")
        if int(file.stem) in by_step:
            raise PhasegraphError(f"{file}: the same step as {by_step[int(file.stem)]}; leave one out")
        by_step[int(file.stem)] = file
    chosen = []
    for step in used_steps(manifest):
        if step not in by_step:
            raise PhasegraphError(f"{manifest} lists step {step}, but there is no file of it; run the workflow again")
        if by_step[step].is_file() and not by_step[step].stat().st_size:
            raise PhasegraphError(
                f"{by_step[step]} is empty: step {step} could not be measured, but {manifest} counts it; delete the"
                " file and run again, and look into its log if that does not help"
            )
        chosen.append(by_step[step])
    return chosen
