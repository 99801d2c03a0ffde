"""Aligned tables that are Markdown too."""


def markdown(columns: list[str], rows: list[list[str]], left: int) -> str:
    """Align rows under columns, the first `left` columns to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]

    def line(cells: list[str]) -> str:
        padded = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (w - 1) if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(columns), f"| {' | '.join(rule)} |", *map(line, rows)])


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with a few significant digits and no exponent; nothing for None."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{float(f'{value:.{digits}g}'):,.10g}"
