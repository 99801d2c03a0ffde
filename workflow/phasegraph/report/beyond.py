"""What is beyond the null models and what is not, in whole sentences: from the table of ``nulls.parquet`` alone."""

from typing import NamedTuple

import numpy as np
import polars as pl

from phasegraph.network.nulls import NULLS
from phasegraph.report.words import listed, number, plural

PROPERTIES = {
    "the concentration of out-strength": ("gini_out_strength",),
    "the concentration of in-strength": ("gini_in_strength",),
    "assortativity": ("assortativity",),
    "clustering": ("clustering_out", "clustering_middleman", "clustering_in"),
    "modularity": ("modularity",),
    "global efficiency": ("efficiency",),
    "the concentration of betweenness": ("gini_betweenness",),
    "the width of the widest path": ("width",),
    "the maximum flow": ("max_flow",),
}
"""What a sentence is about -> its metrics; of several the medians are given."""

NAMES = {
    "gini_out_strength": "Gini of out-strength",
    "gini_out_strength_sqrt": "Gini of out-strength, √w",
    "gini_in_strength": "Gini of in-strength",
    "gini_in_strength_sqrt": "Gini of in-strength, √w",
    "assortativity": "assortativity",
    "clustering_out": "clustering, as source",
    "clustering_middleman": "clustering, in between",
    "clustering_in": "clustering, as target",
    "modularity": "modularity Q",
    "layer_agreement": "communities and layers",
    "efficiency": "global efficiency",
    "gini_betweenness": "Gini of betweenness",
    "width": "width of the widest path",
    "max_flow": "maximum flow",
}
"""Metrics that are shown beside null graphs -> what figure and table call them. Those of the weights alone are not: one
null model keeps them, the other nearly, and so says of them less than its p-values do (docs/network.md)."""
COMPOSED = (
    "clustering_out",
    "clustering_middleman",
    "clustering_in",
    "efficiency",
    "gini_betweenness",
    "width",
    "max_flow",
)
"""Those of triangles, paths and flow, which are of the direct effect where that was measured."""
LEVEL = 0.05
"""Largest q of a value that is beyond a null model."""
MOST, SOME = 0.5, 0.1
"""Shares of the checkpoints from which on a property is beyond a null model, or beyond it at some checkpoints."""

BEYOND = "beyond"
AT_SOME = "beyond at some checkpoints"
UNDECIDED = "too few null graphs"
WITHIN = "not beyond"
KEPT = "kept"
NOTHING = "not compared"


class Standing(NamedTuple):
    """How a property stands beside one null model over all checkpoints."""

    checkpoints: int = 0
    """How many there are."""
    beyond: int = 0
    """At how many of them q is at most `LEVEL`."""
    above: int = 0
    """At how many of these the graph has more than its nulls."""
    likely: int = 0
    """At how many p alone is at most `LEVEL`."""
    kept: int = 0
    """At how many the null model keeps the value."""
    z: float = np.nan
    """Median over the checkpoints that have one."""
    draws: int = 0
    """Number of null graphs."""

    @property
    def verdict(self) -> str:
        """One of the constants of this module."""
        if self.beyond >= max(MOST * self.checkpoints, 1):
            return BEYOND
        if self.beyond >= max(SOME * self.checkpoints, 1):
            return AT_SOME
        if np.isnan(self.z) or 2 * self.kept >= self.checkpoints:
            return KEPT if self.kept else NOTHING
        # p cannot be smaller than this, and q not if it is as small at half of the checkpoints
        smallest = 2 / (self.draws + 1) / (MOST if self.checkpoints > 1 else 1)
        hidden = smallest > LEVEL and self.likely >= max(SOME * self.checkpoints, 1)
        return UNDECIDED if hidden else WITHIN


def standings(nulls: pl.DataFrame) -> dict[str, dict[str, Standing]]:
    """Count at how many checkpoints each property is beyond each null model.

    Parameters
    ----------
    nulls
        Table of ``nulls.parquet``: step, metric, null, estimate, mean, z, p, q, draws.

    Returns
    -------
    dict
        Property -> null model -> standing.
    """
    checkpoints = nulls["step"].n_unique()
    return {
        name: {null: _standing(nulls.filter(pl.col("null") == null), metrics, checkpoints) for null in NULLS}
        for name, metrics in PROPERTIES.items()
    }


def _standing(nulls: pl.DataFrame, metrics: tuple[str, ...], checkpoints: int) -> Standing:
    """Count for one property and null model; of several metrics the medians."""
    beyond, z = pl.col("q") <= LEVEL, pl.col("z")
    compared = pl.col("mean").is_not_null() & pl.col("estimate").is_not_null()
    counts = nulls.filter(pl.col("metric").is_in(metrics)).group_by("metric").agg(
        beyond=beyond.sum(), above=(beyond & (z > 0)).sum(), likely=(pl.col("p") <= LEVEL).sum(),
        kept=(compared & z.is_null()).sum(), z=z.median(), draws=pl.col("draws").max(),
    )  # fmt: skip
    if counts.is_empty():
        return Standing(checkpoints)
    middle = {name: counts[name].cast(pl.Float64).median() for name in Standing._fields[1:]}
    median_z = middle.pop("z")
    whole = {name: int(np.floor(value)) for name, value in middle.items()}
    return Standing(checkpoints, **whole, z=np.nan if median_z is None else float(median_z))


def nulls_text(nulls: pl.DataFrame) -> str:
    """Say in one paragraph what is beyond the null models and what is not.

    Parameters
    ----------
    nulls
        As of `standings`.
    """
    found = standings(nulls)
    groups = _sorted_out(found)
    if set(groups) <= {NOTHING}:
        return (
            "The graphs were not compared with null graphs, so that nothing here says whether their wiring is more "
            "than what chance, layers and the strengths of components make of it."
        )
    count = nulls["step"].n_unique()
    said = [
        "Beside null graphs: what is beyond the layer-block shuffle depends on which component of a layer does what; "
        "what is beyond the ratio shuffle is not explained by how strong each component is either"
        + (f" (counts are of {count:,} checkpoints, z is the median over them)." if count > 1 else ".")
    ]
    if "both" not in groups:
        said.append(f"Nothing is beyond both{' at half of the checkpoints or more' if count > 1 else ''}.")
    for group, (start, given) in SENTENCES.items():
        if names := groups.get(group):
            draws = plural(min(found[name][null].draws for name in names for null in NULLS), "null graph")
            items = listed(f"{name}{_numbers(found[name], given)}" for name in names)
            said.append(f"{start.format(draws=draws)}: {items}.")
    return " ".join(said)


def headline(nulls: pl.DataFrame) -> str:
    """Say in a sentence what strengths do not explain, for the head of the report; empty without null graphs."""
    groups = _sorted_out(standings(nulls))
    if set(groups) <= {NOTHING, KEPT}:
        return ""
    often = ", at half of the checkpoints or more" if nulls["step"].n_unique() > 1 else ""
    more, explained = groups.get("both", []) + groups.get("often", []), groups.get("strength", [])
    start = f"By comparison with null graphs{often}, layers and strengths of the components"
    if more and explained:
        return f"{start} explain {listed(explained)}, but not {listed(more)}."
    if more:
        return f"{start} do not explain {listed(more)}."
    ending = f"explain {listed(explained)}, and nothing" if explained else "leave nothing unexplained"
    return f"{start} {ending}{' that was compared is left unexplained' if explained else ' that was compared'}."


def rule_text(nulls: pl.DataFrame) -> str:
    """Say by which rule a property is beyond a null model, and how rough z is; empty without null graphs."""
    known = nulls.filter(pl.col("mean").is_not_null())
    if known.is_empty():
        return ""
    most, fewest = known["draws"].max(), known["draws"].min()
    draws = f"{most:,}" if most == fewest else f"{fewest:,} to {most:,}"
    adjusted = listed_as = ""
    if nulls["step"].n_unique() > 1:
        adjusted = ", adjusted over the checkpoints (Benjamini and Hochberg)"
        listed_as = (
            " It is listed as beyond if that is so at half of the checkpoints or more, and as beyond at some from "
            f"{100 * SOME:g} % on. Of clustering, the medians of its three kinds are given."
        )
    spread = np.sqrt(5.5 / fewest)  # (1 + z^2 / 2) / draws, of a z of 3
    return (
        "The layer-block shuffle permutes weights among the edges between the same two groups of components, those of "
        "one layer and kind. The ratio shuffle permutes their ratios to what the strengths make expect, and restores "
        f"all strengths. A value is beyond a null model where q ≤ {LEVEL:g}: its two-sided rank probability among "
        f"{draws} null graphs{adjusted}.{listed_as} Where all null graphs have the same value, the null model keeps it "
        "and says nothing. z is the distance from the mean of the null graphs in their standard deviations; with "
        f"{fewest:,} of them, a z of 3 is uncertain by {number(float(spread), 2)}. The ratio shuffle is not exact: in "
        "simulated graphs of strengths and noise alone, clustering and assortativity had p ≤ 0.05 in 6 to 19 % of the "
        "graphs, so that what is barely beyond it counts little (docs/network.md has the tables). Less clustering than "
        "it expects does not mean few triangles: a geometric mean is lower where weight is spread less evenly."
    )


SENTENCES = {
    "both": ("Beyond both", NULLS),
    "often": ("Beyond the ratio shuffle, and not, or less often, beyond the block shuffle", NULLS),
    "part": ("Beyond the ratio shuffle at some checkpoints", NULLS),
    "strength": ("Beyond the block shuffle alone, and so explained by how strong components are", ("block",)),
    "alone": ("Beyond the block shuffle, without an answer from the ratio shuffle", NULLS),
    "some": ("Beyond the block shuffle at some checkpoints, and not beyond the ratio shuffle", NULLS),
    UNDECIDED: ("Open, since with {draws} q cannot become small enough", NULLS),
    WITHIN: ("Beyond neither", NULLS),
    KEPT: ("Kept by both, which therefore say nothing", ()),
}
"""Group of properties -> how the sentence about it begins, and the null models of which it gives numbers."""


def _sorted_out(found: dict[str, dict[str, Standing]]) -> dict[str, list[str]]:
    """Group of `SENTENCES`, or `NOTHING` -> its properties."""
    groups: dict[str, list[str]] = {}
    for name, standing in found.items():
        groups.setdefault(_group(*(standing[null].verdict for null in NULLS)), []).append(name)
    return groups


def _group(block: str, ratio: str) -> str:
    """Find the group of a property by its verdicts."""
    if ratio == BEYOND:
        return "both" if block == BEYOND else "often"
    if ratio == AT_SOME:
        return "part"
    if block == BEYOND:
        return "strength" if ratio == WITHIN else "alone"
    if block == AT_SOME:
        return "some"
    return next((verdict for verdict in (UNDECIDED, WITHIN, KEPT) if verdict in (block, ratio)), NOTHING)


def _numbers(standing: dict[str, Standing], given: tuple[str, ...]) -> str:
    """Write in brackets how a property stands beside some null models."""
    parts = [f"{f'{null}: ' if len(given) > 1 else ''}{_beside(standing[null])}" for null in given]
    return f" ({'; '.join(parts)})" if parts else ""


def _beside(found: Standing) -> str:
    """Write how a property stands beside one null model."""
    several, z = found.checkpoints > 1, f"z\u00a0{number(found.z, 2)}"
    if found.verdict in (BEYOND, AT_SOME):
        sides = {"above": found.above, "below": found.beyond - found.above}
        parts = [f"{side} at {count:,}" if several else side for side, count in sides.items() if count]
        parts += [f"kept at {found.kept:,}"] if 2 * found.kept >= found.checkpoints else []
        return ", ".join([*parts, z])
    if found.verdict == UNDECIDED:
        return f"p\u00a0≤\u00a0{LEVEL:g}{f' at {found.likely:,}' if several else ''}, {z}"
    return {WITHIN: f"not beyond, {z}", KEPT: "kept", NOTHING: "not compared"}[found.verdict]
