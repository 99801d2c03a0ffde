"""Which source files a stage is made of, so that an edit reruns the stages that use it and no other.

Snakemake compares a rule's text, never the modules that its command imports. A rule therefore takes its stage's source
files as `input: code=`, and Snakemake compares those by content. The files are found in the text; nothing is imported.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from phasegraph.errors import PhasegraphError
from phasegraph.files import sha256

_PACKAGE = Path(__file__).resolve().parent


def code_of(module: str, also: Iterable[str] = (), package: Path = _PACKAGE) -> list[str]:
    """Find the source files of a package that a module imports, directly or not.

    Followed are ``import`` and ``from ... import`` anywhere in the text, in functions too. Names that are put together
    at run time (importlib.import_module) are not; name their files in `also`.

    Parameters
    ----------
    module
        Full name. If it is a package, its ``__main__`` (what ``python -m`` runs) belongs to it.
    also
        Other files that the module reads, such as templates, as paths below the package.
    package
        Folder of the top-level package; modules outside it are not followed.

    Returns
    -------
    list of str
        Sorted paths, relative to the working directory where they lie below it, else absolute.

    Raises
    ------
    PhasegraphError
        If there is no such module or file, or a file cannot be parsed.

    Examples
    --------
    >>> [Path(path).name for path in code_of("phasegraph.errors")]
    ['__init__.py', 'errors.py']
    """
    here = Path.cwd()
    files = _closure(module, also, package.resolve())
    return sorted(str(file.relative_to(here) if file.is_relative_to(here) else file) for file in files)


def code_digest(module: str, also: Iterable[str] = (), package: Path = _PACKAGE) -> str:
    """Give one SHA-256 for the names and contents of the files that `code_of` finds.

    It is the same wherever the package is installed: it hashes lines of a file's SHA-256 and its path below the
    package, sorted by path, as ``sha256sum`` writes them. Parameters and errors are those of `code_of`.
    """
    package = package.resolve()
    files = sorted((file.relative_to(package).as_posix(), file) for file in _closure(module, also, package))
    lines = "".join(f"{sha256(file)}  {name}\n" for name, file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _closure(module: str, also: Iterable[str], package: Path) -> set[Path]:
    found = {name: (package / name).resolve() for name in also}
    for name, file in found.items():
        if not file.is_file():
            raise PhasegraphError(f"{name}: no such file in {package}; mend `also`, the files named beside {module}")
    if _source(module, package) is None:
        raise PhasegraphError(f"{module}: no such module in {package}; mend its name")
    todo = [module, f"{module}.__main__"]
    while todo:
        name = todo.pop()
        file = _source(name, package)
        if name in found or file is None:  # not ours, or not a module: an object imported from one
            continue
        found[name] = file
        todo += [name.rpartition(".")[0]]  # importing a module imports the packages around it
        inside = name if file.name == "__init__.py" else name.rpartition(".")[0]
        try:
            todo += _imports(file.read_text(encoding="utf-8"), inside)
        except SyntaxError as error:
            raise PhasegraphError(f"{file}: line {error.lineno}: {error.msg}; mend it") from None
    return set(found.values())


def _source(name: str, package: Path) -> Path | None:
    """Give the file of a module, None if it is none of the package's."""
    first, *rest = name.split(".")
    if first != package.name:
        return None
    path = package.joinpath(*rest)
    choices = [path / "__init__.py", path.with_suffix(".py")] if rest else [path / "__init__.py"]
    return next((file for file in choices if file.is_file()), None)


@functools.cache
def _imports(text: str, inside: str) -> list[str]:
    """List what might be modules among the names that a text imports, if it belongs to the package `inside`."""
    names = []
    todo: list[ast.AST] = [ast.parse(text)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            around = inside.split(".")[: max(0, inside.count(".") + 2 - node.level)] if node.level else []
            base = ".".join([*around, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for field in (
            "body",
            "orelse",
            "handlers",
            "finalbody",
            "cases",
        ):  # statements only: expressions would add half the time
            children = getattr(node, field, ())
            todo += children if isinstance(children, list) else ()  # the body of a lambda is an expression
    return names
