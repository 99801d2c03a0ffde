"""How the time of all total effects grows with layers, heads and tokens, beside what the FLOPs predict."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine_methods import ours
from engine_methods.clock import Method, round_robin
from engine_methods.models import Shape, engine_flops, prompts_for, save_random
from phasegraph.model.load import components_of, read
from phasegraph.types import GROUPS

BASE, LENGTH = Shape(layers=6, width=128, heads=4, vocabulary=512), 64
AXES = {"layers": (2, 4, 8, 16), "heads": (2, 4, 8, 16), "tokens": (32, 64, 128, 256)}


def growth(folder: Path, repeats: int, say: Callable[[str], None]) -> list[dict]:
    """Time all total effects along each axis, the width and all else fixed.

    Returns
    -------
    list of dict
        Per axis and value: CPU seconds, GFLOP by the formula, the seconds that follow from it at the speed of the base
        shape (6 layers, 4 heads, 64 tokens, width 128, 16 prompts), and over the axis the exponents of growth (slope
        of log time against log value by least squares), measured and predicted.
    """
    points = [("base", 0, BASE, LENGTH)]
    for axis, values in AXES.items():
        for value in values:
            shape = BASE if axis == "tokens" else replace(BASE, **{axis: value})
            points.append((axis, value, shape, value if axis == "tokens" else LENGTH))
    methods = [_method(shape, length, folder / f"{axis}-{value}") for axis, value, shape, length in points]
    round_robin(methods, repeats, say)
    flops = [engine_flops(shape, GROUPS, length, GROUPS) for _, _, shape, length in points]
    rate = flops[0] / methods[0].median
    rows = [
        {
            "axis": axis,
            "value": value,
            "cpu_seconds": method.median,
            "predicted_seconds": flop / rate,
            "gflop": flop / 1e9,
            "gflop_counted": method.flops / 1e9,
        }
        for (axis, value, _, _), method, flop in zip(points, methods, flops, strict=True)
    ]
    for axis in AXES:
        own = [row for row in rows if row["axis"] == axis]
        for key in ("cpu_seconds", "predicted_seconds"):
            slope = np.polyfit(*np.log([[row["value"], row[key]] for row in own]).T, 1)[0]
            for row in own:
                row[f"exponent_{key.removesuffix('_seconds')}"] = float(slope)
    return rows


def _method(shape: Shape, length: int, folder: Path) -> Method:
    components = components_of(read(save_random(shape, folder)), length)
    task = prompts_for(shape, GROUPS, length, GROUPS)
    return Method(f"{shape}, {length} tokens", "total effects", lambda: ours.measured(components, task, direct=False))
