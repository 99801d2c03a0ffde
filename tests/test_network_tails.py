"""Tails of planted distributions, against closed forms, scipy and the powerlaw package's own search (about 10 s)."""

import warnings
from collections import Counter

import numpy as np
import polars as pl
import powerlaw
import pytest
from scipy import stats
from scipy.optimize import minimize

from phasegraph.model.nodes import mask_of, nodes_of, write_nodes
from phasegraph.network import tails
from phasegraph.network.tails import Comparison
from phasegraph.series.manifest import write_manifest
from phasegraph.series.table import Audited

pytestmark = pytest.mark.filterwarnings("error")

BETTER, WORSE, EVEN = Comparison(20, 1e-4), Comparison(-20, 1e-4), Comparison(-0.1, 0.8)


def log_likelihoods(tail):
    """Maximum log-likelihoods, by optimisers of our own, of a tail in units of its smallest weight."""
    logs = np.log(tail)

    def lognormal(at):
        mean, width = at[0], np.exp(at[1])
        return -(stats.norm.logpdf(logs, mean, width) - logs - stats.norm.logsf(0, mean, width)).sum()

    starts = [(logs.mean(), 0), (-5, 1.5), (-50, 1.5)]
    options = {"maxiter": 400, "xatol": 1e-5, "fatol": 1e-6}
    alpha = 1 + 1 / logs.mean()
    return {
        "power_law": (np.log(alpha - 1) - alpha * logs).sum(),
        "exponential": stats.expon.logpdf(tail, 1, tail.mean() - 1).sum(),
        "lognormal": -min(minimize(lognormal, at, method="Nelder-Mead", options=options).fun for at in starts),
    }


@pytest.mark.parametrize("name", ["lognormal", "exponential", "pareto", "steep"])
def test_statistics_are_ratios_of_the_likelihoods(name):
    rng = np.random.default_rng(0)
    weights = {
        "lognormal": rng.lognormal(-4, 1.5, 600),
        "exponential": 0.01 + rng.exponential(0.01, 600),
        "pareto": 0.01 * (rng.pareto(1.5, 600) + 1),
        "steep": 0.01 * (rng.pareto(3.5, 600) + 1),  # an exponent of 4.5, which powerlaw by default cannot fit
    }[name]
    fit = tails.fit_tail(weights)
    tail = np.sort(weights[weights >= fit.xmin]) / fit.xmin
    assert (fit.n, fit.n_tail) == (600, len(tail)) and len(tail) >= tails.LEAST
    best = log_likelihoods(tail)
    assert fit.exponential.statistic == pytest.approx(best["power_law"] - best["exponential"], abs=0.01)
    assert fit.lognormal.statistic == pytest.approx(best["power_law"] - best["lognormal"], abs=0.02)
    assert fit.truncated.statistic < 1e-3 and fit.truncated.p_value == pytest.approx(
        stats.chi2.sf(2 * abs(fit.truncated.statistic), 1)
    )
    scaled = tails.fit_tail(1e-3 * weights)
    assert scaled.verdict == fit.verdict and scaled.xmin == pytest.approx(1e-3 * fit.xmin)
    assert scaled.lognormal.statistic == pytest.approx(fit.lognormal.statistic, abs=1e-3)


def test_tail_start_has_the_least_distance():
    rng = np.random.default_rng(1)
    weights = np.sort(np.concatenate([rng.uniform(0, 0.02, 150), 0.02 * (rng.pareto(1.6, 150) + 1), [0.03, 0.03]]))
    distances = {}
    for start in np.unique(weights)[:-1]:
        tail = weights[weights >= start] / start
        distances[start] = stats.kstest(tail, stats.pareto(tails.exponent(tail) - 1).cdf).statistic
    found = weights[tails.tail_start(weights)]
    assert distances[found] == pytest.approx(min(distances.values()), abs=1e-12)
    assert found == pytest.approx(0.02, rel=0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = powerlaw.Fit(weights, verbose=0, parameter_ranges={"alpha": [0, None]})
    assert found == pytest.approx(fit.xmin, rel=0.1)  # it looks at one side of each step of the distribution only
    tail = weights[weights >= fit.xmin] / fit.xmin
    assert fit.power_law.alpha == pytest.approx(tails.exponent(tail), abs=1e-3)


def test_tail_start_on_a_grid():
    rng = np.random.default_rng(2)
    weights = np.sort(np.concatenate([rng.uniform(0, 0.02, 6000), 0.02 * (rng.pareto(1.6, 3000) + 1)]))
    start = tails.tail_start(weights)
    tail = weights[start:] / weights[start]
    assert weights[start] == pytest.approx(0.02, rel=0.2)
    assert tails.exponent(tail) == pytest.approx(2.6, abs=4 * 1.6 / np.sqrt(len(tail)))


def test_verdicts_of_planted_tails():
    rng = np.random.default_rng(3)
    planted = {
        "pareto": lambda: rng.pareto(1.5, 375) + 1,
        "lognormal": lambda: rng.lognormal(-4, 2, 1500),
        "exponential": lambda: rng.exponential(0.01, 375),
    }
    found = {name: Counter(tails.fit_tail(draw()).verdict for _ in range(5)) for name, draw in planted.items()}
    assert found["pareto"].most_common(1)[0][0] == tails.UNDECIDED  # with 375 edges it cannot be told from a lognormal
    assert not found["pareto"][tails.LOGNORMAL]
    assert found["lognormal"].most_common(1)[0][0] in (tails.UNDECIDED, tails.LOGNORMAL)
    assert found["exponential"][tails.NOT_HEAVY] + found["exponential"][tails.TOO_FEW] == 5
    assert not any(verdicts[tails.POWER_LAW] for verdicts in found.values())
    narrow = tails.fit_tail(rng.lognormal(0, 1, 4000) + 1)
    assert narrow.verdict in (tails.NOT_HEAVY, tails.LOGNORMAL) and np.isnan(narrow.alpha)


def test_rules_of_the_verdict():
    cases = {
        (EVEN, EVEN, EVEN, EVEN): tails.NOT_HEAVY,
        (BETTER, WORSE, EVEN, BETTER): tails.NOT_HEAVY,
        (EVEN, BETTER, EVEN, EVEN): tails.UNDECIDED,
        (WORSE, BETTER, EVEN, EVEN): tails.LOGNORMAL,
        (WORSE, BETTER, WORSE, EVEN): tails.LOGNORMAL,
        (WORSE, BETTER, WORSE, BETTER): tails.TRUNCATED,
        (EVEN, BETTER, WORSE, BETTER): tails.TRUNCATED,
        (EVEN, BETTER, WORSE, EVEN): tails.UNDECIDED,
        (BETTER, BETTER, WORSE, BETTER): tails.TRUNCATED,
        (BETTER, BETTER, EVEN, BETTER): tails.POWER_LAW,
        (BETTER, Comparison(20, 0.06), EVEN, BETTER): tails.NOT_HEAVY,
    }
    for comparisons, verdict in cases.items():
        assert tails.judge(*comparisons) == verdict, comparisons


def test_an_exponent_is_given_when_it_is_earned(monkeypatch):
    weights = np.random.default_rng(4).pareto(1.5, 375) + 1
    assert np.isnan(tails.fit_tail(weights).alpha)
    monkeypatch.setattr(tails, "judge", lambda *comparisons: tails.POWER_LAW)
    fit = tails.fit_tail(weights)
    tail = weights[weights >= fit.xmin] / fit.xmin
    assert fit.alpha == pytest.approx(1 + 1 / np.log(tail).mean())
    assert fit.standard_error == pytest.approx((fit.alpha - 1) / np.sqrt(len(tail)))
    assert f"exponent {fit.alpha:.2f} ± " in tails.tail_sentence(fit)


def test_too_few_and_degenerate_weights():
    for weights in (np.zeros(400), np.empty(0), np.full(400, 0.2), np.array([0.1, 0.2])):
        fit = tails.fit_tail(weights)
        assert fit.verdict == tails.TOO_FEW and np.isnan(fit.alpha) and np.isnan(fit.lognormal.p_value)
    rng = np.random.default_rng(5)
    fit = tails.fit_tail(np.append(rng.pareto(1.5, tails.LEAST - 1) + 1, np.zeros(100)))
    assert (fit.n, fit.verdict) == (tails.LEAST - 1, tails.TOO_FEW) and fit.n_tail < tails.LEAST
    assert tails.tail_sentence(fit).startswith(f"The tail is not judged: {fit.n_tail} of 49 edges are too few")
    assert tails.fit_tail(np.repeat([0.1, 0.2], 100)).verdict == tails.NOT_HEAVY


def test_sentences():
    values = {"n": 375, "n_tail": 120, "xmin": 0.02, "alpha": 2.5, "standard_error": 0.14}
    values |= {"lognormal": EVEN, "exponential": BETTER, "truncated": WORSE}
    said = {
        verdict: tails.tail_sentence(tails.Tail(**values, verdict=verdict))
        for verdict in (tails.NOT_HEAVY, tails.UNDECIDED, tails.LOGNORMAL, tails.TRUNCATED, tails.POWER_LAW)
    }
    assert said[tails.UNDECIDED] == (
        "Heavier than exponential; a power law is not distinguishable from a lognormal (p = 0.8; 120 of 375 edges)."
    )
    assert said[tails.NOT_HEAVY] == "Not shown to be heavier than exponential (p = 0.0001; 120 of 375 edges)."
    assert "cutoff describes it better than one without (p = 0.0001; 120" in said[tails.TRUNCATED]
    assert [verdict for verdict, sentence in said.items() if "2.5" in sentence] == [tails.POWER_LAW]


def test_command_fits_eight_checkpoints_and_says_what_it_found(tmp_path, monkeypatch, capsys):
    from phasegraph.network.__main__ import main

    rng = np.random.default_rng(6)
    nodes = nodes_of(6, 4)
    mask = mask_of(nodes, parallel=True)
    write_nodes(nodes, tmp_path / "nodes.tsv")
    np.save(tmp_path / "mask.npy", mask)
    steps = [8 * i for i in range(15)]
    write_manifest([Audited(step, f"{step}", used=step != 16) for step in steps], tmp_path / "series.tsv")
    for step in steps:
        edges = np.zeros((17, 30, 30), np.float32)
        edges[:, mask] = rng.lognormal(-4, 1.5, mask.sum())
        np.save(tmp_path / f"{step}.npy", edges)
    words = ["tails", "--edges", *(str(tmp_path / f"{step}.npy") for step in steps[::-1])]
    for name in ("manifest:series.tsv", "nodes:nodes.tsv", "mask:mask.npy", "out:tails.parquet"):
        words += [f"--{name.partition(':')[0]}", str(tmp_path / name.partition(":")[2])]
    monkeypatch.setattr("sys.argv", ["phasegraph.network", *words])
    main()
    table = pl.read_parquet(tmp_path / "tails.parquet")
    assert table["step"].to_list() == [0, 24, 40, 56, 64, 80, 96, 112]  # of the 14 that count, evenly
    fit = tails.fit_tail(np.load(tmp_path / "40.npy")[0, mask].astype(float))
    row = table.row(by_predicate=pl.col("step") == 40, named=True)
    assert (row["n"], row["n_tail"], row["xmin"], row["verdict"]) == (375, fit.n_tail, fit.xmin, fit.verdict)
    for other in ("lognormal", "exponential", "truncated"):
        assert (row[f"statistic_{other}"], row[f"p_{other}"]) == getattr(fit, other)
    assert row["alpha"] is None and not any(table[name].is_nan().any() for name in ("xmin", "p_lognormal"))
    said = capsys.readouterr()
    assert not said.out and f"phasegraph: step 40: {tails.tail_sentence(fit)}" in said.err.splitlines()
