"""Data as scripts: a page that is opened as a file can load these, and no other data."""

from __future__ import annotations

import json
from typing import Any


def script(name: str, value: Any) -> bytes:
    """What hands ``value`` to the page under ``name``; ValueError for a number that is not finite."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str, allow_nan=False)
    # Names of files may hold what is no text; it is escaped as JSON has it, too.
    return f"take({json.dumps(name)},{text});\n".encode(errors="backslashreplace")
