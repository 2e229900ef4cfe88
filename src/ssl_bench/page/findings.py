"""What an experiment claims and found, from the README of its folder, which is the only place where that is written.

A README has the commands that make it as an indented block, and paragraphs that begin with ``Claim``, ``Cost`` and
``Verdict:``. Its Markdown is rendered without HTML of its own: what looks like a tag is shown as text.
"""

from __future__ import annotations

import itertools
import re
import shlex
import string
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

README, TABLE = "README.md", "table.md"
PARAGRAPHS = ("Claim", "Question", "Cost", "Verdict")
REPORT = re.compile(r"\s*(\S+ -m ssl_bench|ssl-bench) report\b")


@dataclass(frozen=True)
class Finding:
    """What the README of an experiment states."""

    folder: Path
    title: str = ""
    commands: list[str] = field(default_factory=list)
    paragraphs: dict[str, str] = field(default_factory=dict)  # HTML by one of PARAGRAPHS
    verdict: str = ""  # in a few words: what is bold at the verdict's beginning
    whole: str = ""  # HTML of all below its title, and of the table beside it

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def report(self) -> list[str] | None:
        """The arguments of its ``report`` command, ``out`` left out; None where there is none."""
        settings: dict[str, str] = {}
        for line in self.commands:
            command = REPORT.match(line)
            rest = string.Template(line[command.end() :]).safe_substitute(settings) if command else line
            try:
                parts = shlex.split(rest, comments=True)
            except ValueError:  # prose with an apostrophe
                continue
            if command:
                return [word for word in parts if not word.startswith("out=")]
            if len(parts) == 1 and "=" in parts[0]:  # of the shell
                name, _, value = parts[0].partition("=")
                settings[name] = value
        return None


def read(folder: Path) -> Finding:
    """The finding of a folder; one without text where it has no README that can be read."""
    try:
        text = (folder / README).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return Finding(folder)
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    with suppress(OSError, UnicodeDecodeError):
        text += "\n" + (folder / TABLE).read_text(encoding="utf-8")
    tokens = markdown.parse(text)
    for token in tokens:
        token.children = _without_files(token.children or []) if token.type == "inline" else None
    paragraphs: dict[str, str] = {}
    verdict = ""
    for inline in _of_paragraphs(tokens):
        word = re.split(r"\W", inline.content, maxsplit=1)[0].removesuffix("s")
        if word in PARAGRAPHS and word not in paragraphs:
            paragraphs[word] = str(markdown.renderer.render([inline], markdown.options, {}))
            if word == "Verdict":
                verdict = _first_bold(inline)
    heading = next((place for place, token in enumerate(tokens) if token.type == "heading_open"), None)
    block = next((token.content for token in tokens if token.type == "code_block"), "")
    return Finding(
        folder,
        title=folder.name if heading is None else _plain(tokens[heading + 1]),
        commands=block.replace("\\\n", " ").split("\n")[:-1],
        paragraphs=paragraphs,
        verdict=verdict.rstrip("."),
        whole=str(markdown.renderer.render(_below(tokens, heading), markdown.options, {})),
    )


def _pairs(tokens: Sequence[Token]) -> Iterator[tuple[Token, Token]]:
    return itertools.pairwise(tokens)


def _below(tokens: Sequence[Token], heading: int | None) -> Sequence[Token]:
    """Without the heading that begins at this place: its opening, text and closing."""
    return tokens if heading is None else [*tokens[:heading], *tokens[heading + 3 :]]


def _of_paragraphs(tokens: Sequence[Token]) -> Iterator[Token]:
    return (token for before, token in _pairs(tokens) if before.type == "paragraph_open" and before.level == 0)


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ())


def _first_bold(inline: Token) -> str:
    found = ""
    inside = False
    for child in inline.children or ():
        if child.type == "strong_close":
            break
        inside |= child.type == "strong_open"
        found += (child.content or " ") if inside and child.type != "strong_open" else ""
    return found


def _without_files(children: Sequence[Token]) -> list[Token]:
    """Without pictures, and with links to files beside the README, which the page does not have, left as text."""
    found = []
    kept = [True]  # of the links around a place
    for child in children:
        if child.type == "link_open":
            kept.append(str(child.attrs["href"]).startswith(("http://", "https://")))
        if child.type != "image" and (kept[-1] or child.type not in ("link_open", "link_close")):
            found.append(child)
        if child.type == "link_close":
            kept.pop()
    return found
