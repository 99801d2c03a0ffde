"""Distances between checkpoints against scipy, brute force and planted changes (about 3 s)."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import spearmanr, wasserstein_distance

from phasegraph.network import distances

pytestmark = pytest.mark.filterwarnings("error")

SPEARMAN, JENSEN_SHANNON, WASSERSTEIN = distances.KINDS


def replicates(groups):
    """Estimate and leave-one-out means [17, ...] of group values [16, ...]."""
    left_out = [np.delete(groups, k, axis=0).mean(0) for k in range(len(groups))]
    return np.concatenate([groups.mean(0)[None], left_out])


def by_scipy(a, b, kind):
    """Distance of two edge vectors, halves' negative weights being 0."""
    if kind == SPEARMAN:
        return 1 - spearmanr(a, b).statistic
    if kind == JENSEN_SHANNON:
        return jensenshannon(np.maximum(a, 0), np.maximum(b, 0), base=2) ** 2
    return wasserstein_distance(*np.log(np.maximum([a, b], 1e-7)))


def parts(films, splits):
    """Halves [K, 2, S, E] of films of weights, [17, E] each."""
    return np.stack([distances.halves(weights, splits) for weights in films], axis=2).swapaxes(0, 1)


@pytest.mark.parametrize("kind", distances.KINDS)
def test_distances_against_scipy(kind):
    rng = np.random.default_rng(10)
    vectors = np.round(rng.lognormal(-1, 1.5, (7, 2 * distances.BLOCK + 30)), 1)  # with ties and zeros
    assert (vectors == 0).any(1).all()
    prepared = distances.prepare(vectors, kind)
    expected = np.array([[by_scipy(a, b, kind) for b in vectors] for a in vectors])
    np.testing.assert_allclose(distances.all_distances(prepared, prepared[:5], kind), expected[:, :5], atol=1e-12)
    np.testing.assert_allclose(distances.distance(prepared[:6], prepared[1:], kind), expected.diagonal(1), atol=1e-12)
    parted = np.tile(vectors, (1, 2, 1, 1))
    matrix, excess, floors = distances.compare(vectors, parted, kind)
    np.testing.assert_allclose(matrix, expected, atol=1e-12)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(matrix.diagonal(), 0)
    np.testing.assert_allclose(excess, expected, atol=1e-12)  # halves that are the whole have no noise
    np.testing.assert_allclose(floors, 0, atol=1e-12)


def test_what_each_distance_sees():
    rng = np.random.default_rng(0)
    weights = rng.lognormal(-4, 1, 400)
    changed = {"scaled": 1.3 * weights, "shuffled": rng.permutation(weights), "sharpened": weights**2}
    far = {
        name: {
            kind: float(distances.distance(*distances.prepare(np.stack([weights, other]), kind), kind))
            for kind in distances.KINDS
        }
        for name, other in changed.items()
    }
    assert far["scaled"] == pytest.approx({SPEARMAN: 0, JENSEN_SHANNON: 0, WASSERSTEIN: np.log(1.3)}, abs=1e-12)
    assert far["shuffled"][SPEARMAN] > 0.5 and far["shuffled"][JENSEN_SHANNON] > 0.1
    assert far["shuffled"][WASSERSTEIN] == pytest.approx(0, abs=1e-12)
    assert far["sharpened"][SPEARMAN] == pytest.approx(0, abs=1e-12) and far["sharpened"][JENSEN_SHANNON] > 0.05
    apart = np.repeat(np.eye(2), 3, axis=1)  # nothing in common: the farthest that shares can be
    assert distances.distance(*distances.prepare(apart, JENSEN_SHANNON), JENSEN_SHANNON) == pytest.approx(1)


def test_halves_are_means_of_their_groups():
    groups = np.random.default_rng(11).lognormal(0, 1, (16, 50))
    splits = distances.half_splits(16)
    assert (splits.sum(1) == 8).all() and len(np.unique(splits, axis=0)) > 1
    halves = distances.halves(replicates(groups), splits)
    for k, split in enumerate(splits):
        np.testing.assert_allclose(halves[0, k], groups[split].mean(0), atol=1e-12)
        np.testing.assert_allclose(halves[1, k], groups[~split].mean(0), atol=1e-12)
    as_matrices = distances.halves(replicates(groups.reshape(16, 5, 10)), splits)
    np.testing.assert_array_equal(as_matrices, halves.reshape(2, 16, 5, 10))


@pytest.mark.parametrize("kind", distances.KINDS)
def test_excess_and_floor_by_brute_force(kind):
    rng = np.random.default_rng(12)
    groups = rng.lognormal(-4, 1, (4, 1, 60)) * rng.lognormal(0, 0.4, (4, 16, 60))
    groups[:, :8, :3], groups[:, 8:, :3] = 1e-3, -1e-3  # pseudo-values can be negative
    splits = distances.half_splits(16, 5)
    halves = [[(one[split].mean(0), one[~split].mean(0)) for split in splits] for one in groups]
    assert min(part.min() for one in halves for pair in one for part in pair) < 0
    across = np.array(
        [
            [np.mean([by_scipy(a, b, kind) for (a, _), (_, b) in zip(one, two, strict=True)]) for two in halves]
            for one in halves
        ]
    )
    floors = across.diagonal()
    expected = (across + across.T) / 2 - (floors[:, None] + floors) / 2
    films = [replicates(one) for one in groups]
    estimates = np.stack([weights[0] for weights in films])
    _, excess, found = distances.compare(estimates, parts(films, splits), kind)
    np.testing.assert_allclose(found, floors, rtol=1e-9)
    np.testing.assert_allclose(excess, expected, atol=1e-12)
    assert (excess == excess.T).all() and (excess.diagonal() == 0).all()


@pytest.mark.parametrize(("shared", "own"), [(0.3, 0.02), (0, 0.3)])
def test_excess_is_the_true_distance_whether_or_not_noise_is_shared(shared, own):
    rng = np.random.default_rng(13)
    splits = distances.half_splits(16)
    for change in (0, 0.15):
        found = {kind: [] for kind in distances.KINDS}
        for _ in range(20):
            before = rng.lognormal(-4, 1.2, 375)
            after = before * np.exp(rng.normal(0, change, 375))
            prompts = rng.normal(0, shared, (16, 375))
            films = [replicates(mu * np.exp(prompts + rng.normal(0, own, (16, 375)))) for mu in (before, after)]
            estimates = np.stack([film[0] for film in films])
            parted = parts(films, splits)
            for kind in distances.KINDS:
                matrix, excess, floors = distances.compare(estimates, parted, kind)
                found[kind].append((matrix[0, 1], excess[0, 1], floors[0], by_scipy(before, after, kind)))
        for kind in distances.KINDS:
            churn, excess, floor, truth = np.mean(found[kind], axis=0)
            if kind == WASSERSTEIN:  # a mean of absolute values hides changes below the noise
                assert truth - floor < excess < truth + 1e-3
                assert change or abs(excess) < 0.03 * floor
            else:
                assert excess == pytest.approx(truth, rel=0.1, abs=2e-4)
            if kind != WASSERSTEIN and shared and not change:
                assert churn - floor < -0.8 * floor  # what subtracting the floor from churn would claim


def test_fewer_splits_in_large_graphs():
    counts = [distances.split_count(edges) for edges in (0, 375, 20_000, 79_764, 1_060_000)]
    assert counts == [16, 16, 16, 4, 1]


def test_weights_that_have_no_distance():
    rng = np.random.default_rng(14)
    estimates = rng.lognormal(-4, 1, (4, 30))
    estimates[1], estimates[2] = 0.2, 0
    parted = np.tile(estimates, (3, 2, 1, 1))
    without = {SPEARMAN: [1, 2], JENSEN_SHANNON: [2], WASSERSTEIN: []}
    for kind, rows in without.items():
        expected = np.zeros((4, 4), bool)
        expected[rows], expected[:, rows] = True, True
        matrix, excess, floors = distances.compare(estimates, parted, kind)
        np.testing.assert_array_equal(np.isnan(matrix), expected)
        np.testing.assert_array_equal(np.isnan(excess), expected)
        np.testing.assert_array_equal(np.isnan(floors), expected.all(1))
        empty = distances.compare(np.empty((4, 0)), np.empty((3, 2, 4, 0)), kind)
        assert all(np.isnan(one).all() for one in empty)
        prepared = distances.prepare(np.empty((17, 0)), kind)
        assert np.isnan(distances.distance(prepared, prepared, kind)).all()
