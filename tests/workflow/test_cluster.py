"""Runs on a real SLURM cluster, the one that tests/cluster/start.sh starts on this machine; skipped without it.

About eight minutes on two cores: every job of a cluster starts two Snakemakes and imports torch once.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from processes import RESUME, SNAKEMAKE, Process, Run, digests, gone_within, processes_below, soon, start
from runs import ROOT, copy_of_repository, to_do
from safetensors.numpy import load_file, save_file

SLURM = Path("/etc/slurm/slurm.conf")


def answer(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def there_is_a_cluster() -> bool:
    with suppress(OSError, subprocess.SubprocessError):
        return "tests/cluster/start.sh" in SLURM.read_text() and "idle" in answer("sinfo")
    return False


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not there_is_a_cluster(), reason="needs the cluster of tests/cluster/start.sh (as root)"),
]

STEPS = range(0, 20)
CONFIG = "cluster.yaml"
SETTINGS = yaml.safe_load((ROOT / "tests/workflow/config.yaml").read_text())
SETTINGS["series"]["tiny"]["steps"] = list(STEPS)
SETTINGS["studies"] = {"study": SETTINGS["studies"]["mean"] | {"qkv": False, "control": False}}
SETTINGS["model"] = {"seconds_per_job": 2}
SERIES = "results/series/tiny/series.tsv"
FIRST_SHARD = "results/study/shards/0.sha256"
CLUSTER = ("--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "5")


# --- copies -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """A copy of the repository in which nothing has been run."""
    folder = copy_of_repository(tmp_path_factory.mktemp("cluster") / "fresh")
    (folder / CONFIG).write_text(yaml.safe_dump(SETTINGS))
    subprocess.run([sys.executable, "-m", "compileall", "-q", "workflow"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def trained(fresh: Path) -> Path:
    """A copy with the checkpoints."""
    folder = copy(fresh, "trained")
    finish(start(folder, SERIES, config=CONFIG))
    return folder


@pytest.fixture(scope="module")
def truth(trained: Path) -> dict[str, str]:
    """The digests of all results of a run on this machine alone."""
    folder = copy(trained, "truth")
    finish(start(folder, config=CONFIG))
    return results(folder)


@pytest.fixture(scope="module")
def finished(fresh: Path) -> tuple[Path, str]:
    """A run on the cluster from nothing, and what it said."""
    folder = copy(fresh, "finished")
    return folder, finish(run(folder))


@pytest.fixture
def measuring(trained: Path) -> Iterator[Path]:
    """A copy with the checkpoints, to be disturbed."""
    yield (folder := copy(trained, "measuring"))
    cancel(folder)
    shutil.rmtree(folder)


def copy(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, folder.with_name(name)))


def cancel(folder: Path) -> None:
    """End what a failed test has left."""
    for job in jobs_of(folder):
        answer("scancel", job)
    soon(lambda: not jobs_of(folder), 60)
    for process in processes_below(folder):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    assert gone_within(folder, 60)


# --- runs -------------------------------------------------------------------------------------------------------------
def run(folder: Path, *options: str, command: tuple[str, ...] = SNAKEMAKE, **variables: str) -> Run:
    return start(folder, *CLUSTER, *options, config=CONFIG, command=command, **variables)


def finish(started: Run) -> str:
    """Wait for the end of a run, which must be a good one and leave nothing behind; give what it said."""
    status, text = started.end(400)
    assert status == 0, text[-6000:]
    assert nothing_runs(started.folder), processes_below(started.folder)
    return text


def nothing_runs(folder: Path) -> bool:
    return soon(lambda: not jobs_of(folder), 60) and gone_within(folder, 60)


def jobs_of(folder: Path) -> list[str]:
    """List the jobs of a folder that wait, run or end."""
    rows = [line.split("|") for line in answer("squeue", "--noheader", "--format=%A|%Z").splitlines()]
    return [job for job, place in rows if Path(place) == folder]


def submissions(text: str) -> list[str]:
    return re.findall(r"has been submitted with SLURM jobid (\d+)", text)


def results(folder: Path) -> dict[str, str]:
    """Digests of all results but the index of the training's store, which notes modification times."""
    return digests(folder / "results", but=lambda path: path.name == "index.json")


def measured(folder: Path) -> list[Path]:
    return list((folder / "results/study/edges").glob("[0-9]*.more.npz"))


def workers(folder: Path) -> list[Process]:
    """The processes that measure a checkpoint, forked from a warm server."""
    return [process for process in processes_below(folder) if "/logs/measure_edges/" in process.output]


def listed(shard: Path) -> dict[str, str]:
    """What a shard's record says: SHA-256 by path below the results."""
    rows = [line.split("  ") for line in shard.read_text().splitlines()]
    return {path.removeprefix("results/"): digest for digest, path in rows}


# --- tests ------------------------------------------------------------------------------------------------------------
def test_a_run_gives_the_same_bytes_with_few_submissions(finished, truth):
    folder, text = finished
    assert results(folder) == truth
    shards = list((folder / "results/study/shards").iterdir())
    assert len(shards) > 1
    assert len(submissions(text)) == 1 + len(shards) + 1  # the training with its audit, the shards, and all the rest
    assert len(list((folder / "logs/measure_edges/study").iterdir())) == len(STEPS)
    assert text.count("time and memory") <= 1
    assert not to_do(folder, config=CONFIG)
    subprocess.run(["sha256sum", "--check", "--quiet", *shards], cwd=folder, check=True)


def test_one_changed_checkpoint_is_measured_alone(finished):
    folder = copy(finished[0], "changed")
    path = folder / "results/series/tiny/checkpoints/12/model.safetensors"
    weights = load_file(path)
    weights["gpt_neox.layers.0.attention.dense.weight"] *= 1.5
    path.unlink()
    save_file(weights, path, metadata={"format": "pt"})
    before = results(folder)
    text = finish(run(folder))
    assert len(submissions(text)) == 3  # the audit, the shard of this checkpoint, and all the rest
    changed = {name for name, digest in results(folder).items() if before[name] != digest}
    edges = {name for name in changed if name.startswith("study/edges/")}
    assert edges == {f"study/edges/12.{ending}" for ending in ("npy", "direct.npy", "more.npz")}
    assert not to_do(folder, config=CONFIG)


@pytest.mark.parametrize("victim", ["worker", "warm server"])
def test_a_job_that_fails_once_is_tried_again(measuring, truth, victim):
    started = run(measuring, FIRST_SHARD)
    worker = soon(lambda: workers(measuring), 120)[0]
    os.kill(worker.pid if victim == "worker" else worker.parent, signal.SIGKILL)
    text = finish(started)
    assert "Trying to restart job" in text
    assert len(submissions(text)) == 2
    shard = listed(measuring / FIRST_SHARD)
    assert shard == {name: truth[name] for name in shard}


def test_a_job_without_enough_memory_gets_more(measuring, truth):
    target, scarce = "study/edges/0.npy", "measure_edges_direct:mem_mb=300*attempt**2"
    # Without cgroups this cluster tells a job's processes by their group, and a warm server has a group of its own.
    text = finish(run(measuring, f"results/{target}", "--set-resources", scarce, PHASEGRAPH_WARM="0"))
    first, second = submissions(text)
    memory = [re.search(r"MinMemoryNode=(\d+)M", answer("scontrol", "show", "job", job))[1] for job in (first, second)]
    assert (int(memory[0]), int(memory[1])) == (300, 1200)
    assert "exceeded memory limit" in text
    assert results(measuring)[target] == truth[target]


def test_a_checkpoint_that_always_fails_takes_no_other_along(trained, truth):
    folder = copy(trained, "failing")
    (folder / "runs").mkdir()
    for step in STEPS[:8]:
        shutil.copytree(folder / f"results/series/tiny/checkpoints/{step}", folder / f"runs/step{step}")
    sound = (folder / "runs/step2/config.json").read_text()
    (folder / "runs/step2/config.json").write_text(json.dumps(json.loads(sound) | {"model_type": "nonsense"}))
    series = {"tiny": {"source": "directory", "path": "runs", "pattern": "step{step}"}}
    (folder / CONFIG).write_text(yaml.safe_dump(SETTINGS | {"series": series}))
    status, text = run(folder, "--retries", "0").end()
    assert status != 0
    assert "runs/step2" in text
    assert "nonsense" in text
    assert nothing_runs(folder)
    found = results(folder)
    names = [f"study/edges/{step}.{ending}" for step in STEPS[:8] if step != 2 for ending in ("npy", "more.npz")]
    assert {name: found.get(name) for name in names} == {name: truth[name] for name in names}
    (folder / "runs/step2/config.json").write_text(sound)
    planned = to_do(folder, config=CONFIG)
    assert (planned["measure_edges_direct"], planned["measure_network"]) == (1, 1)
    finish(run(folder))
    shard = listed(folder / FIRST_SHARD)
    assert shard == {name: truth[name] for name in shard}


def test_an_interrupted_run_leaves_no_job(measuring, truth):
    started = run(measuring)
    soon(lambda: measured(measuring), 120)
    started.kill_group(signal.SIGINT)
    status, _ = started.end(100)
    assert status != 0
    assert nothing_runs(measuring)
    assert len(measured(measuring)) < len(STEPS)
    finish(run(measuring))
    assert results(measuring) == truth


def test_a_killed_run_is_resumed(measuring, truth):
    started = run(measuring)
    soon(lambda: measured(measuring), 120)
    started.kill()
    started.wait()
    assert jobs_of(measuring)  # SLURM does not know that nobody waits for them
    text = finish(run(measuring, command=RESUME))
    assert "cancelling" in text
    assert results(measuring) == truth


def test_a_node_goes_down_and_comes_back(measuring, truth):
    started = run(measuring, FIRST_SHARD, "--default-resources", "slurm_partition=unsafe")
    soon(lambda: workers(measuring), 120)
    (job,) = jobs_of(measuring)
    node = answer("squeue", "--noheader", "--jobs", job, "--format=%N").strip()
    answer("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        soon(lambda: answer("squeue", "--noheader", "--jobs", job, "--format=%T") == "PENDING\n", 60)
        soon(lambda: not [p for p in processes_below(measuring) if "--mode remote" in p.command], 60)
        answer("scontrol", "update", f"jobid={job}", "starttime=now")  # SLURM would wait for two minutes
        finish(started)
        assert int(re.search(r"Restarts=(\d+)", answer("scontrol", "show", "job", job))[1]) == 1
    finally:
        answer("scontrol", "update", f"nodename={node}", "state=resume")
    shard = listed(measuring / FIRST_SHARD)
    assert shard == {name: truth[name] for name in shard}
    soon(lambda: "idle" in answer("sinfo", "--noheader", "--nodes", node, "--format=%T"), 60)


def test_the_commands_of_the_readme_work_as_printed(fresh):
    section = (ROOT / "README.md").read_text().partition("## On a cluster\n")[2].partition("\n## ")[0]
    install, first, again = re.findall(r"^    (.*)$", section, re.MULTILINE)
    assert install == 'pip install -c constraints.txt -e ".[slurm]"'  # this environment was made by it, see Makefile
    folder = copy(fresh, "readme")
    environment = os.environ | {"PYTHONPATH": str(folder / "workflow")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    assert "Nothing to be done" not in finish(Run(folder, ["bash", "-c", first], environment))
    assert "</html>" in (folder / "results/short/report.html").read_text()
    assert "Nothing to be done" in finish(Run(folder, ["bash", "-c", again], environment))
