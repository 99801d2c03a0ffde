"""``python -m phasegraph.phases``: test a study for changes of regime and write ``phases.json``."""

import argparse
from pathlib import Path

from phasegraph.errors import user_errors
from phasegraph.phases.settings import Settings
from phasegraph.phases.study import run_study
from phasegraph.phases.tables import Files


def main() -> None:
    """Read the command line and write the file."""
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="python -m phasegraph.phases", description=__doc__)
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.parquet of the network stage")
    parser.add_argument("--replicates", type=Path, required=True, help="replicates.npz of the network stage")
    parser.add_argument("--blocks", type=Path, required=True, help="blocks.npz of the network stage")
    parser.add_argument("--behaviour", type=Path, required=True, help="behaviour.parquet of the tasks stage")
    parser.add_argument("--manifest", type=Path, required=True, help="series.tsv")
    parser.add_argument("--out", type=Path, required=True, help="phases.json to write")
    parser.add_argument("--alpha", type=float, default=defaults.alpha, help="level of every step of the search")
    parser.add_argument("--bootstraps", type=int, default=defaults.bootstraps, help="replicates per step")
    parser.add_argument("--min-size", type=int, default=defaults.min_size, help="least checkpoints in a regime")
    parser.add_argument("--max-changes", type=int, default=defaults.max_changes, help="most boundaries searched")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of all random draws")
    given = parser.parse_args()
    settings = Settings(given.alpha, given.bootstraps, given.min_size, given.max_changes, given.seed)
    files = Files(given.metrics, given.replicates, given.blocks, given.behaviour, given.manifest)
    found = run_study(files, given.out, settings)
    print("\n".join(found["sentences"]))


if __name__ == "__main__":
    with user_errors():
        main()
