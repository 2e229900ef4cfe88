"""Nothing in a training step waits: counted on the emulated device, for every method."""

from __future__ import annotations

import pytest

from emulated import COPY, KINDS, LAUNCH, READ, SHAPE, WAITING_COPY
from ssl_bench.config.options import GROUPS, block_of
from step_counts import CROPS, STEPS, measure

pytestmark = pytest.mark.usefixtures("few_layers")
METHODS = tuple(GROUPS["method"])
# Whether eigh went well is read wherever it is called; PIC's classes are the distinct images of a batch.
ALLOWED = {("directpred", READ): 1, ("pic", SHAPE): 1}


def require_no_waiting(method: str, *overrides: str, copies: int, first: int, steps: int) -> None:
    counts = measure(method, *overrides, first=first, steps=steps)
    assert counts.of(LAUNCH) > 100 * steps  # it has trained
    limits = {COPY: copies, WAITING_COPY: 0, READ: 0, SHAPE: 0} | {
        kind: number for (name, kind), number in ALLOWED.items() if name == method
    }
    for kind in KINDS:
        if kind in limits:
            assert counts.of(kind) <= limits[kind] * steps, f"{kind} per step:\n{counts.table(kind, per=steps)}"


@pytest.mark.parametrize("method", METHODS)
def test_a_step_copies_once_and_waits_for_nothing(method: str) -> None:
    require_no_waiting(method, copies=1, first=2, steps=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "resident"), [*((name, "true") for name in METHODS), ("clbo", "false"), ("pic", "false")]
)  # where images come from is no method's affair, but that PIC is told which ones they are
def test_after_ten_steps_a_step_copies_parameters_and_images_and_waits_for_nothing(method: str, resident: str) -> None:
    crops = CROPS if block_of(method, "needs").get("smaller_views") else ()
    copies = 1 if resident == "true" else 2
    require_no_waiting(method, f"dataset.resident={resident}", *crops, copies=copies, first=10, steps=STEPS)


OTHERWISE = (
    ("simclr", ("optimizer.name=lars", "optimizer.exclude_bias_and_norm=true")),
    ("byol", ("optimizer.name=adamw", "optimizer.lr=0.001", "trainer.clip=1.0")),
    ("simsiam", ("optimizer.name=muon",)),
    ("clbo", ("trainer.accumulate=2", "method.teacher_buffers=copy", "method.proximal=0.1")),
    ("directpred", ("method.kind=optimal",)),
    ("pic", ("method.negatives=null",)),
)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "overrides"), OTHERWISE)
def test_other_optimisers_accumulation_and_variants_wait_for_nothing_either(
    method: str, overrides: tuple[str, ...]
) -> None:
    require_no_waiting(method, *overrides, copies=1, first=3, steps=2)
