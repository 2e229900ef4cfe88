"""Which device a run computes on, what it is refused for, and what is shown when the device fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from ssl_bench import devices
from ssl_bench.config.compose import compose
from ssl_bench.config.options import GROUPS
from ssl_bench.errors import TRY_AGAIN, UserError
from ssl_bench.training import build, operations
from ssl_bench.training.run import run

SMALL = (
    "scale=smoke",
    "subset=64",
    "batch_size=16",
    "epochs=1",
    "trainer.progress=false",
    "trainer.precision=32-true",
    "trainer.checkpoint_seconds=0.001",
    "evaluation.protocols=[knn1]",
    "evaluation.curves=[knn1]",
)
CPU = "trainer.accelerator=cpu"


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_cards")
def test_a_card_that_emulates_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert devices.resolve_precision("auto", "auto") == "32-true"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert devices.resolve_precision("auto", "auto") == "bf16-mixed"


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^trainer.accelerator=gpu, but PyTorch finds no CUDA device: use .*=cpu\.$"):
        run(compose([*SMALL, "trainer.accelerator=gpu"]))


@pytest.mark.usefixtures("two_cards")
def test_more_devices_than_there_are_is_refused_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    asked = compose([*SMALL, "trainer=ddp", "trainer.devices=3", "trainer.accelerator=gpu"])
    with pytest.raises(UserError, match=r"^trainer.devices=3, but PyTorch finds 2 CUDA device\(s\) here: set"):
        run(asked)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(UserError, match=r"2 CUDA device\(s\) here \(CUDA_VISIBLE_DEVICES=4,5\): set"):
        run(asked)


def test_a_cpu_is_asked_for_by_name_before_it_trains_for_weeks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(operations, "cores", lambda: 2)
    options = ["scale=paper", "trainer.progress=false", f"runs_dir={tmp_path}"]
    config = compose(options)
    with pytest.raises(UserError, match=r"^scale=paper .* takes about .* hours on 2 cores\): set .*accelerator=cpu to"):
        run(config)
    assert not list(tmp_path.iterdir())
    # ResNet-18 with a stem of one 3×3 convolution, by hand: the convolutions of each stage, its first and its 1×1 one.
    side, forward = config.augment.groups["global"].size, 0
    forward += 2 * 9 * 1 * 64 * side**2 + 4 * 2 * 9 * 64 * 64 * side**2
    for width in (128, 256, 512):
        side //= 2
        forward += (9 * width // 2 + 3 * 9 * width + width // 2) * 2 * width * side**2
    forward += 2 * (512 * 512 + 512 * 128)  # the projector
    data = build.build_data(config)
    data.setup()
    images = 1438 // config.batch_size * config.batch_size * config.epochs
    passes = 2 * (3 + 1)  # of each view: the student's, of which a backward pass counts twice, and the teacher's
    seconds = passes * forward * images / (2 * operations.CORE_SPEED)
    assert operations.cpu_time(config, data) == f"training takes about {seconds / 3600:.2g} hours on 2 cores"
    longer = config.changed({"method.epoch_unit": "teacher"})  # K passes are an epoch
    assert operations.cpu_time(longer, data) == f"training takes about {2 * seconds / 3600:.2g} hours on 2 cores"
    days = seconds * 1000 / 86400
    config = replace(config, epochs=1000 * config.epochs)
    assert operations.cpu_time(config, data) == f"training takes about {days:.2g} days on 2 cores"

    class Stop(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(compose([*options, CPU, "subset=256", "backbone.width=8"]), [Stop()])


def test_a_run_of_one_device_works_in_an_allocation_of_several_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"JOB_ID": "1", "JOB_NAME": "train", "NTASKS": "2", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("LOCAL_RANK", "1")  # left over

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 2:
                raise InterruptedError

    with pytest.raises(InterruptedError):
        run(compose([*SMALL, CPU, f"runs_dir={tmp_path}"]), [Stop()])
    assert len(list(tmp_path.glob("*/checkpoints/last.ckpt"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", GROUPS["method"])
def test_every_method_trains_and_is_scored_where_what_cannot_repeat_is_an_error(
    method: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if method != "clbo":  # which trains the whole ResNet-18
        request.getfixturevalue("few_layers")
    seen: list[Any] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            cudnn = torch.backends.cudnn
            seen.append((torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark))

    options = [*SMALL[:-2], CPU, f"method={method}", "trainer.deterministic=true", f"runs_dir={tmp_path}"]
    record = run(compose(options), [Watch()])
    assert set(seen) == {(True, True, False)}
    assert not torch.are_deterministic_algorithms_enabled()
    assert record.config["trainer"]["deterministic"] is True


def test_a_workspace_of_cublas_that_does_not_repeat_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(UserError, match=r"^CUBLAS_WORKSPACE_CONFIG=:0:0 does not repeat"), devices.repeatable(True):
        pass


@pytest.mark.parametrize("wanted", [False, True])
def test_cublas_can_repeat_in_a_later_run_of_the_same_process(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with devices.repeatable(wanted):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert torch.are_deterministic_algorithms_enabled() is wanted


def test_what_may_not_repeat_is_as_before_afterwards() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with devices.repeatable(True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


LOST = (
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa)`",
)
NOT_LOST = (
    "CUDA error: device-side assert triggered",
    "CUDA error: no kernel image is available for execution on the device",
    "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`",
    "mat1 and mat2 shapes cannot be multiplied",
)


def named() -> AbstractContextManager[None]:
    return devices.failures_named("this", "lower batch_size", "start anew")


@pytest.mark.parametrize("message", LOST)
def test_a_card_that_failed_is_named_with_what_cuda_says(message: str) -> None:
    with pytest.raises(devices.GPUError) as failure, named():
        raise RuntimeError(message)
    assert "\n" not in str(failure.value)
    assert message.splitlines()[0].partition(": ")[2] in str(failure.value)
    assert str(failure.value).endswith("; start anew.")


@pytest.mark.parametrize("message", NOT_LOST)
def test_errors_that_would_return_are_left_as_they_are(message: str) -> None:
    with pytest.raises(RuntimeError, match=message[:20]), named():
        raise RuntimeError(message)


def test_a_full_memory_names_the_options_to_lower() -> None:
    with pytest.raises(UserError, match="lower batch_size") as failure, named():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")
    assert not isinstance(failure.value, devices.GPUError)
    assert "\n" not in str(failure.value)


def test_an_operation_that_cannot_repeat_is_named_with_the_option() -> None:
    sentence = "trainer.deterministic=true, but cumsum_cuda_kernel does not repeat .* set trainer.deterministic=false.$"
    with pytest.raises(UserError, match=sentence) as failure, named():
        raise RuntimeError(
            "cumsum_cuda_kernel does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation."
        )
    assert not isinstance(failure.value, devices.GPUError)


def too_much() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def pinned() -> None:
    raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")


def within_a_library() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def too_much_for_numpy() -> None:
    np.empty(2**60, np.uint8)


@pytest.mark.parametrize("act", [too_much, full, pinned, within_a_library, too_much_for_numpy])
def test_too_little_memory_of_card_or_machine_is_a_sentence_with_its_remedy(act: Callable[[], None]) -> None:
    asked = r"( \([\d.]+ (GiB|bytes) were asked for\))?"
    sentence = f"^this takes more memory than there is{asked}: lower that.$"
    with pytest.raises(UserError, match=sentence), devices.within_memory("this", "lower that"):
        act()


class Unplug(pl.Callback):
    """The card is gone in the third step, and whatever is asked of it afterwards fails, too."""

    def on_train_batch_end(self, trainer: pl.Trainer, method: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == 3:
            raise RuntimeError(LOST[0])

    def on_exception(self, *_: Any) -> None:
        raise RuntimeError(LOST[0])


def test_a_card_taken_away_in_mid_run_is_one_sentence_and_a_run_that_a_sweep_starts_again(tmp_path: Path) -> None:
    with pytest.raises(devices.GPUError, match="an illegal memory access was encountered") as failure:
        run(compose([*SMALL, CPU, f"runs_dir={tmp_path}"]), [Unplug()])
    assert failure.value.status == TRY_AGAIN
    assert [path.name for path in tmp_path.glob("*/checkpoints/*")] == ["last.ckpt"]


@pytest.mark.slow
def test_a_card_taken_away_in_mid_run_leaves_a_run_that_resumes_bit_for_bit(tmp_path: Path) -> None:
    options = (*SMALL, CPU, "method=simclr")
    with pytest.raises(devices.GPUError, match="the same command resumes from it"):
        run(compose([*options, f"runs_dir={tmp_path}/a"]), [Unplug()])
    records = [run(compose([*options, f"runs_dir={tmp_path}/{name}"])) for name in "ab"]
    assert records[0].results == records[1].results
    a, b = (np.load(tmp_path / name / records[0].fingerprint / "predictions.npz") for name in "ab")
    assert all(np.array_equal(a[name], b[name]) for name in a.files)


def test_threads_are_those_of_the_run_and_afterwards_those_from_before() -> None:
    before = torch.get_num_threads()
    with devices.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with devices.threads(None):
            assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
