"""What is taken where nothing is said: a space, and networks that anybody would train without a search."""

from __future__ import annotations

SMALL = 12  # pixels; smaller images have no room for three halvings
PHOTO = 64  # pixels, from which on residual networks are searched, whose stem may divide the side by four
# On 2,000 images of 32 pixels, in minutes of a core, ConvNets made so learn most (results/2026-11-27_whole_way).
USUAL = ("norm=batch", "activation=relu,leakyrelu", "pooling=max,avg")


def default_space(side: int) -> str:
    """By the side of the images in pixels."""
    return "convnet" if side < PHOTO else "residual"


def default_choices(side: int) -> tuple[str, ...]:
    """Of the default space, as `--where` says them."""
    return USUAL if side < PHOTO else ()


def default_networks(side: int) -> tuple[str, str, str]:
    """Canonical names, the smallest one first."""
    if side < PHOTO:
        depth, widths = (2, (16, 32, 64)) if side < SMALL else (3, (32, 64, 128))
        form = f"convnet:width={{}},depth={depth},norm=batch,activation=relu,pooling=max"
    else:
        form, widths = "residual:width={},depth1=1,depth2=1,depth3=1,stem=half,block=basic,kernel=3", (16, 32, 64)
    small, middle, large = (form.format(width) for width in widths)
    return small, middle, large
