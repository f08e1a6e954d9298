"""The style and the script of a report's page, and the policies under which a browser shows pages of ours."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

STYLE, SCRIPT = (
    (Path(__file__).parent / "static" / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
)


def policy(**sources: str) -> str:
    """A Content-Security-Policy of these sources, such as `img_src="data:"`, and of nothing else from anywhere.

    The pages of the server and the report are shown under such a one.
    """
    named = (f"{kind.replace('_', '-')} {source}" for kind, source in sources.items())
    return "; ".join(["default-src 'none'", "base-uri 'none'", *named])


def page_policy() -> str:
    """That of the report: its own style and script, by their hashes, and images inside it."""
    style, script = (
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (STYLE, SCRIPT)
    )
    return policy(img_src="data:", style_src=style, script_src=script, form_action="'none'")


def stated_policy(page: str) -> str:
    """What the head of a report states, whichever version wrote it: a server that shows the page sends the same."""
    stated = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    return stated[1] if stated else page_policy()
