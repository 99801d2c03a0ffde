"""What a repository holds: the commit of each revision, the files of a commit, and which of them are the weights.

Asked of the hub or, offline, of the cache that `huggingface_hub` keeps on this machine. What a commit holds never
changes, and is noted for the next time.
"""

import fcntl
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from phasegraph.series.downloads import RemoteFile, download, patiently, verified
from phasegraph.series.fault import CheckpointFault
from phasegraph.series.grids import SHOWN
from phasegraph.series.layout import CONFIG, INDEX, LAYOUTS

logger = logging.getLogger(__name__)


def commits_of(repo: str, endpoint: str | None) -> dict[str, str]:
    """Give the commit of every branch and tag, from the hub or, offline, from its cache on this machine."""
    from huggingface_hub import HfApi, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound, OfflineModeIsEnabled

    try:
        refs = patiently(lambda: HfApi(endpoint=endpoint).list_repo_refs(repo), (408, 429, 500, 502, 503, 504))
        return {ref.name: ref.target_commit for ref in (*refs.tags, *refs.branches)}  # branches win
    except OfflineModeIsEnabled:
        try:
            repos = scan_cache_dir().repos
        except CacheNotFound:
            repos = frozenset()
        refs = [cached.refs for cached in repos if cached.repo_id == repo and cached.repo_type == "model"]
        if not refs:
            raise
        return {name: revision.commit_hash for name, revision in refs[0].items()}


@contextmanager
def record_of(downloads: Path, commit: str) -> Iterator[tuple[dict, Callable[[dict], None]]]:
    """Give what was noted about a commit, and a way to note more; other processes wait for their turn."""
    downloads.mkdir(parents=True, exist_ok=True)
    with (downloads / f"{commit}.json").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            logger.warning("%s has no file locks; do not fetch one commit twice at the same time", downloads)
        handle.seek(0)
        try:
            record = json.load(handle)
        except ValueError:  # new, or cut off by a kill
            record = {}

        def save(new: dict) -> None:
            text = json.dumps(new)
            handle.seek(0)
            handle.truncate()
            handle.write(text)
            handle.flush()
            record.update(new)

        yield record, save


def files_of(
    repo: str, commit: str, record: dict, save: Callable[[dict], None], endpoint: str | None
) -> tuple[dict[str, RemoteFile], bool]:
    """List the files of a commit, and say whether these are all, or those that the hub's cache on this machine has.

    All are recorded: they never change, so that what was recorded is good for ever.
    """
    from huggingface_hub import HfApi, RepoFile, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled

    if record.get("repo") == repo and "files" in record:
        return {row[0]: RemoteFile(*row) for row in record["files"]}, True
    try:
        tree = list(HfApi(endpoint=endpoint).list_repo_tree(repo, revision=commit))  # retries by itself
        entries = [entry for entry in tree if isinstance(entry, RepoFile)]
        found = [
            RemoteFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id) for entry in entries
        ]
        save({"repo": repo, "files": [[file.path, file.size, file.digest] for file in found if "/" not in file.path]})
        return files_of(repo, commit, record, save, endpoint)
    except OfflineModeIsEnabled:
        config = try_to_load_from_cache(repo, CONFIG, revision=commit)
        if not isinstance(config, str):
            raise
        # In the hub's cache a file's name is a link to its content, which is named by its hash.
        paths = [path for path in Path(config).parent.iterdir() if path.is_file() and path.is_symlink()]
        return {path.name: RemoteFile(path.name, path.stat().st_size, path.resolve().name) for path in paths}, False


def bring(repo: str, commit: str, file: RemoteFile, folder: Path, endpoint: str | None) -> Path:
    """Find a file in the hub's cache, or else download it into `folder` (see `download`)."""
    if cached := in_hub_cache(repo, commit, file):
        logger.info("%s at %s: %s is in the hub's cache", repo, commit[:8], file.path)
        return cached
    logger.info("%s at %s: %s (%.1f MB)", repo, commit[:8], file.path, file.size / 1e6)
    return download(repo, commit, file, folder, endpoint)


def in_hub_cache(repo: str, commit: str, file: RemoteFile) -> Path | None:
    """Find a file that another program has downloaded, if its size and hash are right."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repo, file.path, revision=commit)
    return Path(cached) if isinstance(cached, str) and verified(Path(cached), file) else None


def weight_files(
    repo: str, commit: str, files: dict[str, RemoteFile], get: Callable[[str], Path]
) -> tuple[list[str], Iterable[str]]:
    """Choose the files that hold the weights; with shards, also the names of the tensors in them.

    Raises
    ------
    CheckpointFault
        If the commit lacks its configuration, its weights or some of their shards.
    """
    where = f"{repo} at {commit}"
    if CONFIG not in files:
        raise CheckpointFault("missing", f"{where} has no {CONFIG}; {_there(files)}; leave the step out")
    found = next((name for name in LAYOUTS if name in files), None)
    if found is None:
        sentence = f"{where} has no {' or '.join(LAYOUTS[::2])}, nor shards of one; {_there(files)}"
        raise CheckpointFault("missing", f"{sentence}; leave the step out")
    if not found.endswith(INDEX):
        return [found], ()
    try:
        shards = json.loads(get(found).read_text())["weight_map"]
        names = sorted(set(shards.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointFault(
            "unreadable", f"{where}: {found} is not an index ({error!r}); leave the step out"
        ) from error
    if lacking := [shard for shard in names if shard not in files]:
        raise CheckpointFault("unreadable", f"{where} lacks the shards {few(lacking)}; leave the step out")
    return names, shards.keys()


def few(items: Sequence[object]) -> str:
    """Name the first three of many things."""
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(map(str, items[:3])) + more


def _there(files: Iterable[str]) -> str:
    return f"there is {', '.join(sorted(files)[:SHOWN])}" if files else "it is empty"
