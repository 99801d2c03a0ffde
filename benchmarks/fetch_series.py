"""How fast a series is fetched from a hub on loopback, beside curl and the disk.

    python benchmarks/fetch_series.py            # 143 revisions of 28 MB, 8 at a time
    python benchmarks/fetch_series.py --quick    # 24 revisions
    python benchmarks/fetch_series.py --masks    # as published: with 25 MB of masks each, which are left out

Prints a table and writes benchmarks/fetch_series.json. The hub (tests/hub_server.py, a process of its own) makes the
files from a seed: they differ in their last 8 bytes, and so in their hashes. The ways take turns:

- disk: the same number of bytes written to files of the same size and synchronised, 8 at a time
- curl: `curl --parallel`, which verifies and synchronises nothing
- curl + sha256sum: then `sha256sum` over all files, 8 at a time, which is what a careful user would do
- fetch, threads: `phasegraph.series.hub.fetch` in 8 threads of one process
- fetch, snakemake: as the workflow does it, by the command of its rule fetch_checkpoint and its profile, --cores 8
- fetch, snakemake, plain: the same without the fork server

`before` is what passes until the hub is first asked: the start of Snakemake and of the fork server, which imports torch
and transformer_lens once for all stages (10 CPU seconds). `after` is how long a run goes on after its last job, which
the profile makes up to 10 s. `jobs` lies in between, and the MB/s, of what was downloaded, are of that part; the last
column but one is their share of what curl had. CPU seconds are those of the client with all that it starts, and of the
hub; `each` is the client's per file (without `before`, of which it fills one core), and `cores` how many of them both
kept busy during the jobs. The other hubs answer like one at this rate in total, 40 MB/s a connection, 30 ms a request.

`bound` is derived from the numbers: the hub's line where 95 % of its rate were reached, the processor where nine tenths
of all cores were busy, else neither (-). Whoever verifies pays for SHA-256, which is the difference between the CPU
seconds of the two curl rows. A job adds what Snakemake, a shell and two processes cost. Where neither is the bound, the
line stands idle between jobs: 0.2 s pass from the end of a fetch to the begin of the next in its slot, and 0.2 s with
two handshakes and four answers, in step with the other slots: fetches that begin together on one line end together.
"""

import argparse
import compileall
import ctypes
import datetime
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from engine_methods.table import markdown

import phasegraph
from phasegraph.files import atomic
from phasegraph.series.hub import fetch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from hub_server import Content, Hub, Line

REPO = "lab/series"
PARAMETERS = 14_067_712
"""Of Pythia-14M; in float16 these are 28 MB."""
LAYERS, CONTEXT = 6, 2048
SLOW = 62.5e6  # with half of the revisions
LINES = {
    "as fast as it can": Line(),
    "1 Gbit/s, 30 ms": Line(rate=125e6, each=40e6, latency=0.03),
    "500 Mbit/s, 30 ms": Line(rate=SLOW, each=40e6, latency=0.03),
}
CURL, WORKFLOW = "curl", "fetch, snakemake"
COMPARED = (CURL, "curl + sha256sum", "fetch, threads", WORKFLOW)
TAKEN = dict(zip(LINES, [("disk", *COMPARED, "fetch, snakemake, plain"), COMPARED, (CURL, WORKFLOW)], strict=True))
"""Which ways are taken with which hub."""
QUICK = (CURL, "curl + sha256sum", WORKFLOW)
SECONDS = ["s", "before", "jobs", "after"]
COLUMNS = ["hub", "way", "runs", *SECONDS, "MB/s", "CPU s", "hub CPU s", "each", "cores", "of curl", "bound"]

RULES = """
rule all:
    input: expand("out/{{step}}/model.safetensors", step=range({revisions}))

rule fetch:
    output: weights="out/{{step}}/model.safetensors", architecture="out/{{step}}/config.json"
    log: "logs/{{step}}.log"
    priority: 2
    localrule: True
    threads: 1
    resources: mem_mb=1000, runtime=60
    params: pin=lambda wildcards: "--repo {repo} --commit " + {commits}[int(wildcards.step)], downloads="downloads"
    shell:
        "python -m phasegraph.warm phasegraph.series fetch {{params.pin}} --out $(dirname {{output.weights}})"
        " --downloads {{params.downloads}} --mark-faults > {{log}} 2>&1"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revisions", type=int, default=143)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="24 revisions, and only the ways that matter most")
    parser.add_argument("--masks", action="store_true", help="files with masks, which are left out when they arrive")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"), help="JSON to write")
    arguments = parser.parse_args()
    if not shutil.which("curl"):
        raise SystemExit("curl is not installed")
    revisions = 24 if arguments.quick else arguments.revisions
    compileall.compile_dir(Path(phasegraph.__file__).parent, quiet=1)  # as an installation does
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: the fork server's CPU seconds are counted when it ends
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs, revisions, arguments.masks), daemon=True)
    server.start()
    url, commits, size = ours.recv()
    os.environ |= {"HF_ENDPOINT": url, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    taken: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(arguments.repeats):
        for line, names in TAKEN.items():
            some = commits[: len(commits) // 2] if LINES[line].rate == SLOW else commits
            for way, act in ways_of(url, some, size, arguments.at_once).items():
                if way not in names or (arguments.quick and way not in QUICK):
                    continue
                with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
                    os.environ["HF_HOME"] = f"{place}/hf"
                    figures = timed(act, Path(place), ours, LINES[line], server.pid)
                    check(Path(place), some, way)
                taken.setdefault((line, way), []).append(figures | {"revisions": len(some)})
                print(f"{line}: {way}: {figures['seconds']:.1f} s", file=sys.stderr, flush=True)
    server.terminate()
    result = summary(taken, len(commits), size, arguments)
    with atomic(arguments.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


def ways_of(url: str, commits: list[str], size: int, at_once: int) -> dict[str, Callable[[Path], float | None]]:
    """Give what each way does; those of Snakemake say when the last job had ended."""
    return {
        "disk": lambda place: write_disk(place, len(commits), size, at_once),
        CURL: lambda place: curl(place, url, commits, at_once),
        "curl + sha256sum": lambda place: curl(place, url, commits, at_once, verify=True),
        "fetch, threads": lambda place: fetch_threads(place, url, commits, at_once),
        WORKFLOW: lambda place: fetch_snakemake(place, commits, at_once, "1"),
        "fetch, snakemake, plain": lambda place: fetch_snakemake(place, commits, at_once, "0"),
    }


def summary(
    taken: dict[tuple[str, str], list[dict[str, float]]], count: int, size: int, arguments: argparse.Namespace
) -> dict:
    """Give the medians of the repeats, and where they were taken."""
    rows = []
    for (line, way), figures in taken.items():
        median = {name: statistics.median(figure[name] for figure in figures) for name in figures[0]}
        median = {name: round(value, 2) for name, value in median.items()}
        each = [round(figure["jobs"], 1) for figure in figures]
        rows.append({"hub": line, "way": way, **median, "jobs of each run": each})
    return {
        "date": datetime.date.today().isoformat(),
        "load at the end": round(os.getloadavg()[1], 1),
        "revisions": count,
        "megabytes each": round(size / 1e6, 1),
        "at once": arguments.at_once,
        "masks": arguments.masks,
        "cores": os.cpu_count(),
        "lines": {name: asdict(line) for name, line in LINES.items()},
        "huggingface_hub": version("huggingface_hub"),
        "snakemake": version("snakemake"),
        "rows": rows,
    }


def table(result: dict) -> str:
    rows, at_curl = [], {}
    for row in result["rows"]:
        rate = row["revisions"] * result["megabytes each"] / row["jobs"]
        at_curl[row["hub"]] = rate if row["way"] == CURL else at_curl.get(row["hub"])
        of_curl = "" if row["way"] in ("disk", CURL) else f"{rate / at_curl[row['hub']]:.0%}"
        client = row["client"] - row["before"]
        cores = (client + row["hub seconds"]) / row["jobs"]
        full = result["lines"][row["hub"]]["rate"]
        bound = "line" if full and rate > 0.95 * full / 1e6 else "processor" if cores > 0.9 * result["cores"] else "-"
        seconds = [f"{row[name]:.1f}" for name in ("seconds", "before", "jobs", "after")]
        used = [f"{row['client']:.1f}", f"{row['hub seconds']:.1f}", f"{client / row['revisions']:.2f}", f"{cores:.1f}"]
        rows.append(
            [row["hub"], row["way"], str(len(row["jobs of each run"])), *seconds, f"{rate:.0f}", *used, of_curl, bound]
        )
    head = f"{result['revisions']} revisions of {result['megabytes each']} MB ({SLOW / 125e3:.0f} Mbit/s: half of them)"
    return f"{head}, {result['at once']} at a time, {result['cores']} cores\n\n{markdown(COLUMNS, rows, left=2)}"


def serve(control: "multiprocessing.connection.Connection", revisions: int, masks: bool) -> None:
    """Serve a series until the parent ends; a line sent to it is obeyed, None answered by the first request's time."""
    tensors = {}
    if masks:
        shape = [1, 1, CONTEXT, CONTEXT]
        tensors = {f"gpt_neox.layers.{i}.attention.bias": ("BOOL", shape, CONTEXT**2) for i in range(LAYERS)}
    tensors["gpt_neox.embed_in.weight"] = ("F16", [PARAMETERS], 2 * PARAMETERS)
    header, start = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # Bits of a positive number below 2 in float16 and of a boolean alike, so that every value is one.
    body = np.random.default_rng(0).integers(0, 2, size=start - 8, dtype=np.uint8).tobytes()
    common = len(text).to_bytes(8, "little") + text + body
    begun = hashlib.sha256(common)
    hub = Hub()
    commits = []
    for number in range(revisions):
        digest, tail = begun.copy(), number.to_bytes(8, "little")
        digest.update(tail)
        files = {"config.json": b"{}", "model.safetensors": Content(common, tail, sha256=digest.hexdigest())}
        commits.append(hub.repo(REPO).push(f"step{number}", files))
    with hub.serve():
        control.send((hub.url, commits, len(common) + 8))
        while True:
            line = control.recv()
            if line is None:
                control.send(min((request.began for request in hub.requests), default=None))
            else:
                hub.requests.clear()
                hub.limit(line)
                control.send("ready")


def timed(
    way: Callable[[Path], float | None], place: Path, hub: "multiprocessing.connection.Connection", line: Line, pid: int
) -> dict[str, float]:
    """Give wall-clock seconds, before, during and after the jobs, and CPU seconds of client and hub."""
    hub.send(line)
    hub.recv()
    client, served, began = _cpu(), _cpu_of(pid), time.monotonic()
    ended = way(place)
    seconds = time.monotonic() - began
    after = time.time() - ended if ended else 0.0
    _await_orphans(pid)
    hub.send(None)
    first = hub.recv() or began
    figures = {"seconds": seconds, "before": first - began, "jobs": began + seconds - after - first, "after": after}
    return figures | {"client": _cpu() - client, "hub seconds": _cpu_of(pid) - served}


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _await_orphans(hub: int) -> None:
    """Wait for fork servers, which have become children of this process and end with their Snakemake."""
    while orphans := set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())) - {hub}:
        for pid in orphans:
            os.waitpid(pid, 0)


def write_disk(place: Path, count: int, size: int, at_once: int) -> None:
    data = bytes(size)

    def write(number: int) -> None:
        with (place / str(number)).open("wb") as handle:
            handle.write(data)
            os.fsync(handle.fileno())

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(write, range(count)))


def curl(place: Path, url: str, commits: list[str], at_once: int, verify: bool = False) -> None:
    lines = []
    for number, commit in enumerate(commits):
        (place / "out" / str(number)).mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            lines += [f'url = "{url}/{REPO}/resolve/{commit}/{name}"', f'output = "{place}/out/{number}/{name}"']
    (place / "list").write_text("\n".join(lines))
    options = [
        "--no-progress-meter",
        "--silent",
        "--show-error",
        "--fail",
        "--location",
        "--parallel",
        "--parallel-max",
        str(at_once),
    ]
    subprocess.run(["curl", *options, "--config", place / "list"], check=True)
    if verify:
        names = "\0".join(map(str, place.glob("out/*/model.safetensors")))
        command = ["xargs", "-0", "-n", "1", "-P", str(at_once), "sha256sum"]
        subprocess.run(command, input=names, text=True, check=True, stdout=subprocess.DEVNULL)


def fetch_threads(place: Path, url: str, commits: list[str], at_once: int) -> None:
    with ThreadPoolExecutor(at_once) as pool:
        outs = [place / "out" / str(number) for number in range(len(commits))]
        list(pool.map(lambda commit, out: fetch(REPO, commit, out, endpoint=url), commits, outs))


def fetch_snakemake(place: Path, commits: list[str], at_once: int, warm: str) -> float:
    """Run the rule for all commits; when Snakemake had noted the end of the last job, in seconds since the epoch."""
    (place / "Snakefile").write_text(RULES.format(revisions=len(commits), commits=commits, repo=REPO))
    profile = Path(__file__).parents[1] / "profiles/default"
    command = [sys.executable, "-m", "snakemake", "--cores", str(at_once), "--quiet", "all"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PHASEGRAPH_WARM": warm, "PATH": path}
    subprocess.run([*command, "--workflow-profile", profile], check=True, cwd=place, env=environment)
    return max(path.stat().st_mtime for path in (place / ".snakemake/metadata").rglob("*"))


def check(place: Path, commits: list[str], name: str) -> None:
    """Refuse to report a time for something that was not done."""
    found = {path.read_bytes()[-8:] for path in place.glob("out/*/model.safetensors")}
    if name != "disk" and len(found) != len(commits):
        raise SystemExit(f"{name}: {len(found)} of {len(commits)} revisions arrived")


if __name__ == "__main__":
    main()
