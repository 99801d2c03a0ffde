"""What a repository holds: the commit of each revision, the files of a commit, and which of them are the weights.

Asked of the hub or, offline, of the cache that `huggingface_hub` keeps on this machine.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from phasegraph.errors import PhasegraphError
from phasegraph.series.downloads import RemoteFile, patiently, verified
from phasegraph.series.grids import SHOWN

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SINGLE_FILES = (WEIGHTS, "pytorch_model.bin")
INDEX = ".index.json"


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


def files_of(repo: str, commit: str, record: dict, endpoint: str | None) -> dict[str, RemoteFile]:
    """List the files of a commit, which never change, so that what was recorded is good for ever."""
    from huggingface_hub import HfApi, RepoFile, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled

    if record.get("repo") == repo and record.get("files"):
        return {row[0]: RemoteFile(*row) for row in record["files"]}
    try:
        tree = list(HfApi(endpoint=endpoint).list_repo_tree(repo, revision=commit))  # retries by itself
        entries = [entry for entry in tree if isinstance(entry, RepoFile)]
        found = [
            RemoteFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id) for entry in entries
        ]
    except OfflineModeIsEnabled:
        config = try_to_load_from_cache(repo, CONFIG, revision=commit)
        if not isinstance(config, str):
            raise
        # In the hub's cache a file's name is a link to its content, which is named by its hash.
        paths = [path for path in Path(config).parent.iterdir() if path.is_file() and path.is_symlink()]
        found = [RemoteFile(path.name, path.stat().st_size, path.resolve().name) for path in paths]
    return {file.path: file for file in found if "/" not in file.path}


def in_hub_cache(repo: str, commit: str, file: RemoteFile) -> Path | None:
    """Find a file that another program has downloaded, if its size and hash are right."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repo, file.path, revision=commit)
    return Path(cached) if isinstance(cached, str) and verified(Path(cached), file) else None


def weight_files(
    repo: str, commit: str, files: dict[str, RemoteFile], get: Callable[[str], Path]
) -> tuple[list[str], Iterable[str]]:
    """Choose the files that hold the weights; with shards, also the names of the tensors in them."""
    if CONFIG not in files:
        raise PhasegraphError(f"{repo} at {commit} has no {CONFIG}; {_there(files)}; leave the step out")
    for name in SINGLE_FILES:
        if name in files:
            return [name], ()
        if name + INDEX in files:
            try:
                shards = json.loads(get(name + INDEX).read_text())["weight_map"]
                names = sorted(set(shards.values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise PhasegraphError(
                    f"{repo} at {commit}: {name}{INDEX} is not an index ({error!r}); leave the step out"
                ) from error
            if lacking := [shard for shard in names if shard not in files]:
                raise PhasegraphError(f"{repo} at {commit} lacks the shards {few(lacking)}; leave the step out")
            return names, shards.keys()
    raise PhasegraphError(
        f"{repo} at {commit} has no {' or '.join(SINGLE_FILES)}, nor shards of one; {_there(files)}; leave the step out"
    )


def few(items: Sequence[object]) -> str:
    """Name the first three of many things."""
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(map(str, items[:3])) + more


def _there(files: Iterable[str]) -> str:
    return f"there is {', '.join(sorted(files)[:SHOWN])}" if files else "it is empty"
