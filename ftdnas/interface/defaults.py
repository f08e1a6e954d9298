"""What is taken where nothing is said: a space, and networks that anybody would train without a search."""

from __future__ import annotations

SMALL = 12  # pixels; smaller images have no room for three stages
PHOTO = 64  # pixels, from which on a stem may divide the side by four
LARGE = 24  # pixels; larger ones are halved by the stem, which leaves room for twice the channels


def default_space(side: int) -> str:
    """By the side of the images in pixels."""
    return "convnet" if side < SMALL else "residual"


def default_choices(side: int) -> tuple[str, ...]:
    """Of the default space, as `--where` says them: all, but for stems that would leave small images no pixels."""
    return ("stem=conv3,conv5,half",) if SMALL <= side < PHOTO else ()


def default_networks(side: int) -> tuple[str, str]:
    """Canonical names, the smaller one first."""
    if side < SMALL:
        small, large = (f"convnet:width={width},depth=2,norm=batch,activation=relu,pooling=max" for width in (32, 64))
        return small, large
    stem, widths = ("half", (32, 64)) if side >= LARGE else ("conv3", (16, 32))
    form = "residual:width={},depth1=1,depth2=1,depth3=1,stem={},block=basic,kernel=3"  # ResNet-8
    return form.format(widths[0], stem), form.format(widths[1], stem)
