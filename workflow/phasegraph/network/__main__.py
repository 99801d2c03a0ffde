"""Command line of the network stage: one checkpoint's graph, and the tables over all of them.

``python -m phasegraph.network checkpoint ...`` runs once per checkpoint and stays light: it never imports polars.
"""

import argparse
from pathlib import Path

from phasegraph.errors import user_errors


def main() -> None:
    """Run one of the sub-commands."""
    parser = argparse.ArgumentParser(prog="python -m phasegraph.network", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("checkpoint", help="metrics and node scores of one checkpoint")
    one.add_argument("--edges", type=Path, required=True, help="edges/<step>.npy, the total effect")
    one.add_argument("--direct", type=Path, help="edges/<step>.direct.npy, the direct effect")
    one.add_argument("--graph", type=Path, required=True, help="edges/<step>.more.npz, with nodes and mask")
    one.add_argument("--out", type=Path, required=True, help="network/<step>.npz to write")
    one.add_argument("--backbones", type=Path, required=True, help="folder for <step>.<backbone>.graphml")
    one.add_argument("--nulls", type=int, help="number of null graphs (by default, one that suits the size; 0: none)")
    one.add_argument("--seed", type=int, default=0, help="seed of the null graphs")

    every = commands.add_parser("gather", help="tables over all checkpoints, with intervals")
    every.add_argument("--network", type=Path, nargs="+", required=True, help="network/<step>.npz of all checkpoints")
    every.add_argument("--edges", type=Path, nargs="+", required=True, help="edges/<step>.npy of the same checkpoints")
    tables, arrays = ("metrics", "roles", "stability"), ("distances", "excess")
    for name in (*tables, *arrays, "replicates", "blocks"):
        ending = "parquet" if name in tables else "npy" if name in arrays else "npz"
        every.add_argument(f"--{name}", type=Path, required=True, help=f"{name}.{ending} to write")
    every.add_argument("--manifest", type=Path, required=True, help="series.tsv, which says what is left out")
    every.add_argument("--nodes", type=Path, required=True, help="nodes.tsv")
    every.add_argument("--mask", type=Path, required=True, help="mask.npy")

    more = commands.add_parser("details", help="null models, communities, further centralities, widest paths")
    more.add_argument("--network", type=Path, nargs="+", required=True, help="network/<step>.npz of all checkpoints")
    more.add_argument("--manifest", type=Path, required=True, help="series.tsv, which says what is left out")
    more.add_argument("--nodes", type=Path, required=True, help="nodes.tsv")
    for name in ("nulls", "communities", "centralities", "widest-paths"):
        more.add_argument(f"--{name}", type=Path, required=True, help=f"{name.replace('-', '_')}.parquet to write")

    eight = commands.add_parser("tails", help="what the tail of the edges' weights is, at eight checkpoints")
    eight.add_argument("--edges", type=Path, nargs="+", required=True, help="edges/<step>.npy of all checkpoints")
    eight.add_argument("--manifest", type=Path, required=True, help="series.tsv, which says what is left out")
    eight.add_argument("--nodes", type=Path, required=True, help="nodes.tsv")
    eight.add_argument("--mask", type=Path, required=True, help="mask.npy")
    eight.add_argument("--out", type=Path, required=True, help="tails.parquet to write")

    two = commands.add_parser("families", help="how far the wiring depends on the prompts: two studies compared")
    two.add_argument("--edges", type=Path, nargs="+", required=True, help="edges/<step>.npy of a study")
    two.add_argument("--others", type=Path, nargs="+", required=True, help="the same of a study of other prompts")
    two.add_argument("--manifest", type=Path, required=True, help="series.tsv, which says what is left out")
    two.add_argument("--nodes", type=Path, required=True, help="nodes.tsv")
    two.add_argument("--mask", type=Path, required=True, help="mask.npy")
    two.add_argument("--out", type=Path, required=True, help="families.parquet to write")
    arguments = parser.parse_args()

    if arguments.command == "checkpoint":  # imported here, since each sub-command shall pay for its own imports only
        from phasegraph.network.checkpoint import checkpoint

        files = arguments.edges, arguments.direct, arguments.graph, arguments.out, arguments.backbones
        checkpoint(*files, arguments.nulls, arguments.seed)
    elif arguments.command == "families":
        from phasegraph.network.families import compare_families

        files = arguments.manifest, arguments.nodes, arguments.mask, arguments.out
        compare_families(arguments.edges, arguments.others, *files)
    elif arguments.command == "details":
        from phasegraph.network.details import Outputs, gather_details

        tables = arguments.nulls, arguments.communities, arguments.centralities, arguments.widest_paths
        gather_details(arguments.network, arguments.manifest, arguments.nodes, Outputs(*tables))
    elif arguments.command == "tails":
        from phasegraph.network.tails import fit_tails

        fit_tails(arguments.edges, arguments.manifest, arguments.nodes, arguments.mask, arguments.out)
    else:
        from phasegraph.network.gather import Outputs, gather

        names = ("metrics", "roles", "distances", "replicates", "blocks", "excess", "stability")
        outputs = Outputs(**{name: getattr(arguments, name) for name in names})
        gather(arguments.network, arguments.edges, arguments.manifest, arguments.nodes, arguments.mask, outputs)


if __name__ == "__main__":
    with user_errors():
        main()
