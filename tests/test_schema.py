"""The typed configuration is the plain one, with the types that conf/ gives its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import pytest

from ssl_bench.config import compose as config
from ssl_bench.config.compose import compose
from ssl_bench.config.options import GROUPS, Option
from ssl_bench.config.parse import parse
from ssl_bench.config.schema import Config

CHOICES = [f"{group}={choice}" for group in GROUPS if group not in ("experiment", "scale") for choice in GROUPS[group]]


@pytest.mark.parametrize("override", CHOICES)
def test_the_typed_configuration_holds_the_plain_one_and_gives_it_back(override: str) -> None:
    plain = config._compose(parse([override]))[0]
    plain.pop("experiment", None)
    del plain["backbone"]["pretrained"]  # it counts as init
    if not plain["backbone"]["arguments"]:
        del plain["backbone"]["arguments"]
    found = Config.from_dict(plain)
    assert found == compose([override])
    assert found.as_dict() == plain


def types(part: Any, prefix: str = "") -> dict[str, Any]:
    """The type of each field by dotted key; not of what goes unread to a constructor."""
    found: dict[str, Any] = {}
    hints = get_type_hints(type(part))
    for field in fields(part):
        value, key = getattr(part, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            found |= types(value, f"{key}.")
        elif field.name == "groups":
            for name, views in value.items():
                found |= types(views, f"{key}.{name}.")
        elif field.name != "options":
            found[key] = hints[field.name]
    return found


def type_of(option: Option) -> Any:
    if isinstance(option.default, list):
        return tuple[option.kind, ...]  # type: ignore[name-defined]
    return option.kind | None if option.optional else option.kind


def test_a_field_has_the_type_of_its_option() -> None:
    overrides = ["method=simsiam", "logger=wandb"]
    options = config._compose(parse(overrides))[1]
    found = {key: kind for key, kind in types(compose(overrides)).items() if key in options}
    wanted = {key: type_of(options[key]) for key in found}
    # Of other choices: no classes to know, no norm at the end.
    wanted |= {"method.projector.out": int | None, "method.projector.output_norm": bool | None}
    wanted["backbone.arguments"] = Mapping[str, Any] | None
    assert found == wanted
    assert len(found) > 70


def test_another_value_leaves_all_else_as_it_is() -> None:
    before = compose()
    after = before.changed({"trainer.threads": 3, "method.temperature": 0.7, "seed": 1})
    assert (after.trainer.threads, after.method.options["temperature"], after.seed) == (3, 0.7, 1)
    assert after.changed({"trainer.threads": None, "method.temperature": 0.5, "seed": 0}) == before == compose()
    with pytest.raises(KeyError, match=r"trainer\.thread"):
        before.changed({"trainer.thread": 3})
