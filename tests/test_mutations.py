"""The table of mutations fits the code that it breaks, and a patch of syntax fits what it should."""

from __future__ import annotations

import ast
import re

import pytest

from mutations import MUTATIONS, ROOT, TABLE
from patches import PatchError, patched, patched_value


def test_every_mutation_changes_one_place_into_code_that_compiles_and_names_tests_that_exist() -> None:
    misfits = []
    for mutation in MUTATIONS:
        path = mutation.path(ROOT)
        text = path.read_text(encoding="utf-8")
        try:
            if path.suffix == ".py":
                compile(patched(text, mutation.place, mutation.patch), path, "exec")
            else:
                mutation.apply(text)
        except PatchError as misfit:
            misfits.append(f"{mutation.file}, {mutation.name}: {misfit}")
        for test in mutation.selection(ROOT):
            file, _, name = test.partition("::")
            if name:
                defined = re.findall(r"^def (\w+)\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
                if name.partition("[")[0] not in defined:
                    misfits.append(f"{mutation.name}: {file} has no test {name}")
    assert not misfits, "\n".join(misfits)


def test_there_are_many_mutations_and_each_has_a_name_of_its_own() -> None:
    assert (
        len(MUTATIONS) == TABLE.read_text(encoding="utf-8").count(" -> ") >= 200
    )  # YAML would lose a name given twice
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    assert len({(mutation.file, mutation.place, mutation.patch) for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize(
    ("patch", "broken"),
    [
        ("X / T -> X", "z = norm(a @ b, dim=1, eps=0.1)"),
        ("norm(A, ...) -> A", "z = a @ b / t"),
        ("norm(..., dim=1) -> norm(..., dim=0)", "z = norm(a @ b / t, dim=0, eps=0.1)"),
        ("A @ B -> B @ A", "z = norm(b @ a / t, dim=1, eps=0.1)"),
        ("Z = X -> pass", "pass"),
        ("Z = X -> Z = X; Z = -Z", "z = norm(a @ b / t, dim=1, eps=0.1)\nz = -z"),
    ],
)
def test_a_patch_changes_syntax_whatever_the_names_and_the_layout(patch: str, broken: str) -> None:
    text = "def f(a, b, t):\n    z = norm(\n        a @ b / t, dim=1, eps=0.1\n    )  # [N, D]\n    return z\n"
    body = broken.replace("\n", "\n    ")
    assert ast.unparse(patched(text, "f", patch)) == f"def f(a, b, t):\n    {body}\n    return z"


def test_a_patch_of_a_body_keeps_its_statements() -> None:
    text = "class C:\n    def f(self):\n        if self.x > 1:\n            y = 2\n            z = y"
    assert ast.unparse(patched(text, "C.f", "if A > B: ... -> if True: ...")) == ast.unparse(ast.parse(text)).replace(
        "self.x > 1", "True"
    )


@pytest.mark.parametrize("patch", ["A + B -> A", "A * B -> A", "a * a -> a * a", "A @ A -> A"])
def test_a_patch_that_fits_no_place_or_two_or_changes_nothing_is_a_misfit(patch: str) -> None:
    with pytest.raises(PatchError):
        patched("def f(a, b):\n    return a * a - b * a @ b", "f", patch)


def test_a_patch_of_yaml_changes_one_value() -> None:
    text = "a:\n  b: true  # a flag\n  c: true\n"
    assert patched_value(text, "a.b", "true -> false") == text.replace("true", "false", 1)
    for key, patch in (("a.d", "true -> false"), ("a.b", "1 -> 2")):
        with pytest.raises(PatchError):
            patched_value(text, key, patch)
