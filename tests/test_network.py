"""The network stage against networkx, scipy, closed forms, brute force and planted answers (about 10 s)."""

import itertools
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import kendalltau, spearmanr

from phasegraph.errors import PhasegraphError
from phasegraph.jackknife import delete_group
from phasegraph.model.nodes import describe_graph, nodes_of
from phasegraph.network import graph, metrics, roles, scores
from phasegraph.network.__main__ import main
from phasegraph.network.blocks import block_changes, blocks_of
from phasegraph.network.paths import shortest_paths, tree_betweenness
from phasegraph.series.manifest import write_manifest
from phasegraph.series.table import Audited
from phasegraph.types import Kind, Node

pytestmark = pytest.mark.filterwarnings("error")


def components(layers=6, heads=4):
    return nodes_of(layers, heads)


def mask_of(nodes):
    layer = np.array([node.layer for node in nodes])
    return layer[:, None] < layer


def replicates(groups):
    """Estimate and leave-one-out means [17, ...] of group values [16, ...]."""
    left_out = [np.delete(groups, k, axis=0).mean(0) for k in range(len(groups))]
    return np.concatenate([groups.mean(0)[None], left_out])


def random_edges(rng, mask, count=1):
    return np.exp(rng.normal(-4, 1, (count, *mask.shape))) * mask


def save_nodes(path, nodes):
    lines = [f"{n.index}\t{n.name}\t{n.layer}\t{n.kind}\t{'' if n.head is None else n.head}" for n in nodes]
    path.write_text("\n".join(["index\tname\tlayer\tkind\thead", *lines]) + "\n")


# --- reading -------------------------------------------------------------------------------------------------------


def test_nodes_and_mask_come_back_as_written(tmp_path):
    nodes = components()
    save_nodes(tmp_path / "nodes.tsv", nodes)
    np.save(tmp_path / "mask.npy", mask_of(nodes))
    assert graph.read_nodes(tmp_path / "nodes.tsv") == nodes
    np.testing.assert_array_equal(graph.read_mask(tmp_path / "mask.npy", 30), mask_of(nodes))
    is_mlp = np.array([node.kind is Kind.MLP for node in nodes])
    layer = np.array([node.layer for node in nodes])
    sequential = mask_of(nodes) | ((layer[:, None] == layer) & ~is_mlp[:, None] & is_mlp)
    np.save(tmp_path / "mask.npy", sequential)
    np.testing.assert_array_equal(graph.read_mask(tmp_path / "mask.npy", 30), sequential)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("L2H1", "L2H9"),
        ("11\tL2H1", "12\tL2H1"),
        ("index", "number"),
        ("L2MLP\t2\tmlp\t", "L2MLP\t2\tmlp\t4"),
        ("head\t1", "x\t1"),
    ],
)
def test_a_wrong_nodes_file_is_named(tmp_path, old, new):
    path = tmp_path / "nodes.tsv"
    save_nodes(path, components())
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(PhasegraphError, match=r"nodes\.tsv: line"):
        graph.read_nodes(path)


def test_embedding_and_logits_have_their_places(tmp_path):
    path = tmp_path / "nodes.tsv"
    nodes = nodes_of(2, 2, embed=True, logits=True)
    for ends in (nodes, nodes[:-1], [Node(n.index - 1, n.layer, n.kind, n.head) for n in nodes[1:]]):
        save_nodes(path, ends)
        assert graph.read_nodes(path) == ends
    assert graph.are_components(nodes).tolist() == [False, *[True] * 6, False]
    save_nodes(path, nodes)
    good = path.read_text()
    for old, new in (
        ("embed\t-1\tembed", "embed\t0\tembed"),
        ("logits\t2\tlogits", "logits\t3\tlogits"),
        ("3\tL0MLP\t0\tmlp", "3\tembed\t-1\tembed"),
        ("3\tL0MLP\t0\tmlp", "3\tlogits\t1\tlogits"),
        ("embed\t-1\tembed\t", "embed\t-1\tembed\t0"),
        ("0\tembed\t-1\tembed\t", "0\tL-1H0\t-1\thead\t0"),
    ):
        assert old in good
        path.write_text(good.replace(old, new))
        with pytest.raises(PhasegraphError, match=r"nodes\.tsv: line"):
            graph.read_nodes(path)
    only = nodes_of(1, 4, embed=True, logits=True)
    assert not graph.between_components(mask_of(only), graph.are_components(only)).any()


def test_a_mask_that_is_no_partial_order_is_refused(tmp_path):
    path = tmp_path / "mask.npy"
    mask = mask_of(components())
    for row, column, value, why in ((0, 0, True, "partial order"), (0, 29, False, "partial order")):
        wrong = mask.copy()
        wrong[row, column] = value
        np.save(path, wrong)
        with pytest.raises(PhasegraphError, match=why):
            graph.read_mask(path, 30)
    np.save(path, mask)
    with pytest.raises(PhasegraphError, match=r"mask\.npy.*expected bool \[29, 29\]"):
        graph.read_mask(path, 29)
    np.save(path, np.zeros_like(mask))  # one layer
    assert not graph.read_mask(path, 30).any()


@pytest.mark.parametrize(
    ("where", "value", "why"),
    [
        ((3, 2, 25), np.nan, r"512\.npy: weight node 2 -> node 25, replicate 3, is NaN.*exclude this checkpoint"),
        ((0, 2, 25), np.inf, r"512\.npy: .* is infinite"),
        ((0, 2, 25), -0.01, r"512\.npy: .* is negative"),
        ((16, 25, 2), 0.5, r"512\.npy: .* is not a possible edge"),
        ((16, 25, 2), np.nan, r"512\.npy: .* is not a possible edge"),
    ],
)
def test_wrong_edges_are_refused_by_name(tmp_path, where, value, why):
    mask = mask_of(components())
    edges = random_edges(np.random.default_rng(0), mask, 17).astype(np.float32)
    edges[where] = value
    np.save(tmp_path / "512.npy", edges)
    with pytest.raises(PhasegraphError, match=why):
        graph.read_edges(tmp_path / "512.npy", mask)


def test_edges_of_another_shape_damaged_or_missing(tmp_path):
    mask, path = mask_of(components()), tmp_path / "8.npy"
    with pytest.raises(PhasegraphError, match=r"8\.npy: no such file"):
        graph.read_edges(path, mask)
    np.save(path, np.zeros((16, 30, 30), np.float32))
    with pytest.raises(PhasegraphError, match=r"8\.npy: float32 \[16, 30, 30\], expected"):
        graph.read_edges(path, mask)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PhasegraphError, match=r"8\.npy: not a readable"):
        graph.read_edges(path, mask)


def test_rounding_errors_below_zero_become_zero(tmp_path):
    mask = mask_of(components())
    edges = random_edges(np.random.default_rng(0), mask, 17).astype(np.float32)
    edges[:, 0, 29] = -3e-8
    np.save(tmp_path / "8.npy", edges)
    read = graph.read_edges(tmp_path / "8.npy", mask)
    np.testing.assert_array_equal(read, np.maximum(edges, 0))
    assert read.dtype == np.float64


# --- node scores and roles -----------------------------------------------------------------------------------------


def test_block_score_by_hand():
    nodes = components(layers=2, heads=3)
    mask = mask_of(nodes)
    edges = np.zeros((1, 8, 8))
    edges[0, :4, 4:] = [[1, 1, 1, 8], [2, 2, 2, 4], [4, 4, 4, 2], [3, 3, 3, 3]]
    result = scores.strength_scores(edges, mask, scores.classes(nodes), graph.are_components(nodes))
    # head -> head block: median 2; head -> MLP block: median 4; the lone MLP has no peers, the last layer no edges
    out = [(3 * np.log(1 / 2) + np.log(8 / 4)) / 4, 0, (3 * np.log(4 / 2) + np.log(2 / 4)) / 4]
    np.testing.assert_allclose(result["out_strength.block"][0, :3], out, atol=1e-12)
    assert np.isnan(result["out_strength.block"][0, 3:]).all()
    np.testing.assert_allclose(result["out_strength.per_edge"][0, :4], [11 / 4, 10 / 4, 14 / 4, 3])
    assert np.isnan(result["in_strength.block"][0, [0, 1, 2, 3, 7]]).all()
    np.testing.assert_allclose(result["in_strength.block"][0, 4:7], 0, atol=1e-12)
    edges[0, 0, 4] = 0  # a zero counts as a thousandth of the median, not as minus infinity
    result = scores.strength_scores(edges, mask, scores.classes(nodes), graph.are_components(nodes))
    expected = (np.log(1e-3) + 2 * np.log(1 / 2) + np.log(8 / 4)) / 4
    assert result["out_strength.block"][0, 0] == pytest.approx(expected)


def scores_of(graphs, nodes):
    """Scores of all roles, of graphs [R, N, N]."""
    mask, peers = mask_of(nodes), scores.classes(nodes)
    through = tree_betweenness(shortest_paths(graphs, mask).before, mask) / mask.sum()
    strengths = scores.strength_scores(graphs, mask, peers, graph.are_components(nodes))
    return strengths | scores.betweenness_scores(through, mask, peers)


def test_block_scores_have_no_layer_preference_but_raw_ones_do():
    rng = np.random.default_rng(4)
    nodes = components(layers=8, heads=6)
    mask = mask_of(nodes)
    layer = np.array([node.layer for node in nodes])
    decay = np.exp(-0.3 * np.abs(layer[:, None] - layer) - 0.2 * layer[:, None])
    graphs = np.stack([random_edges(rng, mask)[0] * decay * rng.lognormal(0, 0.5, (56, 1)) for _ in range(60)])
    result = scores_of(graphs, nodes)

    def preference(name):
        kept = np.isfinite(result[name][0])
        return np.mean([spearmanr(values[kept], layer[kept]).statistic for values in result[name]])

    assert preference("out_strength.raw") < -0.5
    assert preference("in_strength.raw") > 0.3
    for name in ("out_strength.block", "in_strength.block", "betweenness.block"):
        assert abs(preference(name)) < 0.1


def test_planted_roles_are_found_where_raw_scores_miss_them():
    nodes = components()
    mask = mask_of(nodes)
    spreader, gatherer, gatekeeper = 21, 6, 22  # L4H1 and L4H2 have five targets only, L1H1 five sources
    for seed in range(5):
        plain = np.exp(np.random.default_rng(seed).normal(-4, 0.3, (1, 30, 30))) * mask
        edges = plain.copy()
        edges[:, spreader] *= 3
        edges[:, :, gatherer] *= 3
        result = scores_of(edges, nodes)
        for name, planted in (("out_strength", spreader), ("in_strength", gatherer)):
            assert roles.rank_nodes(result[f"{name}.block"])[0, planted] == 1
            assert not roles.holders(result[f"{name}.raw"], 3)[0, planted]
        edges = plain.copy()
        edges[:, :, gatekeeper] *= 3
        edges[:, gatekeeper] *= 3
        edges[:, :, 10:15] *= 2  # the middle layer, with more than twice as many pairs to stand between
        edges[:, 10:15] *= 2
        assert roles.rank_nodes(scores_of(edges, nodes)["betweenness.block"])[0, gatekeeper] == 1


def test_ranks_and_holders():
    values = np.array([0.5, np.nan, 0.9, 0.0, 0.5, 0.0])
    np.testing.assert_array_equal(roles.rank_nodes(values), [2, np.nan, 1, 4, 2, 4])
    assert roles.holders(values, 2).tolist() == [False, False, True, False, False, False]  # the tie straddles the cut
    assert roles.holders(values, 4).tolist() == [True, False, True, False, True, False]
    assert [roles.holder_count(n) for n in (8, 30, 408)] == [3, 3, 41]


def test_kendall_tau_b_against_scipy():
    rng = np.random.default_rng(6)
    x, y = rng.integers(0, 6, (2, 5, 30)).astype(float)
    x[rng.random(x.shape) < 0.2] = np.nan
    y[rng.random(y.shape) < 0.2] = np.nan
    expected = [kendalltau(a, b, nan_policy="omit").statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(roles.kendall_tau_b(x, y), expected, atol=1e-12)
    assert np.isnan(roles.kendall_tau_b(np.ones((1, 5)), np.arange(5.0)[None]))


def test_strengths_with_embedding_and_logits_by_hand():
    nodes = nodes_of(2, 1, embed=True, logits=True)  # embed, L0H0, L0MLP, L1H0, L1MLP, logits
    edges = np.zeros((1, 6, 6))
    edges[0, 0, 1:] = 5, 4, 3, 2, 1
    edges[0, 1, 3:], edges[0, 2, 3:], edges[0, 3:5, 5] = (7, 8, 9), (0.5, 1, 2), (4, 6)
    mask, of = mask_of(nodes), graph.are_components(nodes)
    result = scores.strength_scores(edges, mask, scores.classes(nodes), of)
    np.testing.assert_array_equal(result["out_strength.raw"][0], [14, 15, 1.5, 0, 0, 0])
    np.testing.assert_array_equal(result["in_strength.raw"][0], [0, 0, 0, 7.5, 9, 21])
    np.testing.assert_array_equal(result["out_strength.per_edge"][0], [3.5, 7.5, 0.75, *[np.nan] * 3])
    np.testing.assert_array_equal(result["in_strength.per_edge"][0], [*[np.nan] * 3, 3.75, 4.5, 5.25])
    assert roles.eligible("spreader", mask, of).tolist() == [True, True, True, False, False, False]
    assert roles.eligible("gatherer", mask, of).tolist() == [False, False, False, True, True, True]
    assert not roles.eligible("gatekeeper", mask, of).any()


# --- jackknife -----------------------------------------------------------------------------------------------------


def test_jackknife_of_a_mean_is_the_textbook_interval():
    groups = np.random.default_rng(8).normal(3, 2, (16, 5))
    result = delete_group(replicates(groups))
    error = groups.std(0, ddof=1) / 4
    np.testing.assert_allclose(result.corrected, groups.mean(0))
    np.testing.assert_allclose(result.standard_error, error)
    np.testing.assert_allclose(result.high - result.low, 2 * 1.7530503556925 * error)  # t_15 at 95 %


def test_jackknife_removes_the_bias_of_a_square():
    groups = np.random.default_rng(9).normal(1, 2, (4000, 16))
    squares = replicates(groups.T) ** 2  # E = 1 + 4 / 16
    result = delete_group(squares)
    np.testing.assert_allclose(result.corrected, groups.mean(1) ** 2 - groups.var(1, ddof=1) / 16)
    assert result.estimate.mean() == pytest.approx(1.25, abs=0.06)
    assert result.corrected.mean() == pytest.approx(1, abs=0.06)
    stepwise = delete_group(squares, smooth=np.arange(4000) > 0)
    assert stepwise.corrected[0] == result.estimate[0] and stepwise.corrected[1] == result.corrected[1]
    assert (stepwise.low[0] + stepwise.high[0]) / 2 == pytest.approx(result.estimate[0])


def test_jackknife_passes_a_failed_replicate_on():
    values = np.ones((17, 3))
    values[5, 1] = np.nan
    for smooth in (True, False):
        result = delete_group(values, smooth)
        assert result.estimate.tolist() == [1, 1, 1]
        for part in result[1:]:
            assert np.isnan(part).tolist() == [False, True, False]


# --- both sub-commands ---------------------------------------------------------------------------------------------

STEPS = (0, 2, 16, 100, 200, 1000)
TURN = 100
SPREADER = 12  # L2H2
ARRAYS = ("distances.npy", "excess.npy", "replicates.npz", "blocks.npz")
OUTPUTS = ("metrics.parquet", "roles.parquet", "stability.parquet", *ARRAYS)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Six checkpoints of 30 nodes: a planted spreader, and a reorganisation just before step TURN."""
    root = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(14)
    nodes = components()
    mask = mask_of(nodes)
    save_graph(root, nodes, mask)
    wiring, prompts = random_edges(rng, mask)[0], np.exp(rng.normal(0, 0.2, (16, 30, 30)))
    wiring[SPREADER] *= 4
    for step in STEPS:
        if step == TURN:
            wiring = wiring * np.exp(rng.normal(0, 0.5, mask.shape))
        for suffix, factor in (("", 1), (".direct", np.exp(rng.normal(0, 0.3, mask.shape)))):
            groups = wiring * factor * prompts * np.exp(rng.normal(0, 0.02, (16, 30, 30)))
            np.save(root / "edges" / f"{step}{suffix}.npy", replicates(groups).astype(np.float32))
    return root


def arguments(root, step, out):
    words = ["checkpoint", "--edges", root / "edges" / f"{step}.npy", "--direct", root / "edges" / f"{step}.direct.npy"]
    words += ["--graph", root / "edges" / f"{step}.more.npz", "--out", out]
    return [str(word) for word in (*words, "--backbones", out.parent / "backbones", "--nulls", 0)]


def gather_arguments(root, out):
    steps = STEPS[::-1]  # in no useful order
    lists = ["--network", *(str(root / "network" / f"{s}.npz") for s in steps)]
    lists += ["--edges", *(str(root / "edges" / f"{s}.npy") for s in steps)]
    paths = [word for name in OUTPUTS for word in (f"--{name.partition('.')[0]}", str(out / name))]
    files = ["--manifest", root / "series.tsv", "--nodes", root / "nodes.tsv", "--mask", root / "mask.npy"]
    return ["gather", *lists, *paths, *map(str, files)]


def save_graph(root, nodes, mask):
    """Write what both commands read besides edges."""
    (root / "edges").mkdir()
    save_nodes(root / "nodes.tsv", nodes)
    np.save(root / "mask.npy", mask)
    for step in STEPS:
        np.savez(root / "edges" / f"{step}.more.npz", **describe_graph(nodes, mask))
    write_manifest([Audited(step, f"{step}", used=True) for step in STEPS], root / "series.tsv")


def run(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["phasegraph.network", *words])
    main()


@pytest.fixture(scope="module")
def gathered(study):
    with pytest.MonkeyPatch.context() as patch:
        for step in STEPS:
            run(patch, arguments(study, step, study / "network" / f"{step}.npz"))
        run(patch, gather_arguments(study, study))
    return study


def test_metrics_table(gathered):
    table = pl.read_parquet(gathered / "metrics.parquet")
    assert table.columns == ["step", "effect", "metric", "estimate", "corrected", "low", "high"]
    assert table.select("step", "effect", "metric").is_unique().all()
    assert table["step"].unique().sort().to_list() == list(STEPS)
    edges = np.load(gathered / "edges" / "200.npy")[0].astype(float)
    row = table.row(by_predicate=(pl.col("step") == 200) & (pl.col("metric") == "mean_weight"), named=True)
    assert row["estimate"] == pytest.approx(edges[mask_of(components())].mean())
    assert row["low"] < row["corrected"] < row["high"]
    around_the_estimate = ("churn", "churn_wasserstein", "excess_churn", "tau_gatekeeper_raw", "gini_betweenness")
    for metric in around_the_estimate:
        rows = table.filter((pl.col("metric") == metric) & (pl.col("step") == TURN))
        np.testing.assert_allclose((rows["low"] + rows["high"]) / 2, rows["estimate"])
        assert (rows["low"] < rows["high"]).all()
    assert set(table.filter(pl.col("metric") == "efficiency")["effect"]) == {"total", "direct"}

    def series(metric):
        return table.filter(pl.col("metric") == metric).sort("step")["estimate"].to_list()

    churn, excess = series("churn"), series("excess_churn")
    vectors = [np.load(gathered / "edges" / f"{s}.npy")[0][mask_of(components())] for s in STEPS]
    expected = [1 - spearmanr(a, b).statistic for a, b in itertools.pairwise(vectors)]
    assert churn[0] is None and excess[0] is None
    np.testing.assert_allclose(churn[1:], expected, atol=1e-12)
    turn = STEPS.index(TURN)
    assert excess[turn] > 0.05
    assert max(abs(value) for i, value in enumerate(excess) if i not in (0, turn)) < 2e-4
    assert min(series("noise_floor")) > 1e-3
    kinds = {"_jensen_shannon": lambda a, b: jensenshannon(a, b, base=2) ** 2}
    kinds["_wasserstein"] = lambda a, b: np.abs(np.sort(np.log(a)) - np.sort(np.log(b))).mean()
    for kind, distance in kinds.items():
        expected = [distance(a.astype(float), b.astype(float)) for a, b in itertools.pairwise(vectors)]
        np.testing.assert_allclose(series(f"churn{kind}")[1:], expected, atol=1e-12)
        assert series(f"churn{kind}")[0] is None and series(f"excess_churn{kind}")[0] is None
        assert np.nanargmax(np.array(series(f"excess_churn{kind}"), dtype=float)) == turn
        assert min(series(f"noise_floor{kind}")) > 1e-4
    for metric in ("tau_spreader_raw", "tau_gatherer_block", "tau_gatekeeper_raw", "rbo_gatherer_raw"):
        stability = series(metric)
        assert stability[0] is None and min(stability[1:]) == stability[turn]


def test_roles_table(gathered):
    table = pl.read_parquet(gathered / "roles.parquet")
    columns = "step node layer kind role effect score_kind estimate low high rank holder holder_share"
    assert table.columns == columns.split()
    assert len(table) == len(STEPS) * 30 * 9
    ranked = table.drop_nulls()
    np.testing.assert_allclose((ranked["low"] + ranked["high"]) / 2, ranked["estimate"], atol=1e-12)
    assert (ranked["low"] <= ranked["high"]).all() and ranked["role"].n_unique() == 3
    spreaders = table.filter((pl.col("role") == "spreader") & (pl.col("score_kind") == "block"))
    assert spreaders.filter(pl.col("rank") == 1)["node"].to_list() == ["L2H2"] * len(STEPS)
    assert (spreaders.group_by("step").agg(pl.col("holder").sum())["holder"] == 3).all()
    assert spreaders.filter(pl.col("kind") == "mlp")["rank"].null_count() == 6 * len(STEPS)
    assert set(spreaders.filter(pl.col("node") == "L2H2")["holder_share"]) == {1.0}
    assert (spreaders.group_by("step").agg(pl.col("holder_share").sum())["holder_share"] - 3).abs().max() < 1e-12
    assert (table["holder_share"].is_null() == table["rank"].is_null()).all()
    uncertain = table.filter(pl.col("holder_share").is_between(0, 1, closed="none"))
    assert len(uncertain) and (16 * uncertain["holder_share"] % 1 == 0).all()
    last = table.filter((pl.col("role") == "spreader") & (pl.col("layer") == 5))
    assert last["estimate"].null_count() == len(last) and not last["holder"].any()
    assert set(table.filter(pl.col("role") == "gatekeeper")["effect"]) == {"direct"}
    assert set(table.filter(pl.col("role") != "gatekeeper")["effect"]) == {"total"}


def test_distances_and_replicates(gathered):
    matrices, excess = (np.load(gathered / f"{name}.npy") for name in ("distances", "excess"))
    turn = STEPS.index(TURN)
    regime = np.arange(len(STEPS)) >= turn
    same = np.equal.outer(regime, regime)
    table = pl.read_parquet(gathered / "metrics.parquet").sort("step")
    assert matrices.dtype == excess.dtype == np.float64
    assert matrices.shape == excess.shape == (3, len(STEPS), len(STEPS))
    for kind, matrix, beyond in zip(("", "_jensen_shannon", "_wasserstein"), matrices, excess, strict=True):
        assert matrix[same].max() < matrix[~same].min() and beyond[same].max() < beyond[~same].min()
        for name, between in (("churn", matrix), ("excess_churn", beyond)):
            series = table.filter(pl.col("metric") == f"{name}{kind}")["estimate"].to_list()
            np.testing.assert_allclose(series[1:], between.diagonal(1), atol=1e-12)
    with np.load(gathered / "replicates.npz") as file:
        steps, names, values = file["steps"], file["names"].tolist(), file["values"]
    assert steps.tolist() == list(STEPS) and values.shape == (len(STEPS), 17, len(names))
    mask = mask_of(components())
    before, after = (np.load(gathered / "edges" / f"{s}.npy")[5][mask] for s in (2, 16))
    churn = values[2, 5, names.index("total.churn")]
    assert churn == pytest.approx(1 - spearmanr(before, after).statistic, abs=1e-12)
    edges = np.load(gathered / "edges" / "16.npy")[:, mask].astype(float)
    np.testing.assert_allclose(values[2, :, names.index("total.gini")], metrics.gini(edges))


def test_change_by_block(gathered):
    with np.load(gathered / "blocks.npz") as file:
        steps, names, values = file["steps"], file["names"].tolist(), file["values"]
    assert steps.tolist() == list(STEPS) and values.shape == (len(STEPS), 17, len(names))
    assert np.isnan(values[0]).all() and np.isfinite(values[1:]).all()
    before, after = (np.load(gathered / "edges" / f"{s}.npy")[5] for s in (2, 16))
    nodes = components()
    heads = [[node.index for node in nodes if node.layer == layer and node.kind is Kind.HEAD] for layer in (1, 4)]
    mlps = [[node.index for node in nodes if node.layer == layer and node.kind is Kind.MLP] for layer in (1, 4)]
    for name, rows, columns in (
        ("L1 heads > L4 heads", heads[0], heads[1]),
        ("L1 heads > L4 MLPs", heads[0], mlps[1]),
        ("L1 MLPs > L4 MLPs", mlps[0], mlps[1]),
    ):
        change = np.log(after[np.ix_(rows, columns)] / before[np.ix_(rows, columns)])
        assert values[2, 5, names.index(name)] == pytest.approx(np.sqrt((change**2).mean()))
    assert len(names) == len({(nodes[i].layer, nodes[i].kind, nodes[j].layer, nodes[j].kind)
                              for i, j in np.argwhere(mask_of(nodes))})  # fmt: skip


def test_blocks_of_many_layers_are_bands_of_neighbours():
    nodes = [Node(-1 + 1, -1, Kind.EMBED)]
    for layer in range(15):
        nodes += [Node(len(nodes) + head, layer, Kind.HEAD, head) for head in range(2)]
        nodes.append(Node(len(nodes), layer, Kind.MLP))
    mask = mask_of(nodes)
    mask[0] = False  # edges between components
    names, block = blocks_of(nodes, mask)
    assert len(block) == mask.sum() and sorted(set(block.tolist())) == list(range(len(names)))
    assert len(names) == 4 * 6 * 7 / 2  # of 6 bands, each with each later one and, over more than one layer, itself
    edges = np.argwhere(mask)
    between = {(nodes[i].layer, nodes[j].layer) for i, j in edges[block == names.index("L0-2 MLPs > L3-5 heads")]}
    assert between == {(i, j) for i in range(3) for j in range(3, 6)}
    assert block_changes(np.zeros(len(block)), block + 1.0, block) == pytest.approx(np.arange(len(names)) + 1.0)


def test_stability_table(gathered):
    table = pl.read_parquet(gathered / "stability.parquet")
    lags = {"tau": [1, 2, 4], "rbo": [1, 2, 4], "jaccard": [1, 2, 3, 4, 5], "persistence": [1, 2, 3, 4, 5]}
    for quantity, expected in lags.items():
        rows = table.filter((pl.col("quantity") == quantity) & (pl.col("role") == "gatekeeper"))
        assert rows["lag"].to_list() == expected * 3 and set(rows["effect"]) == {"direct"}
    reliability = table.filter(pl.col("quantity") == "reliability")
    assert sorted(reliability.select("role", "score_kind").rows()) == sorted(
        itertools.product(("gatherer", "spreader"), ("raw", "per_edge", "block"))
    )
    assert reliability["estimate"].min() > 0.2 and reliability["high"].null_count() == 6
    ranks = pl.read_parquet(gathered / "roles.parquet").filter(pl.col("role") == "spreader", pl.col("holder"))
    tops = [set(ranks.filter(pl.col("step") == s, pl.col("score_kind") == "raw")["node"]) for s in STEPS]
    chance = 3 / 25
    shares = [(len(a & b) / 3 - chance) / (1 - chance) for a, b in itertools.combinations(tops, 2)]
    mean = table.filter(pl.col("quantity") == "mean_persistence", pl.col("score_kind") == "raw")
    found = dict(mean.select("role", "estimate").iter_rows())
    assert found["spreader"] == pytest.approx(np.mean(shares))
    assert found["spreader-gatherer"] == pytest.approx(found["spreader"] - found["gatherer"])


def test_a_model_of_one_layer_has_tables_of_nulls(tmp_path, monkeypatch):
    nodes = components(layers=1, heads=4)
    mask = mask_of(nodes)
    save_graph(tmp_path, nodes, mask)
    for step, suffix in itertools.product(STEPS, ("", ".direct")):
        np.save(tmp_path / "edges" / f"{step}{suffix}.npy", np.zeros((17, 5, 5), np.float32))
    for step in STEPS:
        run(monkeypatch, arguments(tmp_path, step, tmp_path / "network" / f"{step}.npz"))
    run(monkeypatch, gather_arguments(tmp_path, tmp_path))
    table = pl.read_parquet(tmp_path / "metrics.parquet")
    moved = table.filter(pl.col("metric").str.contains("churn|noise_floor|tau_|rbo_|jaccard_"))
    assert len(moved) == len(STEPS) * (9 + 27) and moved["estimate"].null_count() == len(moved)
    roles_ = pl.read_parquet(tmp_path / "roles.parquet")
    assert roles_["rank"].null_count() == roles_["holder_share"].null_count() == len(roles_) == len(STEPS) * 5 * 9
    assert np.isnan(np.load(tmp_path / "distances.npy")).all() and np.isnan(np.load(tmp_path / "excess.npy")).all()
    assert pl.read_parquet(tmp_path / "stability.parquet")["estimate"].count() == 0


def test_the_same_command_gives_the_same_bytes(gathered, tmp_path, monkeypatch):
    run(monkeypatch, arguments(gathered, 16, tmp_path / "16.npz"))
    assert (tmp_path / "16.npz").read_bytes() == (gathered / "network" / "16.npz").read_bytes()
    run(monkeypatch, gather_arguments(gathered, tmp_path))
    for name in OUTPUTS:
        assert (tmp_path / name).read_bytes() == (gathered / name).read_bytes()


def test_embedding_and_logits_change_nothing_between_components(gathered, tmp_path, monkeypatch):
    nodes = nodes_of(6, 4, embed=True, logits=True)
    mask = mask_of(nodes)
    save_graph(tmp_path, nodes, mask)
    rng = np.random.default_rng(15)
    for step, suffix in itertools.product(STEPS, ("", ".direct")):
        edges = random_edges(rng, mask, 17).astype(np.float32)
        edges[:, 0] *= 50  # everything depends on the embedding
        edges[:, 1:-1, 1:-1] = np.load(gathered / "edges" / f"{step}{suffix}.npy")
        np.save(tmp_path / "edges" / f"{step}{suffix}.npy", edges)
    for step in STEPS:
        run(monkeypatch, arguments(tmp_path, step, tmp_path / "network" / f"{step}.npz"))
    run(monkeypatch, gather_arguments(tmp_path, tmp_path))
    for name in ("distances.npy", "excess.npy"):
        np.testing.assert_array_equal(*(np.load(root / name) for root in (gathered, tmp_path)))
    before, after = (pl.read_parquet(root / "metrics.parquet") for root in (gathered, tmp_path))
    assert before.drop("estimate", "corrected", "low", "high").equals(
        after.drop("estimate", "corrected", "low", "high")
    )
    for column in ("estimate", "corrected", "low", "high"):
        np.testing.assert_allclose(*(t[column].cast(float).fill_null(-9) for t in (before, after)), atol=1e-11)
    before, after = (pl.read_parquet(root / "roles.parquet") for root in (gathered, tmp_path))
    ends = after.filter(pl.col("node").is_in(["embed", "logits"]))
    inner = after.filter(~pl.col("node").is_in(["embed", "logits"]))
    for column in ("step", "node", "layer", "kind", "role", "effect", "score_kind", "rank", "holder", "holder_share"):
        assert before[column].equals(inner[column]), column
    for column in ("estimate", "low", "high"):
        np.testing.assert_allclose(*(t[column].fill_null(-9) for t in (before, inner)), atol=1e-11)
    assert ends["rank"].null_count() == len(ends) == len(STEPS) * 2 * 9 and not ends["holder"].any()
    assert set(ends["layer"]) == {-1, 6}
    known = ends.drop_nulls("estimate")
    assert set(known.select("node", "role", "score_kind").iter_rows()) == {
        (node, role, kind)
        for node, role in (("embed", "spreader"), ("logits", "gatherer"))
        for kind in ("raw", "per_edge")
    }
    edges = np.load(tmp_path / "edges" / "16.npy")[0].astype(float)
    raw = known.filter((pl.col("step") == 16) & (pl.col("score_kind") == "raw"))
    found = dict(raw.select("node", "estimate").iter_rows())
    assert found == pytest.approx({"embed": edges[0, 1:-1].sum(), "logits": edges[1:-1, -1].sum()})


def test_the_graph_of_a_checkpoint_comes_back_as_written_and_damage_is_named(tmp_path):
    nodes = nodes_of(2, 2, embed=True, logits=True)
    mask = mask_of(nodes)
    path = tmp_path / "8.more.npz"
    np.savez(path, **describe_graph(nodes, mask), total=np.zeros(3))
    found, possible = graph.read_graph(path)
    assert found == nodes
    np.testing.assert_array_equal(possible, mask)
    for harm in (path.read_bytes()[:-40], b"", None):
        path.unlink()
        if harm is not None:
            path.write_bytes(harm)
        with pytest.raises(PhasegraphError, match=r"8\.more\.npz: missing or damaged"):
            graph.read_graph(path)
        path.touch()
    np.savez(path, **describe_graph(nodes, mask | mask.T))
    with pytest.raises(PhasegraphError, match=r"8\.more\.npz: not a strict partial order"):
        graph.read_graph(path)


def test_gather_names_what_does_not_fit(gathered, tmp_path, monkeypatch):
    words = gather_arguments(gathered, tmp_path)
    edges = str(gathered / "edges" / "16.npy")
    cases = {
        "step 16 has a file in one of network/ and edges/ only": [w for w in words if w != edges],
        "direct.npy: its name is no step": [w.replace("16.npy", "16.direct.npy") for w in words],
        "16.npy: the same step as": [x for w in words for x in ([w, w] if w == edges else [w])],
        "absent/16.npz: no such file": [w.replace("network/16.npz", "absent/16.npz") for w in words],
        "16.npz: damaged": [w.replace(f"{gathered / 'network' / '16.npz'}", f"{tmp_path / '16.npz'}") for w in words],
    }
    (tmp_path / "16.npz").write_bytes((gathered / "network" / "16.npz").read_bytes()[:500])
    for message, arguments_ in cases.items():
        with pytest.raises(PhasegraphError, match=message):
            run(monkeypatch, arguments_)
    total_only = [w for w in arguments(gathered, 16, tmp_path / "16.npz") if "direct" not in w]
    run(monkeypatch, total_only)
    with pytest.raises(PhasegraphError, match=r"16\.npz: other nodes, metrics or effects"):
        run(monkeypatch, cases["16.npz: damaged"])
    assert not list(tmp_path.glob("*.parquet"))


def test_a_mistake_is_one_line_and_the_checkpoint_command_is_light(study, tmp_path):
    broken = tmp_path / "16.npy"
    edges = np.load(study / "edges" / "16.npy")
    edges[:, 0, 29] = np.nan
    np.save(broken, edges)
    words = [str(broken) if w.endswith("16.npy") else w for w in arguments(study, 16, tmp_path / "16.npz")]
    failed = subprocess.run([sys.executable, "-m", "phasegraph.network", *words], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert failed.stderr.startswith(f"phasegraph: error: {broken}: weight L0H0 -> L5MLP, replicate 0, is NaN")
    assert list(tmp_path.iterdir()) == [broken]
    code = "import sys; from phasegraph.network.__main__ import main; main(); print(*sys.modules)"
    words = arguments(study, 16, tmp_path / "16.npz")
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert not {"polars", "torch", "pandas"} & set(ran.stdout.split())
