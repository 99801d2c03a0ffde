"""Which figures there are and what they are drawn from.

Read by the Snakefile, so only the standard library is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

MANIFEST = "<manifest>"
"""Stands among a figure's files for the series' manifest, which lies outside the study's folder."""


@dataclass(frozen=True)
class Figure:
    """A figure of the report."""

    title: str
    """Heading in the report."""
    category: str
    """Heading under which ``snakemake --report`` lists it."""
    files: tuple[str, ...]
    """What is read, relative to ``results/<study>/``; ``{step}`` stands for every checkpoint, or `MANIFEST`."""
    direct_files: tuple[str, ...] = ()
    """What is read besides if the study measures direct effects."""
    set_files: tuple[str, ...] = ()
    """What is read besides if the study is a member of a set, relative to ``results/sets/<set>/``."""
    compared: bool = False
    """Whether only studies have it that are compared with one of other prompts."""


FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        "behaviour": Figure(
            title="What the model can do, and how fast its wiring changes",
            category="Phases",
            files=("behaviour.parquet", "metrics.parquet", "phases.json", MANIFEST),
        ),
        "evidence": Figure(
            title="What speaks for each boundary, and what other methods say",
            category="Phases",
            files=("phases.json", "metrics.parquet"),
        ),
        "recurrence": Figure(
            title="Whether the boundaries come back",
            category="Phases",
            files=("phases.json", "metrics.parquet"),
            set_files=("seeds.json",),
        ),
        "similarity": Figure(
            title="Every checkpoint's wiring compared with every other's",
            category="Phases",
            files=("distances.npy", "excess.npy", "metrics.parquet", "phases.json"),
        ),
        "metrics": Figure(
            title="Network metrics over training",
            category="Network",
            files=("metrics.parquet", "nulls.parquet", "phases.json", MANIFEST),
        ),
        "nulls": Figure(
            title="What is beyond the null models",
            category="Network",
            files=("nulls.parquet", "metrics.parquet", "phases.json"),
        ),
        "communities": Figure(
            title="Communities, and whether they are more than strengths make",
            category="Network",
            files=("communities.parquet", "nulls.parquet", "metrics.parquet", "nodes.tsv", "phases.json"),
        ),
        "strengths": Figure(
            title="Who spreads and who gathers, component by component",
            category="Roles",
            files=("roles.parquet", "metrics.parquet", "nodes.tsv", "phases.json"),
        ),
        "roles": Figure(
            title="How long a ranking lasts",
            category="Roles",
            files=(
                "roles.parquet",
                "stability.parquet",
                "metrics.parquet",
                "nodes.tsv",
                "phases.json",
                "behaviour.parquet",
            ),
        ),
        "graphs": Figure(
            title="The graph at selected checkpoints",
            category="Network",
            files=("edges/{step}.npy", "nodes.tsv", "mask.npy", "metrics.parquet", "phases.json"),
            direct_files=("edges/{step}.direct.npy",),
        ),
        "backbones": Figure(
            title="Backbones: the few edges that stand for the graph",
            category="Network",
            files=(
                "edges/{step}.npy",
                "widest_paths.parquet",
                "nodes.tsv",
                "mask.npy",
                "metrics.parquet",
                "phases.json",
            ),
            direct_files=("edges/{step}.direct.npy",),
        ),
        "tails": Figure(
            title="How unequal the edges are",
            category="Network",
            files=("edges/{step}.npy", "nodes.tsv", "mask.npy", "metrics.parquet", "phases.json"),
        ),
        "families": Figure(
            title="How much of the wiring belongs to the prompts",
            category="Prompts",
            files=("families.parquet", "metrics.parquet", "phases.json"),
            compared=True,
        ),
    }
)
"""Name -> figure, in the order of the report."""


def figures_of(compared: bool) -> list[str]:
    """Names of the figures of a study that is compared with one of other prompts, or of one that is not."""
    return [name for name, figure in FIGURES.items() if compared or not figure.compared]


PAGE_FILES = (
    "nodes.tsv",
    "mask.npy",
    "behaviour.parquet",
    "metrics.parquet",
    "roles.parquet",
    "stability.parquet",
    "distances.npy",
    "widest_paths.parquet",
    "nulls.parquet",
    "communities.parquet",
    "tails.parquet",
    "phases.json",
    "edges/{step}.npy",
    MANIFEST,
)
"""What the page reads besides the figures and the configuration; same notation."""

PAGE_DIRECT_FILES = ("edges/{step}.direct.npy",)
"""What the page reads besides if the study measures direct effects."""

PAGE_COMPARED_FILES = ("families.parquet",)
"""What the page reads besides if the study is compared with one of other prompts."""

PAGE_SET_FILES = ("seeds.json",)
"""What the page reads besides if the study is a member of a set, relative to ``results/sets/<set>/``."""
