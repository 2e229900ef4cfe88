from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial

import pytest
import torch

from ssl_bench.batch import Batch, Place
from ssl_bench.data.images import Images
from ssl_bench.data.loader import BatchLoader
from ssl_bench.data.orders import permutation
from ssl_bench.errors import UserError

SPLIT = Images(
    torch.randint(0, 256, (60, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8),
    torch.arange(60) % 5,
)
INDEX = torch.arange(0, 60, 2)[3:]  # 27 of the 60


def loader(batch_size: int = 6, rank: int = 0, world: int = 1, drop_last: bool = True, seed: int = 7) -> BatchLoader:
    return BatchLoader(
        SPLIT,
        INDEX,
        partial(permutation, len(INDEX), seed),
        batch_size=batch_size,
        rank=rank,
        world=world,
        seed=seed,
        drop_last=drop_last,
    )


def seen(batches: Iterable[Batch]) -> list[tuple[int, int, list[int]]]:
    return [(batch.place.epoch, batch.place.step, batch.index.tolist()) for batch in batches]


def test_batches_are_the_order_cut_into_pieces() -> None:
    feed = loader()
    for epoch in range(3):
        order = INDEX[permutation(27, seed=7, epoch=epoch)].tolist()
        assert len(feed) == 4
        assert seen(feed) == [(epoch, step, order[6 * step : 6 * step + 6]) for step in range(4)]


def test_a_batch_holds_the_images_and_labels_its_index_names() -> None:
    for batch in loader():
        assert torch.equal(batch.images, SPLIT.images[batch.index])
        assert torch.equal(batch.labels, SPLIT.labels[batch.index])
        assert batch.images.dtype == torch.uint8
        assert batch.labels.dtype == batch.index.dtype == torch.int64


def test_without_dropping_every_image_comes_once_and_the_last_batch_is_smaller() -> None:
    batches = list(loader(drop_last=False))
    assert [len(batch) for batch in batches] == [batch.place.size for batch in batches] == [6, 6, 6, 6, 3]
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == INDEX.tolist()


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_together_see_what_one_rank_sees(world: int, drop_last: bool) -> None:
    whole = loader(drop_last=drop_last)
    shares = [loader(rank=rank, world=world, drop_last=drop_last) for rank in range(world)]
    assert {len(share) for share in shares} == {len(whole)}
    for _ in range(2):
        for batch, *slices in zip(whole, *shares, strict=True):
            assert torch.equal(torch.cat([piece.index for piece in slices]), batch.index)
            assert torch.equal(torch.cat([piece.images for piece in slices]), batch.images)
            first = 0
            for piece in slices:
                place = batch.place
                assert piece.place == Place(place.seed, place.epoch, place.step, first=first, size=len(batch))
                first += len(piece)
            sizes = [len(piece) for piece in slices]
            assert max(sizes) - min(sizes) <= (0 if drop_last else 1)


def test_random_draws_of_an_image_do_not_depend_on_the_number_of_ranks() -> None:
    for drop_last in (True, False):
        shares = [loader(rank=rank, world=3, drop_last=drop_last) for rank in range(3)]
        for batch, *slices in zip(loader(drop_last=drop_last), *shares, strict=True):
            draws = torch.cat([piece.place.uniform(len(piece), 2) for piece in slices])
            assert torch.equal(draws, batch.place.uniform(len(batch), 2))


@pytest.mark.parametrize(("batch_size", "shares"), [(26, [0, 0, 1]), (25, [0, 1, 1]), (23, [1, 1, 2]), (22, [1, 2, 2])])
def test_a_remainder_falls_to_the_ranks_as_evenly_as_it_can(batch_size: int, shares: list[int]) -> None:
    batches = [list(loader(batch_size=batch_size, rank=rank, world=3, drop_last=False))[-1] for rank in range(3)]
    assert sorted(len(batch) for batch in batches) == shares
    assert {batch.images.shape[1:] for batch in batches} == {(1, 2, 2)}


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("consumed", [0, 1, 3, 4, 5, 7, 8, 10, 15, 16])
def test_a_saved_loader_resumes_with_the_next_batch(consumed: int, drop_last: bool) -> None:
    def stream(feed: BatchLoader, count: int) -> list[tuple[int, int, list[int]]]:
        """``count`` batches, over as many epochs as that takes."""
        found: list[tuple[int, int, list[int]]] = []
        while len(found) < count:
            for batch in feed:
                found += seen([batch])
                if len(found) == count:
                    break
        return found

    total = 20
    expected = stream(loader(drop_last=drop_last), total)
    interrupted = loader(drop_last=drop_last)
    stream(interrupted, consumed)
    state = json.loads(json.dumps(interrupted.state_dict()))
    assert all(type(value) is int for value in state.values())
    resumed = loader(drop_last=drop_last)
    resumed.load_state_dict(state)
    iter(resumed)  # asking for an iterator without reading moves nothing
    assert stream(resumed, total - consumed) == expected[consumed:]


def test_a_pass_that_is_broken_off_is_over() -> None:
    feed = loader()
    next(iter(feed))
    assert [(epoch, step) for epoch, step, _ in seen(feed)] == [(1, 0), (1, 1), (1, 2), (1, 3)]


def test_set_epoch_begins_another_epoch_but_not_the_same_one_again() -> None:
    feed = loader()
    feed.load_state_dict({"epoch": 2, "step": 3})
    feed.set_epoch(2)
    assert feed.state_dict() == {"epoch": 2, "step": 3}
    feed.set_epoch(3)
    assert seen(feed)[0][:2] == (3, 0)


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    with pytest.raises(UserError, match=r"^batch_size=8 .* all 3 devices .* multiple of 3\.$"):
        loader(batch_size=8, world=3)
    assert len(loader(batch_size=8, world=3, drop_last=False)) == 4


def test_a_batch_larger_than_the_training_data_is_refused() -> None:
    with pytest.raises(UserError, match=r"^batch_size=28 is larger than the 27 images"):
        loader(batch_size=28)
    assert len(loader(batch_size=27)) == len(loader(batch_size=28, drop_last=False)) == 1
