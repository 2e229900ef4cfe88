"""One checkpoint, always whole: saved between steps, at epoch ends and when somebody asks the run to stop."""

import signal
import time
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from ssl_bench.batch import Batch
from ssl_bench.distributed import largest, of_every_rank, on_rank_zero, rank, world_size
from ssl_bench.entry import take_over
from ssl_bench.errors import SIGNALLED, UserError
from ssl_bench.files import write_whole

ASK_EVERY = 10  # steps between agreements on stopping and saving, on several GPUs


class Interrupted(UserError):  # noqa: N818 (nothing is wrong)
    """The run was asked to stop and has saved its state; the status is the shell's for that signal."""

    def __init__(self, sentence: str, asked: signal.Signals) -> None:
        super().__init__(sentence)
        self.status = SIGNALLED + asked


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's way to the disk, made atomic and durable; reads tensors and plain types only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:  # given a path, torch.save hides the system's error for a full disk
                torch.save(checkpoint, file)

        write_whole(Path(path), write)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        # Rank 0 reads for all: other machines may not see its disk.
        state: dict[str, Any] = on_rank_zero(
            lambda: torch.load(path, map_location=map_location or "cpu", weights_only=True)
        )
        return state


@dataclass(eq=False, repr=False)
class Checkpointer(pl.Callback):
    """Comes last, so that a checkpoint holds the state of all other callbacks.

    Ctrl-C, SIGTERM and SIGHUP are requests: the step is finished, saved, and the run ends. A second signal ends
    it at once. Ranks agree on both, so that a signal may reach them at different steps or only one of them.
    """

    path: Path
    _: KW_ONLY
    fingerprint: str
    every_seconds: float

    def __post_init__(self) -> None:
        self.saved_at = time.monotonic()
        self.asked: signal.Signals | None = None  # of this process
        self.agreed: signal.Signals | None = None  # of all
        self.finished_epochs = 0
        self._handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        # Here and not earlier: Lightning puts its own handlers in place before training starts.
        self._handlers = take_over(self._ask)
        self.saved_at = time.monotonic()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            raise Interrupted(
                f"stopped at once by a second signal; {self.path} keeps the last state saved.", self.asked
            )
        self.asked = signal.Signals(number)

    def on_train_end(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        # Here and not later: afterwards Lightning takes its own handlers away, which would come back.
        self._restore_handlers()

    def on_exception(self, trainer: pl.Trainer, method: pl.LightningModule, exception: BaseException) -> None:
        # Where Lightning does not. After an interruption the same signal may still be on its way.
        if not isinstance(exception, Interrupted):
            self._restore_handlers()

    def _restore_handlers(self) -> None:
        for name, handler in self._handlers.items():
            signal.signal(name, handler)
        self._handlers = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, method: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        # Gradients that are still being accumulated are in no checkpoint. The epoch's last batch waits for the end of
        # the epoch, whose figures belong to the same state.
        steps, accumulating = divmod(batch_idx + 1, trainer.accumulate_grad_batches)
        if accumulating or trainer.is_last_batch:
            return
        # Ranks of a GPU run ahead of it; asking at every step would hold them up.
        if (world_size() == 1 or method.device.type == "cpu" or steps % ASK_EVERY == 0) and self._due():
            self._save(trainer, method)

    def on_train_epoch_end(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        self.finished_epochs = trainer.current_epoch + 1
        due = self._due()  # asked by all ranks, whatever epoch it is
        # The first epoch shows that all works; a short run has something to resume from.
        if due or self.finished_epochs in (1, trainer.max_epochs):
            self._save(trainer, method)

    def _due(self) -> bool:
        """Whether any rank was asked to stop, or it is time by the clock of rank 0; the same on all ranks."""
        late = rank() == 0 and time.monotonic() - self.saved_at >= self.every_seconds
        wish = largest(self.asked + 1 if self.asked else int(late))  # signals have numbers from 1
        if wish > 1:
            self.agreed = signal.Signals(wish - 1)
        return wish > 0

    def _save(self, trainer: pl.Trainer, method: pl.LightningModule) -> None:
        # What is not finite would replace the last good state: weights, and the buffers that hold queues, instance
        # weights and statistics, which each rank may have of its own.
        state = (part for part in method.state_dict().values() if isinstance(part, torch.Tensor))
        norms = torch._foreach_norm([part for part in state if part.is_floating_point() and part.numel()], float("inf"))
        if largest(int(not torch.isfinite(torch.stack(norms).max()))):
            kept = f"; {self.path} keeps the last good state" if self.path.exists() else ""
            raise UserError(
                f"weights or buffers are not finite at epoch {trainer.current_epoch + 1}, step {trainer.global_step}"
                f"{kept}. Try a lower optimizer.lr, trainer.clip=1 or trainer.precision=32-true."
            )
        trainer.save_checkpoint(self.path)
        self.saved_at = time.monotonic()
        self._due()  # a signal may have come since
        if self.agreed is not None:
            raise Interrupted(
                f"stopped by {self.agreed.name} at epoch {trainer.current_epoch + 1}, step {trainer.global_step}, and "
                f"saved to {self.path}; the same command resumes from there.",
                self.agreed,
            )

    def on_save_checkpoint(self, trainer: pl.Trainer, method: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["ssl_bench"] = {"fingerprint": self.fingerprint, "finished_epochs": self.finished_epochs}
        # Dropout and stochastic depth of some backbones draw from the global generators.
        # Of this run's GPU alone: another start may see fewer or more of them.
        device = trainer.strategy.root_device
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        checkpoint["rng"] = of_every_rank({"cpu": torch.get_rng_state(), "cuda": cuda})

    def on_load_checkpoint(self, trainer: pl.Trainer, method: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.finished_epochs = checkpoint["ssl_bench"]["finished_epochs"]
        # Earlier checkpoints of one process have its state alone.
        states = checkpoint["rng"] if isinstance(checkpoint["rng"], list) else [checkpoint["rng"]]
        if rank() >= len(states):  # the run has more devices than before: no state is drawn from twice
            torch.manual_seed(torch.initial_seed() + checkpoint["global_step"])
            return
        own = states[rank()]
        torch.set_rng_state(own["cpu"].cpu())
        cuda, device = own["cuda"], trainer.strategy.root_device  # the method is not there yet
        if isinstance(cuda, list):  # earlier checkpoints have one of every GPU that was visible, none on a CPU
            cuda = cuda[0] if cuda else None
        if cuda is not None and device.type == "cuda":
            torch.cuda.set_rng_state(cuda.cpu(), device)


def read_checkpoint(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The state to resume from, or None where there is none; UserError for a damaged file or another run's."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        owner = state["ssl_bench"]["fingerprint"]
    except Exception as error:  # torch.load fails in many ways, none of them documented
        # Its own message advises to trust the file; the system's names why it could not be read.
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise UserError(
            f"{path} is damaged or no checkpoint of ssl_bench{reason}. Move it away to start over."
        ) from None
    if owner != fingerprint:
        raise UserError(f"{path} belongs to run {owner}, not to {fingerprint}. Move it away to start over.")
    return state
