"""What one checkpoint costs as models grow: predicted by `phasegraph.edges.cost`, and measured.

    python benchmarks/scaling.py                 # about ten minutes of one core
    python benchmarks/scaling.py --only 14m      # the cases of one model again; the JSON's other rows are kept
    python benchmarks/scaling.py --fit           # constants for phasegraph.edges.cost from the JSON
    python benchmarks/scaling.py --tables        # the tables of docs/scaling.md, from the JSON and the formula

Every case runs `phasegraph.edges` as the workflow does, in a fork of a process that has the imports done, with one
thread, on a model of the exact shape of its namesake and with random weights. Seconds are CPU seconds (user and system)
of that fork; cases take turns, and the median counts. What the imports take stands in the JSON beside them. Memory is
the fork's highest resident memory, libraries included. A case has fewer or shorter prompts than a study by default
where that would take more than some minutes.
"""

import argparse
import datetime
import gc
import importlib
import json
import os
import resource
import runpy
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

import numpy as np
import yaml
from engine_methods.table import markdown, number
from scipy.optimize import nnls

from phasegraph.config import measurement
from phasegraph.edges import cost
from phasegraph.files import atomic
from phasegraph.model.size import size_of
from phasegraph.warm.server import PRELOAD, TABLES

ROOT = Path(__file__).parents[1]
CHECKPOINTS = 154
"""Of a published Pythia run."""
BUDGET = 1024
"""MiB, the default of model.memory_budget."""
CORE_HOUR, GPU_HOUR = 0.04, 2.0
"""Assumed prices in dollars."""

PYTHIA = {
    "14m": (6, 128, 4, 50304),
    "70m": (6, 512, 8, 50304),
    "160m": (12, 768, 12, 50304),
    "410m": (24, 1024, 16, 50304),
    "1b": (16, 2048, 8, 50304),
    "1.4b": (24, 2048, 16, 50304),
    "2.8b": (32, 2560, 32, 50304),
    "6.9b": (32, 4096, 32, 50432),
    "12b": (36, 5120, 40, 50688),
}
"""Layers, width, heads and vocabulary of the published models."""
SHAPES = {"demo": (6, 128, 4, 64)} | PYTHIA
"""And those of the embedded demonstration."""


@dataclass(frozen=True)
class Case:
    """A job that is measured."""

    model: str
    prompts: int
    segment: int
    repeats: int
    change: str = ""
    """What differs from a study by default, besides prompts and segment."""


CHANGES = {
    "": {},
    "no direct": {"direct": False},
    "control": {"control": True},
    "qkv": {"qkv": True},
    "kl": {"answer": ["kl"]},
}
CASES = (
    Case("demo", 32, 8, repeats=3),
    Case("14m", 16, 50, repeats=3),
    Case("14m", 64, 50, repeats=2),
    Case("14m", 16, 50, repeats=2, change="no direct"),
    Case("14m", 16, 50, repeats=2, change="control"),
    Case("14m", 16, 50, repeats=2, change="qkv"),
    Case("14m", 16, 50, repeats=2, change="kl"),
    Case("70m", 16, 24, repeats=2),
    Case("70m", 32, 24, repeats=2),
    Case("70m", 16, 50, repeats=1),
    Case("160m", 16, 8, repeats=1),
    Case("160m", 16, 8, repeats=1, change="no direct"),
    Case("410m", 16, 2, repeats=1, change="no direct"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_suffix(".json"), help="JSON to write and to read"
    )
    parser.add_argument("--only", choices=SHAPES, help="measure this model's cases and keep the JSON's other rows")
    parser.add_argument("--tables", action="store_true", help="print the tables of docs/scaling.md, and run nothing")
    parser.add_argument("--fit", action="store_true", help="print constants that fit the JSON, and run nothing")
    arguments = parser.parse_args()
    if not (arguments.tables or arguments.fit):
        kept = json.loads(arguments.out.read_text())["rows"] if arguments.only and arguments.out.exists() else []
        kept = [row for row in kept if row["model"] != arguments.only]
        result = measure([case for case in CASES if arguments.only in (None, case.model)])
        result["rows"] = sorted(kept + result["rows"], key=lambda row: list(SHAPES).index(row["model"]))
        with atomic(arguments.out) as path:
            path.write_text(json.dumps(result, indent=1) + "\n")
    rows = json.loads(arguments.out.read_text())["rows"]
    print(fit(rows) if arguments.fit else "\n\n".join(tables(rows)))


def tables(rows: list[dict]) -> list[str]:
    """Give the tables of docs/scaling.md."""
    return [measured_table(rows), checkpoint_table(), run_table()]


def config_of(model: str) -> dict:
    """Give a model's configuration, as far as it decides the shape."""
    layers, width, heads, vocabulary = SHAPES[model]
    return {
        "model_type": "gpt_neox",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "vocab_size": vocabulary,
        "use_parallel_residual": True,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    }


def default_study() -> dict:
    """Give a study as the schema's defaults make it."""
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())["$defs"]

    def defaults(properties: dict) -> dict:
        return {key: value["default"] for key, value in properties.items() if "default" in value}

    study = schema["study"]["properties"]
    nodes = defaults(study["nodes"]["properties"])
    return defaults(study) | {"task": defaults(schema["task"]["properties"]), "nodes": nodes}


def study_of(case: Case) -> dict:
    """Give the study of a case."""
    study = default_study()
    return study | CHANGES[case.change] | {"task": study["task"] | {"prompts": case.prompts, "segment": case.segment}}


def make(model: str, folder: Path) -> None:
    """Write a model with random weights."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    GPTNeoXForCausalLM(GPTNeoXConfig(**config_of(model))).save_pretrained(folder)


def measure(cases: list[Case]) -> dict:
    """Import what the workflow's jobs find imported, and run every case in a fork, in turns."""
    for name in PRELOAD:
        importlib.import_module(name)
    for module, function, argument in TABLES:
        getattr(sys.modules[module], function)(argument)
    gc.collect()
    gc.freeze()  # as the workflow's server does: a collection in a fork would copy all that was imported
    begin = resource.getrusage(resource.RUSAGE_SELF)
    torch = sys.modules["torch"]
    machine = {"cores": os.cpu_count(), "torch": torch.__version__, "date": datetime.date.today().isoformat()}
    found: dict[Case, list[dict]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as store:
        folders = {model: Path(store, model) for model in {case.model for case in cases}}
        for model, folder in folders.items():
            forked(make, model, folder)
        for turn in range(max(case.repeats for case in cases)):
            for case in [case for case in cases if turn < case.repeats]:
                out = Path(tempfile.mkdtemp(dir=store))
                found[case].append(forked(job, case, folders[case.model], out))
                found[case][-1]["stored_bytes"] = sum(path.stat().st_size for path in out.iterdir())
                say(f"turn {turn + 1}: {case}: {found[case][-1]}; load {os.getloadavg()[0]:.1f}")
    rows = [asdict(case) | {key: [one[key] for one in found[case]] for key in found[case][0]} for case in cases]
    return {"machine": machine, "import_seconds": begin.ru_utime + begin.ru_stime, "rows": rows}


def forked(function: Callable, *arguments: object) -> dict[str, float]:
    """Run a function in a process of its own: CPU seconds, and the highest resident memory in MiB."""
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{function.__name__} failed")
    unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss * unit / 2**20}


def job(case: Case, folder: Path, out: Path) -> None:
    """Run what ``python -m phasegraph.edges`` would."""
    study = study_of(case)
    names = {"total": "edges.npy", "more": "more.npz", "behaviour": "behaviour.npz"}
    names |= {"direct": "direct.npy"} if study["direct"] else {}
    outputs = [text for name, file in names.items() for text in (f"--{name}", str(out / file))]
    options = ["--device", "cpu", "--threads", "1", "--memory-budget", str(BUDGET)]
    sys.argv[1:] = ["--checkpoint", str(folder), "--study", measurement(study), *outputs, *options]
    runpy.run_module("phasegraph.edges", run_name="__main__", alter_sys=True)


def say(line: str) -> None:
    """Report progress."""
    print(line, file=sys.stderr, flush=True)


def measured_table(rows: list[dict]) -> str:
    """Lay predictions beside what was measured."""
    columns = ["model", "prompts x tokens", "study", "TFLOP", "predicted s", "measured s", "ratio"]
    columns += ["predicted MiB", "measured MiB", "ratio"]
    cells = []
    for row in rows:
        case, size = case_of(row), size_of(config_of(row["model"]))
        study = study_of(case)
        seconds, found = cost.seconds(size, study), median(row["cpu_seconds"])
        memory, peak = cost.memory_mib(size, study, BUDGET), max(row["peak_mib"])
        shape = f"{case.prompts} x {cost.length_of(study['task'])}"
        numbers = (cost.flops(size, study) / 1e12, seconds, found, seconds / found, memory, peak, memory / peak)
        cells.append([case.model, shape, case.change or "default", *(number(value) for value in numbers)])
    return markdown(columns, cells, left=3)


def checkpoint_table() -> str:
    """Lay out what one checkpoint costs in a study by default."""
    columns = ["model", "parameters", "nodes", "TFLOP", "one core", "A100 (assumed)", "memory, GiB"]
    columns += ["weights (16 bits), GB", "results, MB"]
    cells, study = [], default_study()
    for model in PYTHIA:
        size = size_of(config_of(model))
        cells.append(
            [
                model,
                number(size.parameters / 1e6) + " M",
                str(cost.nodes_of_study(size, study)),
                number(cost.flops(size, study) / 1e12),
                duration(cost.seconds(size, study)),
                duration(cost.seconds(size, study, "cuda")),
                number(cost.memory_mib(size, study, BUDGET, bits=16) / 1024, 2),
                number(cost.weights_bytes(size) / 1e9, 2),
                number(cost.storage_bytes(size, study) / 1e6, 2),
            ]
        )
    return markdown(columns, cells, left=1)


def run_table() -> str:
    """Lay out what a run of 154 checkpoints costs in a study by default."""
    columns = ["model", "core hours", "dollars", "GPU hours (assumed)", "dollars", "weights, GB", "results, GB"]
    cells, study = [], default_study()
    for model in PYTHIA:
        size = size_of(config_of(model))
        cores, gpus = (CHECKPOINTS * cost.seconds(size, study, device) / 3600 for device in ("cpu", "cuda"))
        stored = (CHECKPOINTS * one / 1e9 for one in (cost.weights_bytes(size), cost.storage_bytes(size, study)))
        numbers = (cores, cores * CORE_HOUR, gpus, gpus * GPU_HOUR, *stored)
        cells.append([model, *(number(value, 2) for value in numbers)])
    return markdown(columns, cells, left=1)


def fit(rows: list[dict]) -> str:
    """Fit the seconds of each unit of work: least squares of relative errors, none below 0."""
    units = list(cost.SECONDS)
    amounts = [cost.work(size_of(config_of(row["model"])), study_of(case_of(row))) for row in rows]
    seconds = np.array([median(row["cpu_seconds"]) for row in rows])
    matrix = np.array([[one[unit] for unit in units] for one in amounts]) / seconds[:, None]  # [rows, units]
    scale = matrix.max(0)
    found, _ = nnls(matrix / scale, np.ones(len(rows)))
    return "\n".join(f'"{unit}": {value:.3g},' for unit, value in zip(units, found / scale, strict=True))


def case_of(row: dict) -> Case:
    """Read a case off a row of the JSON."""
    return Case(**{field.name: row[field.name] for field in fields(Case)})


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{number(seconds / length, 2)} {unit}"
    return f"{number(seconds, 2)} s"


if __name__ == "__main__":
    main()
