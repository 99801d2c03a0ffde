"""One file from a hub: whole and verified, or an error that says what to do.

`huggingface_hub` does the transfer (its `http_stream_backoff`, with its session): it follows redirects, drops the token
when they lead to another host, and waits as a 429 asks. What it streams is written and hashed piece by piece, so that
a file is read once, and where the connection or the process broke, a range request goes on from the last piece. The
library's own loops around the same stream do less: `http_get` copies everything three times more to make pieces of
10 MB, which are what a break loses; `hf_hub_download` starts anew in the next process and verifies nothing.
That also decides against the Xet protocol: only `hf_hub_download` ever chooses it. Hubs serve files stored with Xet
over plain HTTP too, and the hash that is verified is the same.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from phasegraph.errors import PhasegraphError, first_line
from phasegraph.series.fault import CheckpointFault
from phasegraph.series.refusals import Incomplete

logger = logging.getLogger(__name__)

T = TypeVar("T")
ATTEMPTS = 5
"""How often a request is made that fails for a reason that may pass; the waits in between double, from 1 s."""
LARGEST = 50 * 1000**3
"""Bytes in the largest file that hubs serve over plain HTTP."""
PIECE = 1 << 20
"""Bytes that are read at a time to be hashed."""


@dataclass(frozen=True)
class RemoteFile:
    """A file in a commit."""

    path: str
    """Its name in the repository."""
    size: int
    """Bytes."""
    digest: str
    """SHA-256 of a file in large-file storage (64 digits), else the SHA-1 by which git knows it (40 digits)."""


def download(repo: str, commit: str, file: RemoteFile, folder: Path, endpoint: str | None = None) -> Path:
    """Bring a file into a folder, unless it is there.

    Parameters
    ----------
    repo, commit, file
        What to download.
    folder
        Where to: as ``folder/file.path``, and as ``<file.path>.part`` while it is not whole.
    endpoint
        Address of the hub; what HF_ENDPOINT says if None.

    Returns
    -------
    Path
        The whole file, its size and hash verified.

    Raises
    ------
    PhasegraphError
        If it cannot be had, or has another content than the repository says.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if file.size > LARGEST:
        raise PhasegraphError(
            f"{file.path} of {repo} has {file.size / 1e9:.0f} GB, too many for plain HTTP: run hf download {repo}"
            f" {file.path} --revision {commit} first; its cache is used"
        )
    path = folder / file.path
    if path.is_file() and verified(path, file):
        return path
    part = path.with_name(f"{path.name}.part")
    url = hf_hub_url(repo, file.path, revision=commit, endpoint=endpoint)
    for attempt in range(2):
        try:
            right = _arrives(url, part, file)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except HfHubHTTPError as error:
            if error.response.status_code != 404:
                raise
            sentence = f"{repo} at {commit}: its listing names {file.path}, which the server does not have (404)"
            raise CheckpointFault("missing", f"{sentence}; leave the step out") from error
        if right:
            part.replace(path)
            return path
        logger.warning("%s of %s at %s has a wrong hash", file.path, repo, commit[:8])
        part.unlink()
        if attempt == 0:
            logger.warning("downloading it once more from the start")
    raise PhasegraphError(
        f"{file.path} of {repo} at commit {commit} is served with another content than its hash says, twice;"
        " try again later, or take this step out of the series and tell the repository's owner"
    )


class _Arriving:
    """A part of a file that grows: what has been written has been hashed too."""

    def __init__(self, handle: BinaryIO, file: RemoteFile) -> None:
        self.handle, self.file = handle, file
        self.size = os.fstat(handle.fileno()).st_size
        self.digest = _hasher(file)
        if self.size > file.size:
            self.restart()
        elif self.size:
            handle.seek(0)
            _hash(handle, self.digest)

    def restart(self) -> None:
        self.handle.truncate(0)  # what is written is appended, wherever the position is
        self.size, self.digest = 0, _hasher(self.file)

    def write(self, piece: bytes) -> None:
        self.handle.write(piece)
        self.digest.update(piece)
        self.size += len(piece)

    def is_right(self) -> bool:
        return self.size == self.file.size and self.digest.hexdigest() == self.file.digest


def _arrives(url: str, part: Path, file: RemoteFile) -> bool:
    """Receive what is still lacking of a file; whether it has the right content then."""
    from huggingface_hub.errors import HfHubHTTPError

    with part.open("a+b") as handle:
        arriving = _Arriving(handle, file)
        try:
            # a 429 has been waited for by the hub's client, as often as is worth while
            patiently(lambda: _receive(url, arriving), (500, 502, 503, 504), lambda: arriving.size)
        except HfHubHTTPError as error:
            if error.response.status_code != 416:
                raise
            return False  # what the server has ends before this part does
        return arriving.is_right()


def _receive(url: str, arriving: _Arriving) -> None:
    """Make one request for what is still lacking, and write what comes."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    if arriving.size == arriving.file.size:
        return
    headers = {"Accept-Encoding": "identity"}  # a compressed transfer could not be resumed
    if arriving.size:
        headers["Range"] = f"bytes={arriving.size}-"
    with http_stream_backoff(
        "GET",
        url,
        headers=build_hf_headers(headers=headers),
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        retry_on_exceptions=(),
        retry_on_status_codes=(408, 429),
    ) as response:
        hf_raise_for_status(response)
        if arriving.size and response.status_code != 206:  # the range was ignored, and the file comes from its start
            arriving.restart()
        for piece in response.iter_bytes():
            arriving.write(piece)
            if arriving.size > arriving.file.size:
                return
    if arriving.size < arriving.file.size:
        raise Incomplete(f"the server sent {arriving.size} of {arriving.file.size} bytes of {arriving.file.path}")


def verified(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the size and the hash that its repository states."""
    if path.stat().st_size != file.size:
        return False
    with path.open("rb") as handle:
        return _hash(handle, _hasher(file)).hexdigest() == file.digest


def _hasher(file: RemoteFile) -> "hashlib._Hash":
    if len(file.digest) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)  # git's name of a blob: with a header


def _hash(handle: BinaryIO, digest: "hashlib._Hash") -> "hashlib._Hash":
    while piece := handle.read(PIECE):
        digest.update(piece)
    return digest


def patiently(action: Callable[[], T], statuses: tuple[int, ...], progress: Callable[[], int] = lambda: 0) -> T:
    """Call until it succeeds, with growing waits, as long as the failure is one that may pass.

    Parameters
    ----------
    action
        What to call.
    statuses
        HTTP statuses that may pass; broken and refused connections always may.
    progress
        Says how far it has come: as long as that grows, the failures are not counted.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # the latter: of whichever HTTP client the hub uses

    failures, reached = 0, progress()
    while True:
        try:
            return action()
        except (HTTPError, Incomplete) as error:
            if progress() > reached:
                failures, reached = 0, progress()
            failures += 1
            wait, reason = 2 ** (failures - 1), first_line(error)
            if isinstance(error, HfHubHTTPError):
                if error.response.status_code not in statuses:
                    raise
                after = error.response.headers.get("Retry-After", "")
                wait = max(wait, int(after)) if after.isdigit() else wait
                reason = f"the server answered {error.response.status_code}"  # the error names a signed address
            if failures == ATTEMPTS:
                raise
            logger.warning("%s; trying again in %d s", reason, wait)
            time.sleep(wait)
