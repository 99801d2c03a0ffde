"""Runs that are killed in many ways, at moments that can be seen; afterwards the same command gives the same bytes.

Some minutes, most of them imports of torch.
"""

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
from runs import ROOT, copy_of_repository

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

STEPS = range(0, 401, 50)
CONFIG = "crashes.yaml"
SETTINGS = yaml.safe_load((ROOT / "tests/workflow/config.yaml").read_text())
SETTINGS["series"]["tiny"]["steps"] = list(STEPS)
SETTINGS["series"]["tiny"]["recipe"] |= {"steps": STEPS[-1], "batch": 64}  # seconds, to be met in the middle
SETTINGS["studies"] = {"study": SETTINGS["studies"]["paper"] | {"direct": True}}
SERIES = "results/series/tiny/series.tsv"
ROOM = 96 * 1024
"""Bytes that are free when a disk is to run full: for some of the measurements."""
PHASES = "results/study/phases.json"


# --- copies to be disturbed -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """A copy of the repository in which nothing has been run."""
    folder = copy_of_repository(tmp_path_factory.mktemp("crashes") / "fresh")
    (folder / CONFIG).write_text(yaml.safe_dump(SETTINGS))
    subprocess.run([sys.executable, "-m", "compileall", "-q", "workflow"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def trained(fresh: Path) -> Path:
    """A copy with the checkpoints."""
    folder = copy(fresh, "trained")
    finish(run(folder, SERIES))
    return folder


@pytest.fixture(scope="module")
def truth(trained: Path) -> dict[str, str]:
    """The digests of all results of an undisturbed run."""
    folder = copy(trained, "truth")
    finish(run(folder, PHASES))
    return results(folder)


@pytest.fixture
def measuring(trained: Path) -> Iterator[Path]:
    """A copy with the checkpoints, to be disturbed."""
    yield (folder := copy(trained, "measuring"))
    clear(folder)


@pytest.fixture
def training(fresh: Path) -> Iterator[Path]:
    """A copy without checkpoints, to be disturbed."""
    yield (folder := copy(fresh, "training"))
    clear(folder)


@pytest.fixture
def almost_full(measuring: Path, tmp_path: Path) -> Iterator[Path]:
    """A disk of its own for results and .snakemake of the copy with the checkpoints, with no room for what comes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "phasegraph-test", disk]).returncode != 0:
        pytest.skip("to fill a disk, the test must be allowed to mount one")
    try:
        for name in ("results", ".snakemake"):
            shutil.move(measuring / name, disk / name)
            (measuring / name).symlink_to(disk / name)
        resize(disk, shutil.disk_usage(disk).used + ROOM)
        yield disk
    finally:
        end_all(measuring)
        subprocess.run(["umount", disk], check=True)


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def copy(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, folder.with_name(name)))


def clear(folder: Path) -> None:
    end_all(folder)
    shutil.rmtree(folder)


def end_all(folder: Path) -> None:
    """End what a failed test has left."""
    for process in processes_below(folder):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    assert gone_within(folder, 60)


# --- runs -------------------------------------------------------------------------------------------------------------
def run(folder: Path, target: str, command: tuple[str, ...] = SNAKEMAKE, **variables: str) -> Run:
    return start(folder, target, config=CONFIG, command=command, **variables)


def finish(started: Run) -> str:
    """Wait for the end of a run, which must be a good one and leave no process behind; give what it said."""
    status, text = started.end()
    assert status == 0, text[-6000:]
    assert gone_within(started.folder, 60), processes_below(started.folder)
    assert not [path for path in (started.folder / "results").rglob("*") if ".tmp" in path.name]
    return text


def results(folder: Path) -> dict[str, str]:
    """Digests of all results but the index of the training's store, which notes modification times."""
    return digests(folder / "results", but=lambda path: path.name == "index.json")


def assert_whole(found: dict[str, str], truth: dict[str, str]) -> None:
    """Every file is one of the undisturbed run's, byte for byte, or has a temporary name."""
    found = {name: digest for name, digest in found.items() if ".tmp" not in name}
    assert found == {name: truth.get(name) for name in found}


def measured(folder: Path) -> bool:
    """Whether some checkpoints have been measured; if all have, there is nothing left to disturb."""
    count = len(list((folder / "results/study/edges").glob("[0-9]*.more.npz")))
    assert count < len(STEPS), "too late"
    return count > 0


def saved(folder: Path) -> int:
    """How many checkpoints the training has saved; if all, there is nothing left to disturb."""
    count = len(list((folder / "results/series/tiny/training").glob("*/*/model.safetensors")))
    assert count < len(STEPS), "too late"
    return count


def running(folder: Path, module: str) -> list[Process]:
    """List the processes that run a module, without the shells around them."""
    return [process for process in processes_below(folder) if re.match(rf"\S*python\S* -m {module} ", process.command)]


def stopped_worker(folder: Path) -> Process | None:
    """Stop a process that measures a checkpoint, which the warm server has forked; None if there is none now."""
    servers = running(folder, "phasegraph.warm.server")
    for process in servers:
        if "/logs/measure_edges/" in process.output:
            os.kill(process.pid, signal.SIGSTOP)
    stopped = [process for process in running(folder, "phasegraph.warm.server") if process.state == "T"]
    for process in stopped[1:]:
        os.kill(process.pid, signal.SIGCONT)
    return stopped[0] if stopped else None


# --- tests ------------------------------------------------------------------------------------------------------------
def test_snakemake_is_killed_while_it_measures(measuring, truth):
    """And while the next one finishes, nothing else may work beside it."""
    killed = run(measuring, PHASES)
    soon(lambda: measured(measuring))
    killed.kill()
    killed.wait()
    assert gone_within(measuring, 60), processes_below(measuring)
    assert_whole(results(measuring), truth)

    resumed = run(measuring, PHASES, RESUME)
    soon(lambda: running(measuring, "phasegraph.warm.server"))  # that is, it works and has the lock
    resumed.kill_group(signal.SIGSTOP)
    plain, second = run(measuring, PHASES), run(measuring, PHASES, RESUME)
    (status, text), (refused, reason) = plain.end(), second.end()
    resumed.kill_group(signal.SIGCONT)
    assert status != 0
    assert "Directory cannot be locked" in text
    assert str(measuring) in text
    assert refused == 1
    assert f"phasegraph: error: Snakemake (process {resumed.pid}) still works in {measuring}: wait" in reason
    assert "Traceback" not in reason
    assert "unlocked" in finish(resumed)
    assert results(measuring) == truth


def test_plain_jobs_that_outlive_snakemake_are_ended(measuring, truth):
    killed = run(measuring, PHASES, PHASEGRAPH_WARM="0")
    soon(lambda: measured(measuring) and running(measuring, "phasegraph.edges"))
    killed.kill()
    killed.wait()
    left = running(measuring, r"phasegraph\.\w+")
    assert left
    text = finish(run(measuring, PHASES, RESUME))
    ended = re.search(r"of a killed run \((.*)\)", text)
    assert {str(process.pid) for process in left} <= set(ended[1].split())
    assert results(measuring) == truth


def test_a_worker_and_the_server_are_killed(measuring, truth):
    disturbed = run(measuring, PHASES)
    worker = soon(lambda: stopped_worker(measuring))
    os.kill(worker.pid, signal.SIGKILL)
    soon(lambda: measured(measuring))
    other = soon(lambda: stopped_worker(measuring))
    os.kill(other.parent, signal.SIGKILL)
    status, text = disturbed.end()
    assert status != 0
    for process in (worker, other):
        assert f"logs/measure_edges/study/{Path(process.output).name}" in text
    assert "the warm server died" in text
    assert_whole(results(measuring), truth)
    finish(run(measuring, PHASES))
    assert results(measuring) == truth


def test_the_training_is_killed_with_all_else_and_alone(training, truth):
    killed = run(training, SERIES)
    soon(lambda: saved(training) > 1)
    killed.kill_group(signal.SIGKILL)
    killed.wait()
    before = saved(training)
    assert gone_within(training, 60), processes_below(training)

    disturbed = run(training, SERIES, RESUME)
    soon(lambda: saved(training) > before)
    os.kill(running(training, "phasegraph.series")[0].pid, signal.SIGKILL)
    status, text = disturbed.end()
    assert status != 0
    assert "Error in rule train_checkpoint" in text
    assert "logs/train_checkpoint/tiny/" in text
    finish(run(training, SERIES))
    assert results(training) == {name: digest for name, digest in truth.items() if name.startswith("series/")}


def test_snakemake_is_interrupted(measuring, truth):
    interrupted = run(measuring, PHASES)
    soon(lambda: measured(measuring))
    interrupted.kill_group(signal.SIGINT)
    status, _ = interrupted.end(30)
    assert status != 0
    assert gone_within(measuring, 10), processes_below(measuring)
    assert_whole(results(measuring), truth)
    finish(run(measuring, PHASES))
    assert results(measuring) == truth


def test_the_disk_is_full(measuring, almost_full, truth):
    status, text = run(measuring, PHASES).end()
    assert status != 0
    # Whichever comes first: a result, or what Snakemake notes about it.
    assert re.search(r"error: results/study/\S+: the disk is full|No space left on device.*\.snakemake", text)
    assert_whole(results(measuring), truth)
    assert not [name for name in results(measuring) if ".tmp" in name]
    resize(almost_full, 64 * 2**20)
    finish(run(measuring, PHASES, RESUME))
    assert results(measuring) == truth
