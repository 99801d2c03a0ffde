"""The tables of null models, communities, centralities and widest paths, over five checkpoints (about 5 s)."""

import sys

import numpy as np
import polars as pl
import pytest

from phasegraph.errors import PhasegraphError
from phasegraph.jackknife import delete_group
from phasegraph.model.nodes import describe_graph, nodes_of, write_nodes
from phasegraph.network.__main__ import main
from phasegraph.network.clustering import triangles
from phasegraph.series.manifest import write_manifest
from phasegraph.series.table import Audited

STEPS = [0, 4, 8, 16, 32]
LEFT_OUT = 16
TABLES = ("nulls", "communities", "centralities", "widest-paths")
NODES = nodes_of(4, 3, embed=True, logits=True)
LAYER = np.array([node.layer for node in NODES])
MASK = LAYER[:, None] < LAYER


def call(*words):
    sys.argv = ["phasegraph.network", *map(str, words)]
    main()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Direct effects with a planted widest path, and strengths that differ; step 16 is left out by the audit."""
    root = tmp_path_factory.mktemp("study")
    (root / "edges").mkdir()
    rng = np.random.default_rng(0)
    write_nodes(NODES, root / "nodes.tsv")
    write_manifest([Audited(step, f"{step}", used=step != LEFT_OUT) for step in STEPS], root / "series.tsv")
    strengths = np.exp(rng.normal(0, 1, len(NODES)))
    for step in STEPS:
        for suffix in ("", ".direct"):
            weights = 0.01 * strengths[:, None] * np.exp(rng.normal(0, 0.5, MASK.shape)) * MASK
            if suffix:
                weights[3, 8] = weights[8, 14] = 1.5  # L0H2 -> L2H? -> L3H?; the first node is the embedding
            replicates = weights * np.exp(rng.normal(0, 0.01, (17, *MASK.shape)))
            np.save(root / "edges" / f"{step}{suffix}.npy", replicates.astype(np.float32))
        np.savez(root / "edges" / f"{step}.more.npz", **describe_graph(NODES, MASK))
        edges = root / "edges" / f"{step}.npy", root / "edges" / f"{step}.direct.npy"
        words = [
            "checkpoint",
            "--edges",
            edges[0],
            "--direct",
            edges[1],
            "--nulls",
            99,
            "--backbones",
            root / "backbones",
        ]
        call(*words, "--graph", root / "edges" / f"{step}.more.npz", "--out", root / "network" / f"{step}.npz")
    gather(root, root)
    return root


def gather(root, out):
    files = [root / "network" / f"{step}.npz" for step in STEPS[::-1]]
    outputs = [word for name in TABLES for word in (f"--{name}", out / f"{name.replace('-', '_')}.parquet")]
    call("details", "--network", *files, "--manifest", root / "series.tsv", "--nodes", root / "nodes.tsv", *outputs)


def load(root, step):
    with np.load(root / "network" / f"{step}.npz") as file:
        return dict(file)


def test_nulls_are_those_of_the_files_and_q_is_adjusted_for_the_run(study):
    table = pl.read_parquet(study / "nulls.parquet")
    assert table["step"].unique().sort().to_list() == [0, 4, 8, 32]
    file = load(study, 8)
    rows = table.filter(pl.col("step") == 8)
    found = rows.select(pl.concat_str("effect", "metric", "null", separator=".")).to_series().to_list()
    assert found == file["null_names"].tolist()
    columns = file["null_columns"].tolist()
    np.testing.assert_array_equal(rows.select(columns).cast(pl.Float64).fill_null(np.nan).to_numpy(), file["nulls"])
    estimates = dict(zip(file["metric_names"].tolist(), file["metrics"][0], strict=True))
    for effect, metric, estimate in rows.select("effect", "metric", "estimate").iter_rows():
        assert estimate == pytest.approx(estimates[f"{effect}.{metric}"], nan_ok=True)
    for _, group in table.group_by("effect", "metric", "null"):
        p, q = group["p"].drop_nulls().to_list(), group["q"].drop_nulls().to_list()
        # Benjamini & Hochberg by their definition: the least level at which the step-up procedure rejects
        expected = [min(len(p) * other / sum(x <= other for x in p) for other in p if other >= value) for value in p]
        assert q == pytest.approx(np.minimum(expected, 1).tolist())
    strengths = table.filter((pl.col("metric") == "gini_out_strength") & (pl.col("null") == "block"))
    assert (strengths["q"] <= 0.05).all()


def test_communities_cover_the_components_and_keep_their_number(study):
    table = pl.read_parquet(study / "communities.parquet")
    components = [node.name for node in NODES[1:-1]]
    assert table["node"].to_list() == components * 4
    for step in (0, 4, 8, 32):
        labels = load(study, step)["communities"]
        assert labels[0] == labels[-1] == -1
        rows = table.filter(pl.col("step") == step)["community"].to_numpy()
        assert (np.equal.outer(rows, rows) == np.equal.outer(labels[1:-1], labels[1:-1])).all()
    first, second = (table.filter(pl.col("step") == step)["community"].to_numpy() for step in (0, 4))
    assert set(first) & set(second)


def test_centralities_have_intervals_of_their_replicates(study):
    table = pl.read_parquet(study / "centralities.parquet")
    assert set(table["score"]) == {
        *("hub", "authority", "katz", "harmonic_out", "harmonic_in"),
        *("clustering_out", "clustering_middleman", "clustering_in"),
    }
    components = np.array([False, *[True] * 16, False])
    inner = MASK & components[:, None] & components
    edges = np.where(inner, np.load(study / "edges" / "4.direct.npy").astype(float), 0)
    interval = delete_group(triangles(edges, inner)[:, 1], smooth=False)
    rows = table.filter((pl.col("step") == 4) & (pl.col("score") == "clustering_middleman"), effect="direct")
    assert rows["node"].to_list() == [node.name for node in NODES]
    for column in ("estimate", "low", "high"):
        found = rows[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
        np.testing.assert_allclose(found, getattr(interval, column), rtol=1e-10)


def test_the_widest_path_is_the_planted_one(study):
    table = pl.read_parquet(study / "widest_paths.parquet")
    assert table["step"].to_list() == [0, 4, 8, 32]
    assert table["effect"].unique().to_list() == ["direct"]
    assert table["nodes"].to_list() == [[NODES[3].name, NODES[8].name, NODES[14].name]] * 4
    assert (table["width"] - 1.5).abs().max() < 0.1


def test_the_same_command_gives_the_same_bytes(study, tmp_path):
    gather(study, tmp_path)
    for name in ("nulls", "communities", "centralities", "widest_paths"):
        assert (tmp_path / f"{name}.parquet").read_bytes() == (study / f"{name}.parquet").read_bytes()


def test_without_nulls_the_table_is_empty_and_damage_is_named(study, tmp_path):
    words = ["checkpoint", "--edges", study / "edges" / "4.npy", "--nulls", 0, "--backbones", tmp_path / "backbones"]
    call(*words, "--graph", study / "edges" / "4.more.npz", "--out", tmp_path / "network" / "4.npz")
    outputs = [word for name in TABLES for word in (f"--{name}", tmp_path / f"{name.replace('-', '_')}.parquet")]
    common = ["--manifest", study / "series.tsv", "--nodes", study / "nodes.tsv", *outputs]
    call("details", "--network", tmp_path / "network" / "4.npz", *common)
    assert pl.read_parquet(tmp_path / "nulls.parquet").is_empty()
    assert pl.read_parquet(tmp_path / "widest_paths.parquet")["effect"].to_list() == ["total"]
    (tmp_path / "network" / "4.npz").write_bytes(b"no archive")
    with pytest.raises(PhasegraphError, match=r"4\.npz: damaged; delete it"):
        call("details", "--network", tmp_path / "network" / "4.npz", *common)
    write_nodes(nodes_of(4, 2), tmp_path / "nodes.tsv")
    common[3] = tmp_path / "nodes.tsv"
    with pytest.raises(PhasegraphError, match=r"0\.npz: does not fit nodes.tsv"):
        call("details", "--network", study / "network" / "0.npz", *common)
