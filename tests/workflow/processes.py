"""Processes of runs in copies of the repository: started, watched, and killed at a moment that can be seen."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")
RESUME = (sys.executable, "-m", "phasegraph.resume", "snakemake")
SNAKEMAKE = (sys.executable, "-m", "snakemake")


class Process(NamedTuple):
    """What /proc tells of a living process."""

    pid: int
    parent: int
    state: str
    """R, S, T (stopped), ... as in /proc/<pid>/stat."""
    command: str
    """Words with spaces between them."""
    output: str
    """Where its standard output goes; of a job this is the rule's log."""


class Run(subprocess.Popen):
    """A command in a copy of the repository, which imports its own copy of the library; leader of a process group."""

    def __init__(self, folder: Path, command: list[str], environment: dict[str, str]) -> None:
        self.folder = folder
        self.text = folder.parent / f"{folder.name}-{time.monotonic_ns()}.txt"  # a pipe that nobody reads fills up
        with self.text.open("w") as output:
            super().__init__(command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True)

    def end(self, seconds: float = 200) -> tuple[int, str]:
        """Wait for the end; give the exit status and what was said."""
        try:
            return self.wait(seconds), self.text.read_text()
        except subprocess.TimeoutExpired:
            self.kill_group(signal.SIGKILL)
            raise

    def kill_group(self, number: signal.Signals) -> None:
        """Send a signal as a terminal does."""
        os.killpg(self.pid, number)


def start(folder: Path, *options: str, config: str, command: tuple[str, ...] = SNAKEMAKE, **variables: str) -> Run:
    """Start Snakemake, or `RESUME`, in a copy of the repository and do not wait for it."""
    environment = os.environ | {"PYTHONPATH": str(folder / "workflow")} | variables
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    own = ["--cores", "2", "--configfile", config, "--max-jobs-per-timespan", "100/1s"]
    return Run(folder, [*command, *own, *options], environment)


def processes_below(folder: Path) -> list[Process]:
    """List the living processes whose working directory is a folder or below it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (entry / "cwd").readlink().is_relative_to(folder.resolve()):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                command = os.fsdecode((entry / "cmdline").read_bytes()).replace("\0", " ").strip()
                output = str((entry / "fd/1").readlink())
                found.append(Process(int(entry.name), int(parent), state, command, output))
    return found


def gone_within(folder: Path, seconds: float) -> bool:
    """Whether no process works below a folder any more, or soon none does."""
    with suppress(TimeoutError):
        return soon(lambda: not processes_below(folder), seconds)
    return False


def soon(condition: Callable[[], T], seconds: float = 100) -> T:
    """Wait until something holds, and give it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {seconds} s")
        time.sleep(0.01)
    return value


def digests(folder: Path, *, but: Callable[[Path], bool] = lambda _: False) -> dict[str, str]:
    """Give the SHA-256 of every file below a folder by its path there, temporary files included."""
    files = [path for path in folder.rglob("*") if path.is_file() and not but(path)]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
