"""Runs of Snakemake in copies of the repository, as the tests of this folder make them."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ["Snakefile", "config.yaml", "config", "profiles", "envs", "workflow"]
FIGURES = 12
"""Of a study that is not compared with one of other prompts, which has one more."""
FAN_IN = Counter(
    record_shard=1,
    gather_behaviour=1,
    gather_network=1,
    gather_details=1,
    fit_tails=1,
    find_phases=1,
    draw_figure=FIGURES,
    write_report=1,
)
"""What runs again in a study if one of its checkpoints changes, besides the checkpoint's own chain and the audit."""


def snakemake(
    folder: Path, *options: str, config: str = "tests/workflow/config.yaml", **variables: str
) -> subprocess.CompletedProcess:
    """Run Snakemake in a copy of the repository, which then also imports its own copy of the library."""
    environment = os.environ | {"PYTHONPATH": str(folder / "workflow")} | variables
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = [sys.executable, "-m", "snakemake", "--configfile", config]
    command += ["--max-jobs-per-timespan", "100/1s", *options]  # the profile's 5 s are for long runs
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)


def to_do(folder: Path, *options: str, **settings: str) -> Counter:
    """Count the jobs by rule that a run would do now."""
    dry = snakemake(folder, "--dry-run", *options, **settings)
    assert dry.returncode == 0, dry.stderr + dry.stdout
    table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\ntotal", dry.stdout + dry.stderr, re.DOTALL)
    rows = [line.split() for line in table[1].splitlines()] if table else []
    return Counter({rule: int(count) for rule, count in rows if rule not in ("all", "everything")})


def copy_of_repository(folder: Path) -> Path:
    """Copy what a run needs."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(source, folder / part)
    shutil.copytree(ROOT / "tests" / "workflow", folder / "tests" / "workflow")
    return folder


def finished_run(folder: Path, config: str = "", name: str = "config.yaml") -> Path:
    """Run a configuration, or the tests' own, in a copy of the repository."""
    copy_of_repository(folder)
    if config:
        (folder / name).write_text(config)
    run = snakemake(folder, "--cores", "2", **({"config": name} if config else {}))
    assert run.returncode == 0, run.stderr[-6000:]
    return folder


def refused(folder: Path, config: str) -> str:
    """Run a configuration with a mistake in a copy of the repository: nothing is made; give what is said."""
    copy_of_repository(folder)
    (folder / "wrong.yaml").write_text(config)
    run = snakemake(folder, "--cores", "1", config="wrong.yaml")
    assert run.returncode != 0
    assert not (folder / "results").exists()
    return run.stderr


def times(counter: Counter, studies: int) -> Counter:
    """Multiply the counts."""
    return Counter({rule: count * studies for rule, count in counter.items()})
