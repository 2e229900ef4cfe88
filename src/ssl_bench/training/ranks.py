"""Several devices as Lightning sees them: who is who, gradients averaged, and nobody left waiting."""

from __future__ import annotations

import inspect
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from ssl_bench import distributed
from ssl_bench.nn.norm import batch_norms

# torch 2.13 gave the argument another name.
_NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"


class ExistingGroup(ClusterEnvironment):
    """The process group that this process is in already, or this process alone; Lightning starts and connects nothing.

    A process alone needs it, too: within a SLURM allocation of several tasks Lightning would refuse to be one.
    """

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.nodes = nodes

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise NotImplementedError("the process group is connected")

    @property
    def main_port(self) -> int:
        raise NotImplementedError("the process group is connected")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return distributed.world_size()

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return distributed.rank()

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return distributed.local_rank()

    def node_rank(self) -> int:
        return distributed.rank() // (distributed.world_size() // self.nodes)


class ReplicaStrategy(DDPStrategy):
    """DistributedDataParallel whose replicas are equal by construction; only gradients are averaged.

    Buffers are never sent, which queues and the like are too large for, but for BatchNorm's statistics where each rank
    has its own (``sync_buffers``); then those of rank 0 count.
    """

    def __init__(self, *, sync_buffers: bool) -> None:
        options: dict[str, Any] = {SYNC_BUFFERS: sync_buffers}
        super().__init__(find_unused_parameters=False, **options)

    def configure_ddp(self) -> None:
        assert self.model is not None
        statistics = {id(buffer) for norm in batch_norms(self.model) for buffer in norm.buffers()}
        buffers = self.model.named_buffers(remove_duplicate=False)
        equal = [name for name, buffer in buffers if id(buffer) not in statistics]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.model, equal)  # type: ignore[no-untyped-call]
        super().configure_ddp()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Written by rank 0; a full disk is an error of all, else the others would wait."""
        distributed.on_rank_zero(lambda: self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options))


def without_signal_handlers(trainer: pl.Trainer) -> None:
    """Keep Lightning from hearing SIGTERM: it talks to the other ranks at once, whatever they are saying just then."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    # And from asking all ranks at every step whether one has received it, for which an accelerator would stand still.
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
