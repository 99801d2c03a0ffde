"""One file from a hub: whole and verified, or an error that says what to do.

`huggingface_hub` does the transfer (its `http_get`): it follows redirects, drops the token when they lead to another
host, waits as a 429 asks, and goes on by a range request where a connection broke. Its `hf_hub_download` is not used,
because it starts anew in the next process and verifies nothing; here the part that arrived is kept and continued.
That also decides against the Xet protocol: only `hf_hub_download` ever chooses it. Hubs serve files stored with Xet
over plain HTTP too, and the hash that is verified is the same.
"""

import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from phasegraph.errors import PhasegraphError
from phasegraph.files import sha256

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

logger = logging.getLogger(__name__)

T = TypeVar("T")
ATTEMPTS = 5
"""How often a request is made that fails for a reason that may pass; the waits in between double, from 1 s."""
LARGEST = 50 * 1000**3
"""Bytes in the largest file that hubs serve over plain HTTP."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

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

    def transfer() -> None:
        with part.open("ab") as handle:
            size = handle.tell()
            if size > file.size:
                handle.truncate(size := 0)
            # identity: a compressed transfer could not be resumed
            headers = build_hf_headers(headers={"Accept-Encoding": "identity"})
            if size < file.size:
                http_get(url, handle, resume_size=size, headers=headers, expected_size=file.size)

    for attempt in range(2):
        # a 429 has been waited for by http_get, as often as is worth while
        patiently(transfer, statuses=(500, 502, 503, 504))
        if verified(part, file):
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


def verified(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the size and the hash that its repository states."""
    size = path.stat().st_size
    if size != file.size:
        return False
    if len(file.digest) == 64:
        return sha256(path) == file.digest
    # git's name of a blob: SHA-1 of a header and the content
    return hashlib.sha1(b"blob %d\0" % size + path.read_bytes(), usedforsecurity=False).hexdigest() == file.digest


def patiently(action: Callable[[], T], statuses: tuple[int, ...]) -> T:
    """Call until it succeeds, with growing waits, as long as the failure is one that may pass.

    Parameters
    ----------
    action
        What to call.
    statuses
        HTTP statuses that may pass; broken and refused connections always may.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # the latter: of whichever HTTP client the hub uses

    for attempt in range(ATTEMPTS):
        try:
            return action()
        except (HTTPError, OSError) as error:
            wait: float = 2**attempt
            if isinstance(error, HfHubHTTPError):
                if error.response.status_code not in statuses:
                    raise
                after = error.response.headers.get("Retry-After", "")
                wait = max(wait, int(after)) if after.isdigit() else wait
            elif not isinstance(error, HTTPError) and not _is_short(error):
                raise  # of this machine and not of the network: a full disk, a forbidden folder, offline mode
            if attempt == ATTEMPTS - 1:
                raise
            logger.warning("%s; trying again in %g s", _line(error), wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


@contextmanager
def plain_errors(repo: str, commit: str, folder: Path | None = None, endpoint: str | None = None) -> Iterator[None]:
    """Turn what the hub, the network and the disk say into one line that says what to do."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    host = endpoint or constants.ENDPOINT
    where = f"{repo} at {commit}" if commit else repo
    try:
        yield
    except hub.HfHubHTTPError as error:
        raise PhasegraphError(_refusal(error, repo, commit, host)) from error
    except hub.HTTPError as error:
        way_out = "check the network, a proxy and HF_ENDPOINT, then run again"
        raise PhasegraphError(f"{where}: {host} cannot be reached ({_line(error)}); {way_out}") from error
    except hub.OfflineModeIsEnabled as error:
        way_out = f"HF_HUB_OFFLINE forbids asking {host}; unset it and run with a network"
        raise PhasegraphError(f"{where} is not on this machine and {way_out}") from error
    except hub.HFValidationError as error:
        raise PhasegraphError(f"{repo!r} is not the name of a repository; give it as owner/name") from error
    except OSError as error:
        if _is_short(error):
            raise PhasegraphError(f"{where}: {host} sent another size than it stated; run again") from error
        if error.errno not in FULL:
            raise
        place = error.filename or folder
        raise PhasegraphError(f"{where}: no space left for {place} ({error.strerror}); free some, run again") from error


def _refusal(error: "HfHubHTTPError", repo: str, commit: str, host: str) -> str:
    from huggingface_hub import errors as hub
    from huggingface_hub import get_token

    status = error.response.status_code
    if isinstance(error, hub.GatedRepoError):
        return f"{repo} is gated: accept its conditions on {host}/{repo}, then set HF_TOKEN to your token"
    if isinstance(error, hub.RevisionNotFoundError):
        return f"{repo} at {commit}: {host} has no such commit; resolve the series again"
    if commit and status == 404 and not isinstance(error, hub.RepositoryNotFoundError):
        return f"{repo} at {commit}: {host} lists a file that it does not serve; run again later, or leave the step out"
    return _status(repo, host, status, bool(get_token()))


def _status(repo: str, host: str, status: int, token: bool) -> str:
    if status in (401, 404) and not token:
        way_out = "check its name, or set HF_TOKEN to a token that may read it"
        return f"{host} has no repository {repo}, or it is private: {way_out}"
    if status == 401:
        return f"{host} does not accept the token for {repo}: check HF_TOKEN"
    if status == 403:
        return f"{host} refuses {repo}: the token in HF_TOKEN may not read it; give it the right, or use another"
    if status == 404:
        return f"{host} has no repository {repo}, or the token in HF_TOKEN may not see it: check its name and the token"
    if status == 429:
        return f"{host} limits how often {repo} may be asked (429): run again later or with fewer downloads at a time"
    return f"{host} answered {status} for {repo}, again and again: run again later"


def _is_short(error: OSError) -> bool:
    """Whether this is http_get's complaint that a file has another size than was said."""
    return type(error) is OSError and "Consistency check failed" in str(error)


def _line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what cannot be finished.

    Raises
    ------
    PhasegraphError
        If the disk of `folder` has fewer than `needed` bytes left.
    """
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize
    if free < needed:
        raise PhasegraphError(
            f"{what} needs {needed / 1e6:,.0f} MB on the disk of {folder}, which has {free / 1e6:,.0f} MB left;"
            " free some, or let the downloads lie elsewhere"
        )
