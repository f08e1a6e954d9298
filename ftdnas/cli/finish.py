"""ftdnas finish: from a ranking, or from architectures by name, to a trained network in files that stand alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from distill.run import Listener, duration
from ftdnas.cli.options import command
from ftdnas.cli.remote import connected
from ftdnas.finishing.request import FinishRequest

if TYPE_CHECKING:
    from ftdnas.finishing.run import Finished


@command(FinishRequest)
def finish(request: FinishRequest, listener: Listener) -> tuple[Any, list[str]]:
    """Train the best candidates of a STUDY on all real images, and write the best of them as files.

    Chosen by validation accuracy; the test images are read once. --image-size is the size to train for (default: that
    of the photos, 224 at most). The images are the study's own, unless --dataset names others. Trained finalists are
    kept: interrupted, the same command goes on. With --from the study is a server's, which need not have the images.
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
    """What came of it, as lines of text."""
    card, rival = finished.card, finished.card.pretrained
    lines = [card.architecture, ""]
    for finalist in card.finalists:
        ranked = "" if card.standing is None else f"  (place {finalist.rank} of {card.standing['ranked']} by proxy)"
        spent, name = duration(finalist.seconds), finalist.architecture
        lines.append(f"  {finalist.outcome:>7}  {spent:>8}  {name}{'' if finalist.rank is None else ranked}")
    lines += [f"  left out: {finalist.architecture}: {finalist.reason}" for finalist in card.left_out]
    if rival is not None:
        reached = f"{100 * rival.validation.accuracy:.1f} %" if rival.validation else rival.error
        lines.append(f"  {reached:>7}  {'':>8}  {rival.network}, pretrained and fine-tuned")
    lines += ["", f"validation  {card.validation}", f"test        {card.test}"]
    if (found := card.test.by_class) is not None:
        recalls = zip(found.recalls(), found.images, card.class_names, strict=True)
        recall, images, name = min((one for one in recalls if one[0] is not None), key=lambda one: one[0] or 0.0)
        lines.append(f"hardest     {name}: {100 * (recall or 0.0):.1f} % of its {images:,} images; card.md has all")
    if card.int8 is not None:
        times = f"{card.int8.latency_ms:.3g} ms, {card.int8.float32_latency_ms:.3g} ms in float32"
        lines.append(f"in int8     {100 * card.int8.test.accuracy:.1f} %; {times}")
    if rival is not None and rival.chosen:
        lines.append(f"the pretrained network is better: test {rival.test}, in {rival.folder}/")
    lines.append(f"{card.parameters:,} weights, {card.flops:,} FLOPs, {card.latency_ms:.3g} ms an image on this CPU")
    lines += [f"not done: {what}" for what in card.not_done if what.startswith("no network.")]
    lines.append(f"written to {finished.folder}: {', '.join(card.files)}, card.md, card.json")
    return lines
