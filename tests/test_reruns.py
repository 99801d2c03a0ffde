"""phasegraph.reruns against what Python really imports and what Snakemake really reruns (about 6 s)."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phasegraph.errors import PhasegraphError
from phasegraph.reruns import code_digest, code_of

TREE = {
    "__init__.py": "",
    "types.py": "import enum",
    "lonely.py": "",
    "cycle_a.py": "from pkg import cycle_b",
    "cycle_b.py": "import pkg.cycle_a, os.path",
    "near/__init__.py": "from .inner import VALUE",
    "near/inner.py": "from .. import types\nVALUE = 1",
    "near/unused.py": "",
    "deep/__init__.py": "",
    "deep/er/__init__.py": "",
    "deep/er/est.py": "from ...near import VALUE as v\nfrom ..side import *\nimport pkgother",
    "deep/side.py": "from . import er",
    "stage/__init__.py": "import pkg.deep.er.est as e",
    "stage/__main__.py": "import pkg.cycle_b",
}


def plant(root: Path, tree: dict[str, str] = TREE) -> Path:
    for name, text in tree.items():
        path = root / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (root / "pkgother.py").write_text("")  # a name that begins alike is another package
    return root / "pkg"


def loaded_by_python(root: Path, argv: list[str]) -> list[str]:
    """List the files below `root`/pkg that a real interpreter has loaded at the end of a run."""
    hook = (
        "import atexit, json, sys; atexit.register(lambda: print(json.dumps(sorted({m.__file__ for m in "
        "sys.modules.values() if (getattr(m, '__file__', None) or '').startswith(sys.path[0] + '/pkg/')}))));"
    )
    if argv[0] == "-m":
        code = f"{hook} import runpy; sys.path.insert(0, {str(root)!r}); runpy._run_module_as_main({argv[1]!r})"
    else:
        code = f"{hook} sys.path.insert(0, {str(root)!r}); import {argv[0]}"
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    "module", ["pkg.types", "pkg.cycle_a", "pkg.near", "pkg.deep.side", "pkg.deep.er.est", "pkg.lonely", "pkg"]
)
def test_closure_is_what_python_loads(tmp_path, module):
    package = plant(tmp_path.resolve())
    assert code_of(module, package=package) == loaded_by_python(tmp_path.resolve(), [module])


def test_a_package_run_by_m_brings_its_main(tmp_path):
    package = plant(tmp_path.resolve())
    found = code_of("pkg.stage", package=package)
    assert found == loaded_by_python(tmp_path.resolve(), ["-m", "pkg.stage"])
    assert str(package / "stage/__main__.py") in found and str(package / "cycle_a.py") in found
    assert str(package / "lonely.py") not in found and str(package / "near/unused.py") not in found


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    import pkg.lonely",
        "async def f():\n    async with x:\n        from .lonely import y",
        "class C:\n    def f(self):\n        from . import lonely",
        "if x:\n    pass\nelif y:\n    from pkg import lonely",
        "for x in y:\n    pass\nelse:\n    import pkg.lonely as z",
        "while True:\n    import pkg.lonely",
        "try:\n    pass\nexcept ImportError:\n    import pkg.lonely",
        "try:\n    pass\nfinally:\n    import pkg.lonely",
        "match x:\n    case 1:\n        import pkg.lonely",
        "f = lambda: 0; import pkg.lonely",
    ],
)
def test_imports_are_found_wherever_they_stand(tmp_path, text):
    package = plant(tmp_path, TREE | {"user.py": text})
    names = [Path(path).name for path in code_of("pkg.user", package=package)]
    assert names == ["__init__.py", "lonely.py", "user.py"]


def test_what_is_no_module_of_ours_is_left_out(tmp_path):
    text = "import pkg.nothing, numpy, pkgother\nfrom pkg.types import Enum, cycle_a\nfrom ..... import lonely"
    package = plant(tmp_path, TREE | {"user.py": text})
    names = [Path(path).name for path in code_of("pkg.user", package=package)]
    assert names == ["__init__.py", "types.py", "user.py"]


def test_paths_are_relative_below_the_working_directory(tmp_path, monkeypatch):
    package = plant(tmp_path / "workflow", TREE | {"page.html.j2": "x"})
    monkeypatch.chdir(tmp_path)
    expected = ["workflow/pkg/__init__.py", "workflow/pkg/page.html.j2", "workflow/pkg/types.py"]
    assert code_of("pkg.types", also=["page.html.j2"], package=package) == expected
    monkeypatch.chdir(package / "deep")
    everything = code_of("pkg.types", also=["page.html.j2"], package=package)
    assert everything == [str((tmp_path / name).resolve()) for name in expected]


def test_digest_is_of_names_and_contents_alone(tmp_path):
    package = plant(tmp_path, TREE | {"page.css": "x"})
    digest = code_digest("pkg.near", package=package)
    files = ["__init__.py", "near/__init__.py", "near/inner.py", "types.py"]
    lines = [f"{hashlib.sha256((package / name).read_bytes()).hexdigest()}  {name}\n" for name in files]
    assert digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    elsewhere = tmp_path / "elsewhere/pkg"
    shutil.copytree(package, elsewhere)
    os.utime(elsewhere / "types.py", (0, 0))
    (elsewhere / "near/unused.py").write_text("x = 1\n")
    assert code_digest("pkg.near", package=elsewhere) == digest
    (elsewhere / "types.py").write_text("import enum, json\n")
    assert code_digest("pkg.near", package=elsewhere) != digest
    assert code_digest("pkg.near", also=["page.css"], package=package) != digest


@pytest.mark.parametrize("module", ["pkg.nothing", "pkg.near.nothing", "numpy", "pkg.nothing.types", ""])
def test_a_missing_module_is_named(tmp_path, module):
    package = plant(tmp_path)
    with pytest.raises(PhasegraphError, match=f"^{module}: no such module in .*pkg; mend its name$"):
        code_of(module, package=package)


def test_a_missing_file_and_a_syntax_error_are_named(tmp_path):
    package = plant(tmp_path, TREE | {"broken.py": "x = 1\ny = ("})
    with pytest.raises(PhasegraphError, match=r"^page\.css: no such file in .*`also`.*pkg\.near$"):
        code_digest("pkg.near", also=["page.css"], package=package)
    with pytest.raises(PhasegraphError, match=r"broken\.py: line 2: .*; mend it$"):
        code_of("pkg.broken", package=package)


def test_real_package():
    import phasegraph

    folder = Path(phasegraph.__file__).resolve().parent
    stages = sorted(path.parent.name for path in folder.glob("*/__init__.py") if path.parent.name != "warm")
    assert "network" in stages
    for stage in stages:
        files = {Path(path).resolve().relative_to(folder).as_posix() for path in code_of(f"phasegraph.{stage}")}
        assert {"__init__.py", f"{stage}/__init__.py"} <= files
        assert not any(name.startswith("warm/") for name in files)  # how a stage is started is no part of it
        if stage != "report":
            assert not any(name.startswith("report/") for name in files)
    assert {"errors.py", "files.py"} <= {Path(path).name for path in code_of("phasegraph.reruns")}


SNAKEFILE = """
from pathlib import Path
from phasegraph.reruns import code_of
rule all:
    input: "cycle_a.txt", "near.txt"
rule stage:
    input: code=lambda w: code_of(f"pkg.{w.stage}", package=Path("pkg"))
    output: "{stage}.txt"
    shell: "echo {wildcards.stage} >> ran.log; touch {output}"
"""


def test_snakemake_reruns_the_stages_that_use_an_edited_file_and_no_other(tmp_path):
    package = plant(tmp_path)
    (tmp_path / "Snakefile").write_text(SNAKEFILE)

    def ran() -> list[str]:
        (tmp_path / "ran.log").write_text("")
        subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        return sorted((tmp_path / "ran.log").read_text().split())

    assert ran() == ["cycle_a", "near"]
    for path in package.rglob("*.py"):
        path.touch()  # as a checkout does
    (package / "types.py").write_text("import enum, json\n")  # which only pkg.near uses
    assert ran() == ["near"]
