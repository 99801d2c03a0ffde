"""What the audit of the checkpoints found, in words and as a table."""

from collections import Counter

from phasegraph.report.study import StudyData
from phasegraph.report.tables import Table
from phasegraph.report.words import listed, plural
from phasegraph.series.table import KINDS

CHECKED = (
    "whether it is there and can be read, holds finite weights of the architecture of the others, repeats none of "
    "them, and lies in weight space where its step belongs"
)

SHOWN = 40
"""Most rows of the table."""


def audit_text(study: StudyData) -> str:
    """Say how many checkpoints are flagged, for what, and what became of them."""
    steps, flags, used = (study.series[name] for name in ("step", "flags", "used"))
    checked = f"Every checkpoint was audited: {CHECKED}."
    flagged = flags != ""
    if not flagged.any():
        return f"{checked} Nothing was found in any of the {len(steps):,}."
    kinds = Counter(next(kind for kind in KINDS if text.startswith(kind)) for text in flags[flagged].tolist())
    counted = listed(f"{count:,} {kind}" for kind, count in kinds.most_common())
    text = f"{checked} Of the {len(steps):,}, {flagged.sum():,} {_are(flagged.sum())} flagged: {counted}."
    left, kept = int((flagged & ~used).sum()), int((flagged & used).sum())
    if left:
        which = f"{left:,} {_are(left)}" if kept else "It is" if left == 1 else "They are"
        text += f" {which} left out of everything below."
    if kept:
        text += f" By request, {kept:,} {_are(kept)} included all the same, so read what follows with care."
    return text


def audit_table(study: StudyData) -> Table | None:
    """List the flagged checkpoints; None if there are none."""
    steps, flags, used = (study.series[name].tolist() for name in ("step", "flags", "used"))
    rows = [
        [f"{step:,}", text.replace("; ", ";\n"), "included" if taken else "left\u00a0out"]
        for step, text, taken in zip(steps, flags, used, strict=True)
        if text
    ]
    if not rows:
        return None
    note = f"{plural(len(rows) - SHOWN, 'more row')} in series.tsv and audit.json." if len(rows) > SHOWN else ""
    return Table(["step", "what is wrong", "here"], rows[:SHOWN], note)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
