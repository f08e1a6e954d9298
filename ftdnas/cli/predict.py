"""ftdnas predict: what a finished network says of photos."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distill.files import whole_file
from ftdnas.cli.options import Command, json_option, named, tell

if TYPE_CHECKING:
    from ftdnas.finishing.predict import Prediction


@click.command(cls=Command)
@named("study", "study")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--csv", "table", type=click.Path(path_type=Path, dir_okay=False), help="Write the answers there too.")
@json_option
def predict(study: str, photos: Sequence[Path], table: Path | None, as_json: bool) -> None:
    """What the finished network of a STUDY says of PHOTOS, or of all photos below a folder.

    Each with the likeliest class, its probability, and the second guess. STUDY may be the folder of a finish.

    \b
    ftdnas predict photos holiday.jpg
    ftdnas predict photos new/ --csv new.csv
    """
    from ftdnas.finishing.predict import finished_folder
    from ftdnas.finishing.predict import predict as run

    folder = finished_folder(study)
    made = run(folder, photos)
    if not made:
        raise ValueError(f"no photo is below {photos[0]}")
    rows, lines = [asdict(one) for one in made], [line(one) for one in made]
    if table is not None:
        with whole_file(table) as beside, beside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        lines.append(f"written to {table}")
    tell(as_json, {"folder": str(folder), "predictions": rows}, lines)


def line(one: Prediction) -> str:
    if one.probability is None or one.second_probability is None:
        return f"{one.photo}: left out, {one.error}"
    second = f"or {one.second} ({100 * one.second_probability:.0f} %)"
    return f"{one.photo}: {one.class_name} ({100 * one.probability:.0f} %), {second}"
