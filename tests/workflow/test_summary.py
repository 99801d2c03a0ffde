"""The summary of time and memory at the end of whole runs (about a minute)."""

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from runs import copy_of_repository, snakemake

TITLE = "What the jobs of this run used"
NO_RECORD = {"train_checkpoint", "record_shard"}
"""Rules whose jobs may run no command of phasegraph: a step that is trained is copied, a file is hashed."""


def table(run: CompletedProcess) -> dict[str, dict[str, str]]:
    """Read the one summary that a run has told: its cells by rule and column."""
    said = run.stdout + run.stderr
    assert said.count(TITLE) == 1, said[-3000:]
    lines = said.partition(TITLE)[2].splitlines()[1:]
    header = re.split(r"  +", lines[0])
    rows = {}
    for line in lines[1:]:
        cells = re.split(r"  +", line)
        rows[cells[0]] = dict(zip(header, cells, strict=False))
        if cells[0] == "total":
            return rows
    raise AssertionError(f"no total in {lines}")


def logged_rule(rule: str) -> str:
    """Give the rule in whose folder of logs a rule writes."""
    return {"measure_edges_direct": "measure_edges"}.get(rule, rule)


def counts(table: dict[str, dict[str, str]], column: str = "jobs") -> Counter:
    return Counter({rule: int(row[column]) for rule, row in table.items() if rule != "total" and int(row[column])})


def stated(said: str) -> Counter:
    """Count jobs by rule, from the table with which Snakemake begins a run."""
    rows = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\ntotal", said, re.DOTALL)[1].splitlines()
    return Counter({rule: int(count) for rule, count in map(str.split, rows) if rule != "all"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return copy_of_repository(tmp_path_factory.mktemp("summary") / "phasegraph")


@pytest.fixture(scope="module")
def dry(folder) -> str:
    """A dry run of everything, before there is a log."""
    run = snakemake(folder, "--dry-run")
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def first(folder, dry) -> CompletedProcess:
    """The whole run."""
    run = snakemake(folder, "--cores", "2")
    assert run.returncode == 0, run.stderr[-6000:]
    return run


@pytest.fixture(scope="module")
def logs(folder, first) -> dict[str, set[str]]:
    """The logs of every rule's jobs, as Snakemake lists them beside the outputs."""
    run = snakemake(folder, "--summary")
    assert TITLE not in run.stdout + run.stderr
    found = defaultdict(set)
    for row in csv.DictReader(run.stdout.splitlines(), delimiter="\t"):
        found[row["rule"]].add(row["log-file(s)"])
    return found


def test_without_jobs_nothing_is_told(folder, dry, first):
    assert TITLE not in dry
    for options in (("--touch", "--cores", "1"), ("--cores", "1")):
        run = snakemake(folder, *options)
        assert run.returncode == 0 and TITLE not in run.stdout + run.stderr, options
    assert "Nothing to be done" in run.stdout + run.stderr


def test_every_job_has_a_log_of_its_own(dry, logs):
    """No two logs fewer than jobs, in any rule or between rules."""
    assert {rule: len(names) for rule, names in logs.items()} == stated(dry)
    every = [name for names in logs.values() for name in names]
    assert len(set(every)) == len(every)
    assert {name.split("/")[1] for name in every} == {logged_rule(rule) for rule in logs}


def test_the_summary_counts_what_was_run(dry, first):
    rows = table(first)
    expected = Counter()
    for rule, count in stated(dry).items():
        expected[logged_rule(rule)] += count
    assert counts(rows) == expected
    assert int(rows["total"]["jobs"]) == stated(dry).total()
    assert set(counts(rows, "no record")) <= NO_RECORD and not counts(rows, "failed")
    seconds = [
        float(row["total s"].replace(",", "").replace("-", "0")) for rule, row in rows.items() if rule != "total"
    ]
    assert seconds == sorted(seconds, reverse=True) and min(seconds) >= 0
    assert float(rows["total"]["total s"]) == pytest.approx(sum(seconds), abs=0.05 * len(rows))


def test_every_job_has_a_row(folder, logs):
    with (folder / "logs/usage.tsv").open() as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    found = {f"logs/{row['rule']}/{row['wildcards']}.log" for row in rows}
    every = set().union(*logs.values())
    without = set().union(*(logs.get(rule, set()) for rule in NO_RECORD))
    assert every - without <= found <= every and found & without  # somebody did train
    for row in rows:
        assert float(row["seconds"]) > 0 and float(row["cpu_seconds"]) > 0 and row["failed"] == "0"
        imports_torch = row["rule"] not in ("write_config", "train_checkpoint")
        assert (float(row["max_rss_mib"]) > 100) >= imports_torch


def test_a_failing_run_tells_too_and_of_its_own_jobs_alone(folder, logs):
    broken = folder / "results/paper/edges/12.npy"
    broken.write_bytes(b"no array")
    run = snakemake(folder, "--cores", "2", "--forcerun", "write_config")
    assert run.returncode != 0
    rows = table(run)
    assert (rows["write_config"]["jobs"], rows["write_config"]["failed"]) == ("2", "0")
    assert (rows["measure_network"]["jobs"], rows["measure_network"]["failed"]) == ("1", "1")
    assert rows["measure_network"]["of"] == "paper/12"
    assert not rows.keys() & {"train_checkpoint", "measure_edges", "list_nodes"}


def test_quiet_is_quiet(folder, logs):
    run = snakemake(
        folder, "--cores", "1", "--quiet", "--forcerun", "write_config", "--", "results/mean/run_config.yaml"
    )
    assert run.returncode == 0 and TITLE not in run.stdout + run.stderr
    assert (folder / "logs/write_config/mean.log").stat().st_mtime <= (folder / "logs/usage.tsv").stat().st_mtime
