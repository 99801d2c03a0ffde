"""What it costs to measure one checkpoint's edges: phasegraph, the paper's loop, hooks, transformer_lens, the floor.

    make bench                                  # about 20 minutes of one core
    python benchmarks/engine.py --quick         # one shape, two repeats
    python benchmarks/engine.py --only pythia-14m   # one model again, for instance on a quieter machine
    python benchmarks/engine.py --summary       # the table in the README

Prints one table, and a second one on growth, and writes benchmarks/engine.json. Models have the exact shape of their
namesakes and random weights. Seconds are CPU seconds of one torch thread: the median over repeats in which all methods
take turns. Peak MiB is the extra resident memory at the worst moment: VmHWM of /proc/self/status after writing 5 to
/proc/self/clear_refs, less VmRSS before. GFLOP are those of matrix products, counted by torch. Every method that needs
means takes them from as many reference prompts as there are prompts.

Where a row says "scaled from", less was run than it stands for. The engine takes prompts by sixteens, so 8 prompts are
half of 16; at 160m it is stopped after one prompt, with a memory budget under which it takes one at a time. The peak is
that of what was run. Before the timing, `engine_methods.check` compares the methods' numbers.
"""

import argparse
import datetime
import json
import os
import platform
import re
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from engine_methods.cases import CASES, QUICK, TOTAL, rows_of
from engine_methods.check import check
from engine_methods.growth import growth
from engine_methods.models import PYTHIA, save_random
from engine_methods.summary import summary
from engine_methods.table import markdown, number

from phasegraph.edges.memory import keep_freed_memory
from phasegraph.files import atomic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only pythia-14m with 8 x 64, two repeats, no growth")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("engine.json"), help="JSON to write")
    parser.add_argument("--only", choices=sorted(PYTHIA), help="measure this model anew and keep the JSON's other rows")
    parser.add_argument(
        "--summary", action="store_true", help="print the README's table from the JSON, and run nothing"
    )
    arguments = parser.parse_args()
    if arguments.summary:
        print(summary(json.loads(arguments.out.read_text())["rows"]))
        return
    torch.set_num_threads(1)
    keep_freed_memory()  # as the program does; every method gains
    transformers.utils.logging.set_verbosity_error()
    cases = QUICK if arguments.quick else [case for case in CASES if arguments.only in (None, case.model)]
    before = json.loads(arguments.out.read_text()) if arguments.only else {"rows": []}
    result: dict = {"machine": machine()}
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary)
        folders = {name: save_random(PYTHIA[name], store / name) for name in {case.model for case in cases}}
        small = folders.get("pythia-14m") or save_random(PYTHIA["pythia-14m"], store / "pythia-14m")
        say("comparing the methods' numbers")
        result["largest_differences"] = check(small)
        result["rows"] = []
        for case in cases:
            title = f"{case.model} {' and '.join(map(str, case.prompts))} x {case.length}"
            result["rows"] += rows_of(case, folders[case.model], lambda line, title=title: say(f"{title}: {line}"))
        result["rows"] += [row for row in before["rows"] if row["shape"] not in folders]
        result["rows"].sort(key=lambda row: row["shape"])  # stable: within a model the order of the cases
        if arguments.only:
            result["growth"] = before["growth"]
        else:
            result["growth"] = [] if arguments.quick else growth(store, 3, lambda line: say(f"growth: {line}"))
    result["machine"]["load_average_at_end"] = os.getloadavg()
    with atomic(arguments.out) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(main_table(result["rows"]))
    if result["growth"]:
        print("\n" + growth_table(result["growth"]))


def main_table(rows: list[dict]) -> str:
    """Lay the rows out, each with its time relative to the engine's total effects at the same shape."""
    total = {_shape(row): row["cpu_seconds"] for row in rows if row["method"] == TOTAL}
    cells = [
        [
            *_shape(row),
            row["method"],
            row["computes"],
            row["scaled_from"] or "",
            number(row["cpu_seconds"]),
            number(row["cpu_seconds"] / total[_shape(row)]),
            number(row["peak_mib"]),
            number(row["gflop"]),
            number(row["gflop"] / row["cpu_seconds"]),
        ]
        for row in rows
    ]
    left = ["shape", "prompts x tokens", "method", "computes", "scaled from"]
    return markdown([*left, "CPU s", "relative", "peak MiB", "GFLOP", "GFLOP/s"], cells, len(left))


def growth_table(rows: list[dict]) -> str:
    """Lay the growth out, with the prediction beside each time."""
    cells = [
        [
            row["axis"],
            str(row["value"] or ""),
            *(number(row[key]) for key in ("cpu_seconds", "predicted_seconds", "gflop")),
            *(number(row.get(key)) for key in ("exponent_cpu", "exponent_predicted")),
        ]
        for row in rows
    ]
    return markdown(["axis", "value", "CPU s", "predicted s", "GFLOP", "exponent", "predicted"], cells, left=1)


def machine() -> dict:
    """Describe what this runs on."""
    info = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return {
        "cpu": name[1] if name else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "transformers", "transformer_lens", "numpy")},
        "torch_threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "date": datetime.date.today().isoformat(),
    }


def say(line: str) -> None:
    """Report progress."""
    print(f"{time.process_time():6.0f} CPU s  {line}", file=sys.stderr, flush=True)


def _shape(row: dict) -> tuple[str, str]:
    return row["shape"], f"{row['prompts']} x {row['tokens']}"


if __name__ == "__main__":
    main()
