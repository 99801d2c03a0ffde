"""When behaviour and structure change: what the page says about it."""

from phasegraph.report import sentences, tables, texts
from phasegraph.report.evidence import boundaries, tested
from phasegraph.report.similarity import similarity_texts
from phasegraph.report.study import StudyData

TABLES = ("boundary_table", "others_table", "segment_table", "sensitivity_table")
"""Tables that only a study has that was tested."""


def changes(study: StudyData) -> dict[str, object]:
    """Give the texts and tables about change by their names in the page's template; empty or None where there is none.

    Parameters
    ----------
    study
        Its phases, behaviour, metrics and distances are read.
    """
    phases = study.phases
    found: dict[str, object] = {
        "behaviour": [sentences.transition_text(phases), texts.skill_text(study)],
        "agreement": [*sentences.agreement_texts(phases), *sentences.lead_lag_texts(phases)],
        "similarity": similarity_texts(study),
        "left_out": sentences.left_out_text(phases),
        "limit": "",
        **dict.fromkeys(TABLES),
    }
    if tested(phases):
        found["limit"] = sentences.limit_text(phases)
        found |= {name: getattr(tables, name)(phases) for name in TABLES[1:]}
        if boundaries(phases):
            found["boundary_table"] = tables.boundary_table(phases)
    return found
