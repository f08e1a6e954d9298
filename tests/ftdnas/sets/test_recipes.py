from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.files import digest
from distill.images.augment import parse_augment
from distill.recipe import SCHEDULES, STORAGES, MatchingRecipe, Recipe, TrainingRecipe, identity
from distill.training.loop import SCHEDULES as TRAINING_SCHEDULES
from ftdnas.sets import recipes as config
from ftdnas.sets.recipes import load_recipe, override, recipe_from_dict, recipe_names, recipe_to_toml
from search_spaces.base import parse_architecture

# The FTD paper's appendix: N, M, T+, synthetic batch, lr of images, of step size, first step size, alpha, EMA decay.
PAPER = {
    "paper-cifar10-ipc1": (50, 2, 2, None, 100, 1e-7, 0.01, 0.3, 0.9999),
    "paper-cifar10-ipc10": (30, 2, 20, None, 100, 1e-5, 0.001, 0.3, 0.9995),
    "paper-cifar10-ipc50": (30, 2, 40, None, 1000, 1e-5, 0.01, 1, 0.999),
    "paper-cifar100-ipc1": (40, 3, 20, None, 1000, 1e-5, 0.01, 1, 0.9995),
    "paper-cifar100-ipc10": (20, 2, 40, None, 1000, 1e-5, 0.01, 1, 0.9995),
    "paper-cifar100-ipc50": (80, 2, 40, 1000, 1000, 1e-5, 0.01, 1, 0.999),
    "paper-tiny-imagenet-ipc1": (30, 2, 10, None, 10000, 1e-4, 0.01, 1, 0.999),
    "paper-tiny-imagenet-ipc10": (20, 2, 40, 500, 10000, 1e-4, 0.01, 1, 0.999),
    "paper-imagenet128-ipc1": (20, 2, 10, None, 1000, 1e-6, 0.01, 1, 0.999),  # MTT's command; the last two as Tiny's
}
DEPTHS = {"tiny": 4, "imagenet128": 5}  # else 3
WHITENED = {f"paper-cifar10-ipc{ipc}" for ipc in (1, 10)} | {f"paper-cifar100-ipc{ipc}" for ipc in (1, 10, 50)}  # MTT
# What a set was known by when all but the ZCA recipes of ipc 10 fitted their standardising: recipe, its overrides.
STANDARDIZED = ["preprocess=standardize"]
KNOWN_BEFORE = {
    "cpu": ("1bc72721ac02f649", []),
    "photos": ("27952ee478f56a43", []),
    "quick": ("e7be835b11de2167", []),
    "paper-cifar10-ipc1": ("70d0eb69932d5d0e", STANDARDIZED),
    "paper-cifar10-ipc10": ("8e9e202e6d304e81", []),
    "paper-cifar10-ipc50": ("e7c19bb863ce027c", STANDARDIZED),
    "paper-cifar100-ipc1": ("7b99cfb9aade814b", STANDARDIZED),
    "paper-cifar100-ipc10": ("2b81bd25faec28f6", []),
    "paper-cifar100-ipc50": ("655c0cae22939ef9", STANDARDIZED),
    "paper-tiny-imagenet-ipc1": ("a97910379b58fa00", STANDARDIZED),
    "paper-tiny-imagenet-ipc10": ("573144e9818a14a1", STANDARDIZED),
}


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipe_loads_and_can_be_run(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.hardware
    side = recipe.data.image_size or (8 if name == "quick" else 64 if "tiny" in name or name == "photos" else 32)
    network = parse_architecture(recipe.backbone).build((3, side, side), 10)
    assert sum(weight.numel() for weight in network.parameters()) > 1000
    for augment in (recipe.experts.augment, recipe.matching.augment, recipe.evaluation.train.augment):
        parse_augment(augment)
    if recipe.evaluation.train.epochs < 1000:
        assert "shorter" in recipe.description


def test_shipped_recipes_are_the_stated_ones_in_natural_order() -> None:
    names = recipe_names()
    assert set(names) == {*PAPER, "quick", "cpu", "photos"}
    assert [name for name in names if "cifar100-" in name] == [f"paper-cifar100-ipc{ipc}" for ipc in (1, 10, 50)]


@pytest.mark.parametrize("name", PAPER)
def test_paper_recipe_holds_the_papers_settings(name: str) -> None:
    recipe, matching = load_recipe(name), load_recipe(name).matching
    assert PAPER[name] == (
        matching.syn_steps,
        matching.expert_epochs,
        matching.max_start_epoch,
        matching.batch_size,
        matching.lr_images,
        matching.lr_step_size,
        matching.initial_step_size,
        recipe.experts.alpha,
        matching.ema_decay,
    )
    assert recipe.ipc == int(name.rpartition("ipc")[2])
    assert (matching.outer_steps, matching.momentum) == (5000, 0.5)
    experts = recipe.experts
    assert (experts.num_experts, experts.lr, experts.batch_size, experts.rho) == (100, 0.01, 256, 0.01)
    assert not experts.adaptive
    depth = DEPTHS.get(name.split("-")[1], 3)
    assert recipe.backbone == f"convnet:width=128,depth={depth},norm=instance,activation=relu,pooling=avg"
    assert recipe.preprocess == ("zca" if name in WHITENED else "published")
    assert recipe.data.image_size == (128 if "128" in name else None)
    train = recipe.evaluation.train
    assert train == TrainingRecipe()
    assert (train.epochs, train.lr, train.batch_size, train.schedule) == (1000, None, 256, "step")


@pytest.mark.parametrize("name", KNOWN_BEFORE)
def test_a_set_of_an_earlier_recipe_is_found_by_its_settings(name: str) -> None:
    known, overrides = KNOWN_BEFORE[name]
    settings = identity(load_recipe(name, overrides))
    for prose in ("description", "hardware"):
        del settings[prose]
    assert digest(settings, 16) == known


def test_every_number_of_a_recipe_has_a_range() -> None:
    for key in config.recipe_keys():
        value = Recipe()
        for part in key.split("."):
            value = getattr(value, part)
        number = not isinstance(value, str | bool)
        assert (key.rpartition(".")[2] in config._RANGES) == number, key


def test_choices_are_those_that_are_made() -> None:
    from distill.experts import STORAGES as STORED

    assert tuple(STORED) == STORAGES
    assert tuple(TRAINING_SCHEDULES) == SCHEDULES


@pytest.mark.parametrize("name", recipe_names())
def test_toml_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "again.toml"
    path.write_text(recipe_to_toml(recipe))
    assert load_recipe(path) == recipe


@given(
    description=st.text(),
    lr=st.floats(1e-300, 1e300),
    batch=st.none() | st.integers(1, 10**6),
    grid=st.lists(st.floats(1e-9, 1e9), max_size=4),
    full_lr=st.floats(1e-9, 1.0),
    adaptive=st.booleans(),
)
def test_any_recipe_survives_toml(
    description: str, lr: float, batch: int | None, grid: list[float], full_lr: float, adaptive: bool
) -> None:
    base = Recipe()
    recipe = dataclasses.replace(
        base,
        description=description.encode(errors="ignore").decode(),
        matching=MatchingRecipe(lr_images=lr, batch_size=batch, lr_images_grid=tuple(grid), grid_steps=len(grid)),
        experts=dataclasses.replace(base.experts, adaptive=adaptive),
        evaluation=dataclasses.replace(base.evaluation, full=TrainingRecipe(epochs=3, lr=full_lr)),
    )
    import tomllib

    assert recipe_from_dict(tomllib.loads(recipe_to_toml(recipe))) == recipe
    assert recipe_from_dict(dataclasses.asdict(recipe)) == recipe


def test_keys_left_out_keep_their_defaults_section_by_section(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("ipc = 3\n[evaluation.full]\nepochs = 7\n")
    recipe = load_recipe(path)
    assert recipe == dataclasses.replace(
        Recipe(name="mine", ipc=3),
        evaluation=dataclasses.replace(Recipe().evaluation, full=TrainingRecipe(epochs=7, lr=0.01)),
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["matching.outer_steps=7"], {"outer_steps": 7}),
        (["matching.lr_images=3"], {"lr_images": 3.0}),
        (["matching.lr_step_size = 1e-6 "], {"lr_step_size": 1e-6}),
        (["matching.batch_size=50", "matching.batch_size=none"], {"batch_size": None}),
        (["matching.lr_images_grid=[10, 2.5]", "matching.grid_steps=1"], None),
        (["matching.augment=flip_crop"], {"augment": "flip_crop"}),
        (["matching.augment='flip'"], {"augment": "flip"}),
    ],
)
def test_override(settings: list[str], expected: dict[str, object] | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match=r"needs matching\.grid_steps"):
            override(Recipe(), settings[:1])
        return
    recipe = override(Recipe(), settings)
    assert recipe.matching == dataclasses.replace(MatchingRecipe(), **expected)  # type: ignore[arg-type]
    assert dataclasses.replace(recipe, matching=MatchingRecipe()) == Recipe()


def test_override_keeps_equals_signs_of_a_value() -> None:
    assert override(Recipe(), ["backbone=convnet:width=32,depth=2"]).backbone == "convnet:width=32,depth=2"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("matching.outer_step=5", r"unknown key matching\.outer_step: did you mean matching\.outer_steps\?"),
        ("outer_steps=5", r"unknown key outer_steps: did you mean matching\.outer_steps\?"),
        ("expert.rho=0", r"unknown key expert: .*"),
        ("experts.rhoo=0", r"did you mean experts\.rho\?"),
        ("zzz=0", "prints every key"),
        ("matching=5", r"matching is a section, set its keys: matching\.outer_steps"),
        ("matching.outer_steps", r"write section\.key=value"),
        ("=5", r"write section\.key=value"),
        ("matching.outer_steps.deep=5", r"matching\.outer_steps is .*, not a whole number"),
        ("matching.outer_steps=five", r'matching\.outer_steps is "five", not a whole number'),
        ("matching.outer_steps=5.0", "not a whole number"),
        ("matching.outer_steps=true", "not a whole number"),
        ("matching.outer_steps=none", "not a whole number"),
        ("matching.outer_steps=5\nipc=3", "not a whole number"),
        ("matching.lr_images=inf", "not a finite number"),
        ("matching.lr_images=true", "not a finite number"),
        ("matching.lr_images_grid=5", "not a list of numbers"),
        ("experts.adaptive=1", "not true or false"),
        ("preprocess=5", "not a text"),
        ("preprocess=zcaa", r"preprocess is 'zcaa': did you mean zca\?"),
        ("experts.storage=int4", "choose from float32, bfloat16"),
        ("evaluation.train.schedule=steps", r"did you mean step\?"),
        ("ipc=0", "ipc is 0, not 1 or more"),
        ("matching.lr_images=0", r"matching\.lr_images is 0, not above 0"),
        ("matching.momentum=1", "not from 0 up to, not including, 1"),
        ("data.validation=1.5", r"data\.validation is 1\.5, not between 0 and 0\.9"),
        ("data.image_size=2", "not between 4 and 1024 pixels"),
        ("evaluation.subset_lrs=[0.1, -1]", "evaluation.subset_lrs is -1, not above 0"),
        ("evaluation.full.lr=none", "come with no learned step size"),
        ("name=../x", "becomes part of a file's name"),
    ],
)
def test_wrong_settings_are_refused_with_the_way_out(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(Recipe(), [setting])


def test_a_grid_needs_validation_images() -> None:
    with pytest.raises(ValueError, match=r"data\.validation = 0 keeps none"):
        load_recipe("photos", ["data.validation=0"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ipc = ", "is not TOML"),
        ("[matching]\nouter_stepz = 1", r"mine\.toml: unknown key matching\.outer_stepz: did you mean"),
        ("ipc = 0", r"mine\.toml: ipc is 0"),
        ("matching = 4", "is a section"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"unknown recipe 'quik': did you mean quick\?"):
        load_recipe("quik")
    with pytest.raises(FileNotFoundError, match=r"no recipe file .*absent\.toml"):
        load_recipe(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    with pytest.raises(ValueError, match="is not UTF-8"):
        load_recipe(tmp_path / "latin.toml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_may_be_saved_by_any_editor(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(recipe_to_toml(load_recipe("quick")).replace("\n", "\r\n").encode(encoding))
    assert dataclasses.replace(load_recipe(path), name="quick") == load_recipe("quick")
