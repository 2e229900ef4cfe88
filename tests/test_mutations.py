"""The table of mutations fits the code that it breaks."""

from __future__ import annotations

import re

import pytest

from mutations import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_changes_one_place_and_names_tests_that_exist(mutation: Mutation) -> None:
    assert mutation.path(ROOT).read_text(encoding="utf-8").count(mutation.old) == 1
    assert mutation.old != mutation.new
    assert mutation.tests
    for test in mutation.tests:
        file, _, name = test.partition("::")
        defined = re.findall(r"^def (\w+)\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        assert name.partition("[")[0] in defined


def test_there_are_many_mutations_and_each_has_a_name_of_its_own() -> None:
    assert len(MUTATIONS) >= 40
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    assert len({(mutation.file, mutation.old, mutation.new) for mutation in MUTATIONS}) >= 40
