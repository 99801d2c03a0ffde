"""What the report says about null models, communities and tails: sentences for every case, of planted tables (5 s)."""

import numpy as np
import polars as pl
import pytest

from phasegraph.network import tails as fits
from phasegraph.report import beyond, communities
from phasegraph.report.tails import tails_text

S = 20


def rows(metric, null, *, z=0.0, draws=999, beyond=0, above=None, likely=0, kept=0, first=0, count=S):
    """Rows of nulls.parquet: first `kept` that are kept, then `beyond` with q <= .05, of which `above` with z > 0."""
    above = beyond if above is None else above
    for i in range(count):
        place = i - kept
        is_beyond, is_likely = 0 <= place < beyond, 0 <= place < max(beyond, likely)
        sign = -1 if is_beyond and place >= above else 1
        value = None if place < 0 else sign * abs(z) if is_beyond else z
        p = None if place < 0 else 0.01 if is_likely else 0.5
        q = None if place < 0 else 0.02 if is_beyond else 0.6
        yield first + i, metric, null, 1.0, 0.5, value, p, q, draws


SCHEMA = {"step": pl.Int64, "metric": pl.String, "null": pl.String, "estimate": pl.Float64, "mean": pl.Float64,
          "z": pl.Float64, "p": pl.Float64, "q": pl.Float64, "draws": pl.Int64}  # fmt: skip


def table(*parts):
    return pl.DataFrame([row for part in parts for row in part], schema=SCHEMA, orient="row")


def both(metric, block, ratio):
    return [*rows(metric, "block", **block), *rows(metric, "ratio", **ratio)]


CASES = {
    "both": ("efficiency", {"beyond": 15, "z": 5}, {"beyond": 10, "z": 4}),
    "often": ("efficiency", {"beyond": 1, "z": 2}, {"beyond": 10, "z": 4}),
    "part": ("efficiency", {"beyond": 15, "z": 5}, {"beyond": 2, "z": 4}),
    "strength": ("efficiency", {"beyond": 15, "z": 5}, {"beyond": 1, "z": 0.5}),
    "alone": ("gini_out_strength", {"beyond": 15, "z": 5}, {"kept": 20}),
    "some": ("gini_out_strength", {"beyond": 9, "z": 5}, {"kept": 20}),
    beyond.UNDECIDED: ("modularity", {"likely": 12, "z": -9, "draws": 49}, {"z": 0.1, "draws": 49}),
    beyond.WITHIN: ("efficiency", {"likely": 1, "z": 1}, {"z": 1}),
    beyond.KEPT: ("width", {"kept": 20}, {"kept": 19}),
}


@pytest.mark.parametrize("group", CASES)
def test_every_property_is_in_one_sentence(group):
    metric, block, ratio = CASES[group]
    said = beyond.nulls_text(table(both(metric, block, ratio)))
    starts = {name: f". {start.format(draws='49 null graphs')}: " for name, (start, _) in beyond.SENTENCES.items()}
    assert [name for name, start in starts.items() if start in said] == [group]
    (name,) = (name for name, metrics in beyond.PROPERTIES.items() if metric in metrics)
    assert said.count(name) == 1
    assert ("Nothing is beyond both at half of the checkpoints or more." in said) is (group != "both")


def test_counts_directions_and_z_are_given():
    said = beyond.nulls_text(
        table(both("efficiency", {"beyond": 15, "above": 12, "z": 5}, {"beyond": 10, "above": 0, "z": -4}))
    )
    assert said.endswith(
        "Beyond both: global efficiency (block: above at 12, below at 3, z\u00a05.0; ratio: below at 10, z\u00a0−4.0)."
    )
    assert "counts are of 20 checkpoints" in said
    flow = table(both("max_flow", {"kept": 12, "beyond": 8, "above": 0, "z": -30}, {"kept": 20}))
    assert "the maximum flow (block: below at 8, kept at 12, z\u00a0−30; ratio: kept)" in beyond.nulls_text(flow)
    few = table(both(*CASES[beyond.UNDECIDED]))
    assert (
        "Open, since with 49 null graphs q cannot become small enough: modularity "
        "(block: p\u00a0≤\u00a00.05 at 12, z\u00a0−9.0; ratio: not beyond, z\u00a00.10)."
    ) in beyond.nulls_text(few)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"beyond": 10}, beyond.BEYOND),  # half of them
        ({"beyond": 9}, beyond.AT_SOME),
        ({"beyond": 2}, beyond.AT_SOME),  # a tenth
        ({"beyond": 1}, beyond.WITHIN),
        ({"likely": 20, "draws": 77}, beyond.UNDECIDED),  # q is 2 / 78 / .5 > .05 if half of them are extreme
        ({"likely": 20, "draws": 79}, beyond.WITHIN),
        ({"likely": 1, "draws": 49}, beyond.WITHIN),
        ({"kept": 10}, beyond.KEPT),
        ({"kept": 9}, beyond.WITHIN),
        ({"kept": 10, "beyond": 10}, beyond.BEYOND),
    ],
)
def test_rule_of_half_and_a_tenth(changed, verdict):
    found = beyond.standings(table(rows("efficiency", "block", z=1, **changed)))["global efficiency"]
    assert found["block"].verdict == verdict and found["ratio"].verdict == beyond.NOTHING


def test_of_several_metrics_the_medians_are_given():
    counts = {"clustering_out": 4, "clustering_middleman": 20, "clustering_in": 12}
    parts = [rows(name, "block", beyond=count, z=float(count)) for name, count in counts.items()]
    found = beyond.standings(table(*parts))["clustering"]["block"]
    assert (found.beyond, found.above, found.z) == (12, 12, 12)


def test_a_single_checkpoint_is_not_counted():
    one = table(
        rows("efficiency", "block", z=-5, beyond=1, above=0, count=1),
        rows("efficiency", "ratio", z=0.3, count=1),
        rows("modularity", "block", z=2, likely=1, draws=49, count=1),
        rows("modularity", "ratio", z=8, beyond=1, draws=49, count=1),
    )
    said = beyond.nulls_text(one)
    assert "Nothing is beyond both. " in said and "checkpoints," not in said and " at " not in said
    assert "explained by how strong components are: global efficiency (below, z\u00a0−5.0)" in said
    assert "modularity (block: not beyond, z\u00a02.0; ratio: above, z\u00a08.0)" in said
    assert beyond.headline(one) == (
        "By comparison with null graphs, layers and strengths of the components explain global efficiency, but not "
        "modularity."
    )
    assert "Benjamini" not in beyond.rule_text(one)
    small = table(rows("efficiency", "block", z=5, likely=1, draws=19, count=1))
    assert beyond.standings(small)["global efficiency"]["block"].verdict == beyond.UNDECIDED  # p is at least .1


def test_without_null_graphs():
    nothing = table()
    few = table(both("efficiency", {}, {})).with_columns(
        pl.lit(None, pl.Float64).alias(c) for c in ("mean", "z", "p", "q")
    )
    for empty in (nothing, few):
        assert beyond.nulls_text(empty).startswith("The graphs were not compared with null graphs")
        assert beyond.headline(empty) == beyond.rule_text(empty) == ""


def test_headlines():
    def said(*names):
        metrics = dict(zip(names, ("efficiency", "gini_betweenness"), strict=False))
        return beyond.headline(table(*(both(metric, *CASES[name][1:]) for name, metric in metrics.items())))

    start = "By comparison with null graphs, at half of the checkpoints or more, layers and strengths of the components"
    assert said("strength", "both") == f"{start} explain global efficiency, but not the concentration of betweenness."
    assert said("often") == f"{start} do not explain global efficiency."
    assert said("strength") == f"{start} explain global efficiency, and nothing that was compared is left unexplained."
    assert said(beyond.WITHIN) == f"{start} leave nothing unexplained that was compared."
    assert said(beyond.KEPT) == ""


def test_z_of_few_draws_is_called_rough():
    few = beyond.rule_text(table(rows("efficiency", "block", draws=19), rows("modularity", "block", draws=999)))
    assert "among 19 to 999 null graphs" in few and "with 19 of them, a z of 3 is uncertain by 0.54" in few
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(4000, 19))
    z = (3 - drawn.mean(1)) / drawn.std(1, ddof=1)
    assert np.std(z[z < np.quantile(z, 0.99)]) == pytest.approx(0.54, rel=0.15)


# --- communities ---------------------------------------------------------------------------------------------------


def partition(**changed):
    metrics = {"modularity": 0.2, "communities": 2.0, "layer_agreement": 0.1} | changed
    return {
        name: {"estimate": np.full(S, value), "low": np.full(S, value - 0.05), "high": np.full(S, value + 0.05)}
        for name, value in metrics.items()
    }


LABELS = np.tile([0, 0, 0, 1, 1, 1], (S, 1))


@pytest.mark.parametrize(
    ("ratio", "says", "finding"),
    [
        ({"beyond": 15, "z": 5}, "are divided less well at 15 of 20 checkpoints.", True),
        ({"beyond": 4, "z": 5}, "are divided less well at 4 of 20 checkpoints only.", False),
        ({"beyond": 15, "above": 0, "z": -5}, "are divided as well.", False),
        ({"z": 1}, "are divided as well.", False),
        ({"likely": 15, "z": 4, "draws": 49}, "as with 49 null graphs q cannot", False),
        ({"count": 0}, "They were not compared with those of null graphs", False),
    ],
)
def test_communities_are_a_finding_only_beyond_the_ratio_shuffle(ratio, says, finding):
    nulls = table(rows("modularity", "ratio", **ratio))
    said = communities.communities_text(LABELS, partition(), nulls)
    assert says in said
    assert said.endswith("so these communities are a description and not a finding.") is not finding
    assert "fall into 2 communities of more than one, with a modularity of 0.200 [0.150, 0.250]" in said


def test_communities_stay_or_change():
    said = communities.communities_text(LABELS, partition(), table())
    assert (
        "there are always 2." in said and "an adjusted Rand index of 1.0, and with the layers with one of 0.10" in said
    )
    rng = np.random.default_rng(0)
    random = communities.renewal(rng.integers(0, 3, (200, 30)))
    assert np.isnan(random[0]) and abs(random[1:].mean()) < 0.01
    changing = partition()
    changing["communities"]["estimate"][3] = 5
    assert "over the run there are 2 to 5." in communities.communities_text(LABELS, changing, table())
    one = {name: {key: array[:1] for key, array in values.items()} for name, values in partition().items()}
    said = communities.communities_text(LABELS[:1], one, table())
    assert "over the run" not in said and "It agrees with the layers with an adjusted Rand index of 0.10" in said
    assert "no communities" in communities.communities_text(LABELS, partition(communities=np.nan), table())


def test_the_largest_communities_are_shown():
    labels = np.repeat(np.arange(9), [1, 9, 2, 8, 3, 7, 4, 6, 5])
    assert communities.frequent(labels) == [1, 3, 5, 7, 8, 6]


# --- tails ---------------------------------------------------------------------------------------------------------


def tail_table(*verdicts):
    named = [verdict == fits.POWER_LAW for verdict in verdicts]
    columns = {
        name: [value if one else None for one in named] for name, value in (("alpha", 2.5), ("standard_error", 0.1))
    }
    table = pl.DataFrame({"step": range(0, 4 * len(verdicts), 4), "verdict": verdicts, **columns})
    return table.with_columns(pl.col("alpha", "standard_error").cast(pl.Float64))


def test_tails_are_summarised():
    said = tails_text(tail_table(fits.TRUNCATED, fits.UNDECIDED, fits.TRUNCATED, fits.NOT_HEAVY))
    assert said.startswith("The tail of the weights was fitted at 4 checkpoints: at 2 (steps 0 and 8) it is heavier")
    assert "at 1 (step 4) it is heavier than exponential, and a power law cannot be told from a lognormal" in said
    assert "at 1 (step 12) it is not shown to be heavier than exponential." in said
    assert said.endswith("that is nowhere the case here.")


def test_a_tail_index_is_given_where_it_is_earned():
    said = tails_text(tail_table(fits.POWER_LAW, fits.LOGNORMAL, fits.POWER_LAW))
    assert "does not improve it (exponent 2.50 ± 0.10, 2.50 ± 0.10)" in said and "nowhere" not in said
    assert "a lognormal describes it better than a power law" in said
    assert "fitted at 1 checkpoint: step 0 fewer than 50 edges" in tails_text(tail_table(fits.TOO_FEW))
