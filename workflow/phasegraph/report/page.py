"""The report of a study: one page that needs nothing but itself."""

import base64
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from phasegraph.errors import PhasegraphError
from phasegraph.files import atomic
from phasegraph.report import backbones, beyond, sentences, tables, texts
from phasegraph.report.audit import audit_table, audit_text
from phasegraph.report.catalogue import FIGURES
from phasegraph.report.changes import changes
from phasegraph.report.choose import landmarks
from phasegraph.report.communities import communities_text
from phasegraph.report.evidence import boundaries, tested, transition
from phasegraph.report.families import family_texts, task_differences
from phasegraph.report.findings import moving_checkpoints, ranking_agreement
from phasegraph.report.induction import find_circuit
from phasegraph.report.method import method_texts, read_config
from phasegraph.report.seeds import seeds_table, seeds_texts
from phasegraph.report.stability import stability_table, stability_texts
from phasegraph.report.study import StudyData
from phasegraph.report.tails import tails_text
from phasegraph.report.words import steps_range
from phasegraph.types import Effect

CAPTIONS = Path(__file__).parents[2] / "report"
"""Where the captions lie that ``snakemake --report`` uses too."""

PACKAGES = (
    "phasegraph",
    "snakemake",
    "torch",
    "transformers",
    "transformer-lens",
    "numpy",
    "scipy",
    "igraph",
    "polars",
    "matplotlib",
)
"""Packages whose version is named."""

FILES = {
    "metrics.parquet": "metrics of the graph at every checkpoint, with intervals",
    "nulls.parquet": "the metrics beside those of null graphs",
    "communities.parquet": "the community of every component at every checkpoint",
    "tails.parquet": "fits of the tail of the weights, and the tests of them",
    "roles.parquet": "strength and betweenness of every component, with intervals and ranks",
    "stability.parquet": "how long rankings and their holders last, over all lags",
    "widest_paths.parquet": "the widest path from the first layer to the last at every checkpoint",
    "behaviour.parquet": "losses, accuracy, attention scores and effects on the answer, with intervals",
    "phases.json": "change tests, segments and their agreement with behaviour",
    "distances.npy": "distances between all checkpoints, three of them",
    "excess.npy": "the same beyond the noise of the prompts",
    "replicates.npz": "the metrics without each group of prompts",
    "nodes.tsv": "the components, in the order of rows and columns",
    "mask.npy": "the possible edges",
    "edges": "the edges of every checkpoint, and what else was measured, with leave-one-group-out replicates",
}
"""Files of the study that the page links to."""


def write_page(study: StudyData, config: Path, figures: list[Path], out: Path, captions: Path = CAPTIONS) -> None:
    """Write the report of a study.

    Parameters
    ----------
    study
        Its data.
    config
        The merged configuration, ``run_config.yaml``.
    figures
        SVG files, each named as in the catalogue; all are embedded.
    out
        HTML file to write.
    captions
        Folder with ``<figure>.rst``.

    Raises
    ------
    PhasegraphError
        If a file is missing, damaged or does not fit the others.
    """
    series, settings = read_config(config, study.name)
    context = {
        "study": study.name,
        "verdict": sentences.verdict(study.phases),
        "beside_nulls": beyond.headline(study.nulls),
        "facts": _facts(study),
        "method": method_texts(study, settings),
        "audit": audit_text(study),
        "audit_table": audit_table(study),
        **changes(study),
        **_network(study),
        **_roles(study),
        **_edges(study),
        **_backbones(study, out),
        **_families(study, config, settings, out),
        "seeds": seeds_texts(study.seeds, study.name),
        "seeds_table": seeds_table(study.seeds),
        "noise": texts.noise_text(study, moving_checkpoints(study)),
        "concentration": texts.concentration_text(study, landmarks(study.steps, study.phases)),
        "tails": tails_text(study.tails),
        "concentration_table": tables.concentration_table(study, landmarks(study.steps, study.phases)),
        "limits": texts.limit_texts(study, settings),
        "settings": _flat(f"studies.{study.name}", settings) | _flat(f"series.{settings['series']}", series),
        "versions": _versions(),
        "files": _links(study, config, bool(settings.get("compare_with")), out),
        "figures": _figures(figures, captions, out),
    }
    environment = Environment(
        loader=PackageLoader("phasegraph.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbreakable,
    )
    html = environment.get_template("page.html.j2").render(context)
    with atomic(out) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _unbreakable(value: object) -> object:
    """Keep a number and its per cent sign on one line."""
    return value.replace(" %", "\u00a0%") if isinstance(value, str) else value


def _facts(study: StudyData) -> list[tuple[str, str]]:
    """Collect the few numbers at the head of the page: what, and how much."""
    phases, change = study.phases, transition(study.phases)
    facts = [
        ("checkpoints", _of(len(study.steps), len(study.series["step"]))),
        ("steps", steps_range(int(study.steps[0]), int(study.steps[-1]))),
        ("components", f"{study.components.sum():,}"),
        ("transition of behaviour", steps_range(change.start, change.end) if change else "none dated"),
    ]
    if not tested(phases):
        return [*facts, ("boundaries", "not tested")]
    abrupt = sum(boundary.abrupt for boundary in boundaries(phases))
    kinds = ((abrupt, "abrupt"), (len(boundaries(phases)) - abrupt, "gradual"))
    return [*facts, ("boundaries", ", ".join(f"{count} {kind}" for count, kind in kinds if count) or "none")]


def _of(used: int, there: int) -> str:
    """Write how many of how many, or how many if it is all."""
    return f"{used:,}" if used == there else f"{used:,} of {there:,}"


def _network(study: StudyData) -> dict:
    """Everything about the graph as a whole: null models and communities."""
    metrics = {name: study.metric(name) for name in ("modularity", "communities", "layer_agreement")}
    return {
        "nulls": beyond.nulls_text(study.nulls),
        "null_rule": beyond.rule_text(study.nulls),
        "null_table": None if study.nulls.is_empty() else tables.null_table(study),
        "communities": communities_text(study.communities, metrics, study.nulls),
    }


def _roles(study: StudyData) -> dict:
    """Everything about who spreads, gathers and stands between."""
    steps = landmarks(study.steps, study.phases)
    early, late = next(iter(steps.values())), list(steps.values())[-1]
    agreement = ranking_agreement(study, early, late)
    return {
        "ends": texts.ends_text(study),
        "stability": stability_texts(study.stability),
        "stability_table": stability_table(study.stability),
        "ranking": texts.agreement_text(agreement, early, late),
        "role_tables": {
            "Who spreads (out-strength)": tables.role_table(study, "spreader", steps),
            "Who gathers (in-strength)": tables.role_table(study, "gatherer", steps),
            f"Who stands between (betweenness, {study.path_effect} effect)": tables.role_table(
                study, "gatekeeper", steps
            ),
        },
    }


def _edges(study: StudyData) -> dict:
    """Everything about the edges from the previous-token head to the induction heads."""
    circuit, steps = find_circuit(study), landmarks(study.steps, study.phases)
    text = [texts.circuit_text(circuit, int(study.steps[-1]))]
    if not circuit.induction:
        return {"circuit": text, "edge_tables": []}
    text.append(texts.circuit_change_text(study, circuit, steps))
    shown = [tables.edge_table(study, circuit, steps, Effect.TOTAL)]
    if study.path_effect is Effect.DIRECT:
        direct = tables.edge_table(study, circuit, steps, Effect.DIRECT)
        if direct.rows == shown[0].rows:
            text.append("Nothing lies between these heads, so that the direct effects are the same.")
        else:
            shown.append(direct)
    return {"circuit": text, "edge_tables": shown}


def _backbones(study: StudyData, out: Path) -> dict:
    """Everything about the widest path and the files of the backbones."""
    steps = landmarks(study.steps, study.phases)
    links = [(Path(name).name, _relative(study.folder / name, out)) for name in backbones.backbone_files(steps)]
    return {"widest_path": backbones.path_text(study, steps), "opened": backbones.OPENED, "backbone_links": links}


def _families(study: StudyData, config: Path, settings: dict, out: Path) -> dict:
    """Everything about the prompts, where the study is compared with one of other prompts."""
    other = settings.get("compare_with")
    if not other:
        return {"families": []}
    differences = task_differences(settings["task"], read_config(config, other)[1]["task"])
    link = _relative(study.folder.parent / other / "report.html", out)
    return {"families": family_texts(study, other, differences), "other_study": other, "other_link": link}


def _figures(files: list[Path], captions: Path, out: Path) -> dict[str, dict]:
    """Title, caption, data and link of each figure, in the order of the catalogue."""
    by_name = {file.stem: file for file in files}
    if unknown := by_name.keys() - FIGURES.keys():
        raise PhasegraphError(f"{by_name[min(unknown)]}: no figure of that name; there is {', '.join(FIGURES)}")
    return {
        name: {
            "title": figure.title,
            "caption": [" ".join(part.split()) for part in _read(captions / f"{name}.rst").split("\n\n")],
            "data": base64.b64encode(_read(by_name[name]).encode()).decode(),
            "link": _relative(by_name[name], out),
        }
        for name, figure in FIGURES.items()
        if name in by_name
    }


def _links(study: StudyData, config: Path, compared: bool, out: Path) -> list[tuple[str, str, str]]:
    """Name, relative address and content of the files behind the page."""
    links = [(name, _relative(study.folder / name, out), what) for name, what in FILES.items()]
    if compared:
        links.append(("families.parquet", _relative(study.folder / "families.parquet", out), "what is the prompts'"))
    if study.seeds_path:
        links.append((study.seeds_path.name, _relative(study.seeds_path, out), "the boundaries of all seeds compared"))
    links.append((config.name, _relative(config, out), "the merged configuration"))
    manifest = study.manifest_path
    audit = manifest.with_name("audit.json")
    return [
        *links,
        (manifest.name, _relative(manifest, out), "the checkpoints: content, tokens, weight displacement, faults"),
        (audit.name, _relative(audit, out), "what the audit found in each"),
    ]


def _flat(prefix: str, settings: dict) -> dict[str, str]:
    """Flatten nested settings to ``prefix.key.key`` -> value."""
    flat = {}
    for key, value in settings.items():
        name = f"{prefix}.{key}"
        flat |= _flat(name, value) if isinstance(value, dict) and value else {name: _plain(value)}
    return flat


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _relative(file: Path, out: Path) -> str:
    return Path(os.path.relpath(file, out.parent)).as_posix()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise PhasegraphError(f"{file}: no such file, or not readable; make it first") from error
