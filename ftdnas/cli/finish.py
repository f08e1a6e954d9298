"""ftdnas finish: from a ranking, or from architectures by name, to a trained network in files that stand alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from distill.run import Listener, duration
from ftdnas.cli.options import command
from ftdnas.cli.remote import connected
from ftdnas.finishing.request import FinishRequest
from ftdnas.runtime.home import shown_path, typed

if TYPE_CHECKING:
    from ftdnas.finishing.card import Card
    from ftdnas.finishing.run import Finished


@command(
    FinishRequest,
    examples=(
        "ftdnas finish first --top 3",
        "ftdnas finish --architecture resnet18 --dataset folder:photos --epochs 50",
    ),
)
def finish(request: FinishRequest, listener: Listener) -> tuple[Any, list[str]]:
    """Train the best candidates of a STUDY on all real images, and write the best of them as files.

    Where candidates were trained for real (ftdnas trust), that decides: the finalists are the best by it, and the
    smallest that is not shown worse than the best is written; else the best in validation. The test images are read
    once. --image-size is the size to train for (default: that of the photos, 224 at most). The images are the study's
    own, unless --dataset names others. Trained finalists are kept: interrupted, the same command goes on. With --from
    the study is a server's, which need not have the images.
    """
    from ftdnas.finishing.run import finish as run

    if request.from_server is not None:
        fetch(request.from_server, str(request.study))
    finished = run(request, listener)
    return finished.to_json(), describe(finished)


def fetch(url: str, study: str) -> None:
    """Bring a server's study home."""
    from ftdnas.service.fetch import fetch_study

    with connected(url, click.get_current_context()) as client:
        fetch_study(client, study)


def describe(finished: Finished) -> list[str]:
    """What came of it, as lines of text: the finalists, and the answer in the last five lines."""
    card, rival = finished.card, finished.card.pretrained
    lines = []
    for finalist in card.finalists:
        ranked = "" if finalist.rank is None or card.standing is None else f", place {finalist.rank} by proxy"
        told = f"{finalist.outcome:>7}  {duration(finalist.seconds):>6}  {finalist.parameters:,} weights{ranked}"
        lines += [f"{told}{'  <- chosen' if finalist.architecture == card.architecture else ''}"]
        lines += [f"{'':>9}{finalist.architecture}"]
    lines += [f"left out: {finalist.architecture}: {finalist.reason}" for finalist in card.left_out]
    if rival is not None:
        reached = f"{100 * rival.validation.accuracy:.1f} %" if rival.validation else rival.error
        lines.append(f"{reached:>7}  {'':>6}  {rival.network}, pretrained and fine-tuned")
    if (found := card.test.by_class) is not None:
        recalls = zip(found.recalls(), found.images, card.class_names, strict=True)
        recall, images, name = min((one for one in recalls if one[0] is not None), key=lambda one: one[0] or 0.0)
        lines.append(f"hardest     {name}: {100 * (recall or 0.0):.1f} % of its {images:,} images; card.md has all")
    if card.int8 is not None:
        times = f"{card.int8.latency_ms:.3g} ms, {card.int8.float32_latency_ms:.3g} ms in float32"
        lines.append(f"in int8     {100 * card.int8.test.accuracy:.1f} %; {times}")
    if rival is not None and rival.chosen:
        lines.append(f"the pretrained network is better: test {rival.test}, in {rival.folder}/")
    lines += [f"not done: {what}" for what in card.not_done if what.startswith("no network.")]
    lines += [what for what in card.not_done if " is shown worse than " in what]
    choices = ", ".join(f"{name} {value}" for name, value in card.choices.items())
    return [
        *lines,
        f"Chosen: {card.chosen}.",
        "",
        f"Network  {choices or card.architecture}",
        f"Test     {card.test}",
        f"Size     {card.parameters:,} weights, {card.latency_ms:.3g} ms an image on this CPU",
        f"Files    {shown_path(finished.folder)}",
        f"Next     {_use(card)}; card.md there has the rest",
    ]


def _use(card: Card) -> str:
    if card.standing is not None:
        return f"ftdnas predict {typed(card.standing['study'])} PHOTO"
    return "network.py runs it without ftdnas" if "network.py" in card.files else "weights.safetensors has its weights"
