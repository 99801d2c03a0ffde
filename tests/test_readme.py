"""The README says what the repository holds."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_performance_table_is_the_benchmarks():
    command = [sys.executable, "benchmarks/engine.py", "--summary"]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert table.count("\n") == 7  # two models at three sizes
    assert table in (ROOT / "README.md").read_text()
