from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_bench.data import catalog
from ssl_bench.data.datamodule import DataModule
from ssl_bench.data.images import Images
from ssl_bench.data.loader import BatchLoader
from ssl_bench.data.orders import Window
from ssl_bench.errors import UserError


def digits(**changes: Any) -> DataModule:
    values: dict[str, Any] = {
        "dataset": catalog.find("digits"),
        "data_dir": "unused",
        "batch_size": 64,
        "evaluation_batch_size": 100,
        "seed": 0,
        "subset": None,
        "labels": None,
        "hold_out_validation": True,
        "window": None,
        "resident": "auto",
    }
    return DataModule(**{**values, **changes})


def rows(loader: BatchLoader) -> list[int]:
    return [row for batch in loader for row in batch.index.tolist()]


def test_nothing_is_read_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(catalog, "load", read)
    data = digits()
    assert data.dataset.classes == 10
    with pytest.raises(AssertionError, match="read"):
        data.setup()


def test_setup_reads_once_however_often_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    load = catalog.load
    monkeypatch.setattr(catalog, "load", lambda *args: calls.append(args) or load(*args))
    data = digits()
    data.prepare_data()
    data.setup("fit")
    images = data.train_dataloader().images
    data.setup("test")
    assert data.train_dataloader().images is images
    assert calls == [(catalog.find("digits"), Path("unused"))]


@pytest.mark.parametrize("hold_out_validation", [True, False])
def test_no_image_is_chosen_on_that_was_learned_from(hold_out_validation: bool) -> None:
    data = digits(hold_out_validation=hold_out_validation)
    validation, probe = set(rows(data.validation())), set(rows(data.probe()))
    assert not validation & probe
    assert validation | probe == set(range(1438))
    pretraining = set(data.train_dataloader().index.tolist())
    assert pretraining == set(rows(data.bank())) == (probe if hold_out_validation else probe | validation)


def test_test_images_are_none_of_the_others() -> None:
    data = digits()
    others = [data.train_dataloader(), data.bank(), data.probe(), data.validation()]
    assert all(loader.images is data.splits["train"] for loader in others)
    assert data.test().images is data.splits["test"]
    assert rows(data.test()) == list(range(359))


def test_splits_are_the_same_for_every_seed_and_orders_are_not() -> None:
    first, second = digits(subset=500, labels=100), digits(subset=500, labels=100, seed=1)
    for part in ("bank", "probe", "validation", "test"):
        assert rows(getattr(first, part)()) == rows(getattr(second, part)())
    assert first.digest == second.digest
    assert first.train_dataloader().index.tolist() == second.train_dataloader().index.tolist()
    assert rows(first.train_dataloader()) != rows(second.train_dataloader())
    assert rows(first.train_dataloader()) == rows(digits(subset=500, labels=100).train_dataloader())


def test_labels_limit_bank_and_probe_but_not_pretraining_or_validation() -> None:
    limited, free = digits(labels=50), digits()
    for loader in (limited.bank(), limited.probe()):
        assert torch.cat([batch.labels for batch in loader]).bincount().tolist() == [5] * 10
    assert rows(limited.train_dataloader()) == rows(free.train_dataloader())
    assert rows(limited.validation()) == rows(free.validation())


def test_pretraining_is_shuffled_in_full_batches_and_evaluation_is_in_turn_and_complete() -> None:
    data = digits()
    training = list(data.train_dataloader())
    assert {len(batch) for batch in training} == {64}
    assert len(training) == len(data.parts.pretraining) // 64
    assert rows(data.train_dataloader()) != sorted(rows(data.train_dataloader()))
    for loader, part in ((data.bank(), "bank"), (data.probe(), "probe"), (data.validation(), "validation")):
        for _ in range(2):
            assert rows(loader) == getattr(data.parts, part).tolist()
    assert [len(batch) for batch in data.test()] == [100, 100, 100, 59]


def test_a_trainer_of_three_devices_divides_every_batch() -> None:
    whole = digits(batch_size=60)
    shares = [digits(batch_size=60) for _ in range(3)]
    for rank, share in enumerate(shares):
        share.trainer = SimpleNamespace(global_rank=rank, world_size=3)
    for name in ("train_dataloader", "bank", "probe", "validation", "test"):
        loaders = [getattr(share, name)() for share in shares]
        for batch, *slices in zip(getattr(whole, name)(), *loaders, strict=True):
            assert torch.cat([piece.index for piece in slices]).tolist() == batch.index.tolist()
    for share in shares:  # but what all are to see they see whole
        assert rows(share.bank(whole=True)) == rows(whole.bank())
        assert rows(share.drawn(torch.tensor([8, 3, 8, 5, 1]), 2)) == [8, 3, 8, 5, 1]


def test_digest_follows_the_pixels_the_labels_and_the_use_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        digits(**changes).digest
        for changes in ({}, {"subset": 500}, {"labels": 100}, {"hold_out_validation": False}, {"labels": 101})
    ]
    for split in ("train", "test"):
        for part in ("images", "labels"):
            splits = catalog.load("digits", "unused")
            getattr(splits[split], part)[-1] ^= 1
            monkeypatch.setattr(DataModule, "splits", splits)
            found.append(digits().digest)
            monkeypatch.undo()
    assert len(set(found)) == len(found)
    assert digits(seed=3, batch_size=32, evaluation_batch_size=7, data_dir="elsewhere").digest == found[0]


def test_lightning_moves_a_batch_as_it_is() -> None:
    data = digits()
    batch = next(iter(data.test()))
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {moved.images.device.type, moved.labels.device.type, moved.index.device.type} == {"meta"}
    assert moved.place == batch.place


@pytest.mark.parametrize("resident", ["auto", "false"])
def test_all_loaders_deliver_on_the_device_that_the_images_were_placed_on(resident: str) -> None:
    data = digits(resident=resident)
    digest = data.digest
    assert data.place_on(torch.device("meta")) is None
    for loader in (data.train_dataloader(), data.bank(), data.probe(), data.validation(), data.test()):
        batch = next(iter(loader))
        assert {batch.images.device.type, batch.labels.device.type, batch.index.device.type} == {"meta"}
        assert loader.index.device.type == "cpu"
    assert data.digest == digest


def test_limits_that_cannot_be_met_are_refused_when_the_data_is_known() -> None:
    with pytest.raises(UserError, match="Cannot choose 5 "):
        digits(labels=5).setup()
    with pytest.raises(UserError, match=r"Cannot choose 1400 .* ask for 10 to 1295 "):
        digits(subset=1400).setup()
    with pytest.raises(UserError, match="There is no dataset 'mnist'"):
        catalog.find("mnist")
    with pytest.raises(UserError, match="batch_size=2000 is larger than the 1295 images"):
        digits(batch_size=2000).train_dataloader()


def test_images_without_labels_are_pretrained_on_and_never_evaluated_with(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(400) % 10
    labels[::4] = -1
    images = torch.zeros(400, 1, 8, 8, dtype=torch.uint8)
    splits = {"train": Images(images, labels), "test": Images(images[:10], labels[:10])}
    monkeypatch.setattr(DataModule, "splits", splits)
    data = digits()
    assert int((labels[data.train_dataloader().index] < 0).sum()) == 100
    for loader in (data.bank(), data.probe(), data.validation()):
        assert min(int(batch.labels.min()) for batch in loader) >= 0


def test_a_window_drops_no_image_between_batches_and_epochs_and_resumes_after_a_restart() -> None:
    window = Window(0.1, 8)
    data = digits(batch_size=60, window=window)
    loader = data.train_dataloader()
    images = data.parts.pretraining
    shown = torch.cat([batch.index for _ in range(4) for batch in loader])
    assert len(loader) == len(images) // 60
    assert torch.equal(shown, images[window.positions(len(images), 0, len(shown), 0)])

    again = digits(batch_size=60, window=window)
    again.load_state_dict({"epoch": 2, "step": 5})
    first = (2 * len(loader) + 5) * 60
    assert rows(again.train_dataloader()) == shown[first : 3 * len(loader) * 60].tolist()


def test_a_window_that_cannot_work_is_refused_before_the_first_epoch() -> None:
    with pytest.raises(UserError, match=r"order\.strides=2000 "):
        digits(window=Window(0.5, 2000)).train_dataloader()
