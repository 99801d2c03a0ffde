"""What a command used, told as the last line of its log; `phasegraph.summary` reads it there.

Snakemake's `benchmark:` would watch the processes below a rule's shell. There it finds the client of `phasegraph.warm`
and not the job, and on a cluster the tables would need a rule each. So every job tells for itself.
"""

import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

LINE = re.compile(
    r"^used(?P<failed> until it failed)?: (?P<seconds>\d+\.\d+) s, (?P<cpu>\d+\.\d+) CPU s, (?P<mib>\d+) MiB$",
    re.MULTILINE,
)
"""The line that `usage_told` writes."""


class Usage(NamedTuple):
    """What one job used."""

    seconds: float
    """Wall time, see `usage_told`."""
    cpu_seconds: float
    """User and system time of the process and of the children that it has waited for."""
    max_rss_mib: int
    """Peak resident memory in MiB, of the process or of its largest child, whichever is more."""
    failed: bool
    """Whether the job ended with an error."""


@contextmanager
def usage_told() -> Iterator[None]:
    """Write what this process has used to standard error when the block ends, however it ends.

    Nothing is written by hand: neither to a terminal nor where standard output and standard error part, as they do for
    a program that reads them. A rule sends both to its log.

    The wall time begins with the process, so the imports of a plain command count. A job of `phasegraph.warm` begins
    with its fork, so those of the server do not. Where there is no /proc, it begins with the block. What an interpreter
    does after the block, to end, is not counted.

    A forked job's memory includes the pages that it shares with the server, as a plain one's includes its libraries: it
    is what the job would need alone, and less is needed for several at once. Linux' high-water mark of the address
    space (VmHWM) is taken and not ru_maxrss, which survives an exec: that of a small command may be the size of the
    Snakemake that started its shell. Where there is no /proc, it is ru_maxrss (bytes on macOS, KiB elsewhere).
    """
    began = time.monotonic()
    failed = True
    try:
        yield
        failed = False
    except SystemExit as end:
        failed = bool(end.code)
        raise
    finally:
        if _goes_to_a_log():
            with suppress(OSError, ValueError):  # a full disk, a reader that went away: the job's affair, not ours
                sys.stdout.flush()
                until = " until it failed" if failed else ""
                seconds, cpu, mib = _seconds(began), _cpu_seconds(), _peak_mib()
                print(f"used{until}: {seconds:.3f} s, {cpu:.3f} CPU s, {mib} MiB", file=sys.stderr, flush=True)


def usage_in(log: str) -> Usage | None:
    """Read the last record in a log's text; None if it has none.

    Examples
    --------
    >>> usage_in("used: 1.250 s, 1.100 CPU s, 512 MiB")
    Usage(seconds=1.25, cpu_seconds=1.1, max_rss_mib=512, failed=False)
    """
    lines = list(LINE.finditer(log))
    if not lines:
        return None
    last = lines[-1]
    return Usage(float(last["seconds"]), float(last["cpu"]), int(last["mib"]), bool(last["failed"]))


def _goes_to_a_log() -> bool:
    """Whether standard output and standard error are one file or pipe, and no terminal."""
    try:
        out, error = (os.fstat(stream.fileno()) for stream in (sys.stdout, sys.stderr))
    except (AttributeError, OSError, ValueError):  # closed, or replaced
        return False
    return os.path.samestat(out, error) and not sys.stderr.isatty()


def _seconds(began: float) -> float:
    """Wall time since the process began, to a hundredth of a second; where that is unknown, since `began`."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()  # the name may hold spaces
        # The start is counted in clock ticks since boot, with the time that the machine slept.
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.monotonic() - began


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_mib() -> int:
    unit = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss, per MiB
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10
    except (OSError, StopIteration):
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return round(max(own, child))
