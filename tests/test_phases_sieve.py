"""Tests of `phasegraph.phases.sieve` and `phasegraph.phases.steps` (about 10 s on one core)."""

from dataclasses import replace

import numpy as np
import pytest
from planted_series import noise
from scipy.linalg import solve_toeplitz, toeplitz
from scipy.signal import lfilter

from phasegraph.phases.noise import noise_about, prepared
from phasegraph.phases.sieve import LARGEST, autoregressions, choose_order, colour, reflections, whiten
from phasegraph.phases.steps import candidates, design, gains, noise_beside, relocate, step_functions, trend_basis

ROOTS = {1: [0.8], 2: [0.9, -0.4], 3: [0.7, 0.5 + 0.6j, 0.5 - 0.6j], 4: [0.95, -0.8, 0.3 + 0.7j, 0.3 - 0.7j]}
"""Order -> roots of an autoregression's polynomial, within the unit circle."""


def coefficients_of(roots):
    """Autoregressive coefficients, [p]."""
    return -np.poly(roots).real[1:]


def autocovariance(ar, n):
    """Of a stationary autoregression with innovations of unit variance, from its response to an impulse; [n]."""
    response = lfilter([1.0], [1.0, *-np.asarray(ar)], np.eye(1, 4000)[0])
    return np.array([response[: 4000 - lag] @ response[lag:] for lag in range(n)])


def partial(ar):
    """Partial autocorrelations [p] by their definition: the last coefficient of the best prediction of each order."""
    covariance = autocovariance(ar, len(ar) + 1)
    return np.array([solve_toeplitz(covariance[:m], covariance[1 : m + 1])[-1] for m in range(1, len(ar) + 1)])


def whitener(ar, n):
    """Inverse Cholesky factor of the covariance, [n, n]."""
    return np.linalg.inv(np.linalg.cholesky(toeplitz(autocovariance(ar, n))))


def residual_power(regressors, series):
    """Residual sum of squares of least squares."""
    return ((series - regressors @ np.linalg.lstsq(regressors, series, rcond=None)[0]) ** 2).sum()


@pytest.mark.parametrize("order", ROOTS)
@pytest.mark.parametrize("n", [30, 5])
def test_whitening_is_the_inverse_cholesky_factor_of_the_covariance(order, n):
    series = np.random.default_rng(18).standard_normal((2, 3, n))
    ar = coefficients_of(ROOTS[order])
    np.testing.assert_allclose(whiten(series, partial(ar)), series @ whitener(ar, n).T, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(autoregressions(partial(ar))[-1], ar, rtol=1e-9)


def test_colouring_inverts_whitening():
    rng = np.random.default_rng(18)
    innovations, coefficients = rng.standard_normal((2, 4, 50)), rng.uniform(-0.9, 0.9, (4, 3))
    coefficients[0], coefficients[1, 1:] = 0, 0  # white, and of a lower order
    np.testing.assert_allclose(whiten(colour(innovations, coefficients), coefficients), innovations, atol=1e-10)
    np.testing.assert_allclose(colour(innovations, coefficients)[:, 0], innovations[:, 0], atol=1e-12)
    one = colour(innovations, coefficients)[:, 1]
    np.testing.assert_allclose(one[:, 1:], coefficients[1, 0] * one[:, :-1] + innovations[:, 1, 1:], atol=1e-10)


def test_reflections_are_partial_autocorrelations():
    for ar in ([0.6, 0.25], [0.5, -0.3]):
        series = noise(np.random.default_rng(25), 40_000, 2, ar=ar).T
        np.testing.assert_allclose(reflections(series, 2), [partial(ar)] * 2, atol=0.02)  # standard error .005
    ramp = np.arange(50.0)[None]
    assert np.abs(reflections(ramp, 4)).max() <= LARGEST
    assert not reflections(np.full((1, 50), 1e-9), 2).any()  # rounding errors


@pytest.mark.parametrize(("ar", "order"), [((0.6,), 1), ((0.6, 0.25), 2), ((0.5, -0.3), 2), ((), 1)])
def test_the_order_is_chosen_by_the_data(ar, order):
    chosen = [choose_order(noise(np.random.default_rng([26, run]), 150, 4, ar=ar).T, 4) for run in range(100)]
    assert chosen.count(order) >= 75


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("null", ["constant", "spline"])
def test_gains_are_those_of_generalised_least_squares(null, order):
    """Against residual sums of squares of data whitened with the covariance written out."""
    rng = np.random.default_rng(15)
    n, trend = 30, trend_basis(null, np.linspace(1, 5, 30) ** 2)
    series, model = rng.standard_normal((2, 2, n)), design(trend, [12])  # two data sets of two columns
    columns = [coefficients_of(np.array(ROOTS[order]) * scale) for scale in (1.0, -0.5)]
    found = gains(model, series, np.array([partial(ar) for ar in columns]))
    splits = [split for split in range(order, n - order + 1) if split != 12]
    for column, ar in enumerate(columns):
        white = whitener(ar, n)
        for data, gained in zip(series[:, column], found[:, column], strict=True):
            before = residual_power(white @ model, white @ data)
            after = [residual_power(white @ design(trend, [12, split]), white @ data) for split in splits]
            np.testing.assert_allclose(gained[splits], before - np.array(after), rtol=1e-7, atol=1e-9)


def test_gains_of_many_columns_are_those_of_each():
    rng = np.random.default_rng(27)
    model, series = design(trend_basis("spline", np.arange(90.0)), [40]), rng.standard_normal((300, 4, 90))
    coefficients = rng.uniform(-0.7, 0.7, (300, 4, 2))
    found = gains(model, series, coefficients)  # worked on in several blocks
    for b in (0, 150, 299):
        alone = gains(model, series[b : b + 1], coefficients[b])
        np.testing.assert_allclose(found[b, :, 5:86], alone[0, :, 5:86], rtol=1e-9)


@pytest.mark.parametrize("ar", [(0.0,), (0.5, -0.3)])
def test_relocation_finds_the_best_pair(ar):
    rng = np.random.default_rng(16)
    steps = step_functions(40, [12, 27]) @ np.array([[3.0, -3.0], [-3.0, 3.0]])
    series = np.array([noise(rng, 40, 2, ar=ar) + steps for _ in range(3)])  # three data sets
    white, trend = whitener(ar, 40), np.ones((40, 1))
    pairs = [(a, b) for a in range(5, 36) for b in range(a + 5, 36)]
    moved_to = relocate(trend, [20, 30], series.swapaxes(1, 2), np.array([partial(ar)] * 2), 5)
    for data, places in zip(series, moved_to, strict=True):
        powers = [residual_power(white @ design(trend, pair), white @ data) for pair in pairs]
        assert tuple(places) == pairs[np.argmin(powers)]


def test_candidates_keep_their_distance():
    assert candidates(20, [9], 4).tolist() == [4, 5, 13, 14, 15, 16]
    assert candidates(20, [10], 6).tolist() == []


def test_spline_is_natural_and_smooth():
    basis = trend_basis("spline", np.linspace(0, 1, 4001))
    second = np.diff(basis, 2, axis=0) * 4000**2
    assert np.abs(second[[0, -1]]).max() < 0.1  # linear at the ends, up to the width of a cell
    assert np.abs(np.diff(second, axis=0)).max() < 0.1  # no kink in the slope


@pytest.mark.parametrize(("n", "rank"), [(20, 4), (44, 4), (45, 5), (60, 6), (143, 6)])
def test_the_spline_has_two_to_four_interior_knots(n, rank):
    basis = trend_basis("spline", np.arange(n) ** 1.5)
    assert basis.shape == (n, rank)
    assert np.linalg.matrix_rank(basis) == rank


@pytest.mark.parametrize(("ar", "n"), [((0.5,), 100), ((0.6, 0.25), 150)])
def test_indirect_inference_removes_most_of_the_bias(ar, n):
    """On Fisher's scale; taking out steps alone makes the noise look whiter."""
    trend, order = np.ones((n, 1)), len(ar)
    matched, raw = [], []
    for run in range(100):
        series = noise(np.random.default_rng([17, run]), n, 1, ar=ar).T
        data = replace(prepared(series, 5), order=order)
        matched.append(np.arctanh(noise_about(data, trend, np.random.default_rng(run)).components[0]))
        raw.append(np.arctanh(noise_beside(trend, data.splits, series[None], order)[0][0, 0]))
    truth = np.arctanh(partial(ar))
    bias, raw_bias = np.mean(matched, 0) - truth, np.mean(raw, 0) - truth
    assert (np.abs(bias) < 3 * np.std(matched, 0) / len(matched) ** 0.5).all()
    assert (raw_bias < 0).all() and (np.abs(bias) < -raw_bias / 2).all()
