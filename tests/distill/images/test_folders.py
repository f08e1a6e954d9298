from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.images.folders import list_folder, read_split_file
from distill.images.listing import Listing


def write_images(folder: Path, number: int, suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(folder / f"{index}.{suffix}")


def files(listing: Listing, folder: Path) -> list[str]:
    """Every image as it is fetched, relative to the folder."""
    rows = [pair for batch in listing.fetch() for pair in batch]
    assert [row for row, _ in rows] == list(range(len(listing.labels)))
    return [path.relative_to(folder).as_posix() for _, path in rows if isinstance(path, Path)]


def test_class_folders_are_listed_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_images(tmp_path / "dog", 3, "JPG")
    write_images(tmp_path / "cat" / "siamese", 2)
    write_images(tmp_path / "cat", 1)
    listing = list_folder(tmp_path)
    assert listing.class_names == ("cat", "dog")
    expected = ["cat/0.png", "cat/siamese/0.png", "cat/siamese/1.png", "dog/0.JPG", "dog/1.JPG", "dog/2.JPG"]
    assert files(listing, tmp_path) == expected
    assert listing.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert set(listing.given) == {""}
    assert listing.describe(3) == str(tmp_path / "dog" / "0.JPG")
    assert listing.photos


def test_splits_above_the_classes_are_taken(tmp_path: Path) -> None:
    for top, number in (("train", 3), ("val", 2), ("Test", 1)):
        for name in ("a", "b"):
            write_images(tmp_path / top / name, number)
    listing = list_folder(tmp_path)
    assert listing.class_names == ("a", "b")
    assert (
        sorted(zip(listing.given.tolist(), listing.labels.tolist(), strict=True))
        == ([("test", 0), ("test", 1)] + [("train", 0)] * 3 + [("train", 1)] * 3)
        + [("validation", 0)] * 2
        + [("validation", 1)] * 2
    )


def test_what_is_no_image_is_left_out_and_what_could_be_one_is_not(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 2)
    write_images(tmp_path / "b", 2)
    write_images(tmp_path / ".hidden", 2)
    for name in ("notes.txt", "Thumbs.db", ".DS_Store", "photo.heic"):
        (tmp_path / "a" / name).write_text("x")
    (tmp_path / "README.md").write_text("x")
    assert files(list_folder(tmp_path), tmp_path) == ["a/0.png", "a/1.png", "a/photo.heic", "b/0.png", "b/1.png"]


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    """That is how a subset of a large set is made without copying it."""
    write_images(tmp_path / "all" / "a", 2)
    write_images(tmp_path / "all" / "b", 2)
    subset = tmp_path / "subset"
    subset.mkdir()
    for name in ("a", "b"):
        (subset / name).symlink_to(tmp_path / "all" / name)
    assert files(list_folder(subset), subset) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]


def test_the_content_changes_with_a_file(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 2)
    write_images(tmp_path / "b", 2)
    before = list_folder(tmp_path).content
    assert list_folder(tmp_path).content == before
    Image.fromarray(np.full((9, 9), 1, np.uint8)).save(tmp_path / "a" / "0.png")
    assert list_folder(tmp_path).content != before


def test_sizes_are_learned_from_images_all_over_the_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 200)
    write_images(tmp_path / "b", 1)
    rows = [row for row, _ in list_folder(tmp_path).sample()]
    assert (rows[0], rows[-1]) == (0, 200)
    assert 50 < len(rows) <= 64


def refused(path: Path, error: type[Exception] = ValueError) -> str:
    with pytest.raises(error) as caught:
        list_folder(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refuses_what_is_no_folder_of_classes(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere", FileNotFoundError).startswith(f"{tmp_path / 'nowhere'} is not a folder")
    assert refused(tmp_path).startswith(f"{tmp_path} holds no class folders")
    write_images(tmp_path / "only", 5)
    assert refused(tmp_path) == f"{tmp_path} holds the one class 'only': two are the least"


def test_refuses_an_empty_class(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 2)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("no image")
    assert refused(tmp_path) == f"class 'b' of {tmp_path} is empty: put images into its folder or remove it"


def test_refuses_a_test_class_that_is_not_trained(tmp_path: Path) -> None:
    for folder in ("train/a", "train/b", "test/a", "test/c"):
        write_images(tmp_path / folder, 2)
    assert refused(tmp_path) == f"class 'c' of {tmp_path / 'test/c/0.png'} has no training images"


def test_refuses_unclear_splits(tmp_path: Path) -> None:
    for folder in ("test/a", "test/b", "val/a", "val/b"):
        write_images(tmp_path / folder, 2)
    assert refused(tmp_path) == f"{tmp_path} has no train split, only test and val: add one"
    write_images(tmp_path / "train/a", 2)
    write_images(tmp_path / "validation/a", 2)
    assert refused(tmp_path) == f"{tmp_path} has the same split twice: test, train, val, validation"
    write_images(tmp_path / "extra/a", 2)
    assert "has the folder extra beside train, and it is no split" in refused(tmp_path)


def split(tmp_path: Path, text: str, names: Sequence[str] = ("a/1.png", "a/2.png", "b/1.png")) -> list[str]:
    table = tmp_path / "split.csv"
    table.write_bytes(text.encode())
    return read_split_file(table, names, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "file,split\na/1.png,train\nb/1.png,test\na/2.png,val\n",
        "a/1.png,train\r\nb/1.png,TEST\r\n\r\n./a/2.png, validation\r\n",
        "object,split,file\n7,train,a/1.png\n8,test,b/1.png\n8,valid,a\\2.png\n",
        "\ufefffile,split\na/1.png,train\nb/1.png,test\na/2.png,val",
    ],
)
def test_a_split_file_is_read_however_it_was_exported(tmp_path: Path, text: str) -> None:
    assert split(tmp_path, text) == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/1.png,trian", "split.csv line 1: split 'trian' is not train, validation or test"),
        ("file,split\na/1.png,train\nc/1.png,train", "split.csv line 3: no image 'c/1.png' in"),
        ("a/1.png,train\na/1.png,test", "split.csv line 2: 'a/1.png' is listed a second time"),
        ("a/1.png", "split.csv line 1: 'a/1.png' is not a file and its split"),
        ("a/1.png,train", "split.csv leaves out 2 of 3 images of"),
        ("", "split.csv leaves out 3 of 3 images of"),
    ],
)
def test_a_wrong_split_file_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(tmp_path, text)


def test_a_missing_split_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv is not a file"):
        read_split_file(tmp_path / "none.csv", [], tmp_path)


@pytest.fixture
def tiny_imagenet(tmp_path: Path) -> Path:
    """Tiny ImageNet's own layout, with three classes instead of 200."""
    home = tmp_path / "tiny-imagenet-200"
    wnids = ["n02000003", "n01000001", "n01500002"]
    for wnid in wnids:
        write_images(home / "train" / wnid / "images", 6, "JPEG")
        (home / "train" / wnid / f"{wnid}_boxes.txt").write_text("0.JPEG\t0\t0\t7\t7\n")
    write_images(home / "val" / "images", 5, "JPEG")
    write_images(home / "test" / "images", 4, "JPEG")
    lines = [f"{i}.JPEG\t{wnids[i % 3]}\t0\t0\t7\t7" for i in range(5)]
    (home / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (home / "wnids.txt").write_text("\n".join(wnids) + "\n")
    words = ["n01000001\tcrane", "n01500002\tgoldfish, Carassius auratus", "n02000003\tcrane, tall bird", "n9\tx"]
    (home / "words.txt").write_text("\n".join(words) + "\n")
    return home


def test_tiny_imagenet_is_read_as_it_is_published(tiny_imagenet: Path) -> None:
    listing = list_folder(tiny_imagenet)
    assert listing.class_names == ("crane (n02000003)", "crane (n01000001)", "goldfish")
    assert listing.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [0, 1, 2, 0, 1]
    assert listing.given.tolist() == ["train"] * 18 + ["test"] * 5
    assert files(listing, tiny_imagenet)[17:19] == ["train/n01500002/images/5.JPEG", "val/images/0.JPEG"]


def test_tiny_imagenet_without_its_lists_takes_the_folders(tiny_imagenet: Path) -> None:
    (tiny_imagenet / "wnids.txt").unlink()
    (tiny_imagenet / "words.txt").unlink()
    assert list_folder(tiny_imagenet).class_names == ("n01000001", "n01500002", "n02000003")


def test_a_damaged_tiny_imagenet_is_refused(tiny_imagenet: Path) -> None:
    (tiny_imagenet / "val" / "images" / "2.JPEG").unlink()
    lost = tiny_imagenet / "val" / "images" / "2.JPEG"
    assert refused(tiny_imagenet, FileNotFoundError) == f"{lost} is listed but is not there"
    annotations = tiny_imagenet / "val" / "val_annotations.txt"
    annotations.write_text("0.JPEG\tn99999999\n")
    assert "class 'n99999999'" in refused(tiny_imagenet)
    annotations.write_text("0.JPEG n01000001\n")
    assert "val_annotations.txt line 1: '0.JPEG n01000001' names no image and class" in refused(tiny_imagenet)


@pytest.mark.parametrize(
    "tops",
    [
        ("Training", "Testing"),
        ("seg_train", "seg_test"),
        ("TRAIN", "Validation", "Testing"),
        ("TrainImages", "TestImages"),
        ("training_set", "dev_set", "testset"),
    ],
)
def test_splits_are_known_by_the_words_that_people_use(tmp_path: Path, tops: tuple[str, ...]) -> None:
    for top in tops:
        for name in ("a", "b"):
            write_images(tmp_path / top / name, 2)
    listing = list_folder(tmp_path)
    assert listing.class_names == ("a", "b")
    expected = {"train", "test"} | ({"validation"} if len(tops) == 3 else set())
    assert set(listing.given) == expected


@pytest.mark.parametrize(
    "classes",
    [("bus", "train", "car"), ("test_negative", "test_positive"), ("harbour", "train_station"), ("latest", "oldest")],
)
def test_classes_with_such_words_in_their_names_stay_classes(tmp_path: Path, classes: tuple[str, ...]) -> None:
    for name in classes:
        write_images(tmp_path / name, 2)
    assert list_folder(tmp_path).class_names == tuple(sorted(classes))
    assert set(list_folder(tmp_path).given) == {""}


def test_classes_that_hold_folders_stay_classes_too(tmp_path: Path) -> None:
    classes = ("forest", "test_site", "train_station")
    for name in classes:
        write_images(tmp_path / name / "day", 2)
    assert list_folder(tmp_path).class_names == classes


@pytest.mark.parametrize("below", ["", "seg_pred"])
def test_what_is_no_split_beside_one_is_refused(tmp_path: Path, below: str) -> None:
    for top in ("seg_train", "seg_test"):
        for name in ("a", "b"):
            write_images(tmp_path / top / name, 2)
    write_images(tmp_path / "seg_pred" / below, 3)
    assert "has the folder seg_pred beside seg_train, and it is no split: move it away" in refused(tmp_path)


@pytest.mark.parametrize("below", ["", "train/"])
def test_what_is_hidden_is_left_out_on_every_level_and_told(tmp_path: Path, below: str) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / below / name, 2)
        write_images(tmp_path / "test" / name, 1) if below else None
    for hidden in (".ipynb_checkpoints", "@eaDir/0.png", "__MACOSX", "deep/er/.thumbnails"):
        write_images(tmp_path / below / "a" / hidden, 3)
    write_images(tmp_path / below / "@eaDir", 1)
    write_images(tmp_path / "lost+found", 1)
    (tmp_path / below / "a" / "._0.png").write_text("x")
    (tmp_path / below / "a" / "notes.txt").write_text("x")
    listing = list_folder(tmp_path)
    taken = [f"{below}{name}/{number}.png" for name in ("a", "b") for number in (0, 1)]
    tested = ["test/a/0.png", "test/b/0.png"] if below else []
    assert files(listing, tmp_path) == sorted([*tested, *taken])
    splits = " (4 train, 2 test)" if below else ""
    assert listing.found.startswith(f"{len(tested) + 4} images{splits} in 2 classes (a, b); left out: ")
    for told in ("6 hidden folders", "1 hidden files", "1 files of text or data"):
        assert told in listing.found


def test_nothing_is_said_of_a_folder_that_is_read_whole(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        write_images(tmp_path / name, 1)
    assert list_folder(tmp_path).found == "5 images in 5 classes (a, b, c, d, ...)"


def test_linked_folders_inside_a_class_are_followed_but_not_round_and_round(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_images(photos / "a", 2)
    write_images(photos / "b", 1)
    write_images(tmp_path / "more", 2)
    (photos / "a" / "more").symlink_to(tmp_path / "more")
    (photos / "a" / "linked.png").symlink_to(tmp_path / "more" / "0.png")
    (photos / "b" / "again").symlink_to(photos)
    (tmp_path / "more" / "back").symlink_to(photos / "a")
    listing = list_folder(photos)
    expected = ["a/0.png", "a/1.png", "a/linked.png", "a/more/0.png", "a/more/1.png", "b/0.png"]
    assert files(listing, photos) == expected
    assert "2 links to a folder around them (a/more/back, ...)" in listing.found


@pytest.mark.parametrize("around", [".", ".."])
def test_a_link_to_a_folder_around_it_is_no_class(tmp_path: Path, around: str) -> None:
    photos = tmp_path / "photos"
    write_images(photos / "a", 2)
    write_images(photos / "b", 1)
    (photos / "all").symlink_to(around)
    listing = list_folder(photos)
    assert files(listing, photos) == ["a/0.png", "a/1.png", "b/0.png"]
    assert "1 links to a folder around them (all)" in listing.found


def test_a_link_to_nothing_is_an_image_that_is_missing(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 1)
    write_images(tmp_path / "b", 1)
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert refused(tmp_path, FileNotFoundError) == f"{tmp_path / 'a/gone.png'} is listed but is not there"


def test_pipes_and_sockets_are_left_out_and_told(tmp_path: Path) -> None:
    """Whoever opened one would wait for ever."""
    write_images(tmp_path / "a", 2)
    write_images(tmp_path / "b", 2)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "b" / "null.png").symlink_to("/dev/null")
    listing = list_folder(tmp_path)
    assert files(listing, tmp_path) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert listing.found.endswith("left out: 2 pipes or devices (a/pipe.png, ...)")


def test_images_beside_the_class_folders_are_told(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 1)
    write_images(tmp_path / "b", 1)
    write_images(tmp_path, 3)
    assert list_folder(tmp_path).found.endswith("left out: 3 files beside the folders (0.png, ...)")
