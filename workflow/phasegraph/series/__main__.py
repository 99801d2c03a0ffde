"""Train, fetch and list the checkpoints of a series: ``python -m phasegraph.series COMMAND --help``."""

import argparse
import json
import logging
import sys
from pathlib import Path

from phasegraph.errors import PhasegraphError, user_errors
from phasegraph.series.recipe import Recipe


def main(argv: list[str] | None = None) -> None:
    """Run one sub-command; a user's mistake ends in one line and exit status 1."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with user_errors():
        try:
            arguments.run(arguments)
        except OSError as error:
            raise PhasegraphError(f"{error.filename or 'input or output'}: {error.strerror or error}") from error
        except KeyboardInterrupt:
            print("phasegraph: interrupted; the same command goes on from here", file=sys.stderr)
            sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m phasegraph.series", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a small model and keep the weights of some steps")
    _add_recipe(train)
    train.add_argument("--steps", required=True, help="steps to keep, with commas between: 0,1,2,4")
    train.add_argument("--log", required=True, type=Path, help="table to write: loss and learning rate of every step")
    train.add_argument("--state-every", type=int, help="steps between two optimiser states (default: 143)")
    train.set_defaults(run=_train)

    _add_audit(commands.add_parser("audit", help="list checkpoints: contents, distances, and what is wrong with which"))
    _add_resolve(commands.add_parser("resolve", help="find the commit of every step in a repository of a hub"))
    _add_fetch(commands.add_parser("fetch", help="put one commit's weights and configuration into a folder"))
    _add_tokenizer(commands.add_parser("tokenizer", help="put the tokenizer of a series into a folder"))
    return parser


def _add_audit(audit: argparse.ArgumentParser) -> None:
    audit.add_argument(
        "checkpoints", nargs="+", metavar="STEP=FOLDER", help="a checkpoint; without a folder it is missing"
    )
    audit.add_argument("--out", required=True, type=Path, help="table to write")
    audit.add_argument("--json", required=True, type=Path, help="what was found, as JSON")
    audit.add_argument("--pins", type=Path, help="table that resolve wrote, for revisions, commits and tokens")
    audit.add_argument("--tokens-per-step", type=int, help="tokens in a training batch, if known")
    audit.add_argument(
        "--flagged",
        default="exclude",
        help="exclude or include what is flagged, stop at it, or include these steps: 500,1000 (default: exclude)",
    )
    audit.set_defaults(run=_audit)


def _add_resolve(resolve: argparse.ArgumentParser) -> None:
    resolve.add_argument("--repo", required=True, help="repository, as owner/name")
    resolve.add_argument(
        "--revisions",
        default="step{step}",
        help="pattern with {step} or {index}, {tokens}, {stage} (default: step{step}), or JSON: revisions by step",
    )
    resolve.add_argument(
        "--steps", help="a grid (pythia, pythia-linear), 0,1,2,4, or JSON with start, stop, every (default: all)"
    )
    resolve.add_argument("--steps-per-index", type=int, default=1, help="what {index} is multiplied by (default: 1)")
    resolve.add_argument("--tokens-per-step", type=int, help="tokens in a training batch, if known")
    resolve.add_argument("--allow-missing", action="store_true", help="list steps without a revision, without a commit")
    resolve.add_argument("--update", action="store_true", help="forget the commits that --out holds already")
    resolve.add_argument("--out", required=True, type=Path, help="table to write; what it holds already stays pinned")
    resolve.set_defaults(run=_resolve)


def _add_fetch(fetch: argparse.ArgumentParser) -> None:
    fetch.add_argument("--pins", type=Path, help="table that resolve wrote; with --step")
    fetch.add_argument("--step", type=int, help="which row of it")
    fetch.add_argument("--repo", help="repository, as owner/name; with --commit, instead of --pins and --step")
    fetch.add_argument("--commit", help="full commit")
    fetch.add_argument("--out", required=True, type=Path, help="folder for config.json and model.safetensors")
    fetch.add_argument("--downloads", type=Path, help="folder for downloads (default: .downloads beside --out)")
    fetch.add_argument("--keep", action="store_true", help="keep the downloaded files there")
    fetch.add_argument(
        "--mark-faults",
        action="store_true",
        help="leave a marker in --out, which the audit names, where what was published is no whole checkpoint",
    )
    fetch.set_defaults(run=_fetch)


def _add_tokenizer(tokenizer: argparse.ArgumentParser) -> None:
    tokenizer.add_argument("--pins", required=True, type=Path, help="table that resolve wrote")
    tokenizer.add_argument("--out", required=True, type=Path, help="folder for the tokenizer's files and source.json")
    tokenizer.add_argument("--downloads", type=Path, help="folder for downloads (default: .downloads beside --out)")
    tokenizer.set_defaults(run=_tokenizer)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", required=True, help="JSON object with the keys of Recipe")
    parser.add_argument("--code", default="", help="digest of the training code, part of the store's name")
    parser.add_argument("--store", required=True, type=Path, help="folder of the trained weights; one per series")


def _recipe(text: str) -> Recipe:
    try:
        return Recipe.from_dict(json.loads(text))
    except json.JSONDecodeError as error:
        raise PhasegraphError(f"--recipe is not JSON ({error}); give an object such as '{{\"layers\": 2}}'") from error


def _steps(text: str, option: str = "--steps must be") -> list[int]:
    try:
        return [int(step) for step in text.split(",")]
    except ValueError as error:
        raise PhasegraphError(f"{option} whole numbers with commas between, not {text!r}") from error


def _train(arguments: argparse.Namespace) -> None:
    from phasegraph.series.training import STATE_EVERY, train

    train(
        _recipe(arguments.recipe),
        _steps(arguments.steps),
        arguments.store,
        code=arguments.code,
        log=arguments.log,
        state_every=STATE_EVERY if arguments.state_every is None else arguments.state_every,
    )


def _audit(arguments: argparse.Namespace) -> None:
    from phasegraph.series.audit import list_series
    from phasegraph.series.layout import step_and_folder
    from phasegraph.series.pins import read_pins

    flagged = arguments.flagged
    if flagged not in ("exclude", "include", "stop"):
        flagged = _steps(flagged, "--flagged must be exclude, include, stop or")
    list_series(
        map(step_and_folder, arguments.checkpoints),
        arguments.out,
        arguments.json,
        flagged=flagged,
        pins=read_pins(arguments.pins) if arguments.pins else (),
        tokens_per_step=arguments.tokens_per_step,
    )


def _json(text: str, option: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PhasegraphError(f"{option} is not JSON ({error}): {text}") from error


def _schedule(text: str | None) -> list[int] | None:
    from phasegraph.series.grids import series_steps

    if text is None:
        return None
    if text.startswith(("{", "[")):
        return series_steps(_json(text, "--steps"), "--steps")
    return series_steps(_steps(text) if text[:1].isdigit() else text, "--steps")


def _revisions(text: str) -> str | dict[int, str]:
    if not (text.startswith("{") and '"' in text):  # a pattern may begin with a field
        return text
    table = _json(text, "--revisions")
    if not all(step.isdigit() and isinstance(revision, str) for step, revision in table.items()):
        raise PhasegraphError(f'--revisions must give a revision for each step, as in {{"0": "init"}}, not {text}')
    return {int(step): revision for step, revision in table.items()}


def _resolve(arguments: argparse.Namespace) -> None:
    from phasegraph.series.hub import resolve
    from phasegraph.series.pins import read_pins, write_pins

    _quiet()
    known = read_pins(arguments.out) if arguments.out.is_file() and not arguments.update else ()
    pins = resolve(
        arguments.repo,
        _revisions(arguments.revisions),
        _schedule(arguments.steps),
        steps_per_index=arguments.steps_per_index,
        tokens_per_step=arguments.tokens_per_step,
        known=known,
        allow_missing=arguments.allow_missing,
    )
    write_pins(pins, arguments.out)


def _fetch(arguments: argparse.Namespace) -> None:
    from phasegraph.series.fault import CheckpointFault, write_fault
    from phasegraph.series.hub import fetch
    from phasegraph.series.pins import pin_of

    _quiet()
    repo, commit, out = arguments.repo, arguments.commit, arguments.out
    try:
        if arguments.pins is not None and arguments.step is not None:
            pin = pin_of(arguments.pins, arguments.step)
            repo, commit = pin.repo, pin.commit
        if not repo or not commit:
            raise PhasegraphError("say what to fetch: --pins with --step, or --repo with --commit")
        fetch(repo, commit, out, downloads=arguments.downloads, keep=arguments.keep)
    except CheckpointFault as fault:
        if not arguments.mark_faults:
            raise
        write_fault(out, fault)
        which = "checkpoint" if arguments.step is None else f"step {arguments.step}"
        logging.getLogger("phasegraph.series").warning("%s is %s, marked in %s: %s", which, fault.kind, out, fault)


def _tokenizer(arguments: argparse.Namespace) -> None:
    from phasegraph.series.pins import read_pins
    from phasegraph.series.tokenizer import fetch_tokenizer

    _quiet()
    pins = read_pins(arguments.pins)
    if not pins:
        raise PhasegraphError(f"{arguments.pins} lists no steps; resolve the series again")
    commits = [pin.commit for pin in pins if pin.commit]
    fetch_tokenizer(pins[0].repo, commits, arguments.out, downloads=arguments.downloads)


def _quiet() -> None:
    """Keep every request's address, which may hold a signature, out of the log."""
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
