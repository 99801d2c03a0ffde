"""The few columns of the benchmark that the README shows."""

from engine_methods.cases import DIRECT, HOOKS, PAPER, SHAPES, SQUARE, TOTAL
from engine_methods.table import markdown, number

COLUMNS = {
    PAPER: "paper's loop",
    HOOKS: "hooks, node by node",
    TOTAL: "phasegraph, total",
    DIRECT: "direct besides",
    SQUARE: "floor",
    SHAPES: "products alone",
}
"""Method -> its column."""


def summary(rows: list[dict]) -> str:
    """Lay out CPU seconds of a few methods, with their ratio to the engine's total effects, and its peak memory."""
    shapes: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        shapes.setdefault((row["shape"], f"{row['prompts']} x {row['tokens']}"), {})[row["method"]] = row
    cells = []
    for shape, by_method in shapes.items():
        total = by_method[TOTAL]
        cells.append([*shape, *(_seconds(by_method[name], total) for name in COLUMNS), number(total["peak_mib"], 2)])
    heads = ["model", "prompts x tokens", *(f"{column}, s" for column in COLUMNS.values()), "peak MiB"]
    return markdown(heads, cells, left=2)


def _seconds(row: dict, total: dict) -> str:
    seconds = number(row["cpu_seconds"], 2)
    return seconds if row is total else f"{seconds} ({number(row['cpu_seconds'] / total['cpu_seconds'], 2)}x)"
