"""``python -m phasegraph.tasks``: collect the behaviour of all checkpoints in one table with intervals."""

import argparse
import json
from pathlib import Path

from phasegraph.errors import user_errors
from phasegraph.files import atomic
from phasegraph.series.used import used_files
from phasegraph.tasks.gather import behaviour_table, require_settings


def main() -> None:
    """Read the command line and write the table."""
    parser = argparse.ArgumentParser(prog="python -m phasegraph.tasks", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="behaviour/<step>.npz of all checkpoints")
    parser.add_argument("--manifest", type=Path, required=True, help="series.tsv, which says what is left out")
    parser.add_argument("--study", type=json.loads, default={}, help="JSON: what must have been measured")
    parser.add_argument("--out", type=Path, required=True, help="behaviour.parquet to write")
    arguments = parser.parse_args()
    files = used_files(arguments.files, arguments.manifest)
    require_settings(files, arguments.study)
    table = behaviour_table(files)
    with atomic(arguments.out) as temporary:
        table.write_parquet(temporary)


if __name__ == "__main__":
    with user_errors():
        main()
