"""What several modules of whole runs share."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """Copy a module's finished run as a user would, with new modification times: nothing is to be done there."""
    return Path(shutil.copytree(finished, tmp_path / "copy", copy_function=shutil.copyfile))
