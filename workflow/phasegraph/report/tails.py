"""What may be said of the tails of the weights: the sentences that the fits earn, summarised."""

import polars as pl

from phasegraph.network.tails import LEAST, LOGNORMAL, NOT_HEAVY, POWER_LAW, TOO_FEW, TRUNCATED, UNDECIDED
from phasegraph.report.words import at_steps, plural

EARNED = {
    POWER_LAW: "a power law describes it better than a lognormal or an exponential, and a cutoff does not improve it",
    TRUNCATED: "it is heavier than exponential, and a power law with an exponential cutoff describes it best",
    LOGNORMAL: "it is heavier than exponential, and a lognormal describes it better than a power law",
    UNDECIDED: "it is heavier than exponential, and a power law cannot be told from a lognormal",
    NOT_HEAVY: "it is not shown to be heavier than exponential",
    TOO_FEW: f"fewer than {LEAST} edges are in it, too few to judge it",
}
"""Verdict of `phasegraph.network.tails` -> what it says of the tail."""


def tails_text(tails: pl.DataFrame) -> str:
    """Say what the fits of the tail of the weights allow to be said, and where there is a tail index.

    Parameters
    ----------
    tails
        Table of ``tails.parquet``: step, alpha, standard_error, verdict.
    """
    count = len(tails)
    parts = []
    for verdict, earned in EARNED.items():
        rows = tails.filter(pl.col("verdict") == verdict)
        if len(rows):
            where = f"at {len(rows)} ({at_steps(rows['step'])})" if count > 1 else at_steps(rows["step"])
            parts.append(f"{where} {earned}{_exponents(rows) if verdict == POWER_LAW else ''}")
    fitted = f"The tail of the weights was fitted at {plural(count, 'checkpoint')}"
    named = tails["alpha"].is_not_null().any()
    index = "" if named else "; that is nowhere the case here"
    return (
        f"{fitted}: {'; '.join(parts)}. A tail index is given only where likelihood-ratio tests prefer a power law to "
        f"all of these{index}."
    )


def _exponents(rows: pl.DataFrame) -> str:
    """Write the exponents with their standard errors."""
    pairs = zip(rows["alpha"], rows["standard_error"], strict=True)
    values = ", ".join(f"{alpha:.2f} ± {error:.2f}" for alpha, error in pairs)
    return f" (exponent {values})"
