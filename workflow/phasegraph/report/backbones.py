"""The widest path and the files of the backbones, in words."""

import numpy as np

from phasegraph.report.study import StudyData
from phasegraph.report.words import measured
from phasegraph.types import Backbone

OPENED = (
    "The backbones of all checkpoints lie beside this page in backbones/<step>.<backbone>.graphml, with the strengths, "
    "betweenness and community of every component. Gephi, Cytoscape, networkx and igraph open them. Those that are "
    "drawn here:"
)
"""Where the files are and what reads them; a list of links follows."""


def path_text(study: StudyData, steps: dict[str, int]) -> str:
    """Say what the widest path is at the first and the last of some checkpoints."""
    chosen = dict.fromkeys([next(iter(steps.values())), list(steps.values())[-1]])
    widths = study.metric("width", study.path_effect)
    parts = []
    for step in chosen:
        names, place = study.widest_paths[step]["nodes"], int(np.searchsorted(study.steps, step))
        width = measured(*(float(widths[column][place]) for column in ("estimate", "low", "high")))
        parts.append(f"{' → '.join(names)}, {width}, at step {step:,}" if names else f"none at step {step:,}")
    return (
        "Of all paths from the first layer to the last, the widest is the one whose weakest edge is strongest; that "
        f"edge is its width ({study.path_effect} effect). It is {'; and '.join(parts)}. It names components that could "
        "pass something on, and does not show that they do."
    )


def backbone_files(steps: dict[str, int]) -> list[str]:
    """Names of the files at some checkpoints, relative to the folder of the study."""
    return [f"backbones/{step}.{backbone}.graphml" for step in steps.values() for backbone in Backbone]
