"""What is typed and what stands in conf/ is checked before anything runs."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_bench.config import compose as config
from ssl_bench.config import composition, defaults, experiments, options, settings, sources
from ssl_bench.config.command_line import help_text, main
from ssl_bench.config.options import AUTO, BLOCKS, GROUPS, SCALES, STATED, Option, typed
from ssl_bench.config.parse import cells
from ssl_bench.config.schema import Config, Plain
from ssl_bench.data.catalog import DATASETS
from ssl_bench.errors import UserError
from ssl_bench.training.build import build_method

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
CONF_FILES = [
    ("", "config.yaml"),
    *(
        (group, f"{group}/{choice}.yaml")
        for group in GROUPS
        for choice in GROUPS[group]
        if not (group == "experiment" and experiments.is_sweep(choice))
    ),
]
# Every method at every scale in both recipes; every dataset meets every method, and every scale in both recipes.
CHOSEN = [
    (method, list(GROUPS["dataset"])[(m + s) % len(GROUPS["dataset"])], scale, recipe)
    for m, method in enumerate(GROUPS["method"])
    for s, (scale, recipe) in enumerate(itertools.product(GROUPS["scale"], ["shared", "original"]))
]
IDENTIFIERS = {"name", "target", "instances"}
OPTIONS_CALLED_NAME = {"backbone.name", "optimizer.name", "order.name"}


def compose(overrides: Sequence[str] = ()) -> Plain:
    return config.compose(overrides).as_dict()


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def value_at(settings: Plain, key: str) -> Any:
    for name in key.split("."):
        settings = settings[name]
    return settings


def is_option(key: str) -> bool:
    return key.split(".")[-1] not in IDENTIFIERS or key in OPTIONS_CALLED_NAME


def blocks_of(method: str) -> dict[str, dict[str, Any]]:
    """Of a method's file, at the scale that is chosen by default."""
    file = yaml.safe_load((CONF / "method" / f"{method}.yaml").read_text(encoding="utf-8"))
    own = file.get(SCALES, {}).get("demo", {})
    return {block: file.get(block, {}) | own.get(block, {}) for block in BLOCKS}


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        compose(overrides)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    """Files of one's own beside those of conf/."""
    cached = [
        f for module in (config, composition, options) for f in vars(module).values() if hasattr(f, "cache_clear")
    ]

    def add(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        for group in GROUPS:
            monkeypatch.setitem(GROUPS, group, sources.names(group))

    monkeypatch.setattr(sources, "OWN", (tmp_path,))
    monkeypatch.setattr(sources, "ROOTS", (sources.PACKAGE, tmp_path))
    monkeypatch.setattr(composition, "_PARTS", dict(composition._PARTS))
    yield add
    for function in cached:
        function.cache_clear()


Own = Callable[[dict[str, str]], None]


@pytest.mark.parametrize(("method", "dataset", "scale", "recipe"), CHOSEN)
def test_every_method_dataset_scale_and_recipe_composes_to_plain_values(
    method: str, dataset: str, scale: str, recipe: str
) -> None:
    settings = compose([f"method={method}", f"dataset={dataset}", f"scale={scale}", f"recipe={recipe}"])
    assert [settings[group]["name"] for group in ("method", "dataset", "scale")] == [method, dataset, scale]
    for key, value in leaves(settings):
        for item in value if type(value) is list else [value]:
            assert item is None or type(item) in (bool, int, float, str), key
            assert "$" not in str(item), key
            assert not isinstance(item, float) or math.isfinite(item), key


@pytest.mark.parametrize(("group", "file"), CONF_FILES, ids=lambda value: str(value))
def test_every_key_has_a_meaning(group: str, file: str) -> None:
    tree = yaml.safe_load((CONF / file).read_text(encoding="utf-8"))
    no_options = (*BLOCKS, *STATED, AUTO, SCALES) if group == "method" else ("defaults", "hydra", "sets", SCALES)
    prefix = f"{group}." if group else ""
    keys = {prefix + key for key, _ in leaves({k: v for k, v in tree.items() if k not in no_options})}
    stated = options.comments(file, group)
    inherited = {key for other in (options.bases(file) if group else ()) for key in options.comments(other, group)}
    assert set(stated) == {key for key in keys if is_option(key)} | inherited
    assert all(len(meaning.split()) >= 2 for _, meaning in stated.values())


@pytest.mark.parametrize(("group", "file"), CONF_FILES, ids=lambda value: str(value))
def test_every_constraint_can_be_read(group: str, file: str) -> None:
    """What looks like a constraint is one: names or one range of two ordered numbers."""
    number, name = r"-?\d*\.?\d*", r"[a-z0-9_+-]+"
    for key, (allowed, meaning) in options.comments(file, group).items():
        assert meaning[0] not in "[(", key
        if not allowed:
            continue
        assert re.fullmatch(rf"[\[(]({name}|{number}\.\.{number})(\|({name}|{number}\.\.{number}))*[\])]", allowed), key
        ranges = [part for part in allowed[1:-1].split("|") if ".." in part]
        assert len(ranges) <= 1, key
        for low, high in (text.split("..") for text in ranges):
            assert not (low and high) or float(low) < float(high), key
        assert ranges or allowed[0] + allowed[-1] == "[]", key


@pytest.mark.parametrize("number", range(3))
def test_put_together_from_parts_a_composition_is_what_hydra_makes_of_its_files(number: int) -> None:
    overrides = tuple(
        f"{group}={choices[number % len(choices)]}" for group, choices in GROUPS.items() if group != "experiment"
    )
    for group in overrides:
        composition.tree_of((group,) if not group.startswith("dataset") else (group, "augment=digits"))
    defaults.chosen_files.__wrapped__(overrides)  # which changes nothing that is kept
    together = list(leaves(composition.tree_of(overrides)[0]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(composition, "_PARTS", {})
        assert together == list(leaves(composition.tree_of(overrides)[0]))
        patched.setattr(composition, "_PARTS", {})
        composition.read_ahead(tuple(override.split("=")) for override in overrides)
        composition.tree_of(())
        patched.setattr(composition, "_hydra", None)  # nothing is left to ask it
        assert together == list(leaves(composition.tree_of(overrides)[0]))


@pytest.mark.parametrize(
    "text",
    [
        "# @package _global_\norder:\n  wide: 7\n",
        "defaults:\n  - supervised\n  - /backbone@_global_.order.wide: resnet18\n",
    ],
)
def test_a_file_that_sets_what_is_outside_its_group_counts_in_its_own_compositions_alone(own: Own, text: str) -> None:
    own({"method/wide.yaml": text})
    before, _ = composition.tree_of(())
    for _ in range(2):
        assert "wide" in composition.tree_of(("method=wide",))[0]["order"]
        assert composition.tree_of(())[0] == before


@pytest.mark.parametrize("group", GROUPS)
def test_setting_every_key_to_its_own_value_changes_nothing(group: str) -> None:
    for choice in (choice for choice in GROUPS[group] if not experiments.is_sweep(choice)):
        settings = compose([f"{group}={choice}"])
        keys = [key for key, _ in leaves(settings) if is_option(key)]
        overrides = [f"{key}={typed(value_at(settings, key))}" for key in keys]
        assert compose([f"{group}={choice}", *overrides]) == settings


def test_augmentation_follows_the_dataset_unless_chosen() -> None:
    flip = {name: compose([f"augment={name}"])["augment"]["groups"]["global"]["flip"] for name in GROUPS["augment"]}
    assert compose(["dataset=fashion_mnist"])["augment"]["groups"]["global"]["flip"] == flip["fashion_mnist"]
    other = compose(["dataset=fashion_mnist", "augment=digits"])
    assert other["augment"]["groups"]["global"]["flip"] == flip["digits"] != flip["fashion_mnist"]


def test_a_reference_follows_what_it_refers_to() -> None:
    settings = compose(["scale.width=24", "dataset.epochs=7", "method=byol", "scale.projector_hidden=99"])
    assert settings["backbone"]["width"] == 24
    assert settings["epochs"] == 7
    assert settings["method"]["projector"]["hidden"] == settings["method"]["predictor"]["hidden"] == 99


@pytest.mark.parametrize(
    ("overrides", "schedule", "step"),
    [
        ("scale=demo", "constant", 0.05),
        ("scale=cpu", "decay", 1.0),
        ("scale=cpu method.teacher_rule=ema", "constant", 0.1),
        ("scale=paper method.teacher_schedule=decay", "decay", 1.0),
        ("scale=smoke method.teacher_step=0.3", "constant", 0.3),
    ],
)
def test_what_is_auto_follows_what_it_depends_on(overrides: str, schedule: str, step: float) -> None:
    settings = compose(
        [
            *overrides.split(),
            "method.lookahead=4",
            "epochs=10",
            "optimizer.name=sgd",
            "optimizer.lr=0.2",
            "optimizer.momentum=0.8",
        ]
    )
    method, peak = settings["method"], {"constant": 0.262, "decay": 0.128 * 10}[schedule]
    assert (method["teacher_schedule"], method["teacher_step"]) == (schedule, step)
    steps = 1 if "ema" in overrides else 4  # of the student to one of the teacher
    assert method["proximal"] == pytest.approx(0.5 * step * (1 - 0.8) / (peak * steps * 10 * 0.2), rel=1e-12)


BASE = "# Made up.\ndefaults: [cifar10, _self_]\nname: mine\nsize: 24\n"


def test_a_block_of_the_scale_stands_above_its_file_and_below_experiments_and_the_command_line(own: Own) -> None:
    files = {
        "dataset/mine.yaml": f"{BASE}scales:\n  demo: {{epochs: 7, size: 20}}\n",
        "augment/mine.yaml": "defaults: [cifar10]\n",
        "experiment/own.yaml": "# @package _global_\ndefaults:\n  - override /dataset: mine\ndataset:\n  size: 28\n",
    }
    own(files)
    for overrides, expected in (
        (["dataset=mine"], (7, 20, 512)),  # 512: of the block that it builds on
        (["dataset=mine", "scale=cpu"], (2, 24, 2048)),
        (["dataset=mine", "scale=paper"], (800, 24, 4096)),
        (["dataset=mine", "dataset.epochs=3"], (3, 20, 512)),
        (["experiment=own"], (7, 28, 512)),
    ):
        found = compose(overrides)["dataset"]
        assert (found["epochs"], found["size"], found["queue"]) == expected


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ("cpu: {epochs: 0}", "cpu: dataset.epochs=0 is not allowed: dataset.epochs is a whole number at least 1."),
        ("cpu: {epohcs: 3}", "cpu: option dataset.epohcs is unknown; did you mean dataset.epochs?"),
        ("papre: {epochs: 3}", "papre: there is no scale papre; did you mean paper?"),
    ],
)
def test_a_mistake_in_the_block_of_any_scale_is_answered(own: Own, block: str, sentence: str) -> None:
    own({"dataset/mine.yaml": f"{BASE}scales:\n  {block}\n", "augment/mine.yaml": "defaults: [cifar10]\n"})
    assert refusal("dataset=mine") == f"conf/dataset/mine.yaml, scales, {sentence}"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=7", 7),
        ("++seed=7", 7),
        ("seed=1e3", 1000),
        ("seed=${epochs}", 40),
        ("optimizer.lr=1", 1.0),
        ("optimizer.lr=.5", 0.5),
        ("optimizer.lr=1e-3", 1e-3),
        ("optimizer.lr=${times:0.5,3}", 1.5),
        ("optimizer.lr=${linear_rate:0.2,32,128}", 0.05),
        ("epochs=${queue_for:3,2,4}", 8),
        ("epochs=${queue_for:30,2,4}", 30),
        ("method.proximal=auto", 0.0009939567430025443),
        ("method.proximal=1", 1.0),
        ("trainer.clip=null", None),
        ("trainer.clip=2", 2.0),
        ("trainer.progress=False", False),
        ("dataset.resident=true", "true"),
        ("dataset.resident=auto", "auto"),
        ("subset=100", 100),
        ("evaluation.curves=[knn1]", ["knn1"]),
        ("evaluation.linear.learning_rates=[1,.5]", [1.0, 0.5]),
        ("runs_dir=my runs", "my runs"),
        ("runs_dir=/tmp/ü=(日本)/it's", "/tmp/ü=(日本)/it's"),
        ('runs_dir="a,b"', "a,b"),
        ('runs_dir="2024"', "2024"),
        ("runs_dir=2024", "2024"),
        ("dataset=folder dataset.root=2024_01", "2024_01"),
        ("dataset=folder dataset.root=a,b", "a,b"),
        ("dataset=folder dataset.root=range(1,3)", "range(1,3)"),
        ("dataset=folder dataset.test_root=1e3", "1e3"),
        ("dataset=folder dataset.root=[a]", "[a]"),
        ("dataset=folder dataset.root=null", None),
        ("data_dir=true", "true"),
        ("data_dir=1.50", "1.50"),
        ("data_dir=${runs_dir}", "runs"),
        ("logger=wandb logger.project=007", "007"),
        ('runs_dir=a"b\\', 'a"b\\'),
    ],
)
def test_values_arrive_as_the_type_of_their_option(override: str, value: Any) -> None:
    *_, last = overrides = [override] if override.startswith("runs_dir") else override.split()
    got = value_at(compose(overrides), last.split("=")[0].lstrip("+"))
    assert got == value
    assert type(got) is type(value)


NUMBERS = ["-1", "1.5", "1e-3", "inf", "-inf", "nan", "1e400", "4294967296", "9" * 30, "9" * 5000]
OTHERS = ["abc", "", '""', '"3"', "null", "true", "[1]", "[]", "{a:1}", "${runs_dir}", "٣", "0x10", "0,1x,("]


@pytest.mark.parametrize("value", [*NUMBERS, *OTHERS], ids=lambda value: value[:10])
def test_what_is_no_seed_is_refused(value: str) -> None:
    sentence = refusal(f"seed={value}")
    assert sentence.endswith("is not allowed: seed is a whole number at least 0 and at most 4294967295.")


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ("sedd=1", "option sedd is unknown; did you mean seed?"),
        ("optimizer.lrr=1", "did you mean optimizer.lr?"),
        ("optimiser.lr=1", "did you mean optimizer.lr?"),
        ("temprature=.1", "did you mean method.temperature?"),
        ("zzzzzz=1", "option zzzzzz is unknown; --help lists all options."),
        ("method=byoll", "did you mean byol?"),
        ("method=BYOL", "did you mean byol?"),
        ("dataset=fashion-mnist", "did you mean fashion_mnist?"),
        ("method=", "method= is unknown. Known: "),
        ("method=null", "method=null is unknown. Known: "),
        ("method=${dataset}", "Known: "),
        ("method=byol method.symmetrize=summ", "method.symmetrize is mean or sum; did you mean sum?"),
        ("evaluation.protocols=[knn1,linaer]", "did you mean linear?"),
        ("evaluation.protocols=knn1", "is a list such as [knn1,knn200,knn1_100labels,linear]"),
        ("evaluation.linear.learning_rates=[0]", "each a number above 0."),
        ("optimizer.momentum=1", "a number at least 0 and below 1."),
        ("optimizer.weight_decay=inf", "is not allowed"),
        ("augment.groups.global.crop_scale=[nan,1]", "is not allowed"),
        ("trainer.progress=yes", "trainer.progress is true or false."),
        ("trainer.clip=a", "trainer.clip is null or a number above 0."),
        ("trainer.clip=0", "trainer.clip is null or a number above 0."),  # Lightning would not clip at all
        ("subset=0", "subset is null or a whole number at least 1."),
        ("runs_dir=", "runs_dir= is not allowed: runs_dir is text."),
        ("runs_dir=null", "runs_dir=null is not allowed: runs_dir is text."),
        ("method=a,b", "method=a,b names several values: add -m"),
        (
            "method=simclr method.lookahead=2",
            "option method.lookahead is unknown under method=simclr; it belongs to method=clbo. "
            "If simclr is your own and can use it, add it to conf/method/simclr.yaml.",
        ),
        ("dataset.root=x", "it belongs to dataset=folder and dataset=imagenet100."),
        ("method=byol method.original=1", "option method.original is unknown"),
        ("method=byol method.original.optimizer.lr=1", "option method.original.optimizer.lr is unknown"),
        ("recipe=orignal", "recipe is shared or original; did you mean original?"),
        ("method.name=byol", "option method.name is unknown"),
        ("method.target=os.system", "option method.target is unknown"),
        ("optimizer=3", "set one of optimizer.name, "),
        ("optimizer={lr:1}", "set one of optimizer.name, "),
        ("byol", "did you mean method=byol?"),
        ("=3", "'=3' is not of the form key=value"),
        ("größe=3", "is not of the form key=value"),
        ("a=b=c", "option a is unknown"),
        ("~method", "neither added nor removed"),
        ("+x=1", "neither added nor removed"),
        ("++x=1", "option x is unknown"),
        ("method@x=byol", "is not of the form key=value"),
        ("method=byol method=clbo", "method is set twice, by method=byol and by method=clbo"),
        ("seed=1 ++seed=2", "seed is set twice"),
        ("seed=0,1", "seed=0,1 names several values: add -m"),
        ("seed=range(0,3)", "names several values: add -m"),
        ("hydra.run.dir=x", "option hydra.run.dir is unknown"),
        ("hydra/launcher=joblib", "option hydra/launcher is unknown"),
        ("epochs=${seed}", "epochs=0 is not allowed: epochs is a whole number at least 1."),
        ("epochs=${epochs}", "epochs cannot be resolved: Recursive interpolation detected."),
        ("epochs=${nothing}", "epochs cannot be resolved: Interpolation key 'nothing' not found."),
        ("epochs=${", "epochs=${ cannot be read"),
        ("epochs=${times:2,runs}", "epochs=runsruns is not allowed"),
        ("method.proximal=-1", "method.proximal is auto or a number at least 0."),
        ("method.proximal=atuo", "did you mean auto?"),
        ("method=byol method.momentum=auto", "method.momentum is a number at least 0 and at most 1."),
        ("method.lookahead=0", "method.lookahead=0 is not allowed"),  # and not the division by it
        ("scale.lr=-1", "scale.lr=-1 is not allowed"),  # and not optimizer.lr, which refers to it
    ],
)
def test_a_mistake_is_answered_in_one_sentence(overrides: str, part: str) -> None:
    assert part in refusal(*overrides.split(" "))


@pytest.mark.parametrize(
    ("dataset", "small"),
    [("cifar10", True), ("cifar100", True), ("stl10", False), ("tiny_imagenet", False), ("imagenet100", False)],
)
def test_larger_pictures_alone_are_blurred_and_meet_the_stem_of_imagenet(dataset: str, small: bool) -> None:
    found = compose([f"dataset={dataset}", "scale=paper"])
    assert (found["augment"]["groups"]["global"]["blur"] == 0) == small
    assert (found["backbone"]["stem"] == "cifar") == small


def test_the_papers_scale_is_the_published_protocol() -> None:
    found = compose(["method=simclr", "dataset=cifar10", "scale=paper"])
    length = ("epochs", "batch_size", "subset", "eval_every", "monitor_every")
    assert {key: found[key] for key in length} == dict(zip(length, (800, 256, None, 50, 10), strict=True))
    assert found["augment"]["groups"] == {
        "global": {
            "count": 2,
            "size": 32,
            "crop_scale": [0.08, 1.0],
            "crop_ratio": [3 / 4, 4 / 3],
            "flip": 0.5,
            "jitter": 0.8,
            "brightness": 0.4,
            "contrast": 0.4,
            "saturation": 0.4,
            "hue": 0.1,
            "grayscale": 0.2,
            "blur": 0.0,
            "blur_sigma": [0.1, 2.0],
            "solarize": 0.0,
            "solarize_threshold": 0.5,
        },
        "local": {"count": 0, "size": 16, "crop_scale": [0.05, 0.3]},
    }
    assert found["backbone"] == {"name": "resnet18", "stem": "cifar", "width": 64}
    assert found["optimizer"] == {
        "name": "sgd",
        "lr": 0.06,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "exclude_bias_and_norm": False,
        "bias_and_norm_lr": 1.0,
        "trust": 0.001,
        "scale_lr_with_batch": False,
        "warmup": 0.0,
        "schedule": "epoch",
    }
    assert found["method"]["projector"] == {"layers": 2, "hidden": 512, "out": 128}
    assert (found["method"]["temperature"], found["method"]["concat_views"]) == (0.5, False)
    assert found["evaluation"]["linear"] == {
        "learning_rates": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
        "epochs": 100,
        "batch_size": 256,
        "momentum": 0.9,
        "weight_decay": 0.0,
    }


@pytest.mark.parametrize(
    ("scale", "steps", "images"), [("paper", 20000, 256), ("cpu", 1000, 128), ("demo", 500, 64), ("smoke", 20, 32)]
)
@pytest.mark.parametrize(("dataset", "flip"), [("digits", 0.0), ("cifar10", 0.5)])
def test_fine_tuning_is_as_the_page_of_protocols_states(
    scale: str, steps: int, images: int, dataset: str, flip: float
) -> None:
    assert compose([f"scale={scale}", f"dataset={dataset}"])["evaluation"]["finetune"] == {
        "learning_rates": [0.01, 0.03, 0.1],
        "steps": steps,
        "batch_size": images,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "flip": flip,
    }


@pytest.mark.parametrize("method", GROUPS["method"])
def test_a_key_with_a_letter_missing_finds_itself(method: str) -> None:
    known = {key for key, _ in leaves(compose([f"method={method}"])) if is_option(key)}
    for key in known if method == "clbo" else (key for key in known if key.startswith("method.")):  # the rest is shared
        last = key.split(".")[-1]
        misspelt = key[: -len(last)] + last[: len(last) // 2] + last[len(last) // 2 + 1 :]
        if len(last) < 4 or misspelt in known:
            continue
        assert f"did you mean {key}?" in refusal(f"method={method}", f"{misspelt}=1")


@pytest.mark.parametrize("group", GROUPS)
def test_a_choice_with_a_letter_missing_finds_itself(group: str) -> None:
    for choice in GROUPS[group]:
        misspelt = choice[:-2] + choice[-1]
        if misspelt in GROUPS[group]:  # cifar100 and cifar10
            continue
        alike = [other for other in GROUPS[group] if other[:-2] + other[-1] == misspelt]  # resnet10 and resnet50
        assert any(f"did you mean {other}?" in refusal(f"{group}={misspelt}") for other in alike)


@pytest.mark.parametrize(
    ("allowed", "default", "inside", "outside"),
    [
        ("[0..1)", 0.5, [0, 0.0, 0.999, True - 1], [1, -1e-9, math.nan, True, "0", None, [0.5]]),
        ("(0..]", 0.5, [1e-300, 1, 1e300], [0, -1, math.inf, 10**400]),
        ("[1..]", 3, [1, 2.0, 10**9], [0, 1.5, -1, True, "1"]),
        ("[null|1..]", None, [None, 1, 7.0], [0, 0.5, "null"]),
        ("[null|0..]", None, [None, 0, 0.5], [-1, "x"]),
        ("[null|0..9]", None, [None, 0, 9], [-1, 0.5, 10, "x"]),
        ("[null|0..1]", None, [None, 0, 0.5], [1.5, "x"]),
        ("[mean|sum]", "mean", ["mean", "sum"], ["", "Mean", "null", None, 1]),
        ("", True, [True, False], [0, 1, "true", None]),
        ("", "runs", ["x", " "], ["", 3, None, True]),
        ("", None, [None, "x"], [3, True, ""]),
    ],
)
def test_a_constraint_permits_what_it_says(allowed: str, default: Any, inside: list[Any], outside: list[Any]) -> None:
    option = Option("key", default, allowed, "meaning")
    for value in inside:
        assert option.read(value) == value
    for value in outside:
        with pytest.raises(UserError, match="is not allowed"):
            option.read(value)


def test_an_experiment_outdoes_the_defaults_and_the_command_line_outdoes_it(own: Own) -> None:
    text = "# @package _global_\ndefaults:\n  - override /method: byol\nseed: 5\noptimizer:\n  lr: 1\nepochs: 3\n"
    own({"experiment/mine.yaml": text})
    settings = compose(["experiment=mine", "epochs=4"])
    assert (settings["method"]["name"], settings["seed"], settings["epochs"]) == ("byol", 5, 4)
    assert settings["optimizer"]["lr"] == 1.0
    assert settings["optimizer"]["momentum"] == 0.9


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: -1", "seed=-1 is not allowed: seed is a whole number at least 0 and at most 4294967295."),
        ("method:\n  negatives: all  # [all|none] once more", "method.negatives is both_views or other_view."),
        ("optimizer:\n  lr: fast", "optimizer.lr=fast is not allowed: optimizer.lr is a number above 0."),
        ("optimiser:\n  lr: 1", "experiment=mine: option optimiser.lr is unknown; did you mean optimizer.lr?"),
    ],
)
def test_what_another_file_sets_is_checked_too(own: Own, text: str, sentence: str) -> None:
    own({"experiment/mine.yaml": f"# @package _global_\n{text}\n"})
    assert refusal("experiment=mine").endswith(sentence)


@pytest.mark.parametrize("method", GROUPS["method"])
def test_a_methods_blocks_are_its_values_and_original_stands_above_sets(method: str) -> None:
    blocks = blocks_of(method)
    for recipe, expected in (("shared", blocks["sets"]), ("original", {**blocks["sets"], **blocks["original"]})):
        settings = compose([f"method={method}", f"recipe={recipe}"])
        for key, value in expected.items():
            if "$" not in str(value):
                assert value_at(settings, key) == value
        assert not {*BLOCKS, *STATED} & set(settings["method"])


@pytest.mark.parametrize("method", GROUPS["method"])
def test_the_users_option_stands_above_the_methods_blocks(method: str) -> None:
    shared = compose([f"method={method}"])
    keys = list(blocks_of(method)["original"])
    overrides = [f"{key}={typed(value_at(shared, key))}" for key in keys]
    settings = compose([f"method={method}", "recipe=original", *overrides])
    assert [value_at(settings, key) for key in keys] == [value_at(shared, key) for key in keys]


def test_a_method_without_a_recipe_of_its_own_keeps_the_shared_one() -> None:
    shared, original = compose(["method=supervised"]), compose(["method=supervised", "recipe=original"])
    assert original == {**shared, "recipe": "original"}


def test_a_reference_in_a_block_follows_what_it_refers_to() -> None:
    settings = compose(["method=byol", "recipe=original", "scale.projector_hidden=99", "method.projector.out=7"])
    assert settings["method"]["projector"]["hidden"] == settings["method"]["predictor"]["hidden"] == 8 * 99
    assert type(settings["method"]["projector"]["hidden"]) is int
    assert settings["method"]["projector"]["out"] == 7
    paper = compose(["method=byol", "recipe=original", "scale=paper"])["method"]
    assert [paper[head]["hidden"] for head in ("projector", "predictor")] == [4096, 4096]
    assert paper["projector"]["out"] == 256


def test_help_and_options_do_not_name_the_blocks() -> None:
    assert "method.original" not in help_text(["method=byol"])
    assert "optimizer.name=lars" in help_text(["method=byol", "recipe=original"])


DOE = (CONF / "method" / "supervised.yaml").read_text(encoding="utf-8").replace("name: supervised", "name: doe")
BLOCKS_OF_DOE = """
sets:  # what it needs
  seed: 1
  epochs: 11
  monitor_every: 5
  eval_every: 5
  labels: 21
original:  # Doe 2021
  epochs: 12  # [1..] a comment here is free text
  subset: ${times:10,${epochs}}
  monitor_every: 6
  eval_every: 6
scales:
  demo: {sets: {labels: 22}}
  cpu: {sets: {labels: 23}}
"""
KEYS = ("seed", "epochs", "labels", "subset", "monitor_every", "eval_every")
# monitor_every is set to its default: it is set all the same. eval_every is set by what the experiment builds on.
MINE = "# @package _global_\ndefaults:\n  - parent\n  - override /method: doe\nrecipe: original\nmonitor_every: 2\n"
PARENT = "# @package _global_\neval_every: 10\n"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("method=doe", [1, 11, 22, None, 5, 5]),
        ("method=doe recipe=original", [1, 12, 22, 120, 6, 6]),
        ("method=doe recipe=original scale=cpu epochs=14 seed=0", [0, 14, 23, 140, 6, 6]),
        ("experiment=mine", [1, 12, 22, 120, 2, 10]),
        ("experiment=mine recipe=shared", [1, 11, 22, None, 2, 10]),
        ("experiment=mine monitor_every=9 eval_every=${monitor_every} ", [1, 12, 22, 120, 9, 9]),
    ],
)
def test_user_experiment_original_sets_defaults_count_in_this_order(
    own: Own, overrides: str, expected: list[int | None]
) -> None:
    own({"method/doe.yaml": DOE + BLOCKS_OF_DOE, "experiment/mine.yaml": MINE, "experiment/parent.yaml": PARENT})
    settings = compose(overrides.split())
    assert [settings[key] for key in KEYS] == expected
    assert set(settings["method"]) == set(yaml.safe_load(DOE)) - set(STATED)


@pytest.mark.parametrize(
    ("blocks", "overrides", "sentence"),
    [
        ("original:\n  optimizer.lrr: 1", "", "original: option optimizer.lrr is unknown; did you mean optimizer.lr?"),
        (
            "original:\n  optimizer: {lr: 1}",
            "",
            "optimizer.scale_lr_with_batch, optimizer.warmup, optimizer.schedule.",
        ),
        (
            "sets:\n  seed: -1",
            "",
            "sets: seed=-1 is not allowed: seed is a whole number at least 0 and at most 4294967295.",
        ),
        ("sets:\n  method.block: 1", "", "sets: option method.block is unknown; --help lists all options."),
        (
            "original:\n  epochs: ${seed}",
            "recipe=original",
            "original: epochs=0 is not allowed: epochs is a whole number at least 1.",
        ),
        (
            "sets:\n  method.lookahead: 2",
            "",
            "sets: option method.lookahead is unknown under method=doe; it belongs to method=clbo. "
            "If doe is your own and can use it, add it to conf/method/doe.yaml.",
        ),
    ],
)
def test_a_mistake_in_a_block_names_the_methods_file(own: Own, blocks: str, overrides: str, sentence: str) -> None:
    own({"method/doe.yaml": f"{DOE}{blocks}\n"})
    found = refusal("method=doe", *overrides.split())
    assert found.startswith(f"conf/method/doe.yaml, {blocks.partition(':')[0]}: ")
    assert found.endswith(sentence)


def test_an_experiment_sets_options_and_not_blocks(own: Own) -> None:
    experiment = "# @package _global_\nmethod:\n  sets:\n    seed: 3\n"
    own({"experiment/mine.yaml": experiment})
    assert refusal("experiment=mine") == "experiment=mine: sets, original, check are no options: set what they set."


def runs_of(*overrides: str) -> tuple[int, list[Config]]:
    ran: list[Config] = []
    return main(ran.append, overrides), ran


def test_a_sweep_runs_the_product_of_its_values() -> None:
    status, ran = runs_of("-m", "method=clbo,byol", "seed=range(0,2)", "optimizer.lr=0.10,1e-3", "epochs=3")
    expected = itertools.product(["clbo", "byol"], [0, 1], [0.1, 1e-3])
    assert status == 0
    assert [(c.method.name, c.seed, c.optimizer.lr) for c in ran] == list(expected)
    assert ran[0] == config.compose(["method=clbo", "seed=0", "optimizer.lr=0.1", "epochs=3"])


def test_the_paths_of_a_sweep_are_text() -> None:
    status, ran = runs_of("-m", 'runs_dir=2024_01,1e3,"a,b",c d', "data_dir='x,y',[a]")
    assert status == 0
    assert [(c.runs_dir, c.data_dir) for c in ran] == list(
        itertools.product(["2024_01", "1e3", "a,b", "c d"], ["x,y", "[a]"])
    )


def test_a_sweep_without_commas_is_one_run() -> None:
    assert list(cells(["seed=3", "evaluation.curves=[knn1,linear]"])) == [["seed=3", "evaluation.curves=[knn1,linear]"]]
    assert runs_of("-m", "seed=3") == (0, [config.compose(["seed=3"])])


@pytest.mark.parametrize(
    "overrides",
    [
        "seed=0,-1",
        "seed=0,1 method=clbo,byoll",
        "method=clbo,byol method.lookahead=1,2",
        "sedd=0,1",
        "seed=0,1 seed=2",
        "seed=range(3,0)",
        "seed=interval(0,1)",
        "method=glob(*)",
        "seed=0,1 hydra/launcher=missing",
        "seed=0,1 hydra.sweep.dir=x",
        "seed=0,1,",
    ],
)
def test_one_mistake_in_a_sweep_stops_it_before_anything_runs(
    overrides: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs_of("-m", *overrides.split()) == (2, [])
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_that_fails_does_not_stop_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    ran = []

    def task(settings: Config) -> None:
        ran.append(settings.seed)
        if settings.seed == 0:
            raise UserError("no images")
        if settings.seed == 1:
            raise KeyError("a mistake of ours")

    assert main(task, ["-m", "seed=0,1,2"]) == 2
    assert ran == [0, 1, 2]
    shown = capsys.readouterr().err
    assert shown.startswith("ssl_bench: no images\nTraceback")
    assert main(task, ["-m", "seed=1,2"]) == 1


def test_a_sweep_that_is_asked_to_stop_starts_no_other_run() -> None:
    class StopError(UserError):
        status = 130

    ran = []

    def task(settings: Config) -> None:
        ran.append(settings.seed)
        raise StopError("stopped")

    with pytest.raises(SystemExit) as left:
        main(task, ["-m", "seed=0,1,2"])
    assert left.value.code == 130
    assert ran == [0]


def test_a_run_may_choose_its_own_status() -> None:
    class StopError(UserError):
        status = 143

    def task(_: Config) -> None:
        raise StopError("stopped")

    assert main(task, []) == 143


def test_an_error_that_is_ours_is_not_hidden() -> None:
    def task(_: Config) -> None:
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        main(task, [])


def test_composing_leaves_the_defaults_as_they_were() -> None:
    before = compose()
    changed = compose(["seed=5", "evaluation.curves=[knn1]"])
    changed["evaluation"]["protocols"].append("x")
    assert compose() == before
    assert compose(["seed=5"])["evaluation"] == before["evaluation"]


def test_any_timm_model_can_be_named() -> None:
    assert compose(["backbone.name=timm/resnet10t"])["backbone"]["name"] == "timm/resnet10t"


@pytest.mark.parametrize(
    ("comment", "part"),
    [
        ("[0.. 1] a share", "the allowed values cannot be read"),
        ("(0,1] a share", "the allowed values cannot be read"),
        ("[0-1] a share", "the allowed values cannot be read"),
        ("0..1] a share", "the allowed values cannot be read"),
        ("[mean,sum] of what", "the allowed values cannot be read"),
        ("[a..b] a share", "the allowed values cannot be read"),
        ("a share {identity: unless}", "the identity cannot be read"),
    ],
)
def test_a_contract_that_cannot_be_read_is_named(comment: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.sources, "read", lambda name: f"rate: 1.0  # {comment}\n")
    with pytest.raises(UserError, match=rf"^conf/mine\.yaml, line 1: {part}"):
        options._comments.__wrapped__("mine.yaml", "")


@pytest.mark.parametrize(
    ("comment", "allowed", "identity"),
    [
        ("(positive) factor", None, None),
        ("(0..1] share {identity: unless 0.5}", "(0..1]", "unless 0.5"),
        ("[null|-1.5..2e3) {identity: no}", "[null|-1.5..2e3)", "no"),
    ],
)
def test_a_contract_is_a_bracket_and_an_identity(
    comment: str, allowed: str | None, identity: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options.sources, "read", lambda name: f"rate: 1.0  # {comment}\n")
    found = options._comments.__wrapped__("mine.yaml", "")["rate"]
    assert (found["allowed"], found["identity"]) == (allowed, identity)


def test_an_empty_list_has_the_type_of_its_range() -> None:
    assert Option("sizes", [], "[0.5..]", "").read([1]) == [1.0]


def test_numbers_with_an_exponent_are_numbers_to_commands_too() -> None:
    assert settings.plain_value("1e3", text_only=False) == 1000
    assert settings.plain_value("1e3", text_only=True) == "1e3"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"name: doe\ntemperature 0.2\nout: 3\n", ", line 3 is not YAML: could not find expected ':'."),
        (b"name: doe\n\tout: 3\n", ", line 2 is not YAML: found a tab character that violates indentation."),
        (b"name: d\xff", " is no text in UTF-8: save it as that."),
        (b"name: 2024-13-45\n", " is not YAML: month must be in 1..12."),
        (b"name: d\x00e\n", " is not YAML: control characters are not allowed."),
        (b"- doe\n", ": it is to be a mapping, as in name: value."),
        (b"", ": it is to be a mapping, as in name: value."),
        (b"defaults: digits\n", ": defaults is to be a list of other files, as in [digits, _self_]."),
        (b"defaults: [5]\n", ": defaults is to be a list of other files, as in [digits, _self_]."),
        (b"defaults: [doe]\n", ": defaults is to be a list of other files, as in [digits, _self_]."),
        (b"sets: 5\n", ": sets is to be a mapping, as in sets: {key: value}."),
        (b"scales: {smoke: 5}\n", ": scales, smoke is to be a mapping, as in smoke: {key: value}."),
        (
            b"auto: {method.weight: {factor: 3}}\n",
            ": auto, method.weight has no target, as in target: my_module.my_function.",
        ),
        (b"auto: {method.weight: 3}\n", ": auto, method.weight is to be a mapping, as in method.weight: {key: value}."),
    ],
)
def test_a_file_of_ones_own_that_cannot_be_read_is_named(text: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "conf" / "method" / "doe.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(text)
    with pytest.raises(UserError) as caught:
        sources._require_fit(tmp_path / "conf", [], "SSL_BENCH_PATH=mine")
    assert str(caught.value) == f"{file}{sentence}"


def test_a_file_whose_name_ends_otherwise_is_named(tmp_path: Path) -> None:
    file = tmp_path / "conf" / "method" / "doe.yml"
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(UserError, match=r"doe.yml is not read: rename it to doe.yaml\."):
        sources._require_fit(tmp_path / "conf", [], "SSL_BENCH_PATH=mine")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "${scale.concat_views}",
            "${scale.concatviews}",
            "conf/method/doe.yaml: method.concat_views cannot be resolved: ",
        ),
        (
            "full_size_views",
            "full_sized_views",
            "conf/method/doe.yaml: needs, full_sized_views is unknown; did you mean",
        ),
        ("target: ssl_bench.methods.simclr.SimCLR", "target: 5", "conf/method/doe.yaml: target 5 is to name a module"),
    ],
)
def test_what_a_methods_file_refers_to_and_is_not_there_is_named(own: Own, old: str, new: str, sentence: str) -> None:
    from ssl_bench.training import preflight

    text = (sources.PACKAGE / "method" / "simclr.yaml").read_text(encoding="utf-8").replace("name: simclr", "name: doe")
    assert old in text
    own({"method/doe.yaml": text.replace(old, new)})
    with pytest.raises(UserError) as caught:
        preflight.check(config.compose(["method=doe", "scale=smoke"]))
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("--scale", "--scale is unknown: options are set as key=value, as in scale=cpu; --help lists them."),
        ("sweep", "sweep is a command, which comes first: python -m ssl_bench sweep …"),
        ("epochs.=3", "'epochs.=3' is not of the form key=value"),
        ("a..b=1", "'a..b=1' is not of the form key=value"),
        ("/=1", "'/=1' is not of the form key=value"),
        (
            "experiment=table2",
            "table2 is made of conf/ alone and has no runs: python -m ssl_bench report table2 shows it.",
        ),
    ],
)
def test_an_argument_that_is_no_option_is_answered(override: str, sentence: str) -> None:
    assert refusal(override).startswith(sentence)


def test_an_argument_of_timm_is_set_once_and_is_a_value_or_a_list() -> None:
    vit = ["backbone.name=timm/vit_tiny_patch16_224", "scale=smoke"]
    with pytest.raises(UserError, match=r"backbone\.arguments\.depth is set twice"):
        compose([*vit, "backbone.arguments.depth=2", "backbone.arguments={patch_size: 4, depth: 3}"])
    with pytest.raises(
        UserError, match=r"depth=\[\[2\],3\] is to be a number, true or false, text, or a list of these"
    ):
        compose([*vit, "backbone.arguments.depth=[[2],3]"])
    assert compose([*vit, "backbone.arguments.drop=[0,0.1]"])["backbone"]["arguments"] == {"drop": [0, 0.1]}


def test_what_a_methods_file_leaves_out_or_has_too_much_is_named(own: Own) -> None:
    text = (sources.PACKAGE / "method" / "simclr.yaml").read_text(encoding="utf-8").replace("name: simclr", "name: doe")
    own({"method/doe.yaml": text.replace("projector:", "projektor:")})
    assert refusal("method=doe", "scale=smoke") == "conf/method/doe.yaml: projector is missing."
    own({"method/dos.yaml": text.replace("name: doe", "name: dos").replace("concat_views:", "concat:")})
    assert refusal("method=dos", "scale=smoke") == "conf/method/dos.yaml: concat_views is missing."
    auto = (sources.PACKAGE / "method" / "clbo.yaml").read_text(encoding="utf-8").replace("name: clbo", "name: mine")
    own({"method/mine.yaml": auto.replace("target: ssl_bench.schedules.", "target: ssl_bench.shedules.")})
    assert "is not to be found: No module named 'ssl_bench.shedules'." in refusal("method=mine", "scale=smoke")
    own({"method/dou.yaml": text.replace("name: doe", "name: dou").replace("temperature:", "temprature:")})
    with pytest.raises(UserError, match=r"^conf/method/dou\.yaml does not fit its class, .*'temperature'\.$"):
        build_method(config.compose(["method=dou", "scale=smoke", "dataset=digits"]), DATASETS["digits"])
    own({"method/dow.yaml": text.replace("name: doe", "name: dow") + "sharpness: 1.0  # (0..] factor\n"})
    with pytest.raises(UserError, match=r"^conf/method/dow\.yaml does not fit its class, .*'sharpness'\.$"):
        build_method(config.compose(["method=dow", "scale=smoke", "dataset=digits"]), DATASETS["digits"])


def test_an_option_of_ones_own_that_follows_the_seed_does_so_in_every_run_of_a_sweep(own: Own, tmp_path: Path) -> None:
    own({"method/doe.yaml": f"{DOE}draws: ${{seed}}  # [0..] number of the first draw\n"})
    file = tmp_path / "mine.yaml"
    sweep = {"rows": {"Doe": "method=doe epochs=${seed}"}, "datasets": {"smoke": ["digits"]}, "seeds": [2, 7]}
    file.write_text(yaml.safe_dump({"sweep": sweep, "show": {"kind": "table"}}), encoding="utf-8")
    made = config.compose_cells(experiments.find(str(file)).cells("smoke"))
    assert [(one.seed, one.method.options["draws"], one.epochs) for one in made] == [(2, 2, 2), (7, 7, 7)]


def test_a_method_needs_what_the_method_needs_that_it_builds_on(own: Own) -> None:
    own({"method/dot.yaml": "defaults: [supervised, _self_]\nname: dot\nneeds: {smaller_views: true}\n"})
    inherited = options.block_of("supervised", "needs")
    assert inherited["labels"] is True
    assert options.block_of("dot", "needs") == {**inherited, "smaller_views": True}


def test_a_file_that_defaults_name_and_nobody_wrote_is_named(own: Own) -> None:
    own({"method/dod.yaml": "defaults: [nobody, _self_]\nname: dod\n"})
    with pytest.raises(UserError, match=r"^conf/method/nobody\.yaml does not exist, which defaults of "):
        composition.read_ahead([("method", "dod")])


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("method.nothing", "conf/method/doe.yaml, auto: option method.nothing is unknown; --help lists all options."),
        ("optimizer.lr", "conf/method/doe.yaml, auto: optimizer.lr=auto is not allowed: optimizer.lr is a number "),
    ],
)
def test_auto_is_of_options_that_may_be_auto(own: Own, key: str, sentence: str) -> None:
    own({"method/doe.yaml": f"{DOE}auto:\n  {key}: {{target: ssl_bench.schedules.share}}\n"})
    assert refusal("method=doe", "scale=smoke").startswith(sentence)
