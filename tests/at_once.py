"""How many calls of a function are under way at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Given = TypeVar("Given")
Returned = TypeVar("Returned")


def at_once(call: Callable[[Given], Returned], seen: list[int]) -> Callable[[Given], Returned]:
    """``call``, which takes a little longer and puts into ``seen`` how many of it are under way when it starts."""
    under_way: list[int] = []

    def watched(given: Given) -> Returned:
        under_way.append(1)
        seen.append(len(under_way))
        time.sleep(0.01)
        under_way.pop()
        return call(given)

    return watched
