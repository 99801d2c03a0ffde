"""What stands in the place of a checkpoint that its source does not have, or has damaged.

The run goes on, the audit names the fault, and no program takes the marker for weights: its model.safetensors is empty.
"""

import json
from pathlib import Path

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.series.layout import CONFIG, WEIGHTS

KEY = "phasegraph_fault"


class CheckpointFault(PhasegraphError):
    """A fault of a published checkpoint itself, which trying again would not mend.

    Parameters
    ----------
    kind
        ``missing`` or ``unreadable``, as the audit names it.
    sentence
        What was found, and the way out.
    """

    def __init__(self, kind: str, sentence: str):
        super().__init__(sentence)
        self.kind = kind


def write_fault(folder: str | Path, fault: CheckpointFault) -> None:
    """Make a folder that says what is wrong instead of holding a checkpoint."""
    folder = Path(folder)
    text = json.dumps({KEY: {"kind": fault.kind, "sentence": str(fault)}}, indent=1) + "\n"
    with atomic(folder / WEIGHTS) as weights, atomic(folder / CONFIG) as config:
        weights.touch()
        config.write_text(text)


def read_fault(folder: str | Path) -> CheckpointFault | None:
    """Give the fault that `write_fault` noted; None for a checkpoint, or where there is nothing."""
    try:
        noted = json.loads((Path(folder) / CONFIG).read_text())[KEY]
        return CheckpointFault(noted["kind"], noted["sentence"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
