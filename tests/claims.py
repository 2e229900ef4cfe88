"""The table of what the papers claim and what came out here: ``python tests/claims.py`` writes experiments/README.md.

A claim and its source are the first words of a definition in ``conf/experiment``, ``# Figure 8 of …: … Claim: …``; or,
where a folder of ``experiments/`` has no definition, of its README. A verdict is what is bold in the README's
paragraph. So the table states nothing that does not stand elsewhere, and a test compares it.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ssl_bench.page import findings

ROOT = Path(__file__).parents[1]
FILE = ROOT / "experiments" / "README.md"
PAPERS = ("Chen, Ji & Yuan", "Chen et al.", "Cao et al.", "Tian et al.", "Caron et al.")
WHERE = r"(?:(?:Tables?|Figures?|Sections?) [\w., ]+ of )?"
SOURCE = re.compile(rf"(?P<source>{WHERE}(?P<paper>{'|'.join(PAPERS)}) \d{{4}}(?: \(\w+\))?)[^:]*:")
CLAIM = re.compile(r"Claims?(?: of [^:]+)?: (?P<claim>.+?)\.(?: |$)")
NOT_RUN = "not yet run"
HEAD = """# Claims and verdicts

What five papers (on CLBO, SimCLR, PIC, DirectPred and SwAV) claim of their tables and figures, and what came out here
at `scale=cpu`, which is small: a verdict is about this scale alone. Networks are trained there with Muon, which none
of the papers uses, unless a README says otherwise. SimCLR has T = 0.05 and CLBO T = 0.1, each the best of three on
validation images; at an equal temperature CLBO has no lead over SimCLR ([`table3`](table3/README.md),
[`simclr_temperature`](simclr_temperature/README.md)).

In the verdicts, "shown" means significant: p < 0.05 after correction for the comparisons that are named. "Means are
higher" states the direction alone. Points are percentage points of accuracy. "Not shown" does not mean equal: with
three or five seeds only large differences are detected, so a claim that something has no effect cannot be confirmed.

The column "holds" rates the claim as a whole; the verdict takes its parts one by one. *Yes*: all of them are shown.
*No*: a difference against its main part is shown, on photographs (on digits, which no paper has, it makes a claim hold
in part). *In part*: some are shown; others are not, or their reverse is. *Not shown*: no part is, and no difference
against the main one. *Cannot be judged*: what it is about was not measured here.
COUNTS.
Two more, PIC beside MoCo v2 and SwAV beside SimCLR, stand in [`table3`](table3/README.md).

To repeat a result, use the commands in its README. `make NAME` plans, runs and renders the whole definition, which
may be more, and writes over the folder unless `OUT=` is set.

Other folders: [trials](trials/README.md) of settings, the [calibration](calibration/README.md) of the test, [what an
installation should give](learns/README.md), [speed](speed/README.md), the [speed contest](speedrun/README.md), a
[published number](reproduction/README.md) to meet, [GPUs](gpu/README.md), the tables of [datasets](table1/README.md)
and [hyperparameters](table2/README.md), and [an earlier comparison](methods/README.md).

This table is written by `python tests/claims.py` from the definitions in `conf/experiment` and the verdicts in the
folders; a test compares.

| | source | claim | holds | verdict | shown |
|---|---|---|---|---|---|
"""
HOLDS = ("yes", "in part", "not shown", "no", "cannot be judged")


class Claim(NamedTuple):
    """What a paper states of one of its tables or figures."""

    name: str
    paper: str
    source: str
    text: str


def claim(name: str, text: str) -> Claim | None:
    """What ``text`` begins with; None where that is no claim of a paper."""
    source, found = SOURCE.search(text), CLAIM.search(text)
    return Claim(name, source["paper"], source["source"], found["claim"]) if source and found else None


def claims() -> list[Claim]:
    """Of all papers in the order of PAPERS, tables before figures."""
    texts = {folder.parent.name: _paragraph(folder) for folder in ROOT.glob("experiments/*/README.md")}
    texts |= {file.stem: _comment(file) for file in ROOT.glob("conf/experiment/*.yaml")}
    found = [one for name, text in texts.items() if (one := claim(name, text))]
    return sorted(found, key=lambda one: (PAPERS.index(one.paper), "fig" in one.name, one.name))


def _comment(file: Path) -> str:
    """The comment at a file's head as one line."""
    lines = file.read_text(encoding="utf-8").split("\nsweep:", maxsplit=1)[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if not line.startswith("#   "))


def _paragraph(readme: Path) -> str:
    """The paragraph of a README that begins with its claims, as one line."""
    found = re.search(r"^Claims? .+?(?=\n\n)", readme.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return " ".join(found[0].split()) if found else ""


def verdict(name: str) -> str:
    """In the words of the folder's README."""
    found = findings.read(FILE.parent / name).verdict
    return NOT_RUN if not found or found.startswith("open") else found


def table() -> str:
    """The whole page."""
    rows, counts = [], Counter[str]()
    for name, _, source, text in claims():
        found, linked = verdict(name), f"[`{name}`]({name}/README.md)"
        holds, colon, rest = found.partition(": ")
        holds, found = (holds, rest) if colon and holds in HOLDS else ("", found)
        counts[holds or found] += 1
        if found == NOT_RUN:
            shown = f"[definition](../conf/experiment/{name}.yaml)"
            linked = linked if (FILE.parent / name).exists() else f"`{name}`"
        elif (FILE.parent / name / "figure.png").exists():
            shown = f"[figure]({name}/figure.png)"
        else:
            shown = f"[table]({name}/README.md)"
        rows.append(f"| {linked} | {source} | {text} | {holds} | {found} | {shown} |\n")
    counted = ", ".join(f"{counts[one]} {one}" for one in (*HOLDS, NOT_RUN) if counts[one])
    return HEAD.replace("COUNTS", f"Of {len(rows)} claims: {counted}") + "".join(rows)


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
