"""Distil handwritten digits into one image per class, and look at them.

python examples/distil_and_look.py takes about two minutes on two cores, the second time none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill.run import Progress
from ftdnas.sets.figures import contact_sheet
from ftdnas.sets.making import distil
from ftdnas.sets.request import DistilRequest, pair


def main(settings: Sequence[str] = ()) -> None:
    """`settings` change the recipe: "matching.outer_steps=1000", say."""
    made = distil(DistilRequest(recipe="quick", settings=dict(map(pair, settings))), say)
    images, _, step_size = made.synthetic.as_tensors()
    print(f"{made.name}: {len(images)} images, step size {step_size:.4f}, in {made.path}")
    sheet = Path("digits.png")
    contact_sheet(made.synthetic, sheet)
    print(f"look at {sheet}")


def say(progress: Progress) -> None:
    if progress.message:
        print(progress.message)


if __name__ == "__main__":
    main()
