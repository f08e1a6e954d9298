from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.files import locked
from distill.images.datasets import ImageDataset
from distill.run import Progress
from ftdnas.runtime.device import pick_device, use_threads
from ftdnas.runtime.home import home, write_json
from ftdnas.sets.images import Source, images_of
from ftdnas.sets.making import choose_recipe, distil, prepare_distillation, train_experts
from ftdnas.sets.nearest import is_photos, nearest_photos, stored_nearest
from ftdnas.sets.recipes import load_recipe
from ftdnas.sets.request import DistilRequest
from ftdnas.sets.runs import Machine, RunFolder

TINY = (
    "ipc=1",
    "backbone=convnet:width=32,depth=1",
    "experts.num_experts=2",
    "experts.batch_size=256",
    "matching.outer_steps=6",
    "matching.syn_steps=2",
    "matching.max_start_epoch=1",
    "matching.expert_epochs=1",
    "matching.validate_every=3",
    "matching.checkpoint_every=2",
    "evaluation.validation.epochs=2",
    "evaluation.train.epochs=2",
)


def tiny(*settings: str, **others: object) -> DistilRequest:
    arguments: dict[str, object] = {"dataset": "digits", "threads": 1, **others}
    return DistilRequest(recipe=load_recipe("quick", [*TINY, *settings]), **arguments)  # type: ignore[arg-type]


class Stop(Exception):
    pass


class Listener:
    """Collects messages, and stops the computation at a given moment as a Ctrl-C would."""

    def __init__(self, stage: str = "", done: int = -1) -> None:
        self.messages: list[str] = []
        self.until = (stage, done)

    def __call__(self, progress: Progress) -> None:
        self.messages += [progress.message] * bool(progress.message)
        if (progress.stage, progress.done) == self.until:
            raise Stop


@pytest.mark.parametrize(
    ("spec", "ipc", "on_gpu", "name", "why"),
    [
        ("digits", None, False, "quick", "demo"),
        ("digits", None, True, "quick", "demo"),
        ("cifar10", None, False, "cpu", "no GPU"),
        ("cifar10", None, True, "paper-cifar10-ipc10", "there is a GPU"),
        ("cifar10", 1, True, "paper-cifar10-ipc1", "there is a GPU"),
        ("cifar10", 20, True, "paper-cifar10-ipc10", "there is a GPU"),
        ("cifar10", 30, True, "paper-cifar10-ipc50", "there is a GPU"),
        ("cifar100", 50, True, "paper-cifar100-ipc50", "there is a GPU"),
        ("tiny-imagenet", 50, True, "paper-tiny-imagenet-ipc10", "there is a GPU"),
        ("svhn", None, True, "paper-cifar10-ipc10", "no paper gives settings for svhn"),
        ("svhn", None, False, "cpu", "no GPU"),
        ("folder:photos", None, True, "photos", "own images"),
        ("parquet:photos", None, False, "photos", "own images"),
    ],
)
def test_the_sensible_recipe(spec: str, ipc: int | None, on_gpu: bool, name: str, why: str) -> None:
    recipe, reason = choose_recipe(spec, ipc, on_gpu)
    assert recipe.name == name
    assert why in reason
    assert recipe.ipc == (ipc or load_recipe(name).ipc)


def test_constants_of_one_data_set_are_not_taken_for_another() -> None:
    assert choose_recipe("cifar10", 50, on_gpu=True)[0].preprocess == "published"
    assert choose_recipe("svhn", 50, on_gpu=True)[0].preprocess == "standardize"
    assert choose_recipe("svhn", 10, on_gpu=True)[0].preprocess == "zca"
    with pytest.raises(ValueError, match="no published constants for data set 'digits'"):
        prepare_distillation(tiny("preprocess=published"))
    assert not (home() / "runs").exists()


def test_an_interrupted_run_ends_in_the_same_set_and_a_finished_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage, done in (("experts", 1), ("matching", 3), ("matching", 5)):
        with pytest.raises(Stop):
            distil(tiny(), Listener(stage, done))
    listener = Listener()
    made = distil(tiny(name="mine"), listener)
    assert made.new
    assert made.name == "mine"
    assert any("goes on where it was" in message for message in listener.messages)
    (folder,) = (home() / "runs").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "run.json"]

    listener = Listener()
    found = distil(tiny(), listener)
    assert (found.new, found.name) == (False, "mine")
    assert listener.messages == ["mine was made before with these settings"]
    found.path.unlink()
    again = distil(tiny())  # removed: made anew, from the same experts
    assert again.new
    assert again.synthetic.equal(made.synthetic)
    assert not distil(tiny(seed=1)).synthetic.equal(made.synthetic)

    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path / "elsewhere"))
    listener = Listener()
    assert distil(tiny(), listener).synthetic.equal(made.synthetic)
    assert any("this takes " in message for message in listener.messages)


def test_a_set_is_made_with_the_count_of_its_images_that_point_to_one_photo() -> None:
    made = distil(tiny(method="random")).synthetic
    stored = stored_nearest(made)
    assert stored is not None
    assert (stored.pointing, stored.images) == (len(made.images), len(made.images))
    assert is_photos(made)
    assert stored == nearest_photos(made, images_of(made))


def test_a_start_elsewhere_is_for_methods_that_start() -> None:
    request = tiny(init="noise")
    assert prepare_distillation(request).recipe.matching.init == "noise"
    assert prepare_distillation(request).identity != prepare_distillation(replace(request, init=None)).identity
    assert prepare_distillation(replace(request, init="photos")).identity == (
        prepare_distillation(replace(request, init=None)).identity
    )
    with pytest.raises(ValueError, match="method random takes real photos as they are: --init is for ftd, mtt"):
        prepare_distillation(replace(request, method="random"))


def test_what_the_machine_chose_is_kept() -> None:
    with pytest.raises(Stop):
        distil(tiny(threads=1), Listener("matching", 3))
    (folder,) = (home() / "runs").iterdir()
    machine = RunFolder(folder).machine()
    assert machine is not None
    assert (machine.device, machine.threads) == ("cpu", 1)
    written = json.loads((folder / "run.json").read_text())
    written["machine"]["versions"]["torch"] = "1.0"
    write_json(folder / "run.json", written)
    with pytest.raises(ValueError, match="this run was begun on cpu, and its set depends on it"):
        distil(tiny(device="cuda"))
    listener = Listener()
    try:
        result = distil(tiny(threads=2), listener)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)
    assert "going on with 1 threads, as the run was begun" in listener.messages
    assert any("other versions of torch" in message for message in listener.messages)
    assert result.synthetic.provenance["threads"] == 1


def test_identity_is_all_that_determines_the_set_and_nothing_else(digits: ImageDataset) -> None:
    first = prepare_distillation(tiny())
    assert first.data.fingerprint == digits.fingerprint or first.recipe.data.validation != 0.1
    same = (tiny(device="cpu"), tiny("description=other words"), tiny("hardware=other"), tiny(name="x"))
    others = (tiny(seed=1), tiny("experts.rho=0"), tiny(method="mtt"), tiny("data.validation=0.5"))
    assert {prepare_distillation(request).identity for request in same} == {first.identity}
    assert len({prepare_distillation(request).identity for request in (*others, tiny())}) == len(others) + 1


def test_a_set_remembers_the_images_that_it_was_made_from() -> None:
    made = distil(tiny(validation=0.3, split_seed=4)).synthetic
    data = images_of(made)
    assert data.fingerprint == made.provenance["data_fingerprint"]
    assert images_of(made, Source("digits")).fingerprint == data.fingerprint
    with pytest.raises(ValueError, match="are not those that the set was made from"):
        images_of(made, Source("digits", validation=0.2))
    with pytest.raises(LookupError, match="unknown data set"):
        images_of(made, Source("digitz"))
    anonymous = made.with_provenance(data=None)
    with pytest.raises(ValueError, match="name them by --dataset"):
        images_of(anonymous)


def test_one_process_at_a_time() -> None:
    with (
        locked(home() / "runs" / prepare_distillation(tiny()).identity / "lock"),
        pytest.raises(ValueError, match="another process is making this very set"),
    ):
        distil(tiny())


def test_names_are_looked_up_before_the_work() -> None:
    made = distil(tiny("matching.outer_steps=1", name="mine"))
    listener = Listener("experts", 1)
    with pytest.raises(ValueError, match="the library has a set mine"):
        distil(tiny(seed=2, name="mine"), listener)
    for name in ("../mine", "a b/c", ""):
        with pytest.raises(ValueError, match="is no name for a set"):
            tiny(name=name)
    with pytest.raises(LookupError, match="unknown method 'ftdd': choose from ftd"):
        distil(tiny(method="ftdd"), listener)
    with pytest.raises(ValueError, match="unknown augmentation 'twist'"):
        distil(tiny("matching.augment=twist"), listener)
    with pytest.raises(ValueError, match="cannot carry"):
        distil(tiny("backbone=convnet:width=32,depth=4"), listener)
    # Made before under another name, it is copied; and taken as it is then.
    for said in ("mine was made before with these settings: other is a copy of it", "other was made before"):
        listener = Listener()
        copied = distil(tiny("matching.outer_steps=1", name="other"), listener)
        assert (copied.name, copied.path.stem, copied.new) == ("other", "other", False)
        assert copied.synthetic.equal(made.synthetic)
        assert copied.path.is_file()
        assert any(message.startswith(said) for message in listener.messages)
    distil(tiny("matching.outer_steps=1", seed=2, name="third"))
    with pytest.raises(ValueError, match="the library has a set third"):
        distil(tiny("matching.outer_steps=1", name="third"))
    # A kill may come between the set and the note that it is there.
    RunFolder(home() / "runs" / made.synthetic.provenance["run"]).begin(Machine("cpu", 1, {}))
    assert distil(tiny("matching.outer_steps=1", name="mine")).synthetic.equal(made.synthetic)


def test_experts_alone_are_found_by_distilling() -> None:
    buffer = train_experts(tiny())
    assert (buffer.num_experts, buffer.epochs) == (2, 1)
    with pytest.raises(AssertionError):
        distil(tiny(), Trainless())
    plain = train_experts(tiny(method="mtt"))
    assert plain.folder != buffer.folder
    assert not torch.equal(plain.weights(0, 1), buffer.weights(0, 1))
    assert torch.equal(plain.weights(0, 0), buffer.weights(0, 0))
    with pytest.raises(ValueError, match="method random has no experts"):
        train_experts(tiny(method="random"))


class Trainless:
    """Fails where an expert is trained, and where matching is reached."""

    def __call__(self, progress: Progress) -> None:
        assert progress.stage != "experts"
        assert "experts are there" not in progress.message


def test_a_damaged_run_says_what_to_remove(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.machine() is None
    assert folder.finished() is None
    (tmp_path / "run").mkdir()
    for content in ("{", "[]"):
        (tmp_path / "run" / "run.json").write_text(content)
        with pytest.raises(ValueError, match=r"run.json is damaged.*remove this file, and the run goes on"):
            folder.machine()


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="not one of auto, cpu, cuda"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="PyTorch finds no GPU here"):
            pick_device("cuda")
    assert use_threads(None) == torch.get_num_threads()
