"""CPU seconds, extra memory and FLOPs of one call."""

import ctypes
import gc
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from torch.utils.flop_counter import FlopCounterMode


@dataclass
class Method:
    """One row of the table: what is run, and how it becomes what the row stands for."""

    name: str
    computes: str
    """What comes out."""
    run: Callable[[], object]
    scale: float = 1.0
    """What the row stands for, as a multiple of what is run."""
    scaled_from: str | None = None
    """What is run, if it is not the whole."""
    flops: int | None = None
    """Of one run; counted by `count` if not given."""
    seconds: list[float] = field(default_factory=list)
    """CPU seconds of each run, not scaled."""
    peaks: list[float] = field(default_factory=list)
    """Extra memory of each run in MiB."""

    def count(self) -> None:
        """Run once without timing, as a warm-up, and count the FLOPs."""
        with FlopCounterMode(display=False) as counter:
            self.run()
        if self.flops is None:
            self.flops = counter.get_total_flops()

    def time(self) -> None:
        """Run and note the CPU seconds and the extra memory."""
        tidy()
        before = _resident("VmRSS", reset=True)
        start = time.process_time()
        self.run()
        self.seconds.append(time.process_time() - start)
        after = _resident("VmHWM")
        if before is not None and after is not None:
            self.peaks.append(max(0.0, after - before))

    @property
    def median(self) -> float:
        """Median CPU seconds of what the row stands for."""
        return median(self.seconds) * self.scale


def round_robin(methods: list[Method], repeats: int, say: Callable[[str], None]) -> None:
    """Warm every method up, then time them in turn, so that a slow minute of the machine hits all of them."""
    for method in methods:
        say(f"warm-up: {method.name}")
        method.count()
    for repeat in range(repeats):
        for method in methods:
            method.time()
        say(f"repeat {repeat + 1} of {repeats}")


def tidy() -> None:
    """Collect garbage, and give freed memory back to the system (glibc), so that a peak is the method's own."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return  # another C library; peaks may then come out too low


def _resident(key: str, reset: bool = False) -> float | None:
    """Give VmRSS (now) or VmHWM (the highest since the last reset) in MiB; None where Linux's /proc is missing.

    Writing 5 to /proc/self/clear_refs sets the high-water mark back to the present size (see proc_pid_clear_refs(5)).
    """
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) / 1024
