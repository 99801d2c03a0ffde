"""Which boundaries and labels are found again without each group of prompts."""

from collections.abc import Sequence

import numpy as np

from phasegraph.phases.behaviour import NEAR
from phasegraph.phases.labels import Segment, label_segments
from phasegraph.phases.rates import block_rates
from phasegraph.phases.settings import NULLS_OF, Settings, fewer_bootstraps
from phasegraph.phases.tables import Tables
from phasegraph.phases.test import both_tests
from phasegraph.types import GROUPS


def boundaries_by_group(tables: Tables, settings: Settings) -> dict[str, list[list[int]]]:
    """Search the series that leave one group of prompts out.

    Returns
    -------
    dict
        Test -> boundaries of each of the 16 series, as indices of checkpoints. The replicates of these searches are
        `phasegraph.phases.settings.fewer_bootstraps`.
    """
    fewer = fewer_bootstraps(settings)
    found: dict[str, list[list[int]]] = {test: [] for test in NULLS_OF}
    for group in range(1, GROUPS + 1):
        series = block_rates(tables.steps, tables.arc_length, tables.blocks, group, settings.min_size)
        tests = both_tests(series.values, tables.arc_length[1:], settings, bootstraps=fewer, locate=False)
        for test, result in tests.items():
            found[test].append([boundary + 1 for boundary in result.boundaries])
    return found


def recurrence(boundaries: Sequence[int], by_group: Sequence[Sequence[int]], steps: np.ndarray) -> list[dict]:
    """Look for each boundary in the series that leave a group out.

    Parameters
    ----------
    boundaries
        Of the whole series, as indices of checkpoints.
    by_group
        [16], boundaries of each of the others.
    steps
        [N], training steps of the checkpoints.

    Returns
    -------
    list of dict
        One per boundary: its ``step``, the ``share`` of series with a boundary within `NEAR` checkpoints, and the
        ``places`` of the nearest ones, None where there is none that near.
    """
    rows = []
    for boundary in boundaries:
        nearest = [min(others, key=lambda other: abs(other - boundary), default=None) for others in by_group]
        places = [None if at is None or abs(at - boundary) > NEAR else steps[at] for at in nearest]
        share = sum(place is not None for place in places) / len(places)
        rows.append({"step": steps[boundary], "share": share, "places": places})
    return rows


def segments_between(boundaries: Sequence[int], tables: Tables, group: int | None = None) -> list[Segment]:
    """Name the segments between boundaries; of the series without a group (0 to 15) if one is given."""
    displacement = np.diff(tables.arc_length, prepend=np.nan)  # [N]
    gini = tables.levels["gini"] if group is None else tables.replicates["gini"][group]
    excess = tables.churn["excess_churn"]  # [N]
    if group is not None:  # it has no replicates: its noise is taken to be the same without the group
        excess = tables.replicates["churn"][group] - tables.churn["churn"] + excess
    return label_segments(gini, excess / displacement, tables.churn["noise_floor"] / displacement, boundaries)


def label_shares(segments: Sequence[Segment], tables: Tables, by_group: Sequence[Sequence[int]]) -> list[float]:
    """Share of the 16 series in which most of a segment's checkpoints get the label that it has.

    Parameters
    ----------
    segments
        Of the whole series.
    tables
        The study.
    by_group
        [16], boundaries of the series that leave a group out.
    """
    agree = np.zeros(len(segments))
    for group, boundaries in enumerate(by_group):
        names = np.empty(len(tables.steps), dtype=object)
        for segment in segments_between(boundaries, tables, group):
            names[segment.start : segment.end + 1] = segment.label
        agree += [np.mean(names[s.start : s.end + 1] == s.label) > 0.5 for s in segments]
    return (agree / len(by_group)).tolist()
