"""Train and list the checkpoints of a series: ``python -m phasegraph.series {train,manifest} --help``."""

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

    manifest = commands.add_parser("manifest", help="list checkpoints with their contents and their distances")
    manifest.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="checkpoint folder, named by its step"
    )
    manifest.add_argument("--out", required=True, type=Path, help="table to write")
    manifest.add_argument("--tokens-per-step", type=int, help="tokens in a training batch, if known")
    manifest.set_defaults(run=_manifest)
    return parser


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", required=True, help="JSON object with the keys of Recipe")
    parser.add_argument("--code", default="", help="digest of the training code, part of the store's name")
    parser.add_argument("--store", required=True, type=Path, help="folder of the trained weights; one per series")


def _recipe(text: str) -> Recipe:
    try:
        return Recipe.from_dict(json.loads(text))
    except json.JSONDecodeError as error:
        raise PhasegraphError(f"--recipe is not JSON ({error}); give an object such as '{{\"layers\": 2}}'") from error


def _steps(text: str) -> list[int]:
    try:
        return [int(step) for step in text.split(",")]
    except ValueError as error:
        raise PhasegraphError(f"--steps must be whole numbers with commas between, not {text!r}") from error


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


def _manifest(arguments: argparse.Namespace) -> None:
    from phasegraph.series.manifest import write_manifest

    write_manifest(arguments.folders, arguments.out, arguments.tokens_per_step)


if __name__ == "__main__":
    main()
