"""What the hub, the network and the disk say, as one line that says what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from phasegraph.errors import PhasegraphError, first_line
from phasegraph.series.fault import CheckpointFault

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Incomplete(OSError):
    """The server ended a file, in good order, before it was whole."""


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
        if commit and isinstance(error, hub.RevisionNotFoundError):
            sentence = f"{where}: {host} has no such commit; resolve the series again"
            raise CheckpointFault("missing", sentence) from error
        raise PhasegraphError(_refusal(error, repo, host)) from error
    except hub.HTTPError as error:
        way_out = "check the network, a proxy and HF_ENDPOINT, then run again"
        raise PhasegraphError(f"{where}: {host} cannot be reached ({first_line(error)}); {way_out}") from error
    except hub.OfflineModeIsEnabled as error:
        way_out = f"HF_HUB_OFFLINE forbids asking {host}; unset it and run with a network"
        raise PhasegraphError(f"{where} is not on this machine and {way_out}") from error
    except hub.HFValidationError as error:
        raise PhasegraphError(f"{repo!r} is not the name of a repository; give it as owner/name") from error
    except Incomplete as error:
        raise PhasegraphError(f"{where}: {error}, again and again; run again later") from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        place = error.filename or folder
        raise PhasegraphError(f"{where}: no space left for {place} ({error.strerror}); free some, run again") from error


def _refusal(error: "HfHubHTTPError", repo: str, host: str) -> str:
    from huggingface_hub import errors as hub
    from huggingface_hub import get_token

    status = error.response.status_code
    if isinstance(error, hub.GatedRepoError):
        return f"{repo} is gated: accept its conditions on {host}/{repo}, then set HF_TOKEN to your token"
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
