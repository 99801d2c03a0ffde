"""Cross-correlation beside common trends: the lag of its maximum, and what noise and timing make of it."""

import numpy as np

BLOCK = 3
"""Neighbouring checkpoints that the bootstrap draws together."""

EXHAUSTED = 1e-9
"""Share of a series' length below which what the trends leave of it is a rounding error."""


def remainder(series: np.ndarray, trend: np.ndarray) -> np.ndarray:
    """Take orthonormal trends [n, m] out of series [..., n]; unit vectors, NaN where nothing is left."""
    left = series - (series @ trend) @ trend.T
    length = np.linalg.norm(left, axis=-1, keepdims=True)
    nothing = length <= EXHAUSTED * np.linalg.norm(series, axis=-1, keepdims=True)
    return left / np.where(nothing, np.nan, length)


def cross_correlations(x: np.ndarray, y: np.ndarray, max_lag: int) -> np.ndarray:
    """Sum of ``x[i] y[i + lag]`` over i, for lag = -max_lag..max_lag.

    Parameters
    ----------
    x, y
        [..., n], unit vectors; leading axes broadcast.
    max_lag
        Less than n.

    Returns
    -------
    ndarray
        [..., 2 max_lag + 1].
    """
    shifted = _shifted(y, max_lag)
    return (shifted @ x[..., None])[..., 0] if y.ndim > 1 else x @ shifted.T


def _shifted(series: np.ndarray, max_lag: int) -> np.ndarray:
    """Series [..., n] moved to the left by -max_lag..max_lag, 0 where there is nothing; [..., 2L + 1, n]."""
    padded = np.pad(series, [(0, 0)] * (series.ndim - 1) + [(max_lag, max_lag)])
    return np.lib.stride_tricks.sliding_window_view(padded, series.shape[-1], axis=-1)


def peak(correlations: np.ndarray) -> np.ndarray:
    """Lag of the largest correlation, where a parabola through it and its neighbours is highest.

    Parameters
    ----------
    correlations
        [..., 2 max_lag + 1], at lags -max_lag..max_lag.

    Returns
    -------
    ndarray
        [...]; a whole number at either end, NaN where the correlations are.
    """
    top = np.clip(correlations.argmax(-1), 1, correlations.shape[-1] - 2)[..., None]
    before, here, after = (np.take_along_axis(correlations, top + i, -1)[..., 0] for i in (-1, 0, 1))
    bend = before - 2 * here + after  # negative at a peak
    flat = bend >= 0
    offset = np.where(flat, 0, 0.5 * (before - after) / np.where(flat, 1, bend))
    middle = correlations.shape[-1] // 2
    at_end = correlations.argmax(-1) != top[..., 0]
    return np.where(at_end, correlations.argmax(-1), top[..., 0] + offset) - middle + 0 * here


def phase_randomised(series: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Series with the power spectrum of another and random phases, [n] -> [count, n]."""
    spectrum = np.fft.rfft(series)
    turned = spectrum * np.exp(2j * np.pi * rng.random((count, len(spectrum))))
    if len(series) % 2 == 0:  # the highest frequency has a sign and no phase
        turned[:, -1] = np.abs(spectrum[-1]) * rng.choice([-1.0, 1.0], count)
    return np.fft.irfft(turned, len(series))


def resampled_lags(x: np.ndarray, y: np.ndarray, max_lag: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Lags of the largest correlation [count] where blocks of `BLOCK` checkpoints are drawn with replacement.

    Blocks run on from the end to the start (circular block bootstrap: Politis & Romano, in LePage & Billard, Exploring
    the Limits of Bootstrap, 1992). What is drawn are products ``x[i] y[i + lag]``, all lags of a checkpoint together.
    """
    n = len(x)
    starts = rng.integers(n, size=(count, -(-n // BLOCK)))
    drawn = ((starts[..., None] + np.arange(BLOCK)) % n).reshape(count, -1)  # [count, n or a little more]
    places = drawn + n * np.arange(count)[:, None]
    weights = np.bincount(places.ravel(), minlength=count * n).reshape(count, n)
    products = x[:, None] * _shifted(y, max_lag).T  # [n, 2L + 1]
    return peak(weights @ products)


def timing_p(x: np.ndarray, y: np.ndarray, within: int) -> float:
    """Share of circular shifts with as large a correlation within so many checkpoints of lag 0.

    Parameters
    ----------
    x, y
        [n], unit vectors.
    within
        Lags -within..within are looked at.

    Returns
    -------
    float
        At least ``(2 within + 1) / n`` if the largest correlation is at lag `within` or `-within`, since as many
        shifts have it in sight.
    """
    n = len(x)
    circular = np.fft.irfft(np.conj(np.fft.rfft(x)) * np.fft.rfft(y), n)
    largest = np.lib.stride_tricks.sliding_window_view(np.pad(circular, within, mode="wrap"), 2 * within + 1).max(-1)
    return float((largest >= largest[0] - EXHAUSTED).mean())
