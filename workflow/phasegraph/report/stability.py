"""Whether spreaders keep their places longer than gatherers: one number with its interval, and its honest ceiling."""

from typing import NamedTuple

import polars as pl

from phasegraph.network.roles import ROLES
from phasegraph.network.stability import DYNAMIC, STABLE
from phasegraph.report.tables import Table, one_row
from phasegraph.report.words import measured, number, plural

BY = {"block": "by strength against peers", "per_edge": "by strength per possible edge", "raw": "by raw strength"}
"""Kinds of score, that which counts first: against peers the layer explains nothing."""
COLUMNS = {"mean_persistence": "mean persistence", "half_life": "half-life", "reliability": "reliability"}
"""Quantities without a lag -> heads of the table; the quantities at lag 1 follow."""
FIRST_LAG = {"tau": "Kendall's τ, lag 1", "rbo": "rank-biased overlap, lag 1"}

ASKED = (
    "A holder of a role is one of its top tenth, and at least of its first three. Persistence is the probability that "
    "a holder at one checkpoint is one at another, corrected for chance: 1 if the holders stay, 0 if they are drawn "
    "anew."
)
"""What the number below is."""


class Compared(NamedTuple):
    """Persistence of spreaders and gatherers by one kind of score."""

    difference: dict
    """Row of ``stability.parquet``: estimate, low and high of the spreaders' mean persistence less the gatherers'."""
    persistence: tuple[dict, dict]
    """Rows of mean persistence, of spreaders and of gatherers."""
    reliability: tuple[float | None, float | None]
    """The same agreement between two halves of the prompts at one checkpoint, of both; None if undefined."""


def compared(stability: pl.DataFrame) -> dict[str, Compared]:
    """Kind of score -> the comparison of the two roles, in the order of `BY`; those that are defined."""
    found = {}
    for kind in BY:
        difference = _row(stability, f"{STABLE}-{DYNAMIC}", kind, "mean_persistence")
        if difference is None or difference["estimate"] is None:
            continue
        pair = [_row(stability, role, kind, "mean_persistence") for role in (STABLE, DYNAMIC)]
        halves = [(_row(stability, role, kind, "reliability") or {}).get("estimate") for role in (STABLE, DYNAMIC)]
        found[kind] = Compared(difference, tuple(pair), tuple(halves))
    return found


def stability_texts(stability: pl.DataFrame) -> list[str]:
    """Say whether spreaders are more stable than gatherers, and how much of it noise can be.

    Parameters
    ----------
    stability
        ``stability.parquet``, see `phasegraph.network.stability.stability_table`.

    Returns
    -------
    list of str
        Paragraphs.
    """
    found = compared(stability)
    if not found:
        return ["There are no two checkpoints whose rankings of spreaders and gatherers could be compared."]
    kind = next(iter(found))
    counts = "" if kind == "block" else " No component has peers, so that the layer is not taken out of this."
    others = [f"{BY[other]} the difference is {_difference(found[other])}" for other in found if other != kind]
    beside = f" {others[0][0].upper()}{'; '.join(others)[1:]}." if others else ""
    return [
        f"{ASKED} {_main_sentence(found[kind], BY[kind])}{counts}{beside}",
        _ceiling_text(found[kind], BY[kind]),
    ]


def stability_table(stability: pl.DataFrame) -> Table:
    """List every role by every kind of score: persistence, half-life, reliability, agreement at lag 1."""
    rows = []
    for role in ROLES:
        for kind, by in BY.items():
            if _row(stability, role, kind, "mean_persistence") is None:
                continue
            lasting = [_cell(_row(stability, role, kind, quantity)) for quantity in COLUMNS]
            first = [_cell(_row(stability, role, kind, quantity, 1)) for quantity in FIRST_LAG]
            rows.append([f"{role}s {by.replace('strength', _score(role))}", *lasting, *first])
    note = (
        "Persistence, reliability and rank-biased overlap are corrected for chance, of which τ is 0 by itself. "
        "Half-life: number of checkpoints after which the Jaccard index of the holders is half of what it is after "
        "one. Reliability: persistence between two halves of the prompts at the same checkpoint, a lower bound of what "
        "it could be if nothing changed."
    )
    return Table(["", *COLUMNS.values(), *FIRST_LAG.values()], rows, note)


def _main_sentence(one: Compared, by: str) -> str:
    """Give the number that the claim "stable spreaders, dynamic gatherers" comes down to."""
    difference = one.difference
    if difference["low"] is None:
        verdict = "There is no interval that would tell the two apart"
    elif difference["low"] > 0:
        verdict = "Spreaders keep their places longer than gatherers"
    elif difference["high"] < 0:
        verdict = "Gatherers keep their places longer than spreaders"
    else:
        verdict = "Spreaders and gatherers cannot be told apart by how long they keep their places"
    pair = [_measured(row) for row in one.persistence]
    return (
        f"{verdict}: {by}, the mean over {plural(difference['pairs'], 'pair')} of checkpoints is {pair[0]} for "
        f"spreaders and {pair[1]} for gatherers, a difference of {_measured(difference)}."
    )


def _ceiling_text(one: Compared, by: str) -> str:
    """Say how much of the difference may be noise of the prompts; empty if no half can be compared."""
    if not all(one.reliability):
        return ""
    spreaders, gatherers = one.reliability
    text = (
        f"Noise alone moves holders too: at the same checkpoint, two halves of the prompts agree on them {by} to "
        f"{number(spreaders)} for spreaders and {number(gatherers)} for gatherers (reliability)."
    )
    if min(one.reliability) <= 0:
        return f"{text} Where halves do not agree, persistence says nothing."
    ratios = [row["estimate"] / halves for row, halves in zip(one.persistence, one.reliability, strict=True)]
    left = ratios[0] - ratios[1]
    return (
        f"{text}{_which_is_noisier(one, left)} Mean persistence over reliability, a rough correction, is "
        f"{number(ratios[0])} and {number(ratios[1])}, a difference of {number(left)}; it corrects too much, since a "
        "half has more noise than the whole, and since the checkpoints share their prompts."
    )


def _which_is_noisier(one: Compared, left: float) -> str:
    """Say whose ranking is less reliable, and what that does to the difference; empty if there is none to explain."""
    if not _told(one.difference):
        return ""
    lasting, fading = ("spreader", "gatherer") if one.difference["estimate"] > 0 else ("gatherer", "spreader")
    spreaders, gatherers = one.reliability
    if number(spreaders) == number(gatherers):
        return " Both rankings are equally reliable, so noise does not explain the difference."
    noisier = "gatherer" if gatherers < spreaders else "spreader"
    if noisier == fading:
        remains = "" if left * one.difference["estimate"] > 0 else ", and corrected for it nothing of it is left"
        return f" The ranking of {fading}s is the less reliable one, so part of the difference is noise{remains}."
    return f" The ranking of {lasting}s is the less reliable one, so noise does not explain the difference."


def _difference(one: Compared) -> str:
    return f"{_measured(one.difference)}{'' if _told(one.difference) else ', which cannot be told from 0'}"


def _told(difference: dict) -> bool:
    """Whether the interval leaves 0 out."""
    return difference["low"] is not None and (difference["low"] > 0 or difference["high"] < 0)


def _score(role: str) -> str:
    return "betweenness" if role == "gatekeeper" else "strength"


def _row(stability: pl.DataFrame, role: str, kind: str, quantity: str, lag: int | None = None) -> dict | None:
    """One row of the table, None if there is none."""
    return one_row(stability, role=role, score_kind=kind, quantity=quantity, lag=lag)


def _measured(row: dict) -> str:
    return measured(row["estimate"], row["low"], row["high"])


def _cell(row: dict | None) -> str:
    if row is None:
        return ""
    if row["quantity"] == "half_life" and row["estimate"] is None:
        return f"none within {row['largest_lag']}" if row["largest_lag"] else "undefined"
    if row["quantity"] == "reliability":  # which has no interval
        return number(row["estimate"])
    return measured(row["estimate"], row["low"], row["high"], 2 if row["quantity"] == "half_life" else 3)
