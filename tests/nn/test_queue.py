"""The ring of newest keys."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ssl_bench.errors import UserError
from ssl_bench.nn.queue import Queue


def test_it_holds_the_newest_keys_the_oldest_are_overwritten_first() -> None:
    torch.manual_seed(0)
    queue, pushes = Queue(12, 5, step=4), [torch.randn(4, 5) for _ in range(8)]
    newest: list[torch.Tensor] = []
    for number, rows in enumerate(pushes, start=1):
        queue.push(rows)
        newest = [*newest, *F.normalize(rows, dim=1)][-12:]
        held = {tuple(row.tolist()) for row in queue.rows}
        assert {tuple(row.tolist()) for row in newest} <= held
        assert queue.pushed == 4 * number
        assert queue.full == (number >= 3)
    # The ninth push goes where the sixth lies, the oldest one left.
    assert torch.equal(queue.rows[8:], F.normalize(pushes[5], dim=1))


def test_rows_are_unit_vectors_from_the_start() -> None:
    torch.manual_seed(0)
    queue = Queue(8, 6, step=4)
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(8))
    queue.push(7 * torch.randn(4, 6))
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(8))


def test_its_state_says_where_to_go_on() -> None:
    torch.manual_seed(0)
    whole, pushes = Queue(6, 3, step=2), torch.randn(5, 2, 3)
    for rows in pushes[:2]:
        whole.push(rows)
    again = Queue(6, 3, step=2)
    again.load_state_dict(whole.state_dict())
    for rows in pushes[2:]:
        whole.push(rows)
        again.push(rows)
    assert torch.equal(whole.rows, again.rows)
    assert whole.pushed == again.pushed == 10


@pytest.mark.parametrize("length", [3, 10, 1])
def test_a_length_that_is_no_multiple_is_refused(length: int) -> None:
    with pytest.raises(UserError, match=rf"method.queue={length} is not a multiple of the 4 keys"):
        Queue(length, 8, step=4)
