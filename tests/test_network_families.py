"""Wiring under two families of prompts: shares of variance and agreement of ranks, with planted components (10 s)."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from phasegraph.errors import PhasegraphError
from phasegraph.model.nodes import mask_of, nodes_of, write_nodes
from phasegraph.network.families import AGREEMENTS, SHARES, compare_families, rank_agreements, variance_shares
from phasegraph.series.manifest import write_manifest
from phasegraph.series.table import Audited

GROUPS = 16


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def replicates(groups: np.ndarray) -> np.ndarray:
    """The mean of the groups [16, ...], and without each."""
    return np.stack([groups.mean(0), *(np.delete(groups, k, axis=0).mean(0) for k in range(len(groups)))])


def without_noise(values) -> np.ndarray:
    return replicates(np.tile(np.asarray(values, dtype=float), (GROUPS, 1)))


def planted(rng, edges: int, edge: float, family: float, interaction: float) -> np.ndarray:
    """True weights [2, E] with these components of variance."""
    levels = rng.normal(0, np.sqrt(family), (2, 1))
    return 3 + rng.normal(0, np.sqrt(edge), edges) + levels + rng.normal(0, np.sqrt(interaction), (2, edges))


def drawn(rng, truth: np.ndarray, noise: float) -> list[np.ndarray]:
    """Replicates of both families, with noise of this variance, half of which many edges share."""
    found = []
    for weights in truth:
        shared = rng.normal(size=(GROUPS, 5)) @ rng.normal(size=(5, len(weights))) / np.sqrt(5)
        own = rng.normal(size=(GROUPS, len(weights)))
        found.append(replicates(weights + np.sqrt(GROUPS * noise / 2) * (shared + own)))
    return found


def shares_of(edge: float, family: float, interaction: float, noise: float) -> np.ndarray:
    parts = np.array([edge, family, interaction, noise])
    return np.append(parts / parts.sum(), (family + interaction) / (edge + family + interaction))


def true_shares(truth: np.ndarray, noise: float) -> np.ndarray:
    """Shares of a table of true weights, by covariances."""
    covariance = np.cov(truth, bias=True)
    interaction = (covariance[0, 0] + covariance[1, 1]) / 2 - covariance[0, 1]
    return shares_of(covariance[0, 1], np.var(truth.mean(1), ddof=1), interaction, noise)


# --- variance -------------------------------------------------------------------------------------------------------


def test_two_edges_by_hand():
    found = variance_shares(without_noise([1, 3]), without_noise([2, 6]))
    # Means 2 and 4; covariance 2; differences -1 and -3, so family (-2)^2 / 2 = 2, interaction 1 / 2; total 4.5.
    np.testing.assert_allclose(found.estimate, shares_of(2, 2, 0.5, 0), atol=1e-12)
    np.testing.assert_allclose(found.estimate[-1], 5 / 9)
    np.testing.assert_allclose(found.low, found.estimate, atol=1e-6)  # without noise no width
    np.testing.assert_allclose(found.high, found.estimate, atol=1e-6)


def test_components_and_interval_against_groups_left_out_one_by_one(rng):
    truth = planted(rng, 40, 1, 0.3, 0.4)
    groups = truth[:, None] + rng.normal(size=(2, GROUPS, 40))  # [2, 16, E]

    def shares(x, y):
        difference = x.mean(0) - y.mean(0)
        own = x.var(0, ddof=1).mean() / len(x) + y.var(0, ddof=1).mean() / len(y)
        level = x.mean(1).var(ddof=1) / len(x) + y.mean(1).var(ddof=1) / len(y)
        edge = np.cov(x.mean(0), y.mean(0), bias=True)[0, 1]
        return shares_of(edge, (difference.mean() ** 2 - level) / 2, (difference.var() - own + level) / 2, own / 2)

    x, y = groups
    variances = []
    for family in range(2):
        left_out = [
            shares(*(np.delete(part, k, 0) if i == family else part for i, part in enumerate((x, y))))
            for k in range(GROUPS)
        ]
        variances.append((GROUPS - 1) * np.var(left_out, axis=0))
    total = sum(variances)
    freedom = 15 * total**2 / sum(variance**2 for variance in variances)
    margin = stats.t.ppf(0.95, freedom) * np.sqrt(total)
    found = variance_shares(replicates(x), replicates(y))
    expected = shares(x, y)
    assert (expected > 0).all()
    np.testing.assert_allclose(found.estimate, expected)
    np.testing.assert_allclose(found.low, np.maximum(expected - margin, 0), atol=1e-9)
    np.testing.assert_allclose(found.high, np.minimum(expected + margin, 1), atol=1e-9)
    np.testing.assert_allclose(found.estimate[:4].sum(), 1)


@pytest.mark.parametrize("parts", [(1, 0.3, 0.3, 0.1), (0.2, 0.1, 0.5, 0.4), (0, 0, 1, 0.2)])
def test_planted_components_are_recovered(rng, parts):
    edge, family, interaction, noise = parts
    found = []
    for _ in range(60):  # a family's level is a single draw, so that its component is known from many tables only
        x, y = drawn(rng, planted(rng, 600, edge, family, interaction), noise)
        difference = x[0] - y[0]
        total = (x[0].var() + y[0].var() + difference.mean() ** 2) / 2
        found.append(variance_shares(x, y).estimate[:4] * total)
    found = np.array(found)
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - parts) <= 4 * error + 0.01).all()


@pytest.mark.parametrize(("parts", "noise"), [((1, 0.05, 0.3), 0.1), ((0.2, 0.5, 0.3), 0.5), ((1, 0, 0.02), 0.2)])
def test_intervals_cover(rng, parts, noise):
    truth = planted(rng, 375, *parts)
    expected = true_shares(truth, noise)
    found = [variance_shares(*drawn(rng, truth, noise)) for _ in range(200)]
    covered = np.mean([(one.low <= expected) & (expected <= one.high) for one in found], axis=0)
    assert (np.delete(covered, SHARES.index("family")) >= 0.84).all()  # 0.90 nominal, three standard errors of 0.02
    assert covered[SHARES.index("family")] >= 0.74  # a square near 0 is skewed
    assert all(((one.low <= one.estimate) & (one.estimate <= one.high)).all() for one in found)


def test_noise_of_prompts_is_not_called_wiring(rng):
    truth = np.tile(planted(rng, 375, 1, 0, 0)[:1], (2, 1))  # the same wiring under both
    found = np.array([variance_shares(*drawn(rng, truth, 0.3)).estimate for _ in range(50)])
    naive = []
    for _ in range(50):
        x, y = (part[0] for part in drawn(rng, truth, 0.3))
        naive.append(1 - np.cov(x, y, bias=True)[0, 1] / ((x.var() + y.var()) / 2))
    assert np.mean(naive) > 0.2
    assert found[:, SHARES.index("between_families")].mean() < 0.03
    np.testing.assert_allclose(found[:, SHARES.index("noise")].mean(), 0.3 / 1.3, atol=0.02)


def test_identical_studies_have_nothing_between_them(rng):
    x = drawn(rng, planted(rng, 100, 1, 0, 0), 0.2)[0]
    found = dict(zip(SHARES, variance_shares(x, x).estimate, strict=True))
    assert (found["family"], found["interaction"], found["between_families"]) == (0, 0, 0)
    assert found["edge"] > 0.5


def test_unrelated_wirings_have_nothing_in_common(rng):
    found = variance_shares(*(without_noise(rng.normal(size=5000)) for _ in range(2)))
    np.testing.assert_allclose(found.estimate[-1], 1, atol=0.05)


@pytest.mark.parametrize("value", [0.0, 0.1, 7.3e-5])
def test_equal_weights_have_no_shares(value):
    x = np.full((GROUPS + 1, 30), value)
    for found in (*variance_shares(x, x), *rank_agreements(x, x)):
        assert np.isnan(found).all()


def test_a_shift_of_constant_weights_is_the_family_alone():
    found = variance_shares(without_noise([0.1] * 9), without_noise([0.3] * 9))
    np.testing.assert_allclose(found.estimate, [0, 1, 0, 0, 1], atol=1e-9)


# --- ranks ----------------------------------------------------------------------------------------------------------


def test_agreement_of_ranks(rng):
    truth = planted(rng, 300, 1, 0.2, 0.2)
    noise = 0.4
    found = np.array([rank_agreements(*drawn(rng, truth, noise)).estimate for _ in range(25)])
    whole, corrected, within, ceiling = found.mean(0)
    clean = stats.spearmanr(*truth).statistic
    assert whole < clean - 0.1
    np.testing.assert_allclose(corrected, clean, atol=0.03)
    # Two draws of one family's prompts, as many as the whole study has, and half as many.
    again = [[drawn(rng, truth, size)[0][0] for _ in range(2)] for size in (noise, 2 * noise) for _ in range(25)]
    expected = [stats.spearmanr(*pair).statistic for pair in again]
    np.testing.assert_allclose(ceiling, np.mean(expected[:25]), atol=0.03)
    np.testing.assert_allclose(within, np.mean(expected[25:]), atol=0.03)


def test_agreement_is_spearmans(rng):
    x, y = drawn(rng, planted(rng, 80, 1, 0, 0.3), 0.1)
    found = rank_agreements(x, y)
    np.testing.assert_allclose(found.estimate[0], stats.spearmanr(x[0], y[0]).statistic)
    assert (found.low < found.estimate).all()
    assert (found.estimate < found.high).all()


def test_intervals_of_the_agreement_without_noise_cover(rng):
    truth = planted(rng, 120, 1, 0, 0.4)
    clean = stats.spearmanr(*truth).statistic
    found = [rank_agreements(*drawn(rng, truth, 0.2)) for _ in range(50)]
    assert np.mean([one.low[1] <= clean <= one.high[1] for one in found]) >= 0.78  # three standard errors of 0.04


# --- files ----------------------------------------------------------------------------------------------------------


def study(folder: Path, rng, steps) -> list[Path]:
    """Write edges of three layers with two heads and an MLP each, embedding and logits; the embedding's are huge."""
    nodes = nodes_of(3, 2, embed=True, logits=True)
    mask = mask_of(nodes, parallel=True)
    folder.mkdir()
    write_nodes(nodes, folder / "nodes.tsv")
    np.save(folder / "mask.npy", mask)
    files = []
    for step in steps:
        weights = replicates(rng.gamma(2, 0.1, (GROUPS, *mask.shape)))
        weights[:, 0] *= 100
        files.append(folder / f"{step}.npy")
        np.save(files[-1], np.where(mask, weights, 0).astype(np.float32))
    return files


@pytest.fixture
def compared(tmp_path, rng):
    manifest = tmp_path / "series.tsv"
    write_manifest([Audited(step, f"p/{step}", distance=1, used=step != 2) for step in range(5)], manifest)
    ours, theirs = study(tmp_path / "ours", rng, range(5)), study(tmp_path / "theirs", rng, (0, 2, 3))
    return ours, theirs, manifest, tmp_path / "ours/nodes.tsv", tmp_path / "ours/mask.npy"


def test_the_table_of_two_studies(compared, tmp_path):
    ours, theirs, manifest, nodes, mask = compared
    out = tmp_path / "families.parquet"
    command = [sys.executable, "-m", "phasegraph.network", "families", "--edges", *ours, "--others", *theirs]
    command += ["--manifest", manifest, "--nodes", nodes, "--mask", mask, "--out", out]
    subprocess.run(command, check=True)
    table = pl.read_parquet(out)
    assert table.columns == ["step", "scale", "quantity", "estimate", "low", "high"]
    assert table["step"].unique(maintain_order=True).to_list() == [0, 3]  # 2 is left out by the audit
    names = [(scale, name) for scale in ("w", "sqrt(w)") for name in SHARES] + [("rank", name) for name in AGREEMENTS]
    assert list(zip(table["scale"], table["quantity"], strict=True)) == 2 * names
    inner = np.load(mask)
    inner[0], inner[:, -1] = False, False
    x, y = (np.load(files[place])[:, inner].astype(float) for files, place in ((ours, 3), (theirs, 2)))
    for scale, change in (("w", np.array), ("sqrt(w)", np.sqrt)):
        rows = table.filter((pl.col("step") == 3) & (pl.col("scale") == scale))
        np.testing.assert_allclose(rows["estimate"].to_numpy(), variance_shares(change(x), change(y)).estimate)
    rows = table.filter((pl.col("step") == 3) & (pl.col("quantity") == "spearman"))
    np.testing.assert_allclose(rows["estimate"], stats.spearmanr(x[0], y[0]).statistic)


def test_what_is_undefined_is_null(compared, tmp_path):
    ours, theirs, *rest = compared
    mask = np.load(rest[2])
    for file in (ours[0], theirs[0]):
        np.save(file, np.where(mask, np.full((GROUPS + 1, *mask.shape), 0.1), 0).astype(np.float32))
    compare_families(ours, theirs, *rest, tmp_path / "families.parquet")
    table = pl.read_parquet(tmp_path / "families.parquet")
    for column in ("estimate", "low", "high"):
        assert table.filter(pl.col("step") == 0)[column].null_count() == 14
        assert table.filter(pl.col("step") == 3)[column].null_count() < 14
        assert not table[column].is_nan().any()


def test_studies_without_a_common_checkpoint_are_named(compared, tmp_path):
    ours, theirs, *rest = compared
    with pytest.raises(PhasegraphError, match=r"ours and .*theirs have no step in common"):
        compare_families(ours[1:2], theirs[2:], *rest, tmp_path / "families.parquet")
    assert not (tmp_path / "families.parquet").exists()
