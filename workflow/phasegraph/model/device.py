"""Where a model runs: on which device and card, with which arithmetic, and what is said when memory is short."""

import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from phasegraph.errors import PhasegraphError, first_line

_NO_MEMORY = re.compile(
    "out of memory|(can't|cannot) allocate memory|not enough memory|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED"
    "|could not create a primitive",  # oneDNN without memory for its code
    re.IGNORECASE,
)
_WANTED = re.compile(r"(?:allocate|mmap) (?:(\d+) bytes|([\d.]+ [KMGTPE]iB))")


def device_of(name: str) -> torch.device:
    """Find the device that ``auto``, ``cpu`` or ``cuda`` stands for.

    Where there are several cards, every process takes one of its own while there are free ones (`choose_card`): a
    scheduler on one machine counts cards and gives out none. What CUDA_VISIBLE_DEVICES hides is not looked at. The card
    becomes torch's current one, since libraries also say ``cuda`` without a number.

    Raises
    ------
    PhasegraphError
        If there is no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise PhasegraphError("model.device is cuda, but torch finds no CUDA device here; set it to auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", _own_card())
    torch.cuda.set_device(device)
    return device


@cache  # a process that asks again must not find its own lock in the way
def _own_card() -> int:
    names = []
    for card in range(torch.cuda.device_count()):
        # the number says little: it counts the visible cards, which differ from job to job
        names.append(str(getattr(torch.cuda.get_device_properties(card), "uuid", card)))
    folder = Path(tempfile.gettempdir()) / f"phasegraph-cards-{os.getuid()}"
    # asking for the free memory takes some on every card, so it is asked for only when all are taken
    return choose_card(names, lambda card: torch.cuda.mem_get_info(card)[0], folder)


def choose_card(names: Sequence[str], free: Callable[[int], int], folder: Path) -> int:
    """Take the first card that no process has taken, or when all are taken the one with the most free memory.

    A card is taken by a lock on a file of its name until this process ends, however it ends.

    Parameters
    ----------
    names
        What tells the visible cards apart on this machine.
    free
        Gives the free bytes of the card with a number.
    folder
        Where the files lie: a private folder of the user, made if missing.

    Returns
    -------
    int
        Number of the card, counted from 0 among the visible ones.

    Raises
    ------
    PhasegraphError
        If the folder belongs to somebody else, or others may write to it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise PhasegraphError(f"{folder} is not a private folder of yours; remove it or set TMPDIR to another place")
    for card, name in enumerate(names):
        if _lock(folder / f"{name}.lock"):
            return card
    return max(range(len(names)), key=free)


def _lock(path: Path) -> bool:
    """Lock a file until this process ends, if nobody else has locked it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # taken, or a file system without locks
        os.close(descriptor)
        return False
    return True  # left open: closing it would unlock it


def set_arithmetic(device: torch.device) -> None:
    """Make float32 mean float32, and the same command give the same bits."""
    # TF32 keeps 10 of float32's 23 bits. It is off by default, but some containers switch it on by a variable.
    torch.set_float32_matmul_precision("highest")
    if device.type == "cuda":
        # else sums by group would add up in the order in which threads arrive
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory is short, whichever library and device says it."""
    if isinstance(error, PhasegraphError):
        return False
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or bool(_NO_MEMORY.search(str(error)))


def shortage(error: BaseException) -> str:
    """Say in a few words what an out-of-memory error could not get: ``no room for 512 MiB more``."""
    if not (found := _WANTED.search(str(error))):
        return first_line(error)
    number, text = found.groups()
    return f"no room for {text or f'{int(number) / 2**20:.0f} MiB'} more"


@contextmanager
def memory_for(what: str | os.PathLike) -> Iterator[None]:
    """Turn errors that say that memory is short into one line that names a checkpoint.

    Raises
    ------
    PhasegraphError
        In the place of an out-of-memory error in the block.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        on_card = isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error)
        way_out = "take a card with more, set model.device to cpu" if on_card else "give the job more"
        sentence = f"{what}: not enough memory for this model ({shortage(error)}); {way_out}"
        raise PhasegraphError(f"{sentence}, or set the study's dtype to bfloat16") from error
