"""ftdnas evaluate: a set's test accuracy beside that of real images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.run import Listener, duration
from ftdnas.cli.options import command
from ftdnas.sets.request import EvaluateRequest

if TYPE_CHECKING:
    from distill.evaluation import Evaluation
    from ftdnas.sets.judging import Judgement


@command(
    EvaluateRequest,
    examples=("ftdnas evaluate digits --against random,full", "ftdnas evaluate digits --network resnet18 --seeds 3"),
)
def evaluate(request: EvaluateRequest, listener: Listener) -> tuple[Any, list[str]]:
    """Judge a synthetic set on test images, beside real images.

    Fresh networks are trained on the set and read once on the test images; random, herding and kmeans are as many real
    images, full is all of them. What was measured before is not measured again.
    """
    from ftdnas.sets.judging import judge

    judgement = judge(request, listener)
    return judgement.to_json(), describe(judgement)


def describe(judgement: Judgement) -> list[str]:
    """A table for each network: mean and deviation of the test accuracy in percent, and how it was trained."""
    lines = [f"{judgement.source}: accuracy on {judgement.test_images:,} test images; {judgement.split_note}"]
    width = max(len(each.name) for each in judgement.evaluations)
    for network in dict.fromkeys(each.network for each in judgement.evaluations):
        lines += ["", network, f"  {'':<{width}}  {'images':>7}  {'percent':>12}  training"]
        lines += [row(each, width) for each in judgement.evaluations if each.network == network]
    return lines


def row(one: Evaluation, width: int) -> str:
    accuracy = f"{100 * one.mean:.1f}"
    if len(one.accuracies) > 1:
        accuracy += f" +- {100 * one.deviation:.1f}"
    seeds = f"{len(one.accuracies)} seed{'s' * (len(one.accuracies) > 1)}"
    training = f"{one.recipe.epochs} epochs, lr {one.lr:.3g}, {one.recipe.schedule}, {seeds}, {duration(one.seconds)}"
    note = one.note or "the learned step size" * (one.recipe.lr is None)
    return f"  {one.name:<{width}}  {one.train_images:>7,}  {accuracy:>12}  {training}{f'; {note}' if note else ''}"
