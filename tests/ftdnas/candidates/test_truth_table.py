"""Tables as people's programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftdnas.candidates.truth_table import Columns, read_table
from search_spaces.base import find_space

NAMES = ("macro:00002011", "macro:01220012", "macro:11110101")


def read(tmp_path: Path, text: str, encoding: str = "utf-8") -> dict[str, float]:
    (tmp_path / "table.csv").write_text(text, encoding=encoding)
    return dict(read_table(tmp_path / "table.csv", find_space("macro"), Columns()).accuracy)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ValueError, match=r"table.csv") as caught:
        read(tmp_path, text)
    return str(caught.value).partition("table.csv")[2]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("architecture,accuracy\n00002011,84.25\n01220012,80\n11110101,70.5\n", "utf-8"),
        ("architecture,accuracy\nmacro:00002011,0.8425\nmacro:01220012,0.8\nmacro:11110101,0.705\n", "utf-8"),
        ("architecture;accuracy\n00002011;84,25\n01220012;80\n11110101;70,5\n", "utf-8"),
        ("architecture , accuracy \n00002011 , 84.25\n\n\n01220012,80\n11110101,70.5\n\n", "utf-8"),
        ("architecture,accuracy\n00002011,84.25\n01220012,80\n11110101,70.5\n", "utf-8-sig"),
        ("architecture;accuracy\r\n00002011;84,25\r\n01220012;80\r\n11110101;70,5\r\n", "utf-8-sig"),
    ],
)
def test_one_table_in_many_dialects(tmp_path: Path, text: str, encoding: str) -> None:
    assert read(tmp_path, text, encoding) == pytest.approx(dict(zip(NAMES, (0.8425, 0.8, 0.705), strict=True)))


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    said = refused(tmp_path, "architecture,accuracy\n00002011,84\n\n\n0122,80\n")
    assert said.startswith(", line 5: macro: '0122' is not 8 digits")


@pytest.mark.parametrize("values", [("88.58", "0.8858", "70"), ("0.7", "0.9", "88"), ("88.58", "0.91", "0.7")])
def test_percent_and_fractions_in_one_column_are_refused(tmp_path: Path, values: tuple[str, ...]) -> None:
    rows = "".join(f"{name},{value}\n" for name, value in zip(NAMES, values, strict=True))
    assert "percent and fractions in one column, write all of them as one" in refused(
        tmp_path, f"architecture,accuracy\n{rows}"
    )


@pytest.mark.parametrize(
    "values", [("73.5", "1.0", "62"), ("46.2", "0.83", "20"), ("99.9", "0", "50"), ("0.5", "1.2", "60")]
)
def test_percent_may_be_as_low_as_chance(tmp_path: Path, values: tuple[str, ...]) -> None:
    rows = "".join(f"{name},{value}\n" for name, value in zip(NAMES, values, strict=True))
    expected = [float(value) / 100 for value in values]
    assert read(tmp_path, f"architecture,accuracy\n{rows}") == pytest.approx(dict(zip(NAMES, expected, strict=True)))
