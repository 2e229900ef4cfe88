from __future__ import annotations

import hashlib

import pytest
import torch

from ssl_bench.data.images import Images, Repeats, contradictions, keys, repeats, twins


def random_images(seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    return Images(
        torch.randint(0, 256, (20, 3, 4, 5), generator=generator, dtype=torch.uint8),
        torch.randint(-1, 10, (20,), generator=generator),
    )


def test_digest_is_the_same_for_the_same_content_however_it_lies_in_memory() -> None:
    split = random_images()
    strided = split.images.to(memory_format=torch.channels_last)
    assert strided.stride() != split.images.stride()
    assert Images(strided, split.labels.clone()).digest() == split.digest() == random_images().digest()


def test_digest_changes_with_one_pixel() -> None:
    split = random_images()
    before = split.digest()
    split.images[13, 2, 3, 4] ^= 1
    assert split.digest() != before


def test_digest_changes_with_one_label() -> None:
    split = random_images()
    before = split.digest()
    split.labels[19] += 1
    assert split.digest() != before


def test_digest_changes_with_the_order_of_the_images() -> None:
    split = random_images()
    assert Images(split.images.flip(0), split.labels.flip(0)).digest() != split.digest()


@pytest.mark.parametrize("shape", [(20, 3, 5, 4), (20, 1, 12, 5), (20, 60, 1, 1)])
def test_digest_changes_with_the_shape_of_the_same_bytes(shape: tuple[int, ...]) -> None:
    split = random_images()
    assert Images(split.images.view(shape), split.labels).digest() != split.digest()


def test_digest_is_sha256_of_type_shape_and_bytes() -> None:
    split = random_images()
    content = b"torch.uint8 (20, 3, 4, 5) " + bytes(split.images.flatten().tolist())
    content += b"torch.int64 (20,) " + b"".join(
        label.to_bytes(8, "little", signed=True) for label in split.labels.tolist()
    )
    assert split.digest() == hashlib.sha256(content).hexdigest()


def test_an_image_is_repeated_where_every_pixel_is_the_same() -> None:
    train = torch.randint(0, 256, (20, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    test = torch.cat([train[[3, 7, 3]], train[5:7]])
    test[3, 0, 0, 0] ^= 1
    labels = torch.zeros(20, dtype=torch.int64)
    strided = test.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    for others in (test, strided):
        assert repeats(Images(train, labels), Images(others, labels[:5])) == Repeats(
            4, 0, "4 of 5 test images are in train as well, pixel for pixel, such as image 0 and image 3 of train", ""
        )
    assert repeats(Images(train, labels), Images(test[:0], labels[:0])) == Repeats(0, 0, "", "")


def test_twins_are_named_by_their_rows_and_contradictions_by_their_labels() -> None:
    train = torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    train[[3, 5, 6, 7]] = train[1].clone()
    known = keys(Images(train, torch.zeros(8, dtype=torch.int64)))
    assert twins(known, [known[5], known[2], b"new"]) == [(1, 0), (2, 1)]
    assert contradictions(known, torch.tensor([0, 2, 0, 2, 0, 1, -1, 0])) == [(1, 5), (1, 7)]
    assert contradictions(known, torch.tensor([0, -1, 0, 2, 0, 1, 2, -1])) == [(3, 5)]
    assert contradictions(known, torch.full((8,), -1)) == []
    named = Images(train[:2], torch.zeros(2, dtype=torch.int64), names=("a.png", "b.png"))
    assert (named.name(1), Images(train, torch.zeros(8)).name(1)) == ("b.png", "image 1")
