"""The checkpoint sub-command on ordinary and on degenerate graphs, and what it refuses (about 15 s)."""

import itertools
import sys

import networkx as nx
import numpy as np
import pytest

from phasegraph.errors import user_errors
from phasegraph.model.nodes import describe_graph, nodes_of
from phasegraph.network.__main__ import main
from phasegraph.network.nulls import NULLS, Comparison
from phasegraph.types import Backbone

pytestmark = pytest.mark.filterwarnings("error")

CONCENTRATION = {"gini", "n_eff_entropy", "n_eff_simpson", "top1_share", "top10_share"}


def mask_of(nodes):
    layer = np.array([node.layer for node in nodes])
    return layer[:, None] < layer


def ordinary(nodes, seed=0):
    """Edges of the estimate and 16 replicates."""
    rng, mask = np.random.default_rng(seed), mask_of(nodes)
    weights = np.exp(rng.normal(-4, 1, mask.shape)) * np.exp(rng.normal(0, 0.1, (17, *mask.shape)))
    return (weights * mask).astype(np.float32)


def save(folder, nodes, edges, step=512, direct=None):
    np.save(folder / f"{step}.npy", edges)
    if direct is not None:
        np.save(folder / f"{step}.direct.npy", direct)
    np.savez(folder / f"{step}.more.npz", **describe_graph(nodes, mask_of(nodes)))


def run(monkeypatch, folder, *more, step=512, to="out"):
    """Run the sub-command as from the command line, and give the folder of what it wrote."""
    out = folder / to
    words = ["--edges", folder / f"{step}.npy", "--graph", folder / f"{step}.more.npz", "--out", out / f"{step}.npz"]
    if (folder / f"{step}.direct.npy").exists():
        words += ["--direct", folder / f"{step}.direct.npy"]
    words += ["--backbones", out / "backbones", *more]
    monkeypatch.setattr(sys, "argv", ["phasegraph.network", "checkpoint", *map(str, words)])
    with user_errors():
        main()
    return out


def load(out, step=512):
    """Arrays of the .npz, with metrics [17], scores [17, N] and comparisons by name."""
    with np.load(out / f"{step}.npz") as file:
        arrays = dict(file)
    metrics = dict(zip(arrays["metric_names"].tolist(), arrays["metrics"].T, strict=True))
    scores = dict(zip(arrays["score_names"].tolist(), arrays["scores"].swapaxes(0, 1), strict=True))
    rows = [Comparison(*row) for row in arrays["nulls"]]
    return arrays, metrics, scores, dict(zip(arrays["null_names"].tolist(), rows, strict=True))


def read_backbones(out, nodes, step=512):
    """Backbones as networkx reads them; they are files of all nodes."""
    found = {}
    for name in Backbone:
        found[str(name)] = nx.read_graphml(out / "backbones" / f"{step}.{name}.graphml")
        labels = nx.get_node_attributes(found[str(name)], "name")
        assert sorted(labels.values()) == sorted(node.name for node in nodes)
    return found


# --- ordinary ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    nodes = nodes_of(4, 3, embed=True, logits=True)
    save(folder, nodes, ordinary(nodes), direct=ordinary(nodes, 1))
    with pytest.MonkeyPatch.context() as patch:
        return run(patch, folder, "--nulls", "199"), nodes


def test_everything_is_there_and_finite(written):
    out, nodes = written
    arrays, metrics, scores, nulls = load(out)
    assert {name.split(".")[0] for name in metrics} == {"total", "direct"}
    for name, values in metrics.items():
        assert values.shape == (17,) and np.isfinite(values).all(), name
    assert all(values.shape == (17, len(nodes)) for values in scores.values())
    assert arrays["half_scores"].shape == (2, 4, len(arrays["half_names"]), len(nodes))
    assert {name.split(".")[2] for name in nulls} == set(NULLS)
    assert len({name.rpartition(".")[0] for name in nulls}) > 20
    for name, row in nulls.items():
        if "strength" not in name and "skip_length" not in name:  # of which the ratio shuffle keeps some
            assert 19 <= row.draws <= 199 and row.low <= row.high, name
    assert arrays["communities"].shape == (len(nodes),)
    path = [nodes[i] for i in arrays["widest_path"]]
    assert path[0].layer == 0 and path[-1].layer == 3
    edges = np.load(out.parent / "512.direct.npy")[0].astype(float)
    width = min(edges[u.index, v.index] for u, v in itertools.pairwise(path))
    assert metrics["direct.width"][0] == pytest.approx(width)
    inner = edges[1:-1, 1:-1][mask_of(nodes)[1:-1, 1:-1]]
    assert metrics["direct.efficiency"][0] >= inner.mean()


def test_backbones_are_of_the_direct_effect(written):
    out, nodes = written
    found = read_backbones(out, nodes)
    edges = np.load(out.parent / "512.direct.npy")[0]
    _, metrics, scores, _ = load(out)
    index = {node.name: node.index for node in nodes}
    for name, graph in found.items():
        labels = nx.get_node_attributes(graph, "name")
        for u, v, weight in graph.edges(data="weight"):
            assert weight == pytest.approx(edges[index[labels[u]], index[labels[v]]], rel=1e-6), name
        for node, label in labels.items():
            ours = scores["direct.betweenness.raw"][0, index[label]]
            assert graph.nodes[node]["betweenness"] == pytest.approx(ours)
    assert found["top10"].number_of_edges() == np.ceil(0.1 * 6 * 16)
    weights = [weight for *_, weight in found["percolation"].edges(data="weight")]
    assert min(weights) == pytest.approx(metrics["direct.width"][0], rel=1e-6)


def test_the_same_command_gives_the_same_bytes_and_another_seed_other_nulls(written, monkeypatch):
    out, _ = written
    again = run(monkeypatch, out.parent, "--nulls", "199", to="again")
    for path in (p for p in out.rglob("*") if p.is_file()):
        assert (again / path.relative_to(out)).read_bytes() == path.read_bytes(), path
    other = run(monkeypatch, out.parent, "--nulls", "199", "--seed", "1", to="other")
    ours, theirs = load(out), load(other)
    np.testing.assert_array_equal(ours[0]["metrics"], theirs[0]["metrics"])
    name = "direct.efficiency.ratio"
    assert ours[3][name].mean != theirs[3][name].mean and ours[3][name].draws == 199


def test_without_nulls_nothing_else_changes(written, monkeypatch):
    out, _ = written
    found = run(monkeypatch, out.parent, "--nulls", "0", to="without")
    ours, theirs = load(out)[0], load(found)[0]
    assert theirs["nulls"].shape == (0, 7) and theirs["null_names"].shape == (0,)
    for name in set(ours) - {"nulls", "null_names"}:
        np.testing.assert_array_equal(ours[name], theirs[name])


# --- degenerate ----------------------------------------------------------------------------------------------------


def equal(nodes):
    return np.tile(mask_of(nodes) * np.float32(0.25), (17, 1, 1))


def zero(nodes):
    return np.zeros((17, len(nodes), len(nodes)), np.float32)


def dead_layer(nodes):
    edges = ordinary(nodes)
    dead = np.array([node.layer == 1 for node in nodes])
    edges[:, dead] = 0
    edges[:, :, dead] = 0
    return edges


def one_edge(nodes):
    edges = zero(nodes)
    edges[:, 0, -1] = 0.5
    return edges


def dead_head(nodes):
    edges = ordinary(nodes)
    edges[:, 1] = 0
    edges[:, :, 6] = 0
    return edges


CASES = {
    "equal": (nodes_of(4, 3), equal),
    "zero": (nodes_of(4, 3), zero),
    "dead layer": (nodes_of(4, 3), dead_layer),
    "dead heads": (nodes_of(4, 3), dead_head),
    "one edge": (nodes_of(4, 3), one_edge),
    "one layer": (nodes_of(1, 3), zero),
    "one layer with ends": (nodes_of(1, 3, embed=True, logits=True), ordinary),
    "two layers": (nodes_of(2, 1), ordinary),
    "one node": (nodes_of(1, 1)[:1], zero),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("with_direct", [False, True])
def test_degenerate_graphs_go_through(tmp_path, monkeypatch, case, with_direct):
    nodes, edges_of = CASES[case]
    edges = edges_of(nodes)
    save(tmp_path, nodes, edges, direct=edges if with_direct else None)
    out = run(monkeypatch, tmp_path, "--nulls", "39")
    arrays, metrics, scores, nulls = load(out)
    assert arrays["metrics"].shape == (17, len(metrics)) and arrays["nulls"].shape == (len(nulls), 7)
    assert not np.isinf(arrays["metrics"]).any() or case in ("one edge", "two layers")  # second singular value 0
    assert not np.isinf(arrays["scores"]).any() and not np.isinf(arrays["half_scores"]).any()
    assert not np.isinf(arrays["nulls"]).any()
    graphs = read_backbones(out, nodes)
    inner = np.array([node.layer >= 0 and str(node.kind) != "logits" for node in nodes])
    some = edges[0] * np.outer(inner, inner) > 0
    assert all(graph.number_of_edges() <= some.sum() for graph in graphs.values())
    missing = {name for name, values in metrics.items() if np.isnan(values).any()}
    if not some.any():
        assert {f"total.{name}" for name in CONCENTRATION | {"assortativity", "skip_length", "modularity"}} <= missing
        assert np.isnan([[row.z, row.p] for row in nulls.values()]).all()
    if case == "zero":
        assert metrics["total.mean_weight"][0] == metrics["total.efficiency"][0] == metrics["total.max_flow"][0] == 0
        assert not arrays["widest_path"].size
    if case == "equal":
        assert metrics["total.gini"][0] == pytest.approx(0, abs=1e-12)
        assert metrics["total.width"][0] == metrics["total.efficiency"][0] == 0.25
        assert np.isnan([row.z for name, row in nulls.items() if name.endswith("block")]).all()
        assert missing == {f"{effect}.gini_betweenness" for effect in ("total", "direct")[: 1 + with_direct]}
    if case.startswith("dead"):
        assert not missing
        assert all(row.draws >= 19 for row in nulls.values())
    if case.startswith("one layer") or case == "one node":  # no edge is possible
        assert all(np.isnan(values).all() for values in metrics.values())
    if case == "one layer with ends":
        assert scores["total.out_strength.raw"][0, 0] > 0 == scores["total.out_strength.raw"][0, 1:].max(initial=0)


# --- refused and empty ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".direct"])
def test_nan_is_refused_by_file_and_names_and_nothing_is_written(tmp_path, monkeypatch, capsys, suffix):
    nodes = nodes_of(4, 3)
    save(tmp_path, nodes, ordinary(nodes), direct=ordinary(nodes, 1))
    edges = ordinary(nodes)
    edges[4, 2, 15] = np.nan
    np.save(tmp_path / f"512{suffix}.npy", edges)
    with pytest.raises(SystemExit, match="1"):
        run(monkeypatch, tmp_path)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith(
        f"phasegraph: error: {tmp_path}/512{suffix}.npy: weight L0H2 -> L3MLP, replicate 4, is NaN"
    )
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, monkeypatch, capsys):
    nodes = nodes_of(2, 2)
    save(tmp_path, nodes, ordinary(nodes), step="step512")
    with pytest.raises(SystemExit, match="1"):
        run(monkeypatch, tmp_path, step="step512")
    assert "step512.npy: its name is no step" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_could_not_be_measured_has_empty_files(tmp_path, monkeypatch):
    for name in ("512.npy", "512.direct.npy", "512.more.npz"):
        (tmp_path / name).touch()
    out = run(monkeypatch, tmp_path)
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == {"512.npz", *(f"backbones/512.{name}.graphml" for name in Backbone)}
    assert not any((out / name).stat().st_size for name in written)
