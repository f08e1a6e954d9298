"""What is asked of a finish."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from distill.recipe import TrainingRecipe
from ftdnas.runtime.options import option
from ftdnas.sets.request import Counted, InProcesses, OnImages, Seeded


@dataclass(frozen=True, kw_only=True)
class FinishRequest(Counted, Seeded, InProcesses, OnImages):
    """Train the best candidates of a study and write the best as files.

    `recipe`: a shipped one, a file, or the training itself. `pretrained_weights` are fine-tuned beside the finalists at
    `pretrained_lr`, on images resized to `pretrained_size`.
    """

    FIRST: ClassVar = ("top", "epochs", "architectures")
    study: str | None = option(None, "Whose best are finished.", metavar="STUDY", flags="--study", argument=True)
    architectures: tuple[str, ...] = option(
        (), "Finish this; repeatable.", metavar="ARCH", flags="--architecture -a", free=True
    )
    top: int = option(5, "How many of the study's best.", least=1, counts="top")
    epochs: int | None = option(None, "On all real images (default: the recipe's).", least=1, counts="epochs")
    lr: float | None = option(None, "Learning rate (default: the recipe's).", above=0, most=1000, group="Training")
    recipe: str | TrainingRecipe | None = option(
        None, "Whose evaluation.full trains them (default: the data's).", metavar="NAME|FILE", group="Training"
    )
    pretrained_weights: Path | None = option(
        None,
        "State dict of a torchvision network (.safetensors or .pth), fine-tuned beside them.",
        metavar="FILE",
        local=True,
    )
    pretrained_size: int = option(224, "To which its images are resized.", least=1, metavar="PIXELS", local=True)
    pretrained_lr: float = option(0.01, "Learning rate of its fine-tuning.", above=0, local=True)
    from_server: str | None = option(
        None, "Fetch the STUDY's ranking from this server first.", metavar="URL", flags="--from", local=True
    )
    no_onnx: bool = option(False, "Write no ONNX file.", group="Output")

    def __post_init__(self) -> None:
        if self.from_server is not None and self.study is None:
            raise ValueError("which study of that server? ftdnas finish STUDY --from URL")
        if self.study is None and not self.architectures:
            raise ValueError("what shall be finished? ftdnas finish STUDY, or --architecture ARCH --dataset NAME")
