from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distill.images.listing import Listing
from distill.images.tables import find_tables, list_tables

NAMES = ["cat", "dog", "owl"]


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(
    path: Path,
    labels: Sequence[int | None],
    *,
    names: object = NAMES,
    label: str = "label",
    image: str = "img",
    group: int = 1000,
) -> None:
    """A table as the Hugging Face hub lays it out; the shade of an image is its row."""
    rows = [{"bytes": picture(row), "path": None} for row in range(len(labels))]
    table = pa.table(
        {
            image: pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            label: pa.array(labels, pa.int64()),
        }
    )
    if names is not None:
        features = {label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


def listed(path: Path) -> Listing:
    return list_tables(path, "toys", "Toys", "here")


def shades(listing: Listing) -> list[int]:
    found: list[int] = []
    for batch in listing.fetch():
        for row, encoded in batch:
            assert row == len(found)
            assert isinstance(encoded, bytes)
            found.append(int(np.asarray(Image.open(io.BytesIO(encoded)))[0, 0, 0]))
    return found


def test_one_file_makes_no_split(tmp_path: Path) -> None:
    write(tmp_path / "toys.parquet", [0, 1, 2, 1], group=3)
    listing = listed(tmp_path / "toys.parquet")
    assert listing.class_names == ("cat", "dog", "owl")
    assert listing.labels.tolist() == [0, 1, 2, 1]
    assert listing.given.tolist() == [""] * 4
    assert shades(listing) == [0, 1, 2, 3]
    assert listing.describe(2) == f"row 2 of {tmp_path / 'toys.parquet'}"


def test_split_files_and_shards_are_joined_in_order(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00000-of-00002.parquet", [0, 1])
    write(tmp_path / "data" / "train-00001-of-00002.parquet", [2] * 200, group=70)
    write(tmp_path / "data" / "valid-00000-of-00001.parquet", [1])
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [0, 0])
    listing = listed(tmp_path)
    assert listing.given.tolist() == ["test"] * 2 + ["train"] * 202 + ["validation"]
    assert listing.labels.tolist() == [0, 0, 0, 1] + [2] * 200 + [1]
    assert shades(listing) == [0, 1, 0, 1, *range(200), 0]
    assert listing.describe(4) == f"row 0 of {tmp_path / 'data' / 'train-00001-of-00002.parquet'}"
    assert len(listing.sample()) == 2


def test_files_of_no_split_are_joined_and_mixed_ones_refused(tmp_path: Path) -> None:
    write(tmp_path / "part-0.parquet", [0])
    write(tmp_path / "part-1.parquet", [1])
    assert [file.name for file in find_tables(tmp_path)[""]] == ["part-0.parquet", "part-1.parquet"]
    write(tmp_path / "train.parquet", [1])
    with pytest.raises(ValueError, match=r"part-0\.parquet: the file's name says no split"):
        find_tables(tmp_path)
    assert find_tables(tmp_path / "nowhere") == {}


def test_labels_may_have_other_names_and_other_columns_stand_beside(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": pa.array([picture(0), picture(1)], pa.large_binary()),
            "coarse": pa.array([5, 6], pa.int32()),
            "fine_label": pa.array([1, 0], pa.int32()),
            "note": ["a", "b"],
        }
    )
    pq.write_table(table, tmp_path / "toys.parquet")
    listing = listed(tmp_path / "toys.parquet")
    assert listing.labels.tolist() == [1, 0]
    assert listing.class_names == ("0", "1")
    assert shades(listing) == [0, 1]


def test_names_may_be_numbered_in_the_metadata(tmp_path: Path) -> None:
    write(tmp_path / "toys.parquet", [0, 1], names={"10": "k", "2": "c", "0": "a"})
    assert listed(tmp_path / "toys.parquet").class_names == ("a", "c", "k")


def refused(path: Path, error: type[Exception] = ValueError) -> str:
    with pytest.raises(error) as caught:
        for _ in listed(path).fetch():
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("wrong", [3, -1])
def test_a_label_out_of_range_is_refused(tmp_path: Path, wrong: int) -> None:
    write(tmp_path / "train.parquet", [0, 1, 2, wrong])
    assert refused(tmp_path) == f"row 3 of train.parquet has label {wrong}, out of range for 3 classes (0 .. 2)"


def test_a_test_label_beyond_the_trained_ones_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1], names=None)
    write(tmp_path / "test.parquet", [0, 1, 2], names=None)
    assert refused(tmp_path) == "row 2 of test.parquet has label 2, out of range for 2 classes (0 .. 1)"


def test_a_missing_label_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1, None])
    assert refused(tmp_path) == "row 2 of train.parquet has no label"


def test_other_layouts_are_refused_with_their_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "words.parquet")
    assert refused(tmp_path / "words.parquet").startswith("words.parquet has 0 image columns, one is wanted")
    pq.write_table(pa.table({"img": [picture(0)], "x": [0], "y": [0]}), tmp_path / "two.parquet")
    assert "has no integer column named label or labels" in refused(tmp_path / "two.parquet")
    assert "its columns: img: binary, x: int64, y: int64" in refused(tmp_path / "two.parquet")


def test_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1])
    write(tmp_path / "test.parquet", [0, 1], image="image")
    assert refused(tmp_path) == "train.parquet has no column 'image' as test.parquet has"
    write(tmp_path / "test.parquet", [0, 1], label="target")
    assert refused(tmp_path) == "train.parquet has no label column 'target'"


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.parquet", FileNotFoundError).startswith(f"{tmp_path / 'none.parquet'} does not")
    assert refused(tmp_path, FileNotFoundError).startswith(f"{tmp_path} holds no .parquet file")
    file = tmp_path / "toys.parquet"
    file.write_bytes(b"PAR1 nothing of the kind")
    assert refused(file).startswith(f"{file} is not a readable parquet file")
    write(file, [0, 1, 2] * 50)
    whole = bytearray(file.read_bytes())
    whole[4:60] = bytes(56)  # the first page of the images
    file.write_bytes(whole)
    assert refused(file).startswith(f"{file} is not a readable parquet file")


def test_an_image_that_is_missing_is_fetched_as_nothing(tmp_path: Path) -> None:
    table = pa.table({"img": pa.array([picture(0), None], pa.binary()), "label": [0, 0]})
    pq.write_table(table, tmp_path / "toys.parquet")
    assert [encoded for batch in listed(tmp_path / "toys.parquet").fetch() for _, encoded in batch][1] == b""
