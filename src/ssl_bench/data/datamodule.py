"""The images of a run, for pretraining and for evaluation."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_bench.data import catalog
from ssl_bench.data.catalog import Dataset
from ssl_bench.data.delivery import Delivery, deliveries
from ssl_bench.data.images import Images
from ssl_bench.data.loader import BatchLoader
from ssl_bench.data.orders import Window, permutation
from ssl_bench.data.splits import Parts, parts
from ssl_bench.distributed import local_rank, on_every_rank


@dataclass(kw_only=True, eq=False, repr=False)
class DataModule(pl.LightningDataModule):
    """Loaders for pretraining and for each part of the evaluation."""

    dataset: Dataset  # its entry of the catalog
    data_dir: str | Path  # where files are looked for, and downloaded to
    batch_size: int  # images per training step, over all devices
    evaluation_batch_size: int  # the same where no gradient is taken
    seed: int  # the run's, for the order of pretraining; the splits do not depend on it
    subset: int | None  # pretrain on so many images, class-balanced; bank and probe lie within them. None: on all
    labels: int | None  # let bank and probe know so many labels, class-balanced. None: all
    hold_out_validation: bool  # keep the validation images out of pretraining and bank; the probe chooses on them
    window: Window | None  # slides over the images of pretraining. None: an epoch is a permutation of them
    resident: str  # let images live on an accelerator: ``true``, ``false``, or ``auto``, where there is room enough

    def __post_init__(self) -> None:
        super().__init__()
        self._deliveries: dict[str, Delivery] = {}
        self._pretraining: BatchLoader | None = None
        self._position: dict[str, int] | None = None

    @cached_property
    def splits(self) -> dict[str, Images]:
        """The official splits ``train`` and ``test``, read when first asked for."""
        return catalog.load(self.dataset, Path(self.data_dir))

    @cached_property
    def parts(self) -> Parts:
        """What the images of ``train`` are used for."""
        return parts(
            self.splits["train"].labels,
            subset_size=self.subset,
            label_count=self.labels,
            hold_out_validation=self.hold_out_validation,
            pretraining_from=self.dataset.pretraining_from,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the content of both splits and over which image is used for what."""
        sha = hashlib.sha256()
        for split in ("train", "test"):
            sha.update(self.splits[split].digest().encode())
        for index in (self.parts.pretraining, self.parts.bank, self.parts.probe, self.parts.validation):
            sha.update(f"{len(index)} ".encode())
            sha.update(index.numpy().data)
        return sha.hexdigest()

    def prepare_data(self) -> None:
        """Read, and download if need be, in one process per machine before the others read."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Read the images and divide them; the second time, nothing is left to do."""
        _ = self.parts

    def place_on(self, device: torch.device) -> str | None:
        """Let all loaders from now on deliver their batches on ``device``, where images live if they fit.

        Returns a sentence if they were to and do not.
        """
        self._deliveries, note = deliveries(self.splits, device, self.resident)
        return note

    def train_dataloader(self) -> BatchLoader:
        """Pretraining: shuffled anew every epoch, or under a sliding window; full batches only."""
        index = self.parts.pretraining
        order = partial(permutation, len(index), self.seed)
        if self.window is not None:
            self.window.sizes(len(index))  # refused now and not in the first epoch
            # The stream continues in the next epoch where the last full batch of this one has ended.
            shown = len(index) // self.batch_size * self.batch_size
            order = partial(self.window.positions, len(index), self.seed, shown)
        loader = self._loader("train", index, order, batch_size=self.batch_size, drop_last=True)
        if self._position:
            loader.load_state_dict(self._position)
        self._pretraining, self._position = loader, None
        return loader

    # Lightning saves a loader's own state too, but forgets to restore it where the number of steps was asked for
    # before the checkpoint was read, as schedules do.
    def state_dict(self) -> dict[str, int]:
        """The position in pretraining."""
        return self._pretraining.state_dict() if self._pretraining else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next pretraining loader resume there."""
        self._position = state_dict

    def bank(self, *, whole: bool = False) -> BatchLoader:
        """Labelled images among which k-NN looks for neighbours; ``whole`` shows every rank all of them."""
        return self._evaluation("train", self.parts.bank, whole)

    def probe(self) -> BatchLoader:
        """Labelled images on which the linear probe trains while it chooses."""
        return self._evaluation("train", self.parts.probe)

    def validation(self) -> BatchLoader:
        """Images on which choices are made."""
        return self._evaluation("train", self.parts.validation)

    def test(self) -> BatchLoader:
        """Images on which nothing is chosen."""
        return self._evaluation("test", torch.arange(len(self.splits["test"])))

    def drawn(self, index: Tensor, batch_size: int) -> BatchLoader:
        """Training images at these positions ``[K]``, in this order, for every rank all of them."""
        order = partial(_in_turn, len(index))
        return self._loader("train", index, order, batch_size=batch_size, drop_last=False, whole=True)

    def _evaluation(self, split: str, index: Tensor, whole: bool = False) -> BatchLoader:
        """Every image once, in turn, divided among the ranks without padding or repeats."""
        order = partial(_in_turn, len(index))
        return self._loader(split, index, order, batch_size=self.evaluation_batch_size, drop_last=False, whole=whole)

    def _loader(
        self,
        split: str,
        index: Tensor,
        order: Callable[[int], Tensor],
        *,
        batch_size: int,
        drop_last: bool,
        whole: bool = False,
    ) -> BatchLoader:
        ranks = None if whole else self.trainer
        return BatchLoader(
            self.splits[split],
            index,
            order,
            batch_size=batch_size,
            rank=ranks.global_rank if ranks else 0,
            world=ranks.world_size if ranks else 1,
            seed=self.seed,
            drop_last=drop_last,
            delivery=self._deliveries.get(split),
        )


def _in_turn(size: int, epoch: int) -> Tensor:
    return torch.arange(size)


def read_on_every_rank(data: DataModule) -> None:
    """Read the images on every rank, once one process per machine has downloaded what is missing."""
    on_every_rank(data.prepare_data if local_rank() == 0 else lambda: None)
    on_every_rank(data.setup)
