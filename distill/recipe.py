"""Every hyper-parameter of distilling and judging, as frozen dataclasses; one recipe is one TOML file.

Units and ranges stand beside each field. Sources: FTD (arXiv 2211.11004), MTT (arXiv 2203.11932).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

BATCH_NORM: dict[str, str] = {
    # Few images make poor running averages, so what is read with matters (METHOD 5).
    "running": "the averages kept while training",
    "batch": "the statistics of each batch that is read",
    "refresh": "averages taken anew over the training images",
}
PRECISIONS: dict[str, str] = {
    # Of a forward pass and its derivatives; weights, and what a network is read with, stay as in the first.
    "float32": "32-bit floats as PyTorch has them, which a GPU multiplies in convolutions as TF32",
    "ieee": "32-bit floats throughout, on a GPU too",
    "bfloat16": "convolutions and products in bfloat16, the rest in 32-bit floats",  # torch's autocast
}
PREPROCESSES = ("none", "standardize", "published", "zca")  # published: standardize, by the field's constants
STORAGES = ("float32", "bfloat16")
INITS: dict[str, str] = {
    # What matching starts from.
    "photos": "real images of each class",
    "noise": "Gaussian noise, as bright and as wide as real images",
    "mean": "the mean of all images of each class, with a little noise",
}
SCHEDULES = ("step", "constant", "cosine")  # step: x 0.1 after half the steps


@dataclass(frozen=True)
class DataRecipe:
    """How the real images are brought in."""

    image_size: int | None = None  # side in pixels after resizing; None keeps the images' own size
    validation: float = 0.1  # fraction of the training images held back for every choice; 0 is the papers' protocol


@dataclass(frozen=True)
class ExpertRecipe:
    """Training of the expert trajectories (the papers' "buffer" phase)."""

    num_experts: int = 100
    seed: int = 0  # of the experts alone: distillations with other seeds reuse them
    lr: float = 0.01  # constant
    batch_size: int = 256
    rho: float = 0.01  # radius of the perturbation, 0 is plain SGD (MTT)
    alpha: float = 0.3  # weight of the vertical component, 0 is SAM
    adaptive: bool = False  # the released code's elementwise perturbation instead of the paper's equation 12
    augment: str = "color_crop_cutout_flip_scale_rotate"  # DSA operations joined by "_", or "none"
    storage: str = "float32"  # of weights in files: see STORAGES
    precision: str = "float32"  # of both passes: see PRECISIONS


@dataclass(frozen=True)
class MatchingRecipe:
    """Trajectory matching: how the synthetic images and their step size are optimised."""

    outer_steps: int = 5000  # updates of the images
    init: str = "photos"  # what the images are before the first: see INITS
    syn_steps: int = 30  # N: student steps unrolled per outer step
    expert_epochs: int = 2  # M: how many epochs ahead the target lies
    max_start_epoch: int = 20  # T+: start epochs are drawn from 0 .. T+ - 1
    batch_size: int | None = None  # images per student step; None takes all
    chunk_size: int | None = None  # images whose activations are held at once; None: the whole minibatch
    lr_images: float = 100.0
    lr_images_grid: tuple[float, ...] = ()  # if given, lr_images is chosen from it on validation after grid_steps each
    grid_steps: int = 0
    lr_step_size: float = 1e-5
    initial_step_size: float = 0.01
    momentum: float = 0.5  # of images and step size
    ema_decay: float = 0.9995
    augment: str = "color_crop_cutout_flip_scale_rotate"
    validate_every: int = 500  # outer steps between validation checkpoints
    checkpoint_every: int = 10  # outer steps between restart points
    precision: str = "float32"  # of the student's steps and their adjoint: see PRECISIONS


@dataclass(frozen=True)
class TrainingRecipe:
    """Ordinary training of one network, on a synthetic set or on real images."""

    epochs: int = 1000
    lr: float | None = None  # None: the step size stored in the synthetic set
    batch_size: int = 256
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "step"  # see SCHEDULES
    augment: str = "color_crop_cutout_flip_scale_rotate"
    batch_norm: str = "running"  # whose statistics count when the network is read: see BATCH_NORM
    precision: str = "float32"  # of training, not of reading: see PRECISIONS
    warmup: float = 0.0  # part of the training in which the rate rises from zero
    label_smoothing: float = 0.0  # in [0, 1): what every label gives away to all classes


@dataclass(frozen=True)
class EvaluationRecipe:
    """How a set is judged: fresh networks trained on it, read on held-out images."""

    train: TrainingRecipe = field(default_factory=TrainingRecipe)
    validation: TrainingRecipe = field(default_factory=lambda: TrainingRecipe(epochs=300))  # cheaper, for checkpoints
    full: TrainingRecipe = field(default_factory=lambda: TrainingRecipe(epochs=50, lr=0.01))  # on all real images
    subset_lrs: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)  # learning rates a real subset chooses from, on validation


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a synthetic set, but for the data, the seed and the method's name."""

    name: str = "custom"
    description: str = ""
    hardware: str = ""  # what it needs and about how long it takes there
    ipc: int = 10  # images per class
    # Experts kept in the set, to label augmented images when it ranks networks; None: up to six of those it matched.
    teachers: int | None = None
    backbone: str = "convnet:width=128,depth=3,norm=instance,activation=relu,pooling=avg"
    preprocess: str = "standardize"  # see PREPROCESSES
    data: DataRecipe = field(default_factory=DataRecipe)
    experts: ExpertRecipe = field(default_factory=ExpertRecipe)
    matching: MatchingRecipe = field(default_factory=MatchingRecipe)
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)


def identity(recipe: Recipe | ExpertRecipe | EvaluationRecipe | TrainingRecipe) -> dict[str, Any]:
    """As `dataclasses.asdict`, for digests: without what was added later, where it has its default.

    So what was made before still counts as made by the same recipe.
    """
    kept: dict[str, Any] = _without(_ADDED_LATER, asdict(recipe))
    return kept


def facts(recipe: TrainingRecipe) -> dict[str, Any]:
    """As `dataclasses.asdict`, for files that are compared: equal to those that were written before there was more."""
    kept: dict[str, Any] = _without(_NEW_TO_FILES, asdict(recipe))
    return kept


_NEW_TO_FILES = (("precision", "float32"), ("warmup", 0.0), ("label_smoothing", 0.0))
_ADDED_LATER = (("batch_norm", "running"), ("teachers", None), ("init", "photos"), *_NEW_TO_FILES)


def _without(left_out: tuple[tuple[str, Any], ...], value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without(left_out, part) for name, part in value.items() if (name, part) not in left_out}
