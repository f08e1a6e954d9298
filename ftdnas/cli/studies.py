"""ftdnas studies: the searches that were made, and what they found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ftdnas.cli.options import Group, columns, json_option, named, tell
from ftdnas.cli.search import lines
from ftdnas.cli.sets import agreed

if TYPE_CHECKING:
    from ftdnas.ranking.study import StudyFolder

HEADS = {
    "name": "study",
    "found": "ranked",
    "on": "on",
    "best": "best",
    "tried": "really trained",
    "report": "report",
    "when": "when",
}
FIRST_LEFT_OUT = ("when", "on", "report", "tried")  # where the terminal is too narrow


@click.group(cls=Group)
def studies() -> None:
    """The searches that were made in FTDNAS_HOME."""


@studies.command("list")
@click.option("--all", "everything", is_flag=True, help="Those too that a search of the whole way made for itself.")
@json_option
def list_studies(everything: bool, as_json: bool) -> None:
    """Every study, the newest first: what was ranked, the best guess, whether it was held up to real training."""
    from ftdnas.ranking.study import studies as all_studies

    found = [summary(folder) for folder in all_studies(inner=everything)]
    tell(as_json, found, table(found, columns()) if found else ["there is no study yet: ftdnas search makes one"])


@studies.command()
@named("study", "study")
@click.option("--all", "everything", is_flag=True, help="Every candidate, and all that is known.")
@json_option
def show(study: str, everything: bool, as_json: bool) -> None:
    """What the search of a STUDY found, as it printed it then."""
    from ftdnas.ranking.study import ranked_study

    _, ranking = ranked_study(study)
    tell(as_json, ranking.to_json(), lines(ranking, everything))


@studies.command()
@named("study", "names", "STUDY...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--storage", metavar="URL", envvar="FTDNAS_STORAGE", help="The database, where the search named one.")
@json_option
def remove(names: Sequence[str], yes: bool, storage: str | None, as_json: bool) -> None:
    """Delete studies with their scores, reports and finished networks; real trainings are kept for others."""
    from ftdnas.ranking.study import ranked_study, remove_study, study_folder

    folders = [study_folder(name) for name in dict.fromkeys(names)]
    for folder in folders:
        if not folder.path.is_dir():
            ranked_study(folder.name)  # says which there are
    if not yes and not agreed(f"Delete {', '.join(str(folder.path) for folder in folders)}?"):
        raise click.ClickException("nothing was removed")
    for folder in folders:
        remove_study(folder, storage)
    removed = [str(folder.path) for folder in folders]
    tell(as_json, {"removed": removed}, [f"removed {path}" for path in removed])


def summary(folder: StudyFolder) -> dict[str, Any]:
    """What a list shows of a study; one that is damaged says so and hides no other."""
    when = datetime.fromtimestamp(folder.path.stat().st_mtime)
    told: dict[str, Any] = {"name": folder.name, "when": when.isoformat(timespec="minutes"), "problem": None}
    try:
        settings, plan, ranking = folder.settings(), folder.plan(), folder.ranking()
        truth = ranking.truth() if ranking else None
    except (ValueError, LookupError, TypeError) as error:
        return {**told, "problem": str(error)}
    return {
        **told,
        "space": settings.get("space"),
        "set": settings.get("set name") or None,
        "images": settings.get("title"),
        "ranked": ranking is not None,
        "candidates": len(ranking.candidates if ranking else plan[0].candidates if plan else ()),
        "best": ranking.ids[ranking.best(1)[0]] if ranking and ranking.best(1) else None,
        "really_trained": len(truth[1].readings) if truth else 0,
        "report": (folder.path / "report" / "report.json").is_file(),
    }


def table(found: Sequence[dict[str, Any]], width: int) -> list[str]:
    """A line a study."""
    rows = [HEADS, *({**dict.fromkeys(HEADS, ""), **_told(one)} for one in found)]
    names = list(HEADS)
    for name in (*FIRST_LEFT_OUT, None):
        wide = {name: max(len(row[name]) for row in rows) for name in names}
        if sum(wide.values()) + 2 * len(wide) - 2 <= width or name is None:
            break
        names.remove(name)
    lines = ["  ".join(row[name].ljust(wide[name]) for name in names).rstrip() for row in rows]
    return lines + [f"{one['name']}: {one['problem']}" for one in found if one["problem"]]


def _told(one: dict[str, Any]) -> dict[str, str]:
    if one["problem"]:
        return {"name": one["name"], "found": "damaged", "when": one["when"].replace("T", " ")}
    candidates = f"{one['candidates']} {one['space']}"
    return {
        "name": one["name"],
        "found": candidates if one["ranked"] else f"of {candidates}: not ended",
        "on": one["set"] or str(one["images"] or "").partition(",")[0],
        "best": one["best"] or "",
        "tried": str(one["really_trained"] or "no"),
        "report": "yes" if one["report"] else "no",
        "when": one["when"].replace("T", " "),
    }
