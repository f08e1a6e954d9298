"""ftdnas verify: whether the files of the home still hold what was written."""

from __future__ import annotations

import click

from ftdnas.cli.options import json_option, tell
from ftdnas.runtime.home import shown_path

FAILED = 1


@click.command()
@click.option("--all", "everything", is_flag=True, help="The decoded images and the expert trajectories too.")
@json_option
@click.pass_context
def verify(ctx: click.Context, everything: bool, as_json: bool) -> None:
    """Read sets, studies, real trainings, finished networks, and recompute their sums; exit code 1 if one is damaged.

    Nothing is changed. What is damaged is set aside as FILE.damaged, and made again, by the command that needs it.
    """
    from ftdnas.interface.verification import verified

    checked = list(verified(everything))
    damaged = [one for one in checked if one.problem]
    unknown = sum(not one.known for one in checked)
    told = f"{len(checked):,} files: {len(checked) - len(damaged) - unknown:,} sound, {len(damaged):,} damaged"
    told += f", {unknown:,} of an earlier version, which wrote no sums" if unknown else ""
    tell(
        as_json,
        {"files": len(checked), "unknown": unknown, "damaged": {shown_path(one.path): one.problem for one in damaged}},
        [*(f"{one.problem}" for one in damaged), told],
    )
    if damaged:
        ctx.exit(FAILED)
