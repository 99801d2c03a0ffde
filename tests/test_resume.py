"""phasegraph.resume and the temporary files that it removes, on real processes and small workflows (about 20 s)."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic, remove_temporaries
from phasegraph.resume import RUN_NAME, SNAKEMAKE, cancel_slurm_jobs, end_orphans, orphans_in, processes_in, slurm_jobs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

HERE = os.uname().nodename
SNAKEFILE = """
rule all:
    output: "results/x.txt"
    shell: "while test ! -f go; do sleep 0.05; done; echo done > {output}"
"""
LONG = "import time; time.sleep(100)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small workflow whose only job waits for a file."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start commands in the folder that do not outlive the test."""
    started = []

    def popen(*command: str, **variables: str) -> subprocess.Popen:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        started.append(
            subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | {"PATH": path} | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield popen
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def resume(*command: str) -> list[str]:
    return [sys.executable, "-m", "phasegraph.resume", *command]


def said(process: subprocess.Popen) -> tuple[int, list[str]]:
    """Wait for the end; give the status and the lines but for what SLURM was asked."""
    text, _ = process.communicate(timeout=100)
    return process.returncode, [line for line in text.splitlines() if "squeue" not in line]


def soon(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_held(folder: Path) -> bool:
    """Whether a resumed Snakemake keeps others out of a folder, also on other hosts."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


# --- temporary files --------------------------------------------------------------------------------------------------
def left_by_a_killed_writer(path: Path) -> Path:
    """Kill a process while it writes; give the temporary file."""
    text = f"with atomic({str(path)!r}) as temporary: temporary.touch(); os.kill(os.getpid(), 9)"
    text = f"import os; from phasegraph.files import atomic\n{text}"
    killed = subprocess.Popen([sys.executable, "-c", text])
    assert killed.wait() == -signal.SIGKILL
    assert not path.exists()
    (left,) = [file for file in path.parent.iterdir() if f".{killed.pid}@{HERE}.tmp" in file.name]
    return left


@pytest.mark.parametrize("name", ["0.npy", "0.direct.npy", "no_suffix", "[a] b*.tar.gz", "ünï.json"])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, name):
    left = left_by_a_killed_writer(tmp_path / name)
    with atomic(tmp_path / name) as temporary:
        assert not left.exists()
        temporary.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_writer_removes_nothing_of_others(tmp_path):
    left = left_by_a_killed_writer(tmp_path / "1.npy")
    kept = [
        left,  # another output
        tmp_path / f".0.{os.getppid()}@{HERE}.tmp.npy",  # another living process
        tmp_path / f".0.{left.name.split('.')[2].split('@')[0]}@elsewhere.tmp.npy",  # another host
        tmp_path / ".0.tmp.npy",  # somebody else's
    ]
    for path in kept:
        path.touch()
    with atomic(tmp_path / "0.npy") as outer, atomic(tmp_path / "0.npz") as inner:
        outer.touch()
        inner.touch()
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "0.npy", tmp_path / "0.npz"])


def test_resume_removes_all_but_those_of_living_processes(tmp_path):
    (tmp_path / "a").mkdir()
    left = left_by_a_killed_writer(tmp_path / "a" / "0.npy")
    elsewhere = tmp_path / "a" / ".0.direct.1@node-7.cluster.tmp.npy"
    kept = [tmp_path / f".0.{os.getpid()}@{HERE}.tmp.npy", tmp_path / "0.npy", tmp_path / "a" / ".x@y.tmp.npy"]
    for path in (elsewhere, *kept):
        path.touch()
    assert remove_temporaries(tmp_path) == 2
    assert not left.exists()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert remove_temporaries(tmp_path / "not-there") == 0


def test_a_full_disk_is_named_and_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(PhasegraphError, match=r"0\.npy: the disk is full"), atomic(tmp_path / "0.npy") as temporary:
        temporary.touch()
        Path("/dev/full").write_text("x")  # the error of a full disk
    with pytest.raises(IsADirectoryError), atomic(tmp_path / "0.npy"):
        tmp_path.write_text("x")
    with pytest.raises(ZeroDivisionError), atomic(tmp_path / "0.npy"):
        print(1 / 0)
    assert not list(tmp_path.iterdir())


# --- what is what -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["snakemake", "--cores", "1"], 1),
        (["/opt/env/bin/snakemake"], 1),
        (["/opt/env/bin/python3.11", "/opt/env/bin/snakemake", "-n"], 2),
        (["python", "-m", "snakemake"], 3),
        (["python3", "-I", "-X", "dev", "-m", "snakemake", "all"], 6),
        (["python", "/opt/snakemake/__main__.py"], 2),
        (["python", "-m", "phasegraph.resume", "snakemake"], None),
        (["python", "-m", "pytest", "snakemake"], None),
        (["vim", "snakemake"], None),
        (["bash", "-c", "snakemake --cores 1"], None),
        (["snakemake-tui"], None),
        ([], None),
    ],
)
def test_a_command_line_of_snakemake_is_told(words, count):
    match = SNAKEMAKE.match("\0".join([*words, ""]))
    assert (match[0].count("\0") if match else None) == count


def test_names_of_runs_on_slurm_are_told():
    assert RUN_NAME.fullmatch("0b1f2e3d-aaaa-4bbb-8ccc-0123456789ab")
    assert RUN_NAME.fullmatch("my_prefix_0b1f2e3d-aaaa-4bbb-8ccc-0123456789ab")
    assert not RUN_NAME.fullmatch("interactive")
    assert not RUN_NAME.fullmatch("x0b1f2e3d-aaaa-4bbb-8ccc-0123456789ab")


# --- orphans ----------------------------------------------------------------------------------------------------------
def test_jobs_of_snakemake_are_ended_and_what_was_started_by_hand_is_not(folder, start, capsys):
    (folder / "phasegraph").mkdir()
    (folder / "phasegraph" / "__init__.py").touch()
    (folder / "phasegraph" / "deaf.py").write_text(f"import signal; signal.signal(15, signal.SIG_IGN); {LONG}")
    (folder / "other.py").write_text(LONG)
    module = [sys.executable, "-m", "phasegraph.deaf"]
    path = {"PYTHONPATH": str(folder)}
    job = start(*module, GOTO_NUM_THREADS="1", **path)
    spared = [
        start(*module, **path),
        start(sys.executable, "-m", "other", GOTO_NUM_THREADS="1", **path),
        start("sh", "-c", f"cd /; exec {sys.executable} -m phasegraph.deaf", GOTO_NUM_THREADS="1", **path),
    ]
    soon(lambda: orphans_in(folder) == [job.pid])
    soon(lambda: Path(f"/proc/{spared[2].pid}/cwd").readlink() == Path("/"))
    end_orphans(folder)
    assert job.wait(10) in (-signal.SIGTERM, -signal.SIGKILL)
    assert [process.poll() for process in spared] == [None] * 3
    assert f"ending 1 process(es) of a killed run ({job.pid})" in capsys.readouterr().err
    end_orphans(folder)
    assert capsys.readouterr().err == ""


# --- the command ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["here", "-d"])
def test_a_killed_run_is_resumed_and_a_living_one_is_not_disturbed(folder, start, way):
    command = ["snakemake", "--cores", "1"]
    if way == "-d":
        shutil.move(folder / "Snakefile", folder / "elsewhere.smk")
        folder = folder / "new"
        folder.mkdir()
        command += ["--snakefile", "elsewhere.smk", "-d", "new"]
    killed = start(*resume(*command))
    soon(lambda: list((folder / ".snakemake/locks").glob("*")))
    soon(lambda: any("while test" in words for words in processes_in(folder).values()))
    assert is_held(folder)
    refused, lines = said(start(*resume(*command)))
    assert refused == 1
    assert lines[0].startswith(f"phasegraph: error: Snakemake (process {killed.pid}) still works in {folder}: wait")
    killed.kill()
    killed.wait()
    assert any("while test" in words for words in processes_in(folder).values())
    assert not is_held(folder)  # by the job
    os.killpg(killed.pid, signal.SIGKILL)
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / ".x.1@elsewhere.tmp.txt").touch()
    (folder / "go").touch()
    status, lines = said(start(*resume(*command)))
    assert status == 0
    assert lines[:2] == ["phasegraph: removed 1 half-written file(s)", f"phasegraph: unlocked {folder}"]
    assert [path.name for path in (folder / "results").iterdir()] == ["x.txt"]
    status, lines = said(start(*resume(*command)))
    assert status == 0
    assert not [line for line in lines if line.startswith("phasegraph")]


def test_two_that_resume_at_once_do_not_meet(folder, start):
    first = start(*resume("snakemake", "--cores", "1"))
    second = start(*resume("snakemake", "--cores", "1"))
    soon(lambda: None in (first.poll(), second.poll()) and (first.poll(), second.poll()) != (None, None))
    (folder / "go").touch()
    (a, first_lines), (b, second_lines) = said(first), said(second)
    assert sorted([a, b]) == [0, 1]
    line = (first_lines if a else second_lines)[0]
    assert line.startswith("phasegraph: error: ")
    assert "wait for its end" in line


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "a Snakemake command must follow"),
        (["ls"], "a Snakemake command must follow"),
        (["--cores", "8"], "a Snakemake command must follow"),
        (["/nowhere/snakemake", "--cores", "8"], "/nowhere/snakemake: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line(start, command, message):
    status, lines = said(start(*resume(*command)))
    assert status == 1
    assert lines[0].startswith(f"phasegraph: error: {message}")
    assert not [line for line in lines[1:] if not line.startswith("used")]


def test_a_lock_that_cannot_be_removed_is_explained(folder, start):
    (folder / ".snakemake/locks").mkdir(parents=True)
    (folder / ".snakemake/locks/0.input.lock").touch()
    (folder / "Snakefile").write_text("rule all: nonsense")
    status, lines = said(start(*resume("snakemake", "--cores", "1")))
    assert status == 1
    assert any("SyntaxError" in line for line in lines)
    assert any(line.startswith(f"phasegraph: error: {folder} is locked") for line in lines)


# --- SLURM ------------------------------------------------------------------------------------------------------------
def test_a_cluster_that_does_not_answer_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("phasegraph.resume.ANSWER", 0.2)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for text in ("exit 1", "exec sleep 100", "echo what; exit 0"):
        (tmp_path / "squeue").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "squeue").chmod(0o755)
        cancel_slurm_jobs(tmp_path)
        assert capsys.readouterr().err.count("\n") == 1


def test_jobs_in_the_queue_are_cancelled(folder, capsys):
    if shutil.which("sbatch") is None or subprocess.run(["squeue"], capture_output=True).returncode != 0:
        pytest.skip("needs a SLURM cluster")
    name = "0b1f2e3d-aaaa-4bbb-8ccc-0123456789ab"
    other = folder / "other"
    other.mkdir()
    for place, job_name in ((folder, name), (folder, name), (folder, "by_hand"), (other, name)):
        submit = ["sbatch", "--mem=10", f"--job-name={job_name}", "--output=/dev/null", "--wrap=sleep 300"]
        subprocess.run(submit, cwd=place, check=True)
    try:
        assert len(slurm_jobs(folder)) == 2
        cancel_slurm_jobs(folder)
        assert "cancelling 2 SLURM job(s)" in capsys.readouterr().err
        assert slurm_jobs(folder) == []
        left = subprocess.run(["squeue", "-h", "--format=%j %Z"], capture_output=True, text=True).stdout
        assert f"by_hand {folder}" in left
        assert f"{name} {other}" in left
        cancel_slurm_jobs(folder)
        assert capsys.readouterr().err == ""
    finally:
        subprocess.run(["scancel", "--name=by_hand"])
        cancel_slurm_jobs(other)
