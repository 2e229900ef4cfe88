from __future__ import annotations

import random

import torch

from ssl_bench.nn.recency import newest_first


def test_the_list_is_that_of_a_queue_that_moves_a_visitor_to_the_front() -> None:
    chance = random.Random(0)
    queue: list[int] = []
    found = torch.full((6,), -1)
    for _ in range(60):
        visited = [chance.randrange(12) for _ in range(chance.randint(1, 8))]
        for visitor in visited:
            queue = [visitor, *(other for other in queue if other != visitor)]
        found = newest_first(torch.tensor(visited), found)
        assert found[found >= 0].tolist() == queue[:6]
        assert found[len(queue) :].tolist() == [-1] * max(0, 6 - len(queue))
        queue = queue[:6]
