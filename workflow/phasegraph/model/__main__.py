"""``python -m phasegraph.model``: write the nodes and the mask of possible edges of a checkpoint's architecture.

It also compares every node's output, as the ablation engine will compute it, with the bridge's.
"""

import argparse

import numpy as np

from phasegraph.errors import PhasegraphError, user_errors
from phasegraph.files import atomic
from phasegraph.model.load import TOLERANCE, compare_with_bridge, load
from phasegraph.model.nodes import is_parallel, mask_of, nodes_of, write_nodes


def main() -> None:
    """Read the command line and write both files."""
    parser = argparse.ArgumentParser(prog="phasegraph.model", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="folder with config.json and model.safetensors")
    parser.add_argument("--nodes", required=True, help="table to write (tab separated)")
    parser.add_argument("--mask", required=True, help="matrix to write (.npy, bool [N, N])")
    arguments = parser.parse_args()
    gap = compare_with_bridge(arguments.checkpoint)
    if not gap <= TOLERANCE:
        raise PhasegraphError(f"{arguments.checkpoint}: outputs differ from the bridge's by {gap:.1e}; report this")
    bridge = load(arguments.checkpoint)
    nodes = nodes_of(bridge.cfg.n_layers, bridge.cfg.n_heads)
    mask = mask_of(nodes, is_parallel(bridge))
    write_nodes(nodes, arguments.nodes)
    with atomic(arguments.mask) as temporary:
        np.save(temporary, mask)
    print(f"{len(nodes)} nodes, {int(mask.sum())} possible edges")


if __name__ == "__main__":
    with user_errors():
        main()
