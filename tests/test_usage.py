"""What jobs tell of their time and memory, and what is made of it (about 15 s, most of them one Snakemake run)."""

import ast
import csv
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phasegraph.summary import read_jobs, summary, tell_summary, write_jobs
from phasegraph.usage import Usage, usage_in

PACKAGE = Path(__file__).parents[1] / "workflow" / "phasegraph"
RULES = ["measure", "draw", "list", "old", "unused"]
TICK = 0.011
"""Seconds: the start of a process is known to a hundredth."""

BURNER = """
import subprocess, sys, time
from phasegraph.errors import user_errors

def spin(seconds):
    begin = time.process_time()
    while time.process_time() < begin + seconds:
        pass

if __name__ == "__main__":
    mib, own, childs, sleep = map(float, sys.argv[1:])
    with user_errors():
        block = bytearray(b"x") * int(mib * 2**20)
        del block
        spin(own)
        subprocess.run([sys.executable, "-c", f"import burner; burner.spin({childs})"], check=True)
        time.sleep(sleep)
"""


def logged(folder: Path, *command: str) -> tuple[Usage, str, float, float]:
    """Run a command as a rule does; give its record, its log, and the wall and CPU seconds that the kernel tells."""
    begin = time.monotonic()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=log, stderr=log)
        _, _, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - begin
    text = (folder / "log").read_text()
    return usage_in(text), text, wall, used.ru_utime + used.ru_stime


# ------------------------------------------------------------------------------------------------- what one job tells
def test_a_plain_command_tells_what_it_used(tmp_path):
    (tmp_path / "burner.py").write_text(BURNER)
    usage, text, wall, cpu = logged(tmp_path, "-m", "burner", "200", "0.3", "0.2", "0.4")
    assert text.count("\n") == 1 and not usage.failed
    assert 0.5 <= usage.cpu_seconds <= cpu + 0.001  # its own and its child's
    assert usage.cpu_seconds + 0.4 <= usage.seconds + TICK <= wall + 2 * TICK
    small, *_ = logged(tmp_path, "-m", "burner", "0", "0", "0", "0")
    assert small.max_rss_mib < 100
    assert usage.max_rss_mib - small.max_rss_mib == pytest.approx(200, abs=8)


def test_imports_count(tmp_path):
    (tmp_path / "slow_import.py").write_text("import time, phasegraph\ntime.sleep(0.5)\nfrom burner import *\n")
    (tmp_path / "burner.py").write_text(BURNER)
    (tmp_path / "main.py").write_text("import slow_import, errors_used\n")
    (tmp_path / "errors_used.py").write_text("from phasegraph.errors import user_errors\nwith user_errors(): pass\n")
    assert logged(tmp_path, "main.py")[0].seconds + TICK >= 0.5


def test_the_memory_of_a_large_parent_is_not_its_childs(tmp_path):
    (tmp_path / "burner.py").write_text(BURNER)
    large = bytearray(b"x") * (300 * 2**20)
    assert logged(tmp_path, "-m", "burner", "0", "0", "0", "0")[0].max_rss_mib < 100
    assert len(large) > 0


def test_the_memory_of_a_large_child_is(tmp_path):
    (tmp_path / "main.py").write_text(
        "import subprocess, sys\nfrom phasegraph.errors import user_errors\nwith user_errors():\n"
        "    subprocess.run([sys.executable, '-c', 'x = bytearray(b\"x\") * (200 * 2**20)'])\n"
    )
    assert 200 <= logged(tmp_path, "main.py")[0].max_rss_mib < 300


@pytest.mark.parametrize(
    ("body", "failed", "last"),
    [
        ("print('done')", False, "used: "),
        ("import sys; sys.exit()", False, "used: "),
        ("import sys; sys.exit(3)", True, "used until it failed: "),
        ("raise PhasegraphError('x.npy is empty; make it again')", True, "used until it failed: "),
        ("raise KeyboardInterrupt", True, "KeyboardInterrupt"),
        ("raise RuntimeError('a bug')", True, "RuntimeError: a bug"),
    ],
)
def test_every_end_is_told_once(tmp_path, body, failed, last):
    text = f"from phasegraph.errors import *\nwith user_errors():\n    print('begun')\n    {body}\n"
    (tmp_path / "main.py").write_text("from phasegraph.errors import PhasegraphError, user_errors\n" + text)
    usage, log, _, _ = logged(tmp_path, "main.py")
    assert usage.failed == failed
    lines = log.splitlines()
    assert lines[0] == "begun" and lines[-1].startswith(last)
    assert sum(line.startswith("used") for line in lines) == 1


def test_by_hand_nothing_is_told(tmp_path):
    (tmp_path / "main.py").write_text("from phasegraph.errors import user_errors\nwith user_errors(): print('done')\n")
    done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
    ours, theirs = os.openpty()  # a terminal
    with os.fdopen(theirs, "w") as terminal:
        subprocess.run([sys.executable, "main.py"], cwd=tmp_path, stdout=terminal, stderr=terminal, check=True)
        assert os.read(ours, 1000) == b"done\r\n"
    os.close(ours)


def test_a_log_that_cannot_be_written_changes_nothing(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    (tmp_path / "main.py").write_text("from phasegraph.errors import user_errors\nwith user_errors(): pass\n")
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([sys.executable, "main.py"], cwd=tmp_path, stdout=full, stderr=full).returncode == 0


WORKFLOW = f"""
rule all:
    input: "first.txt", "large.txt", "plain.txt"
rule first:
    output: "{{name}}.txt"
    log: "logs/burn/{{name}}.log"
    priority: 1
    params:
        mib=lambda wildcards: 200 if wildcards.name == "large" else 0,
        way=lambda wildcards: "PHASEGRAPH_WARM=0" if wildcards.name == "plain" else "",
    shell:
        "date +%s.%N > {{output}}; "
        "{{params.way}} {sys.executable} -m phasegraph.warm burner {{params.mib}} 0.2 0.2 0.1 > {{log}} 2>&1; "
        "date +%s.%N >> {{output}}"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the server needs pidfd and /proc")
def test_a_forked_job_tells_what_it_used_since_the_fork(tmp_path):
    (tmp_path / "Snakefile").write_text(WORKFLOW)
    (tmp_path / "burner.py").write_text(BURNER)
    # What the server holds and what it took to get it: 100 MiB, and three seconds of which none is a job's.
    (tmp_path / "heavy.py").write_text(
        "import time, burner\nburner.spin(1)\ntime.sleep(2)\nblock = bytearray(b'x') * (100 * 2**20)\n"
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PHASEGRAPH_WARM_PRELOAD": "heavy"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used, walls = {}, {}
    for name in ("first", "large", "plain"):
        log = (tmp_path / f"logs/burn/{name}.log").read_text()
        assert "running without" not in log
        used[name] = usage_in(log)
        begin, end = map(float, (tmp_path / f"{name}.txt").read_text().split())
        walls[name] = end - begin
        # One process after the other on one thread: CPU time is part of the wall time.
        assert 0.4 <= used[name].cpu_seconds <= used[name].seconds - 0.1 + TICK
        assert used[name].seconds <= walls[name] + TICK
    started = [name for name in used if "starting the warm" in (tmp_path / f"logs/burn/{name}.log").read_text()]
    assert len(started) == 1 and started != ["plain"]
    assert used[started[0]].seconds <= walls[started[0]] - 3 + TICK
    assert used["large"].max_rss_mib - used["first"].max_rss_mib == pytest.approx(200, abs=8)
    # The pages of the server count.
    assert used["first"].max_rss_mib - used["plain"].max_rss_mib == pytest.approx(100, abs=30)


@pytest.mark.parametrize(
    "main", [*PACKAGE.glob("*/__main__.py"), PACKAGE / "config.py"], ids=lambda path: path.parent.name
)
def test_every_command_tells_what_it_used(main):
    if main.parent.name == "warm":
        pytest.skip("stands for the command that it runs")
    called = {
        node.func.id
        for node in ast.walk(ast.parse(main.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "user_errors" in called


def test_every_command_of_a_rule_sends_both_streams_to_its_log():
    rules = "\n".join(path.read_text() for path in sorted((PACKAGE.parent / "rules").glob("*.smk")))
    shells = re.findall(r"^    shell:\n((?:        .*\n|\n)+)", rules, re.MULTILINE)
    commands = [shell for shell in shells if "python -m phasegraph" in shell]
    assert len(commands) >= 10
    assert [shell for shell in commands if not re.search(r"> \{log\} 2>&1|2>&1 \| tee \{log\}", shell)] == []


# ---------------------------------------------------------------------------------------------- what is made of it
def plant(logs: Path, name: str, text: str, end: float) -> None:
    path = logs / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (end, end))


def told(seconds: float, cpu: float, mib: int, failed: str = "") -> str:
    return f"used{failed}: {seconds:.3f} s, {cpu:.3f} CPU s, {mib} MiB\n"


@pytest.fixture
def logs(tmp_path) -> Path:
    """Two rules of this run, which began at 1000, and one that ran before."""
    folder = tmp_path / "logs"
    plant(folder, "measure/one/0", "30 nodes\n" + told(1, 0.5, 300), 1001)
    plant(folder, "measure/one/4", told(2, 1.5, 1200), 1002)
    plant(folder, "measure/one/8", told(9, 9, 9) + told(4, 0.25, 500, " until it failed") + "Traceback\n" * 6000, 1003)
    plant(folder, "measure/two/0", "begun\n", 1004)  # killed
    plant(folder, "measure/two/4", told(1000, 1000, 100_000), 999)  # an earlier run's
    plant(folder, "draw/one", told(20, 18.25, 400), 1005)
    plant(folder, "list/one", "", 1006)
    plant(folder, "old/one", told(5, 5, 5), 10)
    plant(folder, "astray", told(5, 5, 5), 1001)  # no rule's
    plant(folder, "slurm/measure/7", told(5, 5, 5), 1001)
    (folder / "old/one.txt").write_text(told(5, 5, 5))
    return folder


def test_the_summary_of_a_run(logs):
    expected = """
rule     jobs  failed  no record  median s  total s  CPU s  peak MiB  of
draw        1       0          0     20.00     20.0   18.2       400  one
measure     4       1          1      2.00      7.0    2.2     1,200  one/4
list        1       0          1         -        -      -         -
total       6       1          2      3.00     27.0   20.5     1,200  measure/one/4
"""
    assert summary(read_jobs(logs, RULES), since=1000).splitlines() == expected.strip("\n").splitlines()


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What goes through Snakemake's logger."""
    from snakemake.logging import logger

    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logger, level, lambda text, **_: lines.append(text))
    return lines


def test_without_a_job_there_is_no_summary(logs, tmp_path, said):
    assert summary(read_jobs(logs, RULES), since=1007) == ""
    assert summary(read_jobs(tmp_path / "nowhere", RULES), since=0) == ""
    tell_summary(1007, RULES, logs)
    tell_summary(0, RULES, tmp_path / "nowhere")
    assert said == [] and not (logs / "usage.tsv").exists()
    tell_summary(1006, RULES, logs)
    assert len(said) == 1 and (logs / "usage.tsv").exists()


def test_the_table_of_all_jobs(logs, tmp_path):
    write_jobs(read_jobs(logs, RULES), tmp_path / "usage.tsv")
    with (tmp_path / "usage.tsv").open() as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    assert [f"{row['rule']}/{row['wildcards']}" for row in rows] == [
        "draw/one",
        "measure/one/0",
        "measure/one/4",
        "measure/one/8",
        "measure/two/4",
        "old/one",
    ]
    failed = rows[3]
    assert datetime.fromisoformat(failed.pop("end")) == datetime.fromtimestamp(1003, UTC)
    assert {name: float(failed[name]) for name in ("seconds", "cpu_seconds", "max_rss_mib", "failed")} == {
        "seconds": 4,
        "cpu_seconds": 0.25,
        "max_rss_mib": 500,
        "failed": 1,
    }


def test_many_logs(tmp_path):
    for study in range(25):
        folder = tmp_path / "measure" / str(study)
        folder.mkdir(parents=True)
        for step in range(200):
            (folder / f"{step}.log").write_text(told(step + 1, study, 100 + step))
    lines = summary(read_jobs(tmp_path, ["measure"]), since=0).splitlines()
    assert lines[1].split() == ["measure", "5000", "0", "0", "100.50", "502,500.0", "60,000.0", "299", "0/199"]


def test_a_summary_that_fails_is_a_line(logs, said):
    (logs / "usage.tsv").mkdir()
    tell_summary(1000, RULES, logs)
    assert len(said) == 1 and said[0].startswith("No summary of time and memory: ")
