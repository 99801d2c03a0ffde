"""The error that half precision brings to edges, against float32.

    python benchmarks/precision.py results/series/demo/checkpoints/572      # a trained checkpoint, and a random one

The random one has the 14m shape with a small vocabulary. Prompts are repeated random tokens of the checkpoint's
vocabulary; mean ablation, the variance measure. float32 itself is off by some 1e-7 (median) to 1e-5, far below what is
measured here. Errors are relative, over all possible edges with a weight above 0.
"Strong" are the edges above the median. Prints one table. float16 is slow on a CPU without instructions for it.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from engine_methods import ours
from engine_methods.growth import BASE
from engine_methods.models import save_random
from engine_methods.table import markdown, number
from scipy.stats import spearmanr

from phasegraph.errors import user_errors
from phasegraph.model.load import components_of, read
from phasegraph.tasks.induction import induction
from phasegraph.types import GROUPS

REFERENCE, DTYPES = torch.float32, (torch.float16, torch.bfloat16)
COLUMNS = ["checkpoint", "effect", "dtype", "median", "95 %", "max", "max, strong", "Spearman", "not finite"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="*", help="Hugging Face folders")
    parser.add_argument("--segment", type=int, default=15, help="length of the repeated segment")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as store:
        random = save_random(BASE, Path(store) / "random")
        named = {str(folder): folder for folder in arguments.checkpoints} | {"random weights": random}
        rows = [row for name, folder in named.items() for row in compare(name, folder, arguments.segment)]
    print(markdown(COLUMNS, rows, left=3))


def compare(name: str, folder: Path, segment: int) -> list[list[str]]:
    """Give a row of errors for each effect and dtype."""
    expected = edges(folder, REFERENCE, segment)
    rows = []
    for dtype in DTYPES:
        found = edges(folder, dtype, segment)
        for effect in ("total", "direct"):
            errors = [
                number(value, 6 if i == 4 else 3)
                for i, value in enumerate(_errors(found[effect][0], expected[effect][0]))
            ]
            rows.append([name, effect, str(dtype).removeprefix("torch."), *errors])
    return sorted(rows, key=lambda row: row[1], reverse=True)


def edges(folder: Path, dtype: torch.dtype, segment: int) -> dict[str, np.ndarray]:
    """Measure a checkpoint's edges with its weights and all its activations in a dtype."""
    model = read(folder, dtype=dtype)
    task = induction(prompts=GROUPS, reference=GROUPS, segment=segment, token_range=(1, model.config.vocab_size))
    return ours.measured(components_of(model, task.tokens.shape[1]), task, direct=True)


def _errors(found: np.ndarray, expected: np.ndarray) -> tuple[float, ...]:
    """Median, 95 %, largest and largest strong relative error, Spearman correlation, number of edges not finite."""
    possible = expected > 0
    one, other = found[possible].astype(float), expected[possible].astype(float)
    finite = np.isfinite(one)
    one, other = one[finite], other[finite]
    error = np.abs(one / other - 1)
    strong = error[other >= np.median(other)]
    quantiles = (np.median(error), np.quantile(error, 0.95), error.max(), strong.max())
    return *quantiles, spearmanr(one, other).statistic, int((~finite).sum())


if __name__ == "__main__":
    with user_errors():
        main()
