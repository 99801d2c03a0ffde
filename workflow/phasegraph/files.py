"""Files that are either whole or absent, and told apart by content."""

import errno
import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phasegraph.errors import PhasegraphError

TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)@(?P<host>[^@/]+)\.tmp(\.[^.]*)?")
"""What `atomic` writes to; who writes there is part of the name, so that what a killed process left can be told."""

FULL = 1 << 20
"""Bytes: less free space than this makes a full disk the likely reason of an error that gives none."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary name to write to, and rename it to `path` when the block ends without an error.

    Temporary files of the same output whose process was killed are removed first.

    Parameters
    ----------
    path
        The file that shall exist, whole, afterwards. Its folder is made if it is missing.

    Yields
    ------
    Path
        The temporary name, in the same folder and with the same suffix (numpy appends one of its own otherwise).

    Raises
    ------
    PhasegraphError
        If the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}@{os.uname().nodename}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob(f".{glob.escape(path.stem)}.*@*.tmp{glob.escape(path.suffix)}"):
            if _is_abandoned(other.name):
                other.unlink(missing_ok=True)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.chmod(0o666 & ~_umask())  # safetensors writes 0600 whatever the umask says
        temporary.replace(path)
    except Exception as error:
        if not isinstance(error, PhasegraphError) and _disk_is_full(error, path.parent):
            raise PhasegraphError(f"{path}: the disk is full; make room and run the same command again") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: str | Path) -> int:
    """Remove all temporary files below a folder, but those of living processes of this host.

    Parameters
    ----------
    folder
        Where nothing writes on any other host.

    Returns
    -------
    int
        How many there were.
    """
    here = os.uname().nodename
    count = 0
    for path in Path(folder).rglob(".*@*.tmp*"):
        match = TEMPORARY.fullmatch(path.name)
        if match and (match["host"] != here or _is_abandoned(path.name)):
            path.unlink(missing_ok=True)
            count += 1
    return count


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _is_abandoned(name: str) -> bool:
    """Whether a temporary file's process was one of this host and has ended; of other hosts nothing is known."""
    match = TEMPORARY.fullmatch(name)
    if not match or match["host"] != os.uname().nodename:
        return False
    try:
        os.kill(int(match["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        pass
    return False


def _disk_is_full(error: Exception, folder: Path) -> bool:
    """Whether an error comes from a full disk or an exhausted quota, which not every library says by its number."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    texts = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]
    return any(text in str(error) for text in texts) or shutil.disk_usage(folder).free < FULL


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
