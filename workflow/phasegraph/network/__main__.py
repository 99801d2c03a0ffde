"""Command line of the network stage: one checkpoint's graph, and the fan-in over all of them.

``python -m phasegraph.network checkpoint ...`` runs once per checkpoint and stays light: it never imports polars.
"""

import argparse
from pathlib import Path

from phasegraph.errors import user_errors


def main() -> None:
    """Run one of the two sub-commands."""
    parser = argparse.ArgumentParser(prog="python -m phasegraph.network", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("checkpoint", help="metrics and node scores of one checkpoint")
    one.add_argument("--edges", type=Path, required=True, help="edges/<step>.npy, the total effect")
    one.add_argument("--direct", type=Path, help="edges/<step>.direct.npy, the direct effect")
    one.add_argument("--graph", type=Path, required=True, help="edges/<step>.more.npz, with nodes and mask")
    one.add_argument("--out", type=Path, required=True, help="network/<step>.npz to write")

    every = commands.add_parser("gather", help="tables over all checkpoints, with intervals")
    every.add_argument("--network", type=Path, nargs="+", required=True, help="network/<step>.npz of all checkpoints")
    every.add_argument("--edges", type=Path, nargs="+", required=True, help="edges/<step>.npy of the same checkpoints")
    for name, kind in (("metrics", "parquet"), ("roles", "parquet"), ("distances", "npy"), ("replicates", "npz")):
        every.add_argument(f"--{name}", type=Path, required=True, help=f"{name}.{kind} to write")

    every.add_argument("--manifest", type=Path, required=True, help="series.tsv, which says what is left out")
    every.add_argument("--nodes", type=Path, required=True, help="nodes.tsv")
    every.add_argument("--mask", type=Path, required=True, help="mask.npy")
    arguments = parser.parse_args()

    if arguments.command == "checkpoint":  # imported here, since each sub-command shall pay for its own imports only
        from phasegraph.network.checkpoint import checkpoint

        checkpoint(arguments.edges, arguments.direct, arguments.graph, arguments.out)
    else:
        from phasegraph.network.gather import Outputs, gather

        outputs = Outputs(arguments.metrics, arguments.roles, arguments.distances, arguments.replicates)
        gather(arguments.network, arguments.edges, arguments.manifest, arguments.nodes, arguments.mask, outputs)


if __name__ == "__main__":
    with user_errors():
        main()
