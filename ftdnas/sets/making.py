"""From a request to a set in the library: choose the recipe, load the images, run the method, go on where it stopped.

Each run has a folder named by the hash of everything that determines its set; see `ftdnas.sets.runs`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.files import digest
from distill.recipe import Recipe
from distill.recipe import identity as recipe_identity
from distill.run import Listener, Progress, Run, about, duration, ignore
from ftdnas.runtime.device import pick_device, use_threads
from ftdnas.runtime.home import home
from ftdnas.sets.images import KEY, Source
from ftdnas.sets.library import RUN, Library
from ftdnas.sets.nearest import NEAREST, nearest_photos
from ftdnas.sets.recipes import load_recipe, override, recipe_names
from ftdnas.sets.request import DistilRequest, ExpertsRequest, setting_texts
from ftdnas.sets.runs import Machine, RunFolder

if TYPE_CHECKING:
    from distill.experts import ExpertBuffer
    from distill.images.datasets import ImageDataset
    from distill.synthetic import SyntheticSet
    from distill.training.flat import Network


@dataclass(frozen=True, eq=False)
class Distilled:
    """A set in the library; `new` is False where it had been made before."""

    name: str
    path: Path
    synthetic: SyntheticSet
    new: bool
    seconds: float


def choose_recipe(spec: str, ipc: int | None, on_gpu: bool) -> tuple[Recipe, str]:
    """The sensible recipe for a data set and a machine, and a clause that says why it was chosen."""
    if ":" in spec or spec.startswith("image"):
        name, why = "photos", "the recipe for one's own images"
    elif spec == "digits":
        name, why = "quick", "the recipe of the demo"
    elif not on_gpu:
        name, why = "cpu", "there is no GPU"
    else:
        name, why = _paper_recipe(spec, ipc or Recipe().ipc), "there is a GPU"
    recipe = load_recipe(name)
    if name.startswith("paper-") and f"-{spec}-" not in name:
        why += f"; no paper gives settings for {spec}"
        if recipe.preprocess == "published":  # constants of other images
            recipe = override(recipe, ["preprocess=standardize"])
    return (recipe if ipc is None else override(recipe, [f"ipc={ipc}"])), why


def chosen_recipe(request: ExpertsRequest, listener: Listener = ignore) -> Recipe:
    """The recipe that was asked for, or the sensible one, said; with the settings that were asked for."""
    if isinstance(request.recipe, Recipe):
        recipe = request.recipe
    elif request.recipe is not None:
        recipe = load_recipe(request.recipe)
    else:
        recipe, why = choose_recipe(request.dataset, request.ipc, pick_device(request.device).type == "cuda")
        message = f"recipe {recipe.name}, {why} ({recipe.hardware}); --recipe takes another"
        listener(Progress("distill", 0, 0, message=message))
    asked = {"ipc": request.ipc, "matching.init": getattr(request, "init", None)}
    given = [f"{key}={value}" for key, value in asked.items() if value is not None]
    return override(recipe, [*given, *setting_texts(request.settings)])


def distil(request: DistilRequest, listener: Listener = ignore) -> Distilled:
    """Make the set, or go on with it where it was interrupted, or find it finished.

    Found under another name than the one asked for, it is copied to that. Raises LookupError for an unknown method,
    ValueError for settings that cannot be used and for a set that another process is making, and what loading the
    images raises.
    """
    begun = time.perf_counter()
    job = prepare_distillation(request, listener)
    folder = RunFolder(home() / "runs" / job.identity)
    library = Library()
    with folder.locked():
        finished = _finished(folder, job.identity, library, request.name)
        if request.name is not None:
            _check_name(request.name, job.identity, library)
        if finished is not None:
            name, path, synthetic = finished
            said = f"{name} was made before with these settings"
            if request.name not in (None, name):
                name, path = str(request.name), library.add(synthetic, request.name)
                said += f": {name} is a copy of it"
            listener(Progress("distill", 1, 1, message=said))
            return Distilled(name, path, synthetic, new=False, seconds=0.0)
        machine = _settled(request, folder, listener)
        run = _run(request, machine.device, folder.checkpoints, listener)
        announce(job, run)
        synthetic = job.method(job.data, job.network, job.recipe, run)
        nearest = nearest_photos(synthetic, job.data)
        own = {KEY: job.source.to_json(), RUN: job.identity, NEAREST: nearest and asdict(nearest)}
        synthetic = synthetic.with_provenance(**own)
        path = library.add(synthetic, request.name, job.identity)
        folder.finish(path.stem)
    return Distilled(path.stem, path, synthetic, new=True, seconds=time.perf_counter() - begun)


def train_experts(request: ExpertsRequest, listener: Listener = ignore) -> ExpertBuffer:
    """Train the experts of a distillation alone: those that are missing, in the library's own folder."""
    from distill import experts
    from distill.methods import MATCHED, fitted_preprocess

    if request.method not in MATCHED:
        raise ValueError(f"method {request.method} has no experts: choose from {', '.join(MATCHED)}")
    job = prepare_distillation(request, listener)
    use_threads(request.threads)
    run = _run(request, pick_device(request.device).type, home() / "experts", listener)
    preprocess = fitted_preprocess(job.data, job.recipe, run)
    recipe = MATCHED[request.method](job.recipe)
    listener(Progress("experts", 0, 0, message=_summary(job, run)))
    seconds = experts.estimate_seconds(job.data, preprocess, job.network, recipe, run)
    if seconds:
        listener(Progress("experts", 0, 0, message=f"this takes {about(seconds)}"))
    return experts.train_experts(job.data, preprocess, job.network, recipe, run)


@dataclass(frozen=True, eq=False)
class PreparedDistillation:
    """A request with its images loaded and its names looked up."""

    request: ExpertsRequest
    source: Source  # with what the recipe decides
    recipe: Recipe
    data: ImageDataset
    network: Network
    method: Callable[[ImageDataset, Network, Recipe, Run], SyntheticSet]
    identity: str


def prepare_distillation(request: ExpertsRequest, listener: Listener = ignore) -> PreparedDistillation:
    """Look up and check everything that could be wrong before hours are spent, and load the images."""
    from distill.images.augment import parse_augment
    from distill.images.preprocess import published_preprocess
    from distill.methods import MATCHED, METHODS
    from search_spaces.base import parse_architecture

    if request.method not in METHODS:
        raise LookupError(f"unknown method {request.method!r}: choose from {', '.join(METHODS)}")
    recipe = request.source.within(chosen_recipe(request, listener))
    if request.method not in MATCHED and recipe.matching.init != "photos":
        raise ValueError(f"method {request.method} takes real photos as they are: --init is for {', '.join(MATCHED)}")
    architecture = parse_architecture(recipe.backbone)
    recipe = dataclasses.replace(recipe, backbone=architecture.name)
    evaluation = recipe.evaluation
    for part in (recipe.experts, recipe.matching, evaluation.train, evaluation.validation, evaluation.full):
        parse_augment(part.augment)
    source = dataclasses.replace(request.source, **dataclasses.asdict(recipe.data))
    data = source.load(listener)
    if recipe.preprocess == "published":
        published_preprocess(data.name, data.image_shape[0])
    obstacle = architecture.obstacle(data.image_shape)
    if obstacle:
        _, height, width = data.image_shape
        raise ValueError(
            f"the backbone {architecture.name} cannot carry images of {height} x {width} pixels: {obstacle} "
            "(--override backbone=... or --image-size)"
        )

    def network() -> Any:
        return architecture.build(data.image_shape, data.num_classes)

    return PreparedDistillation(
        request, source, recipe, data, network, METHODS[request.method], _identity(request, recipe, data)
    )


def announce(job: PreparedDistillation, run: Run) -> None:
    """Say what was chosen and, for a method that learns, about how long it will take, from a few timed steps."""
    from distill import distiller, experts
    from distill.methods import MATCHED, fitted_preprocess, initial_images

    run.listener(Progress("distill", 0, 0, message=_summary(job, run)))
    if job.request.method not in MATCHED:
        return
    if run.folder.exists():
        run.listener(Progress("distill", 0, 0, message="this run was begun before: it goes on where it was"))
        return
    preprocess = fitted_preprocess(job.data, job.recipe, run)
    first = experts.estimate_seconds(job.data, preprocess, job.network, MATCHED[job.request.method](job.recipe), run)
    images, labels = initial_images(job.data, preprocess, job.recipe, run)
    second = distiller.estimate_seconds(images, labels, job.network, job.recipe, run)
    parts = f"experts {duration(first) if first else 'are there'}, matching {duration(second)}"
    message = f"this takes {about(first + second)} ({parts}); Ctrl-C is safe, the same command goes on"
    run.listener(Progress("distill", 0, 0, message=message))


def _summary(job: PreparedDistillation, run: Run) -> str:
    data, recipe, threads = job.data, job.recipe, use_threads(None)
    side = "x".join(map(str, data.image_shape[1:]))
    where = f"the CPU, {threads} thread{'s' * (threads > 1)}" if run.device.type == "cpu" else "the GPU"
    made = f"{recipe.ipc} image{'s' * (recipe.ipc > 1)} per class"
    return (
        f"{data.source}: {len(data.train):,} training images of {side} pixels in {data.num_classes} classes; "
        f"{job.request.method} by recipe {recipe.name}, {made}, on {where}"
    )


def _paper_recipe(spec: str, ipc: int) -> str:
    own = [name for name in recipe_names() if name.startswith(f"paper-{spec}-ipc")]
    known = own or [name for name in recipe_names() if name.startswith("paper-cifar10-ipc")]
    return min(known, key=lambda name: abs(math.log(int(name.rpartition("ipc")[2]) / ipc)))


def _identity(request: ExpertsRequest, recipe: Recipe, data: ImageDataset) -> str:
    settings = recipe_identity(recipe)
    for prose in ("description", "hardware"):
        del settings[prose]
    determined = {
        "data": data.fingerprint,
        "dataset": data.name,
        "method": request.method,
        "recipe": settings,
        "seed": request.seed,
    }
    return digest(determined, 16)


def _run(request: ExpertsRequest, device: str, folder: Path, listener: Listener) -> Run:
    import torch

    return Run(
        seed=request.seed,
        folder=folder,
        shared=home(),
        device=torch.device(device),
        listener=listener,
        compiled=request.compiled,
        memory_bytes=request.memory,
    )


def _finished(
    folder: RunFolder, identity: str, library: Library, wanted: str | None
) -> tuple[str, Path, SyntheticSet] | None:
    ended = folder.finished()
    for name in (wanted, ended):
        if ended is not None and name is not None and _is_ours(name, identity, library):
            return name, library.path(name), library.load(name)
    return None  # removed since, and perhaps the name is another set's by now: it is made again


def _is_ours(name: str, identity: str, library: Library) -> bool:
    return name in library.names() and library.load(name).provenance.get(RUN) == identity


def _check_name(name: str, identity: str, library: Library) -> None:
    """Refuse, before the work, a name that another set has; a kill may have left ours there, unfinished business."""
    if not _is_ours(name, identity, library):
        library.check_free(name)


def _settled(request: ExpertsRequest, folder: RunFolder, listener: Listener) -> Machine:
    """What the machine decides: as it was when the run began, else as it is now; written down before the work."""
    from distill.methods import versions

    earlier = folder.machine()
    elsewhere = earlier is not None and request.device not in ("auto", earlier.device)
    if earlier is None or (elsewhere and not folder.begun):
        device = pick_device(request.device).type
        machine = Machine(device, use_threads(request.threads), versions())
        folder.begin(machine)
        return machine
    if elsewhere:
        raise ValueError(
            f"this run was begun on {earlier.device}, and its set depends on it: "
            f"leave --device out, or remove {folder.path} to start again on {request.device}"
        )
    pick_device(earlier.device)
    if request.threads not in (None, earlier.threads):
        message = f"going on with {earlier.threads} threads, as the run was begun"
        listener(Progress("distill", 0, 0, message=message))
    changed = [name for name, version in versions().items() if earlier.versions.get(name) != version]
    if changed:
        message = f"begun with other versions of {', '.join(changed)}: the set may differ in its last bits"
        listener(Progress("distill", 0, 0, message=message))
    use_threads(earlier.threads)
    return earlier
