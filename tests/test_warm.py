"""phasegraph.warm under real Snakemake runs (about 35 s, 20 of them torch's imports, once warm and once plain)."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server needs pidfd and /proc")

WARM = f"{sys.executable} -m phasegraph.warm"


class Run:
    """A real Snakemake in a folder of its own, with a TMPDIR of its own that is too long for a socket."""

    def __init__(self, folder: Path, snakefile: str, preload: str | None = "wave,no_such_module"):
        self.folder = folder
        self.tmp = folder / ("tmp" * 30)
        self.tmp.mkdir(parents=True, exist_ok=True)
        (folder / "Snakefile").write_text(snakefile)
        self.token = uuid.uuid4().hex
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PHASEGRAPH", "PYTHON"))}
        self.environment = kept | {"TMPDIR": str(self.tmp), "TOKEN": self.token, "PYTHONHASHSEED": "0"}
        if preload is not None:
            self.environment["PHASEGRAPH_WARM_PRELOAD"] = preload

    def start(self, cores: int = 2, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", str(cores), "--keep-going", "--nolock", "--forceall"],
            cwd=self.folder,
            env=self.environment | environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, cores: int = 2, **environment: str) -> tuple[int, str]:
        process = self.start(cores, **environment)
        output, _ = process.communicate(timeout=300)
        assert_soon(lambda: not self.processes())
        assert not list(self.tmp.glob("phasegraph-warm*"))
        return process.returncode, output

    def processes(self) -> list[Path]:
        """List the living processes of this run as folders of /proc."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self.token.encode() in (entry / "environ").read_bytes():
                    found.append(entry)
        return found

    def queued(self) -> int:
        """Count the clients that have a connection."""
        count = 0
        for entry in self.processes():
            with suppress(OSError):
                if b"\0-m\0phasegraph.warm\0" in (entry / "cmdline").read_bytes():
                    count += any("socket:" in str(fd.readlink()) for fd in (entry / "fd").iterdir())
        return count


def assert_soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "still not so after 30 s"
        time.sleep(0.05)


LIBRARIES = ("OMP_NUM", "GOTO_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM", "NUMEXPR_NUM")

# --------------------------------------------------------------------------------- the same as python -m, case by case
STATE = """
    import gc, locale, os, resource, signal, sys, tempfile, threading, warnings
    umask = os.umask(0)
    streams = [(s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through, s.fileno(), s.newlines)
               for s in (sys.stdin, sys.stdout, sys.stderr)]
    for value in (os.getcwd(), umask, sorted(os.environ.items()), sys.argv, sys.orig_argv, sys.path, sys.flags,
                  sys.executable, sys.warnoptions, warnings.filters, __name__, __file__, __package__, __spec__.name,
                  sorted(k for k in globals() if k.startswith("__")), __builtins__, sys.modules["__main__"].__dict__
                  is globals(), [(n, signal.getsignal(n)) for n in signal.valid_signals()], streams,
                  signal.pthread_sigmask(signal.SIG_BLOCK, []), locale.setlocale(locale.LC_ALL), hash("a string"),
                  gc.isenabled(), gc.get_threshold(), threading.active_count(), threading.current_thread().name,
                  tempfile.gettempdir(), sorted(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_AS)):
        print(value)
"""

CASES = {  # module text, and what else
    "state": {
        "text": STATE,
        "arguments": ["a b", "", "two\nlines", "it's", '"', "ünï", "\udcff", "--help", "-c", "*"],
        "off": 1,
    },
    "state-elsewhere": {"text": STATE, "cwd": "elsewhere", "umask": 0o027, "ignore": ["SIGINT", "SIGHUP"]},
    "state-other-tmpdir": {"text": STATE, "environment": {"OMP_NUM_THREADS": "1", "PWD": "/nowhere", "TMP": "/"}},
    "state-other-threads": {"text": STATE, "environment": {f"{name}_THREADS": "2" for name in LIBRARIES}},
    "exit-3": {"text": "import sys; sys.exit(3)", "off": 1},
    "exit-300": {"text": "import sys; sys.exit(300)"},
    "exit-none": {"text": "import sys; print('x', end=''); sys.exit()"},
    "exit-message": {"text": "import sys; sys.exit('what went wrong')"},
    "exit-at-once": {"text": "import os; os._exit(7)"},
    "exception": {
        "text": "def f():\n        1 / 0\n    try:\n        f()\n"
        "    except Exception as e:\n        raise OSError(2, 'x') from e"
    },
    "syntax-error": {"text": "x = ("},
    "missing-module": {"module": "no_such_module"},
    "missing-main": {"module": "package.inner"},
    "package": {"module": "package", "arguments": ["1"]},
    "interrupt": {"text": "raise KeyboardInterrupt"},
    "killed": {"text": "import os; os.kill(os.getpid(), 9)", "off": 1},
    "crash": {"text": "import ctypes; ctypes.string_at(0)"},
    "aborted": {"text": "import os; os.abort()"},
    "stdin": {"text": "import sys; print(sys.stdin.readline(), repr(sys.stdin.read()))", "stdin": "one\ntwo\r\nthree"},
    "closed-stdin": {"text": "import sys; print(sys.stdin)", "close": 0},
    "closed-stderr": {"text": "import sys; print(sys.stderr)", "close": 2},
    "much-output": {"text": "import sys; print('x' * 3_000_000); print('y' * 3_000_000, file=sys.stderr)"},
    "closed-stdout": {"text": "import sys; print('x'); sys.stdout.close()"},
    "broken-stdout": {"text": "import sys; sys.stdin.read(); print('x')", "deaf": True},
    "broken-stdout-and-error": {"text": "import sys; sys.stdin.read(); print('x'); sys.exit(3)", "deaf": True},
    "replaced-stdout": {"text": "import io, sys; print('x'); sys.stdout = io.StringIO()"},
    "at-exit": {"text": "import atexit; atexit.register(print, 'last'); print('first')"},
    "thread": {"text": "import threading; threading.Timer(0.2, print, ['late']).start(); print('early')"},
    "not-closed": {"text": "f = open(f'{NAME}.txt', 'w'); f.write('kept')"},
    "not-cleaned": {"text": "import tempfile; d = tempfile.TemporaryDirectory(prefix='left', dir='.')"},
    "pickle": {"text": "import pickle\n    class C: pass\n    print(type(pickle.loads(pickle.dumps(C()))) is C)"},
    "subprocess": {"text": "import subprocess; print(subprocess.run(['id', '-u'], capture_output=True))"},
    "workers": {
        "text": "import multiprocessing as m\n    def f(x): return x * x\n    if __name__ == '__main__':\n"
        "        for way in ('fork', 'spawn'):\n"
        "            with m.get_context(way).Pool(2) as p: print(p.map(f, [1, 2]))"
    },
    "signal-handled": {
        "text": "import signal, sys, time\n    signal.signal(15, lambda *a: sys.exit('caught'))\n"
        "    print('ready', flush=True); time.sleep(60)",
        "signal": "SIGTERM",
    },
    "signal-default": {"text": "import time; print('ready', flush=True); time.sleep(60)", "signal": "SIGTERM"},
    "signal-cleanup": {
        "text": "import time\n    try:\n        print('ready', flush=True); time.sleep(60)\n"
        "    except KeyboardInterrupt:\n        print('cleaned')\n        raise SystemExit(9)",
        "signal": "SIGINT",
    },
}

PLAIN_CASES = {  # where a fork of the server would not be like a fresh interpreter
    "other-environment": {"text": STATE, "environment": {"HF_HOME": "/nowhere"}},
    "other-hash-seed": {"text": STATE, "environment": {"PYTHONHASHSEED": "1"}},
    "other-path": {"text": STATE, "environment": {"PYTHONPATH": "/nowhere"}},
    "options": {"text": "print(__debug__)", "options": ["-O"]},
    "no-tmpdir": {"text": STATE, "environment": {"TMPDIR": "/nowhere"}},
}

DRIVER = """
import glob, json, os, signal, subprocess, sys, time
name = sys.argv[1]
case = json.load(open("cases.json"))[name]
environment = os.environ | case.get("environment", {})
module = case.get("module", f"case_{name.replace('-', '_')}")
def prepare():
    os.umask(case.get("umask", 0o022))
    for ignored in case.get("ignore", []):
        signal.signal(getattr(signal, ignored), signal.SIG_IGN)
    if "close" in case:
        os.close(case["close"])
def run(command, **more):
    process = subprocess.Popen([sys.executable, *case.get("options", []), "-m", *command, *case.get("arguments", [])],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare,
        cwd=case.get("cwd"), env=environment | more)
    first = b""
    if "signal" in case:
        first = process.stdout.readline()
        process.send_signal(getattr(signal, case["signal"]))
    if "deaf" in case:
        process.stdout.close()
        process.stdout = open(os.devnull, "rb")
    out, err = process.communicate(case.get("stdin", "").encode())
    files = {f: os.path.isdir(f) or open(f).read() for f in glob.glob(f"{name}.txt") + glob.glob("left*")}
    for file in glob.glob(f"{name}.txt"):
        os.remove(file)
    return {"status": process.returncode, "out": (first + out).decode("latin1"), "err": err.decode(), "files": files}
results = {"warm": run(["phasegraph.warm", module]), "plain": run([module])}
if "off" in case:
    results["off"] = run(["phasegraph.warm", module], PHASEGRAPH_WARM="0")
json.dump(results, open(f"results/{name}.json", "w"))
"""

SLOW_CLIENT = """
import os, signal, subprocess, sys, time
def start(name):
    return subprocess.Popen([sys.executable, "-m", "phasegraph.warm", "waits", name], stdout=subprocess.PIPE)
def state(pid):
    return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
a = start("a")
job = int(a.stdout.readline())
a.send_signal(signal.SIGSTOP)  # a's job has ended long before a
open("a.go", "w").close()
while state(job) != "Z":
    time.sleep(0.02)
b = start("b")
b.stdout.readline()
a.send_signal(signal.SIGCONT)
print(a.wait())
time.sleep(0.2)
open("b.go", "w").close()
print(b.wait())
"""

FIDELITY = f"""
import json
rule all:
    input: "slow_client.txt", expand("results/{{case}}.json", case=json.load(open("cases.json")))
rule first:
    output: "first.{{threads}}.txt"
    threads: lambda wildcards: int(wildcards.threads)
    shell: "{WARM} first > {{output}} 2> first.{{threads}}.err"
rule slow_client:
    input: "first.2.txt"
    output: "slow_client.txt"
    threads: 2  # alone
    shell: "{sys.executable} slow_client.py > {{output}}"
rule case:
    input: "first.1.txt", "first.2.txt"
    output: "results/{{case}}.json"
    shell: "{sys.executable} driver.py {{wildcards.case}}"
"""


@pytest.fixture(scope="module")
def fidelity(tmp_path_factory) -> Path:
    """Run every case in one Snakemake run, warm, plain and turned off."""
    folder = tmp_path_factory.mktemp("fidelity")
    run = Run(folder, FIDELITY)
    cases = CASES | PLAIN_CASES
    (folder / "cases.json").write_text(json.dumps(cases))
    (folder / "driver.py").write_text(DRIVER)
    (folder / "slow_client.py").write_text(SLOW_CLIENT)
    waits = "while not os.path.exists(f'{sys.argv[1]}.go'): time.sleep(0.02)"
    (folder / "waits.py").write_text(f"import os, sys, time\nprint(os.getpid(), flush=True)\n{waits}")
    (folder / "first.py").write_text("import sys; print('wave' in sys.modules, 'phasegraph' in sys.modules)")
    (folder / "elsewhere").mkdir()
    for name, case in cases.items():
        text = "\n".join(line.removeprefix("    ") for line in case.get("text", "").split("\n"))
        target = folder / case.get("cwd", ".") / f"case_{name.replace('-', '_')}.py"
        target.write_text(f"NAME = {name!r}\n{text}\n")
    (folder / "package").mkdir()
    (folder / "package/__init__.py").write_text("")
    (folder / "package/inner.py").write_text("raise ImportError('no')")
    (folder / "package/part.py").write_text("VALUE = 5")
    (folder / "package/__main__.py").write_text(
        "import sys\nfrom .part import VALUE\nprint(VALUE, sys.argv, __package__)"
    )
    status, output = run.finish()
    assert status == 0, output
    return folder


@pytest.mark.parametrize("name", CASES)
def test_is_like_python_m(fidelity, name):
    results = json.loads((fidelity / f"results/{name}.json").read_text())
    assert results["warm"] == results["plain"]


@pytest.mark.parametrize("name", [name for name in CASES if "off" in CASES[name]])
def test_turned_off_is_python_m(fidelity, name):
    results = json.loads((fidelity / f"results/{name}.json").read_text())
    results["off"]["out"] = results["off"]["out"].replace("('PHASEGRAPH_WARM', '0'), ", "")
    assert results["off"] == results["plain"]


@pytest.mark.parametrize("name", PLAIN_CASES)
def test_runs_plainly_and_says_so_where_a_fork_would_differ(fidelity, name):
    results = json.loads((fidelity / f"results/{name}.json").read_text())
    told, _, err = results["warm"].pop("err").partition("\n")
    assert told.startswith("phasegraph.warm: ") and told.endswith(": running without the server")
    assert err == results["plain"].pop("err")
    assert results["warm"] == results["plain"]


def test_imports_are_done_and_the_first_job_says_why_it_waits(fidelity):
    expected = "phasegraph.warm: starting the warm server (importing wave,no_such_module once)\n"
    for name in ("first.1", "first.2"):  # for another number of threads another server
        assert (fidelity / f"{name}.txt").read_text() == "True False\n"  # although another preload does not exist
        assert (fidelity / f"{name}.err").read_text() == expected


def test_a_client_that_ends_late_harms_no_other_job(fidelity):
    assert (fidelity / "slow_client.txt").read_text() == "0\n0\n"


def test_by_hand_there_is_no_server(tmp_path):
    (tmp_path / "by_hand.py").write_text("import sys; print('wave' in sys.modules, sys.argv[1:])")
    command = [*WARM.split(), "by_hand", "1"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PHASEGRAPH_WARM_PRELOAD": "wave"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "False ['1']\n", "")
    assert not list(tmp_path.glob("phasegraph-warm*"))
    usage = subprocess.run(WARM.split(), capture_output=True, text=True)
    assert (usage.returncode, usage.stderr) == (2, "usage: python -m phasegraph.warm MODULE [ARGUMENT ...]\n")


# ------------------------------------------------------------------------------------------------------- whole runs
JOBS = f"""
rule all:
    input: expand("out/{{n}}.txt", n=range(8))
rule job:
    output: "out/{{n}}.txt"
    log: "logs/{{n}}.txt"
    shell: "{WARM} job {{wildcards.n}} {{output}} 2> {{log}}"
"""

JOB = """
import ctypes, os, sys, time
import own
n, output = sys.argv[1:]
time.sleep(0.3)  # so that jobs overlap
if n == own.CRASHES:
    ctypes.string_at(0)
if n == own.RAISES:
    raise RuntimeError("mine alone")
with open(output, "w") as handle:
    print(own.VALUE, os.getppid(), open(f"/proc/{os.getppid()}/cmdline").read().split(chr(0))[2], file=handle)
"""


def test_one_server_for_parallel_jobs_a_crash_stays_alone_and_edited_code_is_fresh(tmp_path):
    run = Run(tmp_path, JOBS)
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "own.py").write_text("CRASHES, RAISES, VALUE = '3', '4', 'old'\n")
    status, output = run.finish(cores=8)
    assert status == 1, output
    logs = [(tmp_path / f"logs/{n}.txt").read_text() for n in range(8)]
    assert sum("starting the warm server" in log for log in logs) == 1
    assert "RuntimeError: mine alone" in logs[4] and not any("mine alone" in log for log in logs[:4] + logs[5:])
    lines = [(tmp_path / f"out/{n}.txt").read_text() for n in range(8) if n not in (3, 4)]
    assert len(set(lines)) == 1 and lines[0].startswith("old") and lines[0].endswith("phasegraph.warm.server\n")
    assert not (tmp_path / "out/3.txt").exists() and not (tmp_path / "out/4.txt").exists()

    (tmp_path / "own.py").write_text("CRASHES, RAISES, VALUE = None, None, 'newer'\n")
    status, output = run.finish(cores=8)
    assert status == 0, output
    renewed = {(tmp_path / f"out/{n}.txt").read_text() for n in range(8)}
    assert len(renewed) == 1 and renewed.pop().startswith("newer")


def test_a_killed_server_fails_its_jobs_and_the_next_job_starts_another(tmp_path):
    run = Run(
        tmp_path,
        f"""
rule all:
    input: "murder.txt", "after.txt"
rule murder:
    output: "murder.txt"
    priority: 1
    shell: "{WARM} murder {{output}} 2> murder.err"
rule after:
    output: "after.txt"
    shell: "{WARM} after {{output}}"
""",
    )
    (tmp_path / "murder.py").write_text("import os, time; os.kill(os.getppid(), 9); time.sleep(60)")
    (tmp_path / "after.py").write_text("import sys; open(sys.argv[1], 'w').write(str('wave' in sys.modules))")
    status, output = run.finish(cores=1)
    assert status == 1, output
    assert "phasegraph.warm: the warm server died, and murder with it\n" in (tmp_path / "murder.err").read_text()
    assert (tmp_path / "after.txt").read_text() == "True"


SLEEPERS = f"""
rule all:
    input: expand("{{n}}.txt", n=range(3))
rule sleeper:
    output: "{{n}}.txt"
    shell: "{WARM} sleeper {{wildcards.n}}; touch {{output}}"
"""

SLEEPER = """
import os, sys, time
try:
    open(f"began.{sys.argv[1]}", "w").close()
    time.sleep(60)
finally:
    open(f"cleaned.{sys.argv[1]}", "w").close()
"""


@pytest.mark.parametrize("way", ["kill -9", "kill -9 during the imports", "Ctrl-C"])
def test_nothing_outlives_snakemake(tmp_path, way):
    run = Run(tmp_path, SLEEPERS, preload="wave,slow" if "imports" in way else "wave")
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "slow.py").write_text("import time; open('importing', 'w').close(); time.sleep(60)")
    process = run.start(cores=3)
    if "imports" in way:
        assert_soon(lambda: (tmp_path / "importing").exists() and run.queued() == 3)
    else:
        assert_soon(lambda: all((tmp_path / f"began.{n}").exists() for n in range(3)))
    if way == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    else:
        process.kill()
    process.communicate(timeout=60)
    assert_soon(lambda: not run.processes())
    assert not list(run.tmp.glob("phasegraph-warm*"))
    assert len(list(tmp_path.glob("cleaned.*"))) == (3 if way == "Ctrl-C" else 0)  # as plain jobs
    assert not list(tmp_path.glob("?.txt"))


# -------------------------------------------------------------------------------------------------- the real libraries
BRIDGE = """
import random, sys
import numpy as np, scipy.linalg, torch
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
unseeded = torch.rand(1).item()
config = GPTNeoXConfig(vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
                       max_position_embeddings=32, attn_implementation="eager")
torch.manual_seed(0)
bridge = build_bridge_from_module(GPTNeoXForCausalLM(config).eval(), "GPTNeoXForCausalLM", hf_config=config)
with torch.inference_mode():
    logits = bridge(torch.arange(30).reshape(2, 15))
numbers = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
values = [logits.numpy(), torch.linalg.svd(torch.from_numpy(numbers))[1].numpy(),
          numbers @ numbers.T, scipy.linalg.svdvals(numbers), np.array(torch.get_num_threads())]
open(sys.argv[1], "wb").write(b"".join(value.tobytes() for value in values))
print(unseeded, np.random.random(), random.random())
"""

BRIDGES = f"""
rule all:
    input: "warm.bin", "again.bin", "plain.bin"
rule job:
    output: "{{name}}.bin"
    params: way=lambda w: "PHASEGRAPH_WARM=0" if w.name == "plain" else ""
    shell: "{{params.way}} {WARM} bridge_job {{output}} > {{wildcards.name}}.out 2> {{wildcards.name}}.err"
"""


def test_real_libraries_give_the_bytes_of_a_plain_process(tmp_path):
    run = Run(tmp_path, BRIDGES, preload=None)
    (tmp_path / "bridge_job.py").write_text(BRIDGE)
    status, output = run.finish(cores=2)
    assert status == 0, output
    plain = (tmp_path / "plain.bin").read_bytes()
    assert len(plain) > 10_000
    assert (tmp_path / "warm.bin").read_bytes() == plain
    assert (tmp_path / "again.bin").read_bytes() == plain
    started = "phasegraph.warm: starting the warm server (importing torch and transformer_lens once, about 10 s)"
    assert sum(started in file.read_text() for file in tmp_path.glob("*.err")) == 1
    assert not any("running without" in file.read_text() for file in tmp_path.glob("*.err"))
    said = {name: (tmp_path / f"{name}.out").read_text().split() for name in ("warm", "again")}
    assert not set(said["warm"]) & set(said["again"])  # unseeded generators are not shared between jobs
