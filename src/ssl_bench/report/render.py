"""A table as Markdown, LaTeX or a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len

from ssl_bench.report.comparison import Table, TableCell

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "×": r"$\times$",
    "–": "--",
    "−": "$-$",
    "α": r"$\alpha$",
    "λ": r"$\lambda$",
    "κ": r"$\kappa$",
    "η": r"$\eta$",
    "τ": r"$\tau$",
    "ε": r"$\epsilon$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ζ": r"$\zeta$",
    "θ": r"$\theta$",
    "μ": r"$\mu$",
    "ν": r"$\nu$",
    "ξ": r"$\xi$",
    "π": r"$\pi$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "φ": r"$\phi$",
    "ω": r"$\omega$",
    "≈": r"$\approx$",
    "→": r"$\to$",
    "¼": r"$\frac{1}{4}$",
    "½": r"$\frac{1}{2}$",
    "¾": r"$\frac{3}{4}$",
    "⅛": r"$\frac{1}{8}$",
    "²": "$^2$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "…": r"\dots{}",
}
INCHES_PER_LETTER = 0.078  # of DejaVu Sans at 9 points, on average
ROW_INCHES = 0.24


def markdown(table: Table) -> str:
    """A table that is readable as text, too; reference rows follow an empty one."""
    heading = ["", *table.columns]
    body = [[label, *map(_bold, row)] for label, row in table.ranked.items()]
    if table.ranked and table.reference:
        body.append([""] * len(heading))
    body += [[label, *map(_bold, row)] for label, row in table.reference.items()]
    body = [[cell.replace("|", r"\|") for cell in row] for row in [heading, *body]]
    widths = [max(3, *(cell_len(row[place]) for row in body)) for place in range(len(heading))]

    def line(row: Sequence[str]) -> str:
        cells = [
            _pad(cell, width, right=place > 0) for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|" + "|".join("-" * (w + 2) if place == 0 else "-" * (w + 1) + ":" for place, w in enumerate(widths)) + "|"
    lines = [f"**{table.title}**", "", line(body[0]), rule, *map(line, body[1:])]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]) + "\n"


def _bold(entry: TableCell) -> str:
    return f"**{entry.text}**" if entry.bold else entry.text


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def latex(table: Table) -> str:
    """A tabular with the rules of booktabs, and the notes below it."""

    def line(label: str, row: Sequence[TableCell]) -> str:
        cells = [rf"\textbf{{{escaped(entry.text)}}}" if entry.bold else escaped(entry.text) for entry in row]
        return " & ".join([escaped(label), *cells]) + r" \\"

    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(["", *map(escaped, table.columns)]) + r" \\",
        r"\midrule",
        *(line(label, row) for label, row in table.ranked.items()),
        *([r"\midrule"] if table.ranked and table.reference else []),
        *(line(label, row) for label, row in table.reference.items()),
        r"\bottomrule",
        r"\end{tabular}",
        "",
        rf"\par\smallskip\footnotesize {escaped(' '.join([f'{table.title}.', *table.notes]))}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """``text`` as LaTeX prints it."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def picture(path: Path, table: Table) -> None:
    """Draw the table as PNG, in one colour."""
    from matplotlib.figure import Figure

    from ssl_bench.report.figures import save

    headings = [_wrapped(column) for column in table.columns]
    labels = [*table.ranked, *table.reference]
    rows = [*table.ranked.values(), *table.reference.values()]
    letters = [max(map(len, labels)) + 2]
    for place, heading in enumerate(headings):
        # Bold letters are wider.
        letters.append(max(*map(len, heading.split("\n")), *(int(len(row[place].text) * 1.1) for row in rows)) + 2)
    width = max(sum(letters) * INCHES_PER_LETTER + 0.15, 6.0)
    notes = [line for note in table.notes for line in textwrap.wrap(note, int(width / 0.062), subsequent_indent="  ")]
    head = max((heading.count("\n") + 1 for heading in headings), default=1) * 0.17 + 0.12
    below = 0.16 * len(notes) + 0.2
    height = 0.4 + head + ROW_INCHES * len(rows) + below
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    letter = (width - 0.15) / sum(letters)  # more than INCHES_PER_LETTER in a narrow table
    rights = [sum(letters[: place + 1]) * letter for place in range(len(letters))]
    axes.text(0.1, 0.22, table.title, fontsize=11, fontweight="bold", va="center")
    y = 0.4

    def rule(weight: float) -> None:
        axes.plot([0.08, width - 0.08], [y, y], color="black", linewidth=weight, solid_capstyle="butt")

    rule(1.2)
    for right, heading in zip(rights[1:], headings, strict=True):
        axes.text(right, y + head / 2, heading, fontsize=9, ha="right", va="center_baseline", linespacing=1.1)
    y += head
    rule(0.6)
    for number, (label, row) in enumerate(zip(labels, rows, strict=True)):
        if number == len(table.ranked) and number:
            rule(0.6)
        axes.text(0.12, y + ROW_INCHES / 2, label, fontsize=9, va="center")
        for right, entry in zip(rights[1:], row, strict=True):
            weight = "bold" if entry.bold else "normal"
            axes.text(right, y + ROW_INCHES / 2, entry.text, fontsize=9, fontweight=weight, ha="right", va="center")
        y += ROW_INCHES
    rule(1.2)
    for number, note in enumerate(notes):
        axes.text(0.12, y + 0.16 * (number + 1), note, fontsize=7, va="center")
    save(path, figure, dpi=150)


def _wrapped(heading: str) -> str:
    """``dataset, protocol`` on two lines or more, broken at spaces and underscores."""
    parts = [part for line in heading.split(", ") for part in textwrap.wrap(line.replace("_", "_ "), 20)]
    return "\n".join(parts).replace("_ ", "_")
