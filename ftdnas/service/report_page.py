"""The policy under which a report, a page of its own with inline scripts, may be shown."""

from __future__ import annotations

import base64
import hashlib
import re


def policy_of(page: str) -> str:
    """A Content-Security-Policy that runs exactly the scripts of `page` and loads nothing."""
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    )
