"""How long Snakemake takes to plan a large study: 10 seeds x 5 sizes x 154 checkpoints on a hub, three jobs for each.

    python benchmarks/dag.py                 # prints one row for each number of seeds, writes benchmarks/dag.json

It is a dry run of the real workflow in a temporary folder. The commits of the revisions are made up and nothing is
asked of any hub; the shapes are those of their namesakes. Time counts from the start of Snakemake to its table of jobs,
with the peak of its memory; medians of interleaved runs.
"""

import argparse
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from phasegraph.series.grids import series_steps
from phasegraph.series.pins import Pin, write_pins

ROOT = Path(__file__).parents[1]
SHAPES = {"14m": (6, 4, 128), "70m": (6, 8, 512), "160m": (12, 12, 768), "410m": (24, 16, 1024), "1b": (16, 8, 2048)}
"""Layers, heads and width."""


def prepare(folder: Path, seeds: int) -> int:
    """Lay out a study of so many seeds of each size, as if its revisions had been resolved; count its checkpoints."""
    series, studies, steps = {}, {}, series_steps("pythia")
    for size, (layers, heads, width) in SHAPES.items():
        for seed in range(seeds):
            name, repo = f"p{size}-{seed}", f"somebody/pythia-{size}-seed{seed}"
            series[name] = {"source": "hub", "repo": repo, "steps": "pythia"}
            studies[name] = {"series": name}
            home = folder / "results" / "series" / name
            digests = {step: hashlib.sha1(f"{name} {step}".encode()).hexdigest() for step in steps}
            write_pins([Pin(step, repo, f"step{step}", digests[step]) for step in steps], home / "pins.tsv")
            config = dict(model_type="gpt_neox", num_hidden_layers=layers, num_attention_heads=heads)
            config |= dict(hidden_size=width, intermediate_size=4 * width, vocab_size=50304)
            (home / "architecture").mkdir()
            (home / "architecture" / "config.json").write_text(json.dumps(config))
    (folder / "config.yaml").write_text(yaml.safe_dump({"series": series, "studies": studies}))
    return len(series) * len(steps)


def plan(folder: Path, log: Path) -> dict[str, float]:
    """Plan once: seconds until the table of jobs, the number of jobs, and the peak of memory in MiB."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--cores", "8"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--workflow-profile", str(ROOT / "profiles" / "default")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "HF_HUB_OFFLINE": "1"}
    begin = time.perf_counter()
    running = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log.open("w"), text=True
    )
    table = next((line for line in running.stdout if line.startswith("total")), None)
    seconds = time.perf_counter() - begin
    if table is None:
        raise SystemExit(f"the dry run failed:\n{log.read_text()[-2000:]}")
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{running.pid}/status").read_text())[1]
    running.kill()  # before it describes every job
    running.communicate()
    return {"seconds": seconds, "jobs": int(table.split()[1]), "mib": int(peak) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 10], help="seeds of each size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {seeds: Path(scratch) / str(seeds) for seeds in arguments.seeds}
        checkpoints = {seeds: prepare(folder, seeds) for seeds, folder in folders.items()}
        found = {seeds: [] for seeds in folders}
        for _ in range(arguments.repeats):
            for seeds, folder in folders.items():
                found[seeds].append(plan(folder, Path(scratch) / "log"))
    rows = []
    print("| series | checkpoints | jobs | s | MiB |\n|---|---|---|---|---|")
    for seeds, runs in found.items():
        row = {"series": seeds * len(SHAPES), "checkpoints": checkpoints[seeds]}
        row |= {key: round(statistics.median(run[key] for run in runs), 1) for key in ("jobs", "seconds", "mib")}
        rows.append(row | {"all_seconds": [round(run["seconds"], 1) for run in runs]})
        print(f"| {row['series']} | {row['checkpoints']:,} | {row['jobs']:,} | {row['seconds']} | {row['mib']:,.0f} |")
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
