"""One NVIDIA GPU: whether every path gives the CPU's figures, how fast it is, what the paper's recipe reaches on it.

    python benchmarks/gpu.py OUT [--minutes 9] [--only a,b,c] [--data FOLDER]

a  a minute: derivatives, augmentations, experts, networks of every space, a set and candidates, held up to the CPU's
b  about four minutes: outer steps and experts of benchmarks/speed.py with the TFLOP/s reached; most of it is compiling
c  --minutes: CIFAR-10 at 10 images per class by the paper's recipe, with as many experts and outer steps as they hold;
   five networks trained on the set beside two on random images

Each result is a line of OUT/gpu.jsonl as soon as it is there; what fails is a line too, and the rest goes on. The set
is OUT/set.safetensors, in parts where it is larger than 15 MB (`cat OUT/set.safetensors.*` joins them). It runs from a
checkout that is not installed, without the libraries of the search and the service; CIFAR-10 is downloaded where it is
neither under --data nor under FTDNAS_DATA.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import speed
import torch

from distill import distiller, experts
from distill.evaluation import Evaluation, evaluate_against, evaluate_set, held_out_examples
from distill.experts import _train_epoch
from distill.images.augment import OPERATIONS, augment, draw
from distill.matching import Match, match
from distill.methods import fitted_preprocess, initial_images, matched_set
from distill.randomness import generator, seeded
from distill.recipe import ExpertRecipe, Recipe, TrainingRecipe
from distill.restart import RestartPoints
from distill.run import Progress, Run
from distill.synthetic import SyntheticSet
from distill.training.derivatives import TOLERANCE, Derivatives
from distill.training.examples import Examples
from distill.training.loop import fit
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import Material, held_out_material, set_material
from ftdnas.candidates.training import Training
from ftdnas.runtime.device import visible_gpus
from ftdnas.runtime.processes import Failure, LocalProcesses
from ftdnas.runtime.rows import Row
from ftdnas.sets.images import Source
from ftdnas.sets.making import distil
from ftdnas.sets.recipes import load_recipe, override
from ftdnas.sets.request import DistilRequest
from search_spaces.base import parse_architecture

ROUNDING = 1e-4  # relative, of 32-bit floats after some steps
FEW_STEPS = 0.02  # relative, of the losses of a few steps of a network with batch norm
PART_BYTES = 15 * 2**20
EXPERTS = 0.3  # of the minutes that experts may take
JUDGING = 0.08, 30.0  # of the minutes, and least seconds, that are kept for the evaluations
LIMITS_S = {"a": 120.0, "b": 150.0}  # of one part of a stage
SHAPE, CLASSES = (3, 8, 8), 10
NETWORKS = (
    "convnet:width=16,depth=2",
    "nasbench201:cells=1:|nor_conv_1x1~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|none~2|",
    "macro:00011100",
    "residual:width=8,depth1=1,depth2=1,depth3=1,stem=conv3,block=basic,kernel=3",
    "mobilenet:width=0.25,stem=full,se=1,depth1=1,depth2=1,depth3=1,kernel1=3,kernel2=3,kernel3=3,expansion1=3,"
    "expansion2=3,expansion3=3",
)
DIGITS = ["backbone=convnet:width=16,depth=2", "teachers=1", "experts.num_experts=1", "matching.outer_steps=2"]
DIGITS += ["matching.validate_every=2", "matching.syn_steps=3", "matching.max_start_epoch=1"]
DIGITS += ["matching.expert_epochs=1", "evaluation.validation.epochs=2"]
TINY = ["ipc=2", "preprocess=standardize", "backbone=convnet:width=8,depth=2", "matching.max_start_epoch=1"]
TINY += ["matching.expert_epochs=1", "matching.syn_steps=2", "matching.checkpoint_every=1", "evaluation.train.epochs=3"]
TINY += ["evaluation.validation.epochs=2", "data.image_size=8"]


class Late(BaseException):
    """A part's time is up; no Exception, for those are answered by going on without a compiler."""


class Enough(Exception):
    """Matching has had its time."""


class Book:
    """The results: a line each, written and printed when they are there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.failed, self._begun = folder, 0, time.perf_counter()

    def write(self, stage: str, what: str, facts: Mapping[str, Any]) -> None:
        line = {"stage": stage, "what": what, "at_s": round(time.perf_counter() - self._begun, 1), **facts}
        text = json.dumps(line, default=str)
        with (self.folder / "gpu.jsonl").open("a") as file:
            file.write(text + "\n")
        print(text[:1000], flush=True)

    @contextlib.contextmanager
    def part(self, stage: str, what: str, limit_s: float) -> Iterator[dict[str, Any]]:
        """A block that fills a result's facts, within so many seconds; its failure is told, and passed over."""

        def ring(*_: object) -> None:
            raise Late(f"{limit_s:.0f} s are over")

        facts: dict[str, Any] = {}
        begun = time.perf_counter()
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(1.0, limit_s))
        try:
            yield facts
        except (Exception, Late) as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            traceback.print_exc(limit=-6)
            facts["failed"] = f"{type(error).__name__}: {error}"[:600]
            self.failed += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.write(stage, what, {"seconds": round(time.perf_counter() - begun, 2), **facts})


def away(value: Any, exact: Any) -> float:
    """Relative, in the Euclidean norm."""
    mine, theirs = (torch.as_tensor(one).detach().double().cpu() for one in (value, exact))
    return float((mine - theirs).norm() / theirs.norm().clamp_min(1e-30))


def agree(facts: dict[str, Any], differences: Mapping[str, float], bound: float) -> None:
    """Note them. Raises ValueError where one is above the bound, or no number."""
    facts |= {"away": dict(differences), "bound": bound}
    if too_far := [name for name, difference in differences.items() if not difference <= bound]:
        raise ValueError(f"{', '.join(too_far)}: further than {bound:g} from the CPU's")


def paths(asked: argparse.Namespace, book: Book) -> None:
    """Stage a."""
    part = partial(book.part, "a", limit_s=LIMITS_S["a"])
    small = {"side": SHAPE[1], "width": 16, "images": 20, "syn_steps": 4}
    of = lambda device: speed.problem(argparse.Namespace(**small, device=device))  # noqa: E731
    flat, given, steps = of("cpu")
    exact = match(Derivatives(flat, precision="ieee"), *given, steps)
    ways: dict[str, dict[str, Any]] = {name: {"precision": name} for name in TOLERANCE}
    ways["chunks of 7"] = {"precision": "ieee", "chunk_size": 7}
    for name, options in ways.items():
        with part(f"matching, {name}") as facts:
            flat, given, steps = of(asked.device)
            found = match(Derivatives(flat, **options), *given, steps)
            fields = [field.name for field in dataclasses.fields(Match)]
            bound = ROUNDING if options["precision"] == "ieee" else TOLERANCE[options["precision"]]
            agree(facts, {field: away(getattr(found, field), getattr(exact, field)) for field in fields}, bound)
    for name in OPERATIONS:
        with part(f"augmentation {name}") as facts:
            images = torch.randn(16, *SHAPE, generator=generator(1, name))
            here = augment(images, draw((name,), 16, SHAPE, generator(2, name)))
            there = augment(images.to(asked.device), draw((name,), 16, SHAPE, generator(2, name), asked.device))
            agree(facts, {"images": away(there, here)}, ROUNDING)
    with part("an epoch of an expert") as facts:
        (weights, loss), (expected, expected_loss) = (_expert(of, device) for device in (asked.device, "cpu"))
        agree(facts, {"weights": away(weights, expected), "loss": away(loss, expected_loss)}, ROUNDING)
    for name in NETWORKS:
        with part(f"training {name}") as facts:
            found_losses, losses = (_losses(name, device) for device in (asked.device, "cpu"))
            agree(facts, {"losses": away(found_losses, losses)}, FEW_STEPS)
    with part("a set and its candidates") as facts:
        _set_and_candidates(asked, facts)


def _examples(count: int, device: str) -> Examples:
    images = torch.randn(count, *SHAPE, generator=generator(0, "images"))
    return Examples(images.to(device), (torch.arange(count) % CLASSES).to(device))


def _expert(of: Callable[[str], Any], device: str) -> tuple[torch.Tensor, float]:
    flat, given, _ = of(device)
    recipe = ExpertRecipe(batch_size=32, precision="ieee")
    derivatives = Derivatives(flat, precision="ieee")
    return _train_epoch(_examples(128, device), derivatives, given[3], recipe, generator(0, "draws"))


def _losses(architecture: str, device: str) -> Sequence[float]:
    with seeded(0, "network"):
        network = parse_architecture(architecture).build(SHAPE, CLASSES).to(device)
    recipe = TrainingRecipe(epochs=1, batch_size=8, precision="ieee")
    return fit(network, _examples(16, device), recipe, lr=0.01, generator=generator(0, "draws")).losses


def _set_and_candidates(asked: argparse.Namespace, facts: dict[str, Any]) -> None:
    """A set of digits, its teachers and two candidates that two processes train on it, as a study has them."""
    expected = _digits("cpu", asked.home)
    found = expected if asked.device == "cpu" else _digits(asked.device, asked.home)
    losses, exact = ([row[1] for row in one.provenance["losses"][:1]] for one in (found, expected))
    data = Source("digits", validation=expected.provenance["recipe"]["data"]["validation"]).load()
    materials = [set_material(expected, "gpu", taught=True), held_out_material(data, expected.preprocess)]
    recipe = TrainingRecipe(epochs=1, lr=0.01, precision="ieee")
    names = [parse_architecture(name).name for name in NETWORKS[:2]]
    works = [Training(name, materials[0].label, materials[1].label, recipe, 0, part=20) for name in names]
    rows = _trained(works, materials, asked)
    shelf = {material.label.fingerprint: material for material in materials}
    differences = {"first matching loss": away(losses, exact)}
    for work, row in zip(works, rows, strict=True):
        differences[work.architecture] = away(row["losses"], work(shelf)["losses"])
    agree(facts, differences, TOLERANCE["float32"])


def _digits(device: Literal["cpu", "cuda"], home: Path) -> SyntheticSet:
    # In a home of its own, for in one a run makes its set but once, whatever the device.
    os.environ["FTDNAS_HOME"] = str(home / f"digits-{device}")
    recipe = load_recipe("quick", DIGITS)
    return distil(DistilRequest(dataset="digits", recipe=recipe, device=device, compiled=False)).synthetic


def _trained(works: Sequence[Training], materials: Sequence[Material], asked: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        lay_out = lambda: hand_over(materials, Path(folder) / "materials", asked.device)  # noqa: E731
        if asked.tiny:
            shelf = lay_out()()
            return [work(shelf) for work in works]
        with LocalProcesses(lay_out, 2, visible_gpus(asked.device)) as processes:
            done = dict(processes.map(works))
    failures = [row for row in done.values() if isinstance(row, Failure)]
    if failures:
        raise RuntimeError(failures[0].error)
    return [row for _, row in sorted(done.items()) if not isinstance(row, Failure)]


def speeds(asked: argparse.Namespace, book: Book) -> None:
    """Stage b: each way alone, so that one that does not compile leaves the others their figures."""
    sizes = ["--width=8", "--side=8", "--images=10", "--syn-steps=5", "--repeats=1"]
    sizes, ways = (sizes, speed.WAYS[:1]) if asked.tiny else ([], speed.WAYS)
    for name in ("matching", "experts"):
        for way in ways:
            given = speed.parser().parse_args([name, "--device", asked.device, *sizes, "--ways", way])
            with book.part("b", f"{name}, {way}", LIMITS_S["b"]) as facts:
                if asked.device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                for line in speed.PARTS[name](given):
                    told = {**dataclasses.asdict(line), "ratio": line.ratio}
                    if line.tflop:
                        told["TFLOP/s"] = line.tflop / line.ours
                    facts.setdefault("lines", []).append(told)
                if asked.device == "cuda":
                    facts["most memory held, reference included, MB"] = torch.cuda.max_memory_allocated() / 2**20


def recipe_within(asked: argparse.Namespace, book: Book) -> None:
    """Stage c: experts, matching until the time is up, and what networks trained on the set reach on test images."""
    whole_s = 60 * asked.minutes
    end = time.perf_counter() + whole_s
    left = lambda: end - time.perf_counter()  # noqa: E731
    judging_s = max(JUDGING[0] * whole_s, JUDGING[1])
    recipe = load_recipe("paper-cifar10-ipc10", TINY if asked.tiny else [])
    most_experts, most_steps = (2, 9) if asked.tiny else (recipe.experts.num_experts, recipe.matching.outer_steps)
    with book.part("c", "images", whole_s) as facts:
        source = Source("digits" if asked.tiny else "cifar10", root=asked.data, validation=recipe.data.validation)
        data = dataclasses.replace(source, image_size=recipe.data.image_size).load()
        facts |= {"train": len(data.train), "source": data.source}
    if "failed" in facts:
        return
    architecture = parse_architecture(recipe.backbone)
    recipe = dataclasses.replace(recipe, backbone=architecture.name)
    network = lambda: architecture.build(data.image_shape, data.num_classes)  # noqa: E731
    run = Run(0, asked.home / "run", asked.home, torch.device(asked.device), compiled=asked.device == "cuda")
    run.folder.mkdir(parents=True, exist_ok=True)
    with book.part("c", "experts", left() - judging_s) as facts:
        preprocess = fitted_preprocess(data, recipe, run)
        begun = time.perf_counter()
        buffer = experts.train_experts(data, preprocess, network, override(recipe, ["experts.num_experts=1"]), run)
        spare = EXPERTS * whole_s - (time.perf_counter() - begun)
        count = min(most_experts, 1 + max(0, int(spare / max(buffer.seconds(), 1e-3))))
        recipe = override(recipe, [f"experts.num_experts={count}"])
        buffer = experts.train_experts(data, preprocess, network, recipe, run)
        taken = time.perf_counter() - begun
        facts |= {"experts": count, "epochs": buffer.epochs, "each_s": buffer.seconds() / count, "all_s": taken}
        facts["made_on"] = buffer.made_on()
    if "failed" in facts:
        return
    with book.part("c", "matching", left() - judging_s / 2) as facts:
        images, labels = initial_images(data, preprocess, recipe, run)
        held_out = held_out_examples(data, preprocess, run)
        stop = 0.0 if asked.tiny else end - judging_s
        matching = partial(distiller.distil, images, labels, held_out, buffer, network)
        most = override(recipe, [f"matching.outer_steps={most_steps}"])
        result, recipe = _matched_until(stop, matching, most, run, facts)
        made = matched_set("ftd", result, labels, buffer, preprocess, data, recipe, run)
        _keep(made, book.folder)
    if "failed" in facts:
        return
    judged = partial(evaluate_set, made, data, network, recipe.backbone, recipe.evaluation.train, run=run)
    for seeds in ((0, 1), (2, 3, 4)):
        with book.part("c", f"test accuracy on the set, seeds {seeds}", max(60.0, left())) as facts:
            facts |= _accuracies(judged(seeds=seeds))
    with book.part("c", "test accuracy on random images", max(60.0, left())) as facts:
        against = (data, preprocess, network, recipe.backbone, network, recipe, (0, 1), run)
        facts |= _accuracies(evaluate_against("random", *against))


def _matched_until(
    stop: float, matching: Callable[[Recipe, Run], distiller.Distilled], recipe: Recipe, run: Run, facts: dict[str, Any]
) -> tuple[distiller.Distilled, Recipe]:
    """What matching has reached by then, at its last restart point, and the recipe with so many outer steps."""
    marks = [time.perf_counter()]

    def listener(progress: Progress) -> None:
        if progress.stage == "matching" and not progress.message:
            marks.append(time.perf_counter())
            # A point is kept after the step that is told of: before the second there may be none.
            if time.perf_counter() > stop and progress.done > recipe.matching.checkpoint_every:
                raise Enough

    try:
        result = matching(recipe, dataclasses.replace(run, listener=listener))
    except Enough:
        point = RestartPoints(run.folder, run.device).latest()
        assert point is not None
        recipe = override(recipe, [f"matching.outer_steps={point.step}"])
        result = matching(recipe, run)
    gaps = sorted(after - before for before, after in itertools.pairwise(marks))
    losses = [loss for _, loss in result.losses]
    facts |= {"outer_steps": recipe.matching.outer_steps, "seconds": result.seconds, "notes": result.notes}
    facts |= {"outer_step_s (least, median)": [gaps[0], gaps[len(gaps) // 2]], "derivatives": result.derivatives}
    facts |= {"validation": result.validation, "published": result.published, "step_size": result.step_size}
    facts |= {"first losses": losses[:3], "mean of the last losses": sum(losses[-50:]) / max(1, len(losses[-50:]))}
    if run.device.type == "cuda":
        facts["most memory held, MB"] = torch.cuda.max_memory_allocated() / 2**20
    return result, recipe


def _keep(made: SyntheticSet, folder: Path) -> None:
    """The set in files that may travel."""
    path = folder / "set.safetensors"
    made.save(path)
    if path.stat().st_size > PART_BYTES:
        whole = path.read_bytes()
        path.unlink()
        for number in range(-(-len(whole) // PART_BYTES)):
            (folder / f"{path.name}.{number}").write_bytes(whole[number * PART_BYTES :][:PART_BYTES])


def _accuracies(evaluation: Evaluation) -> dict[str, Any]:
    return {"accuracies": evaluation.accuracies, "mean": evaluation.mean, "lr": evaluation.lr, "note": evaluation.note}


STAGES = {"a": paths, "b": speeds, "c": recipe_within}


def environment(asked: argparse.Namespace) -> dict[str, Any]:
    told: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
    told |= {"code": distiller.__file__, "tf32 convolutions": torch.backends.cudnn.allow_tf32}
    if asked.device == "cuda":
        told |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        told["MB"] = torch.cuda.get_device_properties(0).total_memory // 2**20
    return told


def main() -> None:
    given = os.environ.get("FTDNAS_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0, help="Of stage c, evaluations included.")
    parser.add_argument("--only", default="a,b,c", help="Stages, with commas between them.")
    parser.add_argument("--data", type=Path, default=Path(given) if given else None, help="With cifar10/*.parquet.")
    parser.add_argument("--home", type=Path, help="Where experts and restart points stay, for another run.")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="Sizes that only show that it runs.")
    asked = parser.parse_args()
    if unknown := set(asked.only.split(",")) - set(STAGES):
        parser.error(f"--only {','.join(sorted(unknown))}: the stages are {', '.join(STAGES)}")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here")
    book = Book(asked.out)
    book.write("", "environment", environment(asked))
    with tempfile.TemporaryDirectory() as folder:
        asked.home = (asked.home or Path(folder)).absolute()
        os.environ["FTDNAS_HOME"] = str(asked.home)
        for stage in asked.only.split(","):
            STAGES[stage](asked, book)
    book.write("", "end", {"failed parts": book.failed})
    sys.exit(min(1, book.failed))


if __name__ == "__main__":
    main()
