"""A series in a repository of a hub: its revisions as commits, and a commit's weights in a folder.

HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HOME and the other variables of `huggingface_hub` work as they do there.
Nothing in a repository is executed.
"""

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic, sha256
from phasegraph.series import grids
from phasegraph.series.convert import Tensor, is_buffer, tensors_of, write_safetensors
from phasegraph.series.downloads import RemoteFile
from phasegraph.series.fault import CheckpointFault
from phasegraph.series.layout import CONFIG, WEIGHTS
from phasegraph.series.listing import bring, commits_of, few, files_of, record_of, weight_files
from phasegraph.series.pins import Pin
from phasegraph.series.refusals import plain_errors, require_space

logger = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve(
    repo: str,
    revisions: str | Mapping[int, str] = "step{step}",
    steps: Sequence[int] | None = None,
    *,
    steps_per_index: int = 1,
    tokens_per_step: int | None = None,
    known: Iterable[Pin] = (),
    allow_missing: bool = False,
    endpoint: str | None = None,
) -> list[Pin]:
    """Find the commit of every step of a series, by one request.

    Parameters
    ----------
    repo
        Repository, as owner/name.
    revisions
        Either a pattern (see `phasegraph.series.grids`), or a table of branches, tags or full commits by step.
    steps
        The steps; all that match the pattern, or stand in the table, if None.
    steps_per_index
        Steps between two values of ``{index}`` in the pattern.
    tokens_per_step
        Tokens in a training batch, for revisions whose name does not say the tokens.
    known
        Pins from before. They stay as they are, wherever the branch points to now; nothing is asked if they suffice.
        A pin without a commit counts if `allow_missing`.
    allow_missing
        Whether a step that the repository lacks is a pin without a commit, and not an error.
    endpoint
        Address of the hub; what HF_ENDPOINT says if None.

    Returns
    -------
    list of Pin
        One per step, ascending.

    Raises
    ------
    PhasegraphError
        If the repository cannot be read, or a revision is missing, or the pattern is wrong.
    """
    if steps_per_index < 1:
        raise PhasegraphError(f"steps_per_index must be at least 1, not {steps_per_index}")
    if steps is None and not isinstance(revisions, str):
        steps = sorted(revisions)
    usable = (pin for pin in known if pin.commit or allow_missing)
    pins = {pin.step: pin for pin in usable if _belongs(pin, repo, revisions, steps_per_index)}
    if steps is None or not pins.keys() >= set(steps):
        with plain_errors(repo, "", endpoint=endpoint):
            commits = commits_of(repo, endpoint)
        logger.info("%s has %d branches and tags", repo, len(commits))
        for step, (revision, place) in _find(revisions, commits, repo, steps, steps_per_index).items():
            tokens = step * tokens_per_step if place.tokens is None and tokens_per_step else place.tokens
            commit = commits.get(revision, revision)  # a full commit stands for itself
            pins.setdefault(step, Pin(step, repo, revision, commit, tokens, place.stage))
        missing = sorted(set(steps or ()) - pins.keys())
        message = f"{repo} has no revision for {few(missing)}; {grids.examples(commits)}"
        if missing and not allow_missing:
            raise PhasegraphError(f"{message}; correct the steps or the pattern, or take them out of the series")
        if missing:
            logger.warning("%s", message)
        pins |= {step: Pin(step, repo, "", "") for step in missing}
    return [pins[step] for step in sorted(pins) if steps is None or step in set(steps)]


def _find(
    revisions: str | Mapping[int, str],
    commits: Mapping[str, str],
    repo: str,
    steps: Sequence[int] | None,
    steps_per_index: int,
) -> dict[int, tuple[str, grids.Place]]:
    """Find the revision of every step by the pattern or in the table."""
    if isinstance(revisions, str):
        return grids.find(revisions, commits, repo, steps, steps_per_index)
    return {step: (revisions[step], grids.Place(step)) for step in steps or () if _exists(revisions.get(step), commits)}


def fetch(
    repo: str,
    commit: str,
    out: str | Path,
    *,
    downloads: str | Path | None = None,
    keep: bool = False,
    endpoint: str | None = None,
) -> None:
    """Put a commit's weights and configuration into a folder.

    Only these are downloaded; an interrupted download goes on where it broke. Files that other programs have put into
    the hub's own cache are used. A second call finds, by hash, that all is there, and asks nobody.

    Parameters
    ----------
    repo
        Repository, as owner/name.
    commit
        What `resolve` found: 40 hexadecimal digits.
    out
        The folder, which holds config.json and model.safetensors afterwards: one file, without mask buffers.
    downloads
        Where downloads lie until they are whole, and a record of what was made; ``<out>/../.downloads`` if None.
    keep
        Whether the downloaded files stay there.
    endpoint
        Address of the hub; what HF_ENDPOINT says if None.

    Raises
    ------
    CheckpointFault
        If the repository has no such commit, or what it has is not a whole checkpoint: trying again would not help.
    PhasegraphError
        If the commit cannot be had now: the network, the rights, a transfer that went wrong twice, a full disk.
    """
    if not COMMIT.fullmatch(commit):
        raise PhasegraphError(f"{commit!r} is not a full commit of {repo}; resolve the revision first")
    out = Path(out)
    downloads = out.absolute().parent / ".downloads" if downloads is None else Path(downloads)
    folder, began = downloads / commit, time.monotonic()
    with plain_errors(repo, commit, downloads, endpoint), record_of(downloads, commit) as (record, save):
        if record.get("repo") == repo and _is_made(out, record):
            logger.info("%s holds %s at %s already", out, repo, commit[:8])
        else:
            files, all_known = files_of(repo, commit, record, save, endpoint)
            try:
                made = _make(repo, commit, files, folder, out, endpoint)
            except CheckpointFault as fault:
                if not all_known:
                    way_out = "that is all the hub's cache on this machine knows; unset HF_HUB_OFFLINE to look further"
                    raise PhasegraphError(f"{fault}; {way_out}") from fault
                _clean(folder, keep)
                raise
            save(record | {"repo": repo, "made": made})
            megabytes, seconds = (out / WEIGHTS).stat().st_size / 1e6, time.monotonic() - began
            logger.info("wrote %s (%.1f MB) in %.1f s", out, megabytes, seconds)
        _clean(folder, keep)


def _clean(folder: Path, keep: bool) -> None:
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


def _make(
    repo: str, commit: str, files: dict[str, RemoteFile], folder: Path, out: Path, endpoint: str | None
) -> dict[str, str]:
    """Download what is needed and write both files; give their SHA-256."""
    where = f"{repo} at {commit}"
    folder.mkdir(exist_ok=True)

    def get(name: str) -> Path:
        return bring(repo, commit, files[name], folder, endpoint)

    names, index = weight_files(repo, commit, files, get)
    size = sum(files[name].size for name in names)
    here = sum(path.stat().st_size for path in folder.iterdir())
    # A single safetensors file without masks needs no second copy, but whether it has masks is not known yet.
    require_space(folder, size * (1 if names == [WEIGHTS] else 2) - here, where)
    config, weights = get(CONFIG), [get(name) for name in names]
    _check_config(config, where)
    tensors: dict[str, Tensor] = {}
    for tensor in (tensor for path in weights for tensor in _tensors_of(path, where)):
        if tensor.name in tensors:
            raise _unreadable(where, f"{tensor.name} is in two of its shards")
        tensors[tensor.name] = tensor
    if lacking := sorted(set(index) - tensors.keys()):
        raise _unreadable(where, f"the shards lack {few(lacking)}, which the index lists")
    kept = [tensor for tensor in tensors.values() if not is_buffer(tensor.name, tensor.shape)]
    if not kept:
        raise _unreadable(where, f"{', '.join(names)} holds no weights")
    with atomic(out / WEIGHTS) as new_weights, atomic(out / CONFIG) as new_config:
        shutil.copyfile(config, new_config)
        if names == [WEIGHTS] and len(kept) == len(tensors):
            _place(weights[0], new_weights, may_link=weights[0].parent == folder)
            digest = files[WEIGHTS].digest if len(files[WEIGHTS].digest) == 64 else sha256(weights[0])
        else:
            digest = write_safetensors(kept, new_weights)
        made = {WEIGHTS: digest, CONFIG: sha256(new_config)}
    return made


def _check_config(path: Path, where: str) -> None:
    try:
        if isinstance(json.loads(path.read_text()), dict):
            return
    except ValueError:
        pass
    raise _unreadable(where, f"its {CONFIG} is not a JSON object")


def _tensors_of(path: Path, where: str) -> list[Tensor]:
    """List the tensors of a file that is as it was published, so that what is wrong with it was published too."""
    try:
        return tensors_of(path)
    except PhasegraphError as error:
        raise _unreadable(where, str(error).replace(str(path), path.name)) from error


def _unreadable(where: str, what: str) -> CheckpointFault:
    return CheckpointFault("unreadable", f"{where}: {what}; leave the step out")


def _place(source: Path, target: Path, may_link: bool) -> None:
    """Link a file, or copy it where that is not possible or it belongs to somebody else."""
    try:
        if may_link:
            return os.link(source, target)
    except OSError:
        pass  # another disk, or one that has no links
    shutil.copyfile(source, target)


def _belongs(pin: Pin, repo: str, revisions: str | Mapping[int, str], steps_per_index: int) -> bool:
    """Whether a pin is what would be resolved now, but for the commit."""
    if pin.repo != repo or not pin.revision:
        return pin.repo == repo  # a step that the repository lacked
    if not isinstance(revisions, str):
        return revisions.get(pin.step) == pin.revision
    place = grids.parse(revisions, pin.revision, steps_per_index)
    return place is not None and place.step == pin.step


def _exists(revision: str | None, commits: Mapping[str, str]) -> bool:
    return revision is not None and (revision in commits or bool(COMMIT.fullmatch(revision)))


def _is_made(out: Path, record: dict) -> bool:
    made = record.get("made", {})
    return made.keys() == {WEIGHTS, CONFIG} and all(
        (out / name).is_file() and sha256(out / name) == digest for name, digest in made.items()
    )
