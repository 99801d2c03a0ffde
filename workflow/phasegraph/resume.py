"""``python -m phasegraph.resume snakemake --cores 8``: a Snakemake command that also works after a crash.

A Snakemake that was killed (kill -9, out of memory) leaves its directory locked, and its jobs running or in SLURM's
queue, where they write the same files as the next run's. This clears up after it and then becomes the command. Where
there is nothing to clear up, it is just the command.

A Snakemake that still works in the directory is left alone if it runs on this host, or was itself started by this
module and the file system has locks. Any other one on another host, in another container or in a SLURM job of its own
cannot be seen: its jobs would be cancelled and its lock removed. So start all runs of a directory on one host.
"""

import argparse
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from phasegraph.errors import PhasegraphError, user_errors
from phasegraph.files import remove_temporaries

PYTHON = r"([^\0]*/)?python[^\0/]*\0(-[WX]\0[^\0]+\0|-[^\0]+\0)*"
SNAKEMAKE = re.compile(rf"({PYTHON})?([^\0]*/)?snakemake(/__main__\.py)?\0")
"""Command lines as /proc shows them: snakemake, python -m snakemake, python .../bin/snakemake."""
STAGE = re.compile(rf"{PYTHON}phasegraph[.\0]")
"""python -m phasegraph..."""
RUN_NAME = re.compile(r"(.*_)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""How the SLURM executor names the jobs of a run: a UUID, behind the prefix that --slurm-jobname-prefix asks for."""
PATIENCE = 10
"""Seconds that a process has to end after SIGTERM, and after SIGKILL."""
ANSWER = 5
"""Seconds that squeue and scancel have to answer."""
CANCELLED = 120
"""Seconds that cancelled SLURM jobs have to leave the queue."""


def main(command: list[str]) -> NoReturn:
    """Make the directory of a Snakemake command usable and become that command.

    Raises
    ------
    PhasegraphError
        If a Snakemake still works there, or what a killed one has left cannot be cleared up.
    """
    words = SNAKEMAKE.match("\0".join([*command, ""]))
    if not words:
        raise PhasegraphError("a Snakemake command must follow: python -m phasegraph.resume snakemake --cores 8")
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-d", "--directory", default=".")
    folder = Path(parser.parse_known_args(command)[0].directory).resolve()
    if folder.is_dir():
        refuse_beside_another(folder)
        cancel_slurm_jobs(folder)
        end_orphans(folder)
        if count := remove_temporaries(folder / "results"):
            _say(f"removed {count} half-written file(s)")
        if any((folder / ".snakemake/locks").glob("*")):
            first = words[0].count("\0")
            unlock([*command[:first], "--unlock", *command[first:]], folder)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise PhasegraphError(f"{command[0]}: {error.strerror}; is the environment active?") from error


def refuse_beside_another(folder: Path) -> None:
    """Make sure that no other Snakemake works in a directory, and keep a second resume out.

    Raises
    ------
    PhasegraphError
        If one does.
    """
    for pid, command in processes_in(folder).items():
        if SNAKEMAKE.match(command) and "\0--mode\0" not in command:  # which is one inside of a SLURM job
            way_out = f"wait for its end, or end it (kill {pid}), and then run this again"
            raise PhasegraphError(f"Snakemake (process {pid}) still works in {folder}: {way_out}")
    handle = os.open(folder, os.O_RDONLY)
    os.set_inheritable(handle, True)  # the command holds it until it ends; its jobs do not get it
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        another = "another phasegraph.resume, or the Snakemake that it became, works there, maybe on another host"
        raise PhasegraphError(f"{folder}: {another}; wait for its end, and then run this again") from None
    except OSError:  # a file system without locks
        pass


def processes_in(folder: Path) -> dict[int, str]:
    """Give the command lines, each word ended by NUL, of this user's processes that work in a directory."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):  # nothing where there is no /proc
        with suppress(OSError):  # it has ended
            if entry.stat().st_uid == os.getuid() and (entry / "cwd").readlink() == folder:
                found[int(entry.name)] = os.fsdecode((entry / "cmdline").read_bytes())
    return found


def orphans_in(folder: Path) -> list[int]:
    """Give the ids of the jobs that run in a directory where no Snakemake does.

    What was started by hand is none: Snakemake tells its jobs how many threads they have, also by a variable that
    hardly anybody else sets.
    """
    found = []
    for pid in (pid for pid, command in processes_in(folder).items() if STAGE.match(command)):
        with suppress(OSError):  # it has ended
            if b"GOTO_NUM_THREADS=" in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def end_orphans(folder: Path) -> None:
    """End the jobs that a killed Snakemake has left."""
    if orphans := orphans_in(folder):
        _say(f"ending {len(orphans)} process(es) of a killed run ({' '.join(map(str, orphans))})")
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in orphans_in(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + PATIENCE
        while orphans_in(folder) and time.monotonic() < deadline:
            time.sleep(0.05)


def cancel_slurm_jobs(folder: Path) -> None:
    """Cancel what a killed Snakemake has left to SLURM, where there is SLURM, and wait until it has ended.

    Raises
    ------
    PhasegraphError
        If it does not end.
    """
    if shutil.which("squeue") is None:
        return
    try:
        if jobs := slurm_jobs(folder):
            _say(f"cancelling {len(jobs)} SLURM job(s) of a killed run ({' '.join(jobs)})")
            _answer_of("scancel", *jobs)
        deadline = time.monotonic() + CANCELLED
        while jobs and (jobs := slurm_jobs(folder)):
            if time.monotonic() > deadline:
                raise PhasegraphError(f"SLURM jobs {' '.join(jobs)} do not end; look at squeue, then run this again")
            time.sleep(1)
    except (OSError, ValueError, subprocess.SubprocessError):
        _say("squeue or scancel fails or takes too long: if a killed run has left SLURM jobs, cancel them yourself")


def slurm_jobs(folder: Path) -> list[str]:
    """Give the ids of the jobs, pending, running or completing, that a Snakemake has submitted from a directory."""
    answer = _answer_of("squeue", "--noheader", f"--user={os.getuid()}", "--format=%A|%j|%Z")
    rows = [line.strip().split("|", 2) for line in answer.splitlines()]
    return [job for job, name, place in rows if RUN_NAME.fullmatch(name) and Path(place).resolve() == folder]


def unlock(command: list[str], folder: Path) -> None:
    """Run the command that removes the locks.

    Raises
    ------
    PhasegraphError
        If it fails; what it said is shown before.
    """
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode != 0:
        print(finished.stdout, end="", file=sys.stderr)
        raise PhasegraphError(f"{folder} is locked by a killed run and could not be unlocked, for the reason above")
    _say(f"unlocked {folder}")


def _answer_of(*command: str) -> str:
    return subprocess.run(command, timeout=ANSWER, check=True, capture_output=True, text=True).stdout


def _say(text: str) -> None:
    print(f"phasegraph: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
