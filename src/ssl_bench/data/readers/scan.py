"""The pictures below a folder, by name; what no user means by a class is passed over."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ssl_bench.data.readers.pictures import ENDINGS
from ssl_bench.errors import UserError

SHOWN_ENDINGS = 5  # of files that are passed over
# Thumbnails, waste baskets and the like, which storage devices, archives and file systems put beside pictures.
FOREIGN = (
    *("@eadir", "@recycle", "#recycle", "#snapshot", "__macosx"),
    *("$recycle.bin", "system volume information", "lost+found"),
)


@dataclass(slots=True)
class Found:
    """What lies below a folder."""

    names: list[str] = field(default_factory=list)  # of pictures, sorted
    empty: list[str] = field(default_factory=list)  # folders without a picture, sorted
    runs: list[str] = field(default_factory=list)  # folders of runs of this program, which are passed over
    others: Counter[str] = field(default_factory=Counter)  # files that are no pictures by their ending, by ending

    def notes(self, root: Path) -> Iterator[str]:
        """What is passed over and may not be meant to be."""
        for folder in self.runs:
            yield f"{root / folder} holds runs of this program and is passed over."
        if self.empty:
            such = repr(self.empty[0])
            yield f"{len(self.empty)} folder(s) of {root} hold no pictures and are no classes, such as {such}."
        if self.others:
            endings = ", ".join(ending or "without one" for ending, _ in sorted(self.others.most_common(SHOWN_ENDINGS)))
            more = " and others" if len(self.others) > SHOWN_ENDINGS else ""
            yield f"{self.others.total()} file(s) of {root} are passed over for their endings: {endings}{more}."


def scan(root: Path, prefix: str = "") -> Found:
    """All that is below ``root``, links followed; raises UserError if it cannot be read or has no picture."""
    found = Found()
    try:
        _visit(root, prefix, frozenset(), found)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not root.exists():
            raise UserError(f"{root} does not exist: give a folder of pictures.") from error
        raise UserError(f"Cannot read {error.filename or root}: {error.strerror}; give another folder.") from error
    if not found.names:
        raise UserError(f"{root} holds no pictures: expected files ending in {', '.join(ENDINGS)}.")
    found.names.sort()
    found.empty.sort()
    return found


def _visit(folder: Path, before: str, above: frozenset[tuple[int, int]], found: Found) -> bool:
    """Add what is below ``folder``, or leave it out and return True where it is a run of this program."""
    stat = os.stat(folder)
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        raise UserError(f"{folder} is a link to a folder that it lies in: remove it.")
    with os.scandir(folder) as listed:
        entries = [entry for entry in listed if not (entry.name.startswith(".") or entry.name.lower() in FOREIGN)]
    names = {entry.name for entry in entries}
    if above and "config.yaml" in names and names & {"record.json", "checkpoints"}:
        return True
    if above and folder.name == "packed" and any(name.endswith(".safetensors") for name in names):
        return False
    count = len(found.names)
    for entry in entries:
        if entry.is_dir():
            if _visit(folder / entry.name, f"{before}{entry.name}/", above | {here}, found):
                if above:  # all of runs_dir is the program's
                    del found.names[count:]
                    found.runs.append(before[:-1])
                    return False
                found.runs.append(f"{before}{entry.name}")
        elif not (entry.is_file() or entry.is_symlink()):
            continue
        elif entry.name.lower().endswith(ENDINGS):
            found.names.append(before + entry.name)
        else:
            found.others[os.path.splitext(entry.name)[1].lower()] += 1
    if len(found.names) == count:
        found.empty.append(before[:-1])
    return False
