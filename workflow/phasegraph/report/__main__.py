"""Command line of the report stage: one figure, or the page with all of them."""

import argparse
import importlib
from pathlib import Path

from phasegraph.errors import user_errors
from phasegraph.report.catalogue import FIGURES


def main() -> None:
    """Run one of the two sub-commands."""
    parser = argparse.ArgumentParser(prog="python -m phasegraph.report", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    figure = commands.add_parser("figure", help="draw one figure")
    figure.add_argument("name", choices=FIGURES, metavar="NAME", help=", ".join(FIGURES))
    figure.add_argument("--svg", type=Path, required=True, help="SVG to write")
    figure.add_argument("--png", type=Path, required=True, help="PNG to write")

    page = commands.add_parser("page", help="write the report")
    page.add_argument("--config", type=Path, required=True, help="run_config.yaml, the merged configuration")
    page.add_argument("--figures", type=Path, nargs="+", required=True, help="SVG files to embed, named as the figures")
    page.add_argument("--captions", type=Path, help="folder with <figure>.rst (default: workflow/report)")
    page.add_argument("--out", type=Path, required=True, help="HTML file to write")

    for command in (figure, page):
        command.add_argument("--study", type=Path, required=True, help="folder of the study, results/<study>")
        command.add_argument("--manifest", type=Path, required=True, help="series.tsv of the study's series")
        command.add_argument("--seeds", type=Path, help="seeds.json of the set that the study is a member of")
    arguments = parser.parse_args()

    from phasegraph.report.study import StudyData  # imported here, since --help shall not pay for it

    study = StudyData(arguments.study, arguments.manifest, arguments.seeds)
    if arguments.command == "figure":
        from phasegraph.report.style import save

        draw = importlib.import_module(f"phasegraph.report.figures.{arguments.name}").draw
        save(draw(study), arguments.svg, arguments.png)
    else:
        from phasegraph.report.page import CAPTIONS, write_page

        write_page(study, arguments.config, arguments.figures, arguments.out, arguments.captions or CAPTIONS)


if __name__ == "__main__":
    with user_errors():
        main()
