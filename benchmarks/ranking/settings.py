"""What is varied: one setting is a way to train a shrunk candidate on few images, and SETTINGS names those tried."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace

DSA = "color_crop_cutout_flip_scale_rotate"


@dataclass(frozen=True)
class Setting:
    """How every candidate of a ranking trains; all of them on the same batches, in the same order, unless not `shared`:
    then each has the order and the augmentation of its own.

    `images`: "random:N:DRAW", "kmeans:N:DRAW" or "herding:N:0" of the real training images, "set:NAME" of the library.
    `labels`: "hard"; "teacher:N", the mean probabilities of the first N experts on every augmented image;
    "shuffled", hard ones in a random order. `temperature` of the teachers. `augment`: DSA operations, `draws` of them
    one after another on a batch. `warmup`: the first part of the steps in which the rate rises. `pixels`: the side to
    which images are averaged down when they have been augmented and labelled. `batches`: seed of their order and
    augmentation. `each_image`: whether the row keeps the loss of every image in the last full pass, which changes
    nothing else.
    """

    images: str = "random:500:0"
    labels: str = "hard"
    temperature: float = 1.0
    augment: str = DSA
    draws: int = 1
    steps: int = 300
    batch: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup: float = 0.0
    pixels: int = 16
    cells: int = 1
    batches: int = 0
    shared: bool = True
    each_image: bool = False

    @property
    def key(self) -> str:
        """Hex digest of what differs from the defaults, so that a field may be added later."""
        given = asdict(self)
        given.pop("each_image")
        differing = {name: value for name, value in given.items() if value != _DEFAULTS[name]}
        return hashlib.sha256(json.dumps(differing, sort_keys=True).encode()).hexdigest()[:12]


_DEFAULTS = {one.name: one.default for one in fields(Setting)}

BASE = Setting()
FTD50 = "set:cifar10-ipc50-ftd-cpu-e5bb7b"
FTD50_AGAIN = "set:cifar10-ipc50-ftd-cpu-again"  # distilled anew, and kept in the results
TEACHER = replace(BASE, labels="teacher:6")

SETTINGS: dict[str, Setting] = {
    "random500": BASE,
    "random500 draw 1": replace(BASE, images="random:500:1"),
    "random500 other batches": replace(BASE, batches=1),
    "random500 own batches": replace(BASE, shared=False),
    "random500 teacher": TEACHER,
    "random500 teacher 1": replace(BASE, labels="teacher:1"),
    "random500 teacher 8 pixels": replace(TEACHER, pixels=8, each_image=True),
    "random500 teacher 8 pixels 600 steps": replace(TEACHER, pixels=8, steps=600),
    "random500 teacher 8 pixels own batches": replace(TEACHER, pixels=8, shared=False),
    "ftd50 again teacher 8 pixels": replace(TEACHER, images=FTD50_AGAIN, pixels=8, each_image=True),
    "ftd50 again": replace(BASE, images=FTD50_AGAIN),
    "random5000 teacher 8 pixels": replace(TEACHER, images="random:5000:0", pixels=8),
    "random500 teacher 1 8 pixels": replace(TEACHER, labels="teacher:1", pixels=8),
    "random500 teacher 8 pixels draw 1": replace(TEACHER, images="random:500:1", batches=1, pixels=8),
    "random500 teacher 8 pixels lr 0.3": replace(TEACHER, pixels=8, lr=0.3),
    "random500 teacher 8 pixels 3 draws": replace(TEACHER, pixels=8, draws=3),
    "random500 teacher 150 steps": replace(TEACHER, steps=150),
    "random500 teacher own batches": replace(TEACHER, shared=False),
    "random500 teacher draw 1": replace(TEACHER, images="random:500:1", batches=1),
    "ftd50 teacher 150 steps": replace(TEACHER, images=FTD50, steps=150),
    "ftd10 teacher": replace(TEACHER, images="set:cifar10-ipc10-ftd-cpu-seed0"),
    "random100 teacher": replace(TEACHER, images="random:100:0"),
    "random5000 teacher": replace(TEACHER, images="random:5000:0"),
    "random5000": replace(BASE, images="random:5000:0"),
    "ftd50": replace(BASE, images=FTD50),
    "ftd50 teacher": replace(TEACHER, images=FTD50),
    "random500 3 draws": replace(BASE, draws=3),
    "random500 teacher 3 draws": replace(TEACHER, draws=3),
    "ftd50 3 draws": replace(BASE, images=FTD50, draws=3),
    "ftd50 teacher 3 draws": replace(TEACHER, images=FTD50, draws=3),
    "random500 3 draws 8 pixels": replace(BASE, draws=3, pixels=8),
    "random500 shuffled": replace(BASE, labels="shuffled"),
    "ftd50 shuffled": replace(BASE, images=FTD50, labels="shuffled"),
    "random500 lr 0.3": replace(BASE, lr=0.3),
    "random500 teacher lr 0.3": replace(TEACHER, lr=0.3),
    "random500 teacher T 2": replace(TEACHER, temperature=2.0),
    "random500 150 steps": replace(BASE, steps=150),
    "random500 600 steps": replace(BASE, steps=600),
    "random500 warmup": replace(BASE, warmup=0.1),
    "random500 wd 0": replace(BASE, weight_decay=0.0),
    "kmeans500": replace(BASE, images="kmeans:500:0"),
    "random1000 3 draws": replace(BASE, images="random:1000:0", draws=3),
    "random500 8 pixels": replace(BASE, pixels=8),
    "random500 batch 50": replace(BASE, batch=50, steps=600),
}
