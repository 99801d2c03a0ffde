"""``python -m phasegraph.model``: write the nodes and the mask of possible edges of a series' architecture.

It also compares every node's output, as the ablation engine will compute it, with the bridge's.
"""

import argparse

import numpy as np
import torch

from phasegraph.errors import PhasegraphError, user_errors
from phasegraph.files import atomic
from phasegraph.model.load import TOLERANCE, compare_with_bridge, components_of, load, read
from phasegraph.model.nodes import is_parallel, mask_of, nodes_of, write_nodes
from phasegraph.series.layout import step_and_folder
from phasegraph.series.table import used_steps
from phasegraph.types import Kind

LENGTH = 16
"""Number of tokens on which outputs are compared."""


def main() -> None:
    """Read the command line and write both files."""
    parser = argparse.ArgumentParser(prog="phasegraph.model", description=__doc__)
    parser.add_argument("checkpoints", nargs="+", metavar="STEP=FOLDER", help="the checkpoints of a study")
    parser.add_argument("--manifest", required=True, help="series.tsv; the first checkpoint that counts is taken")
    parser.add_argument("--nodes", required=True, help="table to write (tab separated)")
    parser.add_argument("--mask", required=True, help="matrix to write (.npy, bool [N, N])")
    parser.add_argument("--embed", action="store_true", help="the embedding is a node")
    parser.add_argument("--logits", action="store_true", help="the logits are a node")
    arguments = parser.parse_args()
    folders = dict(map(step_and_folder, arguments.checkpoints))
    first = next((step for step in used_steps(arguments.manifest) if folders.get(step) is not None), None)
    if first is None:
        raise PhasegraphError(f"{arguments.manifest} counts none of these checkpoints; correct the study's steps")
    bridge = load(folders[first])
    gap = compare_with_bridge(components_of(read(folders[first]), LENGTH), bridge, LENGTH)
    if not gap <= TOLERANCE[torch.float32]:
        raise PhasegraphError(f"{folders[first]}: outputs differ from the bridge's by {gap:.1e}; report this")
    nodes = nodes_of(bridge.cfg.n_layers, bridge.cfg.n_heads, embed=arguments.embed, logits=arguments.logits)
    mask = mask_of(nodes, is_parallel(bridge))
    components = [node.index for node in nodes if node.kind in (Kind.HEAD, Kind.MLP)]
    if not mask[np.ix_(components, components)].any():
        raise PhasegraphError(f"{folders[first]}: no head or MLP can reach another; study a model of more layers")
    write_nodes(nodes, arguments.nodes)
    with atomic(arguments.mask) as temporary:
        np.save(temporary, mask)
    print(f"{len(nodes)} nodes, {int(mask.sum())} possible edges")


if __name__ == "__main__":
    with user_errors():
        main()
