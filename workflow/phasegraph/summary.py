"""What the jobs of a run used, rule by rule, from the last lines of their logs (`phasegraph.usage`).

Apart from the writer, so that a change of the table is no change of the stages' code. Imported by the Snakefile.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from statistics import median

from phasegraph.errors import first_line
from phasegraph.files import atomic
from phasegraph.usage import Usage, usage_in

TAIL = 2**16
"""Bytes that are read at a log's end: after the record may stand the traceback of the error that ended the job."""

TABLE = "usage.tsv"
"""Name of the table of all jobs, in the folder of the logs."""

HEADER = ("rule", "jobs", "failed", "no record", "median s", "total s", "CPU s", "peak MiB", "of")


@dataclass(frozen=True)
class Job:
    """A job as its log tells of it."""

    rule: str
    """Name of the folder below logs/; a rule made by ``use rule`` shares it with the one it is made from."""
    name: str
    """Path of the log below that folder, without its suffix: the job's wildcards."""
    end: float
    """When the log was last written to, in seconds since the epoch."""
    usage: Usage | None
    """Its record; None if it has none: the job was killed, or ran no command of phasegraph."""


def tell_summary(since: float, rules: Iterable[str], logs: Path = Path("logs")) -> None:
    """Tell, through Snakemake's logger, what the jobs of a run used, and write the table of all jobs.

    Nothing is told if there was none. ``snakemake --quiet`` silences it. For `onsuccess` and `onerror`, which Snakemake
    calls neither in a dry run nor in the processes that it starts itself (it gives them ``--no-hooks``).

    Parameters
    ----------
    since
        When the run began, in seconds since the epoch; logs that are older are of other runs.
    rules
        Names of the rules; other logs that lie there, such as SLURM's, are not theirs.
    logs
        Folder of logs/<rule>/<wildcards>.log.
    """
    from snakemake.logging import logger
    from snakemake.settings.enums import Quietness

    try:
        jobs = read_jobs(logs, rules)
        if table := summary(jobs, since):
            write_jobs(jobs, logs / TABLE)
            told = f"What the jobs of this run used ({logs / TABLE} lists each job's last run):\n{table}"
            logger.info(told, extra={"quietness": Quietness.PROGRESS})
    except Exception as error:  # the results are there: nothing here is a reason for the run to fail
        logger.warning(f"No summary of time and memory: {first_line(error)}")


def read_jobs(logs: Path, rules: Iterable[str]) -> list[Job]:
    """Read the ends of all logs/<rule>/**/*.log, sorted by rule and name."""
    found = [_read_job(path, rule, logs / rule) for rule in set(rules) for path in (logs / rule).glob("**/*.log")]
    return sorted(found, key=lambda job: (job.rule, job.name))


def _read_job(path: Path, rule: str, folder: Path) -> Job:
    with path.open("rb", buffering=0) as handle:
        status = os.fstat(handle.fileno())  # of the opened file: on a network file system, of the newest version
        handle.seek(max(0, status.st_size - TAIL))
        usage = usage_in(handle.read().decode(errors="replace"))
    return Job(rule, path.relative_to(folder).with_suffix("").as_posix(), status.st_mtime, usage)


def write_jobs(jobs: list[Job], path: Path) -> None:
    """Write one row for every job that has a record: its last run, in this folder, by whatever configuration."""
    rows = ["rule\twildcards\tend\tseconds\tcpu_seconds\tmax_rss_mib\tfailed"]
    for job in jobs:
        if job.usage:
            end = datetime.fromtimestamp(job.end, UTC).isoformat(timespec="seconds")
            *numbers, failed = job.usage
            rows.append("\t".join(map(str, (job.rule, job.name, end, *numbers, int(failed)))))
    with atomic(path) as temporary:
        temporary.write_text("\n".join(rows) + "\n")


def summary(jobs: list[Job], since: float) -> str:
    """Lay out what the jobs used whose logs were written to since then, a line for each rule.

    Parameters
    ----------
    jobs
        Sorted by rule.
    since
        Seconds since the epoch.

    Returns
    -------
    str
        Aligned columns, the rule with the largest total first, and their sum; empty if there was no job.
    """
    recent = [job for job in jobs if job.end >= since]
    if not recent:
        return ""
    rules = [(rule, list(group)) for rule, group in groupby(recent, key=lambda job: job.rule)]
    rules.sort(key=lambda rule: -sum(job.usage.seconds for job in rule[1] if job.usage))
    rows = [_row(rule, group, lambda job: job.name) for rule, group in rules]
    total = _row("total", recent, lambda job: f"{job.rule}/{job.name}")
    return _aligned([HEADER, *rows, total])


def _row(title: str, jobs: list[Job], name_of: Callable[[Job], str]) -> tuple[str, ...]:
    told = [(job.usage, job) for job in jobs if job.usage]
    counts = (len(jobs), sum(usage.failed for usage, _ in told), len(jobs) - len(told))
    if not told:
        return (title, *map(str, counts), "-", "-", "-", "-", "")
    seconds = [usage.seconds for usage, _ in told]
    cpu = sum(usage.cpu_seconds for usage, _ in told)
    peak, largest = max(told, key=lambda pair: pair[0].max_rss_mib)
    times = (f"{median(seconds):,.2f}", f"{sum(seconds):,.1f}", f"{cpu:,.1f}")
    return (title, *map(str, counts), *times, f"{peak.max_rss_mib:,}", name_of(largest))


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Set rows of text in columns: the first and the last to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *numbers, last in rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=False)]
        lines.append("  ".join([first.ljust(widths[0]), *cells, last]).rstrip())
    return "\n".join(lines)
