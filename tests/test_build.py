"""What is refused before it is built."""

from __future__ import annotations

import pytest

from ssl_bench.config.compose import compose
from ssl_bench.errors import UserError
from ssl_bench.training.build import build

WORDS = ["dataset=digits", "scale=smoke", "method=simclr", "trainer.accelerator=cpu"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["dataset.size=100000"],
            "batch_size=32 images at dataset.size=100000 pixels need 2.6 TB of memory, more than",
        ),
        (["batch_size=1000000000"], "batch_size=1000000000 images at dataset.size=16 pixels need 2.0 TB of memory"),
        (
            ["evaluation.batch_size=9000000000"],
            "evaluation.batch_size=9000000000 images at dataset.size=16 pixels need",
        ),
    ],
)
def test_a_batch_beyond_any_memory_is_foreseen(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        build(compose([*WORDS, *words]))
    assert str(caught.value).startswith(said)
