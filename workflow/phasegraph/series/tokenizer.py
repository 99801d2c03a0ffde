"""The tokenizer of a series in a repository of a hub, once: revisions share it, and some of them lack it."""

import json
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic, sha256
from phasegraph.series.fault import CheckpointFault
from phasegraph.series.listing import bring, files_of, record_of
from phasegraph.series.refusals import plain_errors

logger = logging.getLogger(__name__)

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
VOCABULARY = ("tokenizer.json", "vocab.json", "tokenizer.model")
"""Files of which a tokenizer needs at least one: the settings alone do not make one."""
SOURCE = "source.json"


def fetch_tokenizer(
    repo: str,
    commits: Iterable[str],
    out: str | Path,
    *,
    downloads: str | Path | None = None,
    endpoint: str | None = None,
) -> dict[str, object]:
    """Put the tokenizer's files of the first commit that has one into a folder.

    ``source.json`` is written last and removed first: where it is, the files that it lists are whole. A second call
    finds, by hash, that all is there, and asks nobody. A repository without a tokenizer is no error.

    Parameters
    ----------
    repo
        Repository, as owner/name.
    commits
        Where to look, in this order: full commits.
    out
        The folder. Other files in it stay.
    downloads
        Where downloads lie until they are whole, and what was listed; ``<out>/../.downloads`` if None.
    endpoint
        Address of the hub; what HF_ENDPOINT says if None.

    Returns
    -------
    dict
        What ``source.json`` holds: ``repo``, ``commit`` and ``files``, the SHA-256 of each by its name. Without a
        tokenizer the commit is empty, and so are the files.

    Raises
    ------
    PhasegraphError
        If the repository cannot be had now: the network, the rights, a transfer that went wrong twice, a full disk.
    """
    out = Path(out)
    downloads = out.absolute().parent / ".downloads" if downloads is None else Path(downloads)
    for commit in commits:
        try:
            if source := _fetch_from(repo, commit, out, downloads, endpoint):
                return source
        except CheckpointFault as fault:
            logger.warning("no tokenizer from there: %s", fault)
    logger.warning("%s has no tokenizer in any commit of the series", repo)
    source = {"repo": repo, "commit": "", "files": {}}
    _write(out, source, {})
    return source


def _fetch_from(repo: str, commit: str, out: Path, downloads: Path, endpoint: str | None) -> dict[str, object] | None:
    """Take the tokenizer of one commit; None if it has none."""
    folder = downloads / commit
    with plain_errors(repo, commit, downloads, endpoint), record_of(downloads, commit) as (record, save):
        files, all_known = files_of(repo, commit, record, save, endpoint)
        names = [name for name in TOKENIZER if name in files]
        if not set(names) & set(VOCABULARY):
            if not all_known:
                way_out = "unset HF_HUB_OFFLINE to look for it"
                raise PhasegraphError(f"the tokenizer of {repo} at {commit} is not on this machine; {way_out}")
            return None
        source = _made(out)
        if (source.get("repo"), source.get("commit"), sorted(source.get("files", ()))) == (repo, commit, sorted(names)):
            logger.info("%s holds the tokenizer of %s at %s already", out, repo, commit[:8])
            return source
        folder.mkdir(exist_ok=True)
        paths = {name: bring(repo, commit, files[name], folder, endpoint) for name in names}
        source = {"repo": repo, "commit": commit, "files": {name: sha256(path) for name, path in paths.items()}}
        _write(out, source, paths)
        for path in paths.values():
            if path.parent == folder:
                path.unlink()
        with suppress(OSError):
            folder.rmdir()  # unless weights of this commit are kept there
    logger.info("wrote %s: the tokenizer of %s at %s", out, repo, commit[:8])
    return source


def _made(out: Path) -> dict:
    """Give what source.json says, if the files are as it says."""
    try:
        source = json.loads((out / SOURCE).read_text())
        whole = all(sha256(out / name) == digest for name, digest in source["files"].items())
        return source if whole else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(out: Path, source: dict[str, object], paths: dict[str, Path]) -> None:
    for name in (SOURCE, *TOKENIZER):
        (out / name).unlink(missing_ok=True)
    for name, path in paths.items():
        with atomic(out / name) as temporary:
            temporary.write_bytes(path.read_bytes())
    with atomic(out / SOURCE) as temporary:
        temporary.write_text(json.dumps(source, indent=1) + "\n")
