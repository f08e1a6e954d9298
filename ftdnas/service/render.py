"""Templates of the pages, and how figures are written in them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader

from distill.run import duration


def percent(value: Any) -> str:
    """An accuracy; what is none is shown as it is: a set that was uploaded may say anything."""
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "" if value is None else shown(value)


def shown(value: Any) -> str:
    """A value of a request or a provenance, as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {shown(one)}" for name, one in value.items() if one is not None)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def moment(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + " UTC"


_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_PAGES.filters |= {
    "percent": percent,
    "duration": lambda seconds: "" if seconds is None else duration(seconds),
    "moment": moment,
    "shown": shown,
}


def page(template: str, /, status: int = 200, **told: Any) -> HTMLResponse:
    """The template of that name, filled in."""
    return HTMLResponse(_PAGES.get_template(template).render(**told), status)
