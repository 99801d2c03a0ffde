"""How fast a series is fetched from a hub on loopback, beside curl and the disk.

    python benchmarks/fetch_series.py                    # 143 revisions of 28 MB, 8 at a time
    python benchmarks/fetch_series.py --masks            # as published: with 25 MB of masks to leave out
    python benchmarks/fetch_series.py --revisions 8

The hub (tests/hub_server.py, a process of its own) makes the files from a seed: they differ in their last 8 bytes, so
that each has a hash of its own. Rows, each the median of the repeats:

- disk: the same number of bytes written to files of the same size and synchronised, 8 at a time
- curl: `curl --parallel`, which verifies, synchronises and converts nothing
- curl, verified: then `sha256sum` over all files, 8 at a time, which is what a careful user would do
- fetch, one process: `phasegraph.series.hub.fetch` in 8 threads
- fetch, a process each: `python -m phasegraph.series fetch`, 8 at a time
- fetch, snakemake: a rule with that command, `--cores 8`, the workflow's own start-up included
- fetch, snakemake, warm: the same through the fork server of `phasegraph.warm`, its start-up included

MB/s count what was downloaded. CPU seconds are those of the client and of what it starts, not of the hub; those of the
fork server and its jobs, which belong to nobody, are not seen.
"""

import argparse
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
from pathlib import Path

import numpy as np
from engine_methods.table import markdown

from phasegraph.files import sha256
from phasegraph.series.hub import fetch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from hub_server import Content, Hub

REPO = "lab/series"
PARAMETERS = 14_067_712
"""Of Pythia-14M; in float16 these are 28 MB."""
LAYERS, CONTEXT = 6, 2048
COLD, WARM = "phasegraph.series", "phasegraph.warm phasegraph.series"
COLUMNS = ["way", "s", "MB/s", "CPU s"]

RULES = """
rule all:
    input: expand("out/{{step}}/model.safetensors", step=range({revisions}))

rule fetch:
    output: "out/{{step}}/model.safetensors", "out/{{step}}/config.json"
    params: commit=lambda wildcards: {commits}[int(wildcards.step)]
    shell:
        "{python} -m {module} fetch --repo {repo} --commit {{params.commit}} --out out/{{wildcards.step}} 2> /dev/null"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revisions", type=int, default=143)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--masks", action="store_true", help="files with masks, which are left out when they arrive")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    arguments = parser.parse_args()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(target=serve, args=(sender, arguments.revisions, arguments.masks), daemon=True)
    server.start()
    url, commits, size = receiver.recv()
    os.environ |= {"HF_ENDPOINT": url, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    ways = {
        "disk": lambda place: write_disk(place, len(commits), size, arguments.at_once),
        "curl": lambda place: curl(place, url, commits, arguments.at_once),
        "curl, verified": lambda place: curl(place, url, commits, arguments.at_once, verify=True),
        "fetch, one process": lambda place: fetch_threads(place, url, commits, arguments.at_once),
        "fetch, a process each": lambda place: fetch_processes(place, commits, arguments.at_once),
        "fetch, snakemake": lambda place: fetch_snakemake(place, commits, arguments.at_once, COLD),
        "fetch, snakemake, warm": lambda place: fetch_snakemake(place, commits, arguments.at_once, WARM),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
                taken[name].append(timed(way, Path(place)))
                check(Path(place), commits, name)
    server.terminate()
    total = len(commits) * size / 1e6
    rows = []
    for name, times in taken.items():
        seconds, cpu = (statistics.median(values) for values in zip(*times, strict=True))
        rows.append([name, f"{seconds:.1f}", f"{total / seconds:.0f}", f"{cpu:.1f}"])
    print(f"{len(commits)} revisions of {size / 1e6:.1f} MB, {arguments.at_once} at a time, {os.cpu_count()} cores\n")
    print(markdown(COLUMNS, rows, left=1))


def serve(sender: "multiprocessing.connection.Connection", revisions: int, masks: bool) -> None:
    """Serve a series until the parent ends."""
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
        sender.send((hub.url, commits, len(common) + 8))
        hub.done.wait()


def timed(way: Callable[[Path], None], place: Path) -> tuple[float, float]:
    """Give wall-clock and CPU seconds."""
    before, began = _cpu(), time.perf_counter()
    way(place)
    return time.perf_counter() - began, _cpu() - before


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


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
    options = ["--silent", "--show-error", "--fail", "--location", "--parallel", "--parallel-max", str(at_once)]
    subprocess.run(["curl", *options, "--config", place / "list"], check=True)
    if verify:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(sha256, place.glob("out/*/model.safetensors")))


def fetch_threads(place: Path, url: str, commits: list[str], at_once: int) -> None:
    with ThreadPoolExecutor(at_once) as pool:
        outs = [place / "out" / str(number) for number in range(len(commits))]
        list(pool.map(lambda commit, out: fetch(REPO, commit, out, endpoint=url), commits, outs))


def fetch_processes(place: Path, commits: list[str], at_once: int) -> None:
    def start(number: int) -> None:
        arguments = ["--repo", REPO, "--commit", commits[number], "--out", place / "out" / str(number)]
        command = [sys.executable, "-m", "phasegraph.series", "fetch", *arguments]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(start, range(len(commits))))


def fetch_snakemake(place: Path, commits: list[str], at_once: int, module: str) -> None:
    rules = RULES.format(revisions=len(commits), commits=commits, python=sys.executable, module=module, repo=REPO)
    (place / "Snakefile").write_text(rules)
    command = [sys.executable, "-m", "snakemake", "--cores", str(at_once), "--quiet", "all"]
    subprocess.run([*command, "--workflow-profile", "none"], check=True, cwd=place)


def check(place: Path, commits: list[str], name: str) -> None:
    """Refuse to report a time for something that was not done."""
    found = {path.read_bytes()[-8:] for path in place.glob("out/*/model.safetensors")}
    if name != "disk" and len(found) != len(commits):
        raise SystemExit(f"{name}: {len(found)} of {len(commits)} revisions arrived")
    if not shutil.which("curl"):
        raise SystemExit("curl is not installed")


if __name__ == "__main__":
    main()
