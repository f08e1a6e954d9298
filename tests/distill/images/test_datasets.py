from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distill.images.datasets import ImageDataset, Split, load_dataset
from distill.run import Progress

HUB_DATA = os.environ.get("FTDNAS_DATA", "")


def load(spec: str, cache: Path, **options: object) -> ImageDataset:
    return load_dataset(spec, **{"root": None, "cache": cache, **options})  # type: ignore[arg-type]


def rows_of(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.images}


def check(data: ImageDataset) -> None:
    """What holds for every data set."""
    channels, height, width = data.image_shape
    for split in (data.train, data.validation, data.test):
        assert split.images.dtype == np.uint8
        assert split.images.shape == (len(split), channels, height, width)
        assert not split.images.flags.writeable
        assert split.labels.dtype == np.int64
        assert split.labels.shape == (len(split),)
        assert not split.labels.flags.writeable
    assert set(data.train.labels) == set(range(data.num_classes))
    assert len(data.fingerprint) == 64
    int(data.fingerprint, 16)
    assert data.shared or len(data.choose()) + len(data.score()) == len(data.validation)


def test_digits(digits: ImageDataset) -> None:
    check(digits)
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1284, 149, 364)
    assert digits.image_shape == (1, 8, 8)
    assert digits.class_names == tuple("0123456789")
    assert digits.source == "digits, bundled with scikit-learn"
    assert digits.target_size is None
    assert digits.train.images.max() == 255
    assert "364 test images drawn from 1,797" in digits.split_note


def test_digits_are_those_of_scikit_learn(digits: ImageDataset) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pictured = {
        (image.tobytes(), int(label))
        for split in (digits.train, digits.validation, digits.test)
        for image, label in zip(split.images, split.labels, strict=True)
    }
    expected = {
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    assert pictured == expected


def test_images_that_choose_and_images_that_score_are_others(digits: ImageDataset) -> None:
    choose, score = digits.choose(), digits.score()
    assert len(choose) + len(score) == 149
    assert rows_of(choose).isdisjoint(rows_of(score))
    assert rows_of(choose) | rows_of(score) == rows_of(digits.validation)
    assert np.shares_memory(choose.images, digits.validation.images)  # views, no copies
    assert np.shares_memory(score.images, digits.validation.images)
    counts = np.bincount(choose.labels) - np.bincount(score.labels)
    assert set(counts) <= {0, 1}


def test_rows_that_do_not_follow_each_other_are_copied(digits: ImageDataset) -> None:
    taken = digits.train.take(np.array([5, 2]))
    assert np.array_equal(taken.images, digits.train.images[[5, 2]])
    assert np.array_equal(taken.labels, digits.train.labels[[5, 2]])
    assert len(digits.train.take(np.array([], dtype=np.int64))) == 0


def test_no_validation_is_the_protocol_of_the_papers(tmp_path: Path, digits: ImageDataset) -> None:
    data = load("digits", tmp_path, validation=0)
    check(data)
    assert len(data.validation) == len(data.choose()) == len(data.score()) == 0
    assert len(data.train) == 1433
    assert rows_of(data.test) == rows_of(digits.test)
    assert data.fingerprint != digits.fingerprint
    assert "the papers' protocol" in data.split_note


def test_the_fingerprint_is_of_the_images_that_are_trained_and_chosen_with(
    tmp_path: Path, digits: ImageDataset
) -> None:
    assert load("digits", tmp_path).fingerprint == digits.fingerprint
    assert load("digits", tmp_path, seed=1).fingerprint != digits.fingerprint
    assert load("digits", tmp_path, image_size=4).fingerprint != digits.fingerprint
    assert load("digits", tmp_path).fingerprint == digits.fingerprint  # now rearranged from another order


def test_smaller_images_record_the_size_they_came_from(tmp_path: Path) -> None:
    data = load("digits", tmp_path, image_size=4)
    assert data.image_shape == (1, 4, 4)
    assert data.target_size == 8
    assert load("digits", tmp_path, image_size=16).target_size is None


def test_a_size_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image size 2 is not between 4 and 1024 pixels"):
        load("digits", tmp_path, image_size=2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar-10", r"unknown data set 'cifar-10': did you mean cifar10"),
        ("CIFAR100", r"did you mean cifar100"),
        ("tinyimagenet", r"did you mean tiny-imagenet"),
        ("cats", r"choose one of digits, cifar10, .*\(your own images: folder:PATH or parquet:PATH\)"),
        ("folders:x", r"unknown data set 'folders:x': write folder:PATH or parquet:PATH"),
        ("folder:", r"unknown data set 'folder:': write folder:PATH or parquet:PATH"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(LookupError, match=message):
        load(spec, tmp_path)


def test_a_split_file_is_for_folders_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a split file is for folder:PATH, 'digits' has its own split"):
        load("digits", tmp_path, split_file=tmp_path / "split.csv")


def test_a_data_root_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the data root .*nowhere is not a folder"):
        load("cifar10", tmp_path, root=tmp_path / "nowhere")


# Photos


def test_a_folder_of_photos(photo_folder: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    data = load(f"folder:{photo_folder}", tmp_path / "cache", listener=told.append)
    check(data)
    assert data.name == "photos"
    assert data.class_names == ("flower", "rings", "stripes", "temple")
    assert data.image_shape == (3, 64, 64)
    assert data.target_size is not None
    assert 200 <= data.target_size <= 224
    assert data.source == "photos, a folder of images"
    assert str(tmp_path) not in data.source + data.split_note
    messages = [step.message for step in told if step.message]
    assert messages == ["images of photos are brought to 64 x 64 pixels (--image-size chooses another size)"]
    rare = [int((split.labels == 1).sum()) for split in (data.train, data.validation, data.test)]
    assert rare == [3, 2, 1]


def test_photos_are_upright_whatever_their_exif_says(photo_folder: Path, tmp_path: Path) -> None:
    """Turned by hand and saved without their EXIF, the same photos are the same images."""
    data = load(f"folder:{photo_folder}", tmp_path / "cache", image_size=96, validation=0)
    upright = rows_of(data.train) | rows_of(data.test)
    turned = 0
    for file in sorted(photo_folder.rglob("*.*")):
        with Image.open(file) as image:
            if image.getexif().get(0x0112) != 6:
                continue
            pixels = np.asarray(image.transpose(Image.Transpose.ROTATE_270))
        file.unlink()
        Image.fromarray(pixels).save(file.with_suffix(".png"))
        turned += 1
    assert turned >= 8
    again = load(f"folder:{photo_folder}", tmp_path / "cache", image_size=96, validation=0)
    assert rows_of(again.train) | rows_of(again.test) == upright


def test_a_corrupt_photo_is_named_exactly(photo_folder: Path, tmp_path: Path) -> None:
    corrupt = photo_folder / "flower" / "flower07.jpg"
    corrupt.write_bytes(corrupt.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cannot be read as an image") as caught:
        load(f"folder:{photo_folder}", tmp_path / "cache", image_size=32)
    assert str(caught.value).startswith(f"{corrupt} cannot be read as an image: ")
    assert "\n" not in str(caught.value)


def test_a_file_without_an_image_is_named_although_sizes_are_only_sampled(photo_folder: Path, tmp_path: Path) -> None:
    (photo_folder / "temple" / "holiday.heic").write_bytes(b"ftypheic")
    with pytest.raises(ValueError, match=r"holiday\.heic cannot be read as an image: damaged, or of a format"):
        load(f"folder:{photo_folder}", tmp_path / "cache")


def test_a_class_of_four_photos_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    for file in sorted((photo_folder / "rings").iterdir())[:2]:
        file.unlink()
    with pytest.raises(ValueError, match="class 'rings' of photos has 4 images, 5 are the least"):
        load(f"folder:{photo_folder}", tmp_path / "cache")


def test_a_split_file_keeps_photos_of_one_object_together(photo_folder: Path, tmp_path: Path) -> None:
    files = sorted(file.relative_to(photo_folder).as_posix() for file in photo_folder.rglob("*.*"))
    table = tmp_path / "split.csv"
    splits = {file: ("train", "train", "train", "val", "test")[number % 5] for number, file in enumerate(files)}
    table.write_text("file,split\n" + "".join(f"{file},{split}\n" for file, split in splits.items()))
    data = load(f"folder:{photo_folder}", tmp_path / "cache", split_file=table, image_size=32)
    check(data)
    expected = [sum(split == name for split in splits.values()) for name in ("train", "val", "test")]
    assert [len(data.train), len(data.validation), len(data.test)] == expected
    assert data.split_note.startswith("train and test as the split file says")


def test_photos_of_one_small_size_keep_it(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "icons" / name).mkdir(parents=True)
        for number in range(10):
            pixels = draw.integers(256, size=(24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "icons" / name / f"{number}.png")
    data = load(f"folder:{tmp_path / 'icons'}", tmp_path / "cache")
    assert data.image_shape == (3, 24, 24)
    assert data.target_size is None
    assert load(f"folder:{tmp_path / 'icons'}", tmp_path / "cache", image_size=8).target_size == 24


def test_equal_photos_have_equal_fingerprints_wherever_they_lie(photo_folder: Path, tmp_path: Path) -> None:
    one = load(f"folder:{photo_folder}", tmp_path / "cache", image_size=32)
    moved = photo_folder.rename(tmp_path / "elsewhere")
    two = load(f"folder:{moved}", tmp_path / "another cache", image_size=32)
    assert one.fingerprint == two.fingerprint
    (moved / "temple" / "temple00.png").unlink()
    assert load(f"folder:{moved}", tmp_path / "cache", image_size=32).fingerprint != one.fingerprint


def test_tiny_imagenet_and_subsets_of_imagenet_are_found_where_they_were_unpacked(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)

    def write(folder: Path, number: int) -> None:
        folder.mkdir(parents=True)
        for index in range(number):
            pixels = draw.integers(256, size=(64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.JPEG")

    tiny, root = tmp_path / "data" / "tiny-imagenet-200", tmp_path / "root"
    for wnid in ("n01", "n02"):
        write(tiny / "train" / wnid / "images", 6)
        write(root / "imagenette2-160" / "train" / wnid, 6)
        write(root / "imagenette2-160" / "val" / wnid, 2)
    write(tiny / "val" / "images", 4)
    (tiny / "val" / "val_annotations.txt").write_text(
        "".join(f"{i}.JPEG\tn0{1 + i % 2}\t0\t0\t1\t1\n" for i in range(4))
    )
    data = load("tiny-imagenet", tmp_path / "cache", root=root)
    check(data)
    assert (data.name, data.source) == ("tiny-imagenet", "Tiny ImageNet, unpacked as tiny-imagenet-200")
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 4, 4)
    assert data.image_shape == (3, 64, 64)
    assert data.target_size is None
    subset = load("imagenette", tmp_path / "cache", root=root, image_size=32)
    assert (len(subset.train), len(subset.validation), len(subset.test)) == (8, 4, 4)
    assert subset.target_size == 64


# Tables


def write_table(path: Path, count: int, *, quality: int | None = 75, seed: int = 0, classes: int = 10) -> None:
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        buffer = io.BytesIO()
        smooth = draw.integers(256, size=(4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(smooth).resize((32, 32), Image.Resampling.BICUBIC)
        image.save(buffer, "PNG" if quality is None else "JPEG", quality=quality or 0)
        rows.append({"bytes": buffer.getvalue(), "path": None})
    names = [f"thing {label}" for label in range(classes)]
    table = pa.table(
        {
            "img": pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array(np.arange(count) % classes),
        },
        metadata={"huggingface": json.dumps({"info": {"features": {"label": {"names": names}}}})},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def test_a_table_under_the_data_root_serves_a_known_name(tmp_path: Path) -> None:
    write_table(tmp_path / "root" / "cifar10" / "train.parquet", 200)
    write_table(tmp_path / "root" / "cifar10" / "test.parquet", 50, seed=1)
    data = load("cifar10", tmp_path / "cache", root=tmp_path / "root", image_size=16, offline=True)
    check(data)
    assert (len(data.train), len(data.validation), len(data.test)) == (180, 20, 50)
    assert data.image_shape == (3, 16, 16)
    assert data.target_size == 32
    assert data.source == "CIFAR-10 (JPEG-75), cifar10/test.parquet and 1 more under the data root"
    assert data.class_names[9] == "thing 9"


def test_lossy_pixels_are_named_and_exact_ones_are_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_table(root / "cifar10" / "data" / "train-0.parquet", 100, quality=None)
    write_table(root / "cifar10" / "data" / "test-0.parquet", 20, quality=None)
    exact = load("cifar10", tmp_path / "cache", root=root)
    assert exact.source == "CIFAR-10, cifar10/data/test-0.parquet and 1 more under the data root"
    write_table(root / "svhn" / "train.parquet", 100, quality=90)
    write_table(root / "svhn" / "test.parquet", 20, quality=30)
    mixed = load("svhn", tmp_path / "cache", root=root)
    assert mixed.source.startswith("SVHN (JPEG in part or of several qualities), ")


def test_a_table_by_its_path(tmp_path: Path) -> None:
    write_table(tmp_path / "toys.parquet", 100, quality=None, classes=4)
    data = load(f"parquet:{tmp_path / 'toys.parquet'}", tmp_path / "cache")
    check(data)
    assert (data.name, data.source) == ("toys", "toys, toys.parquet")
    assert (len(data.train), len(data.validation), len(data.test)) == (76, 12, 12)


def test_a_table_with_an_unreadable_image_is_named_by_row(tmp_path: Path) -> None:
    file = tmp_path / "toys.parquet"
    write_table(file, 100)
    table = pq.read_table(file)
    rows = table.column("img").to_pylist()
    rows[70]["bytes"] = b"nothing"
    pq.write_table(table.set_column(0, "img", pa.array(rows, table.schema.field("img").type)), file)
    with pytest.raises(ValueError, match="cannot be read as an image") as caught:
        load(f"parquet:{file}", tmp_path / "cache")
    assert str(caught.value).startswith(f"row 70 of {file} cannot be read as an image")


def test_a_missing_split_of_a_table_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "root" / "cifar10" / "train.parquet", 100)
    with pytest.raises(ValueError, match="cifar10 has a train split but no test split: add one"):
        load("cifar10", tmp_path / "cache", root=tmp_path / "root")


@pytest.mark.skipif(
    not (Path(HUB_DATA or "nowhere") / "cifar10" / "test.parquet").is_file(), reason="FTDNAS_DATA holds no CIFAR-10"
)
def test_the_hub_s_cifar10_is_named_by_its_quality(tmp_path: Path) -> None:
    """The 10,000 test images alone, as a set to be split: its pixels are JPEG at quality 75."""
    told: list[Progress] = []
    file = Path(HUB_DATA) / "cifar10" / "test.parquet"
    data = load(f"parquet:{file}", tmp_path / "cache", image_size=16, listener=told.append)
    check(data)
    assert data.source == "test (JPEG-75), test.parquet"
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    assert len(data.train) + len(data.validation) + len(data.test) == 10_000
    assert told[-1].done == 10_000


def of_sizes(*parts: tuple[str, list[int]]) -> ImageDataset:
    """Images of split and counts a class, each of one brightness, so that they tell themselves apart."""
    cut = []
    for number, (_, counts) in enumerate(parts):
        labels = np.repeat(np.arange(len(counts)), counts)
        images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] + np.zeros((1, 1, 4, 4), np.uint8)
        cut.append(Split(images + np.uint8(100 * number), labels))
    train, validation = cut
    return ImageDataset(
        "toys", "toys", ("a", "b", "c"), train, validation, validation.take(np.arange(0)), "0", None, ""
    )


def test_the_one_validation_image_of_a_class_scores_too_and_that_is_said() -> None:
    data = of_sizes(("train", [9, 9, 9]), ("validation", [4, 1, 3]))
    assert np.bincount(data.choose().labels).tolist() == [2, 1, 2]
    assert np.bincount(data.score().labels).tolist() == [2, 1, 1]
    assert rows_of(data.choose()) & rows_of(data.score()) == {data.validation.images[4].tobytes()}
    assert data.unsure == (
        "class 'b' has one validation image, which chooses and scores: add some for figures to lean on",
    )


def test_a_class_that_no_accuracy_can_see_is_named() -> None:
    data = of_sizes(("train", [9, 9, 9]), ("validation", [4, 0, 2]))
    assert not rows_of(data.choose()) & rows_of(data.score())
    assert data.unsure == (
        "class 'b' has no validation image, so no accuracy sees it: add some to the validation images",
    )


def test_where_every_class_chooses_and_scores_nothing_is_said(digits: ImageDataset) -> None:
    assert digits.unsure == ()
    assert not digits.shared


def test_a_rare_class_is_in_every_part_of_a_folder(tmp_path: Path) -> None:
    for name, count in (("common", 60), ("rare", 8), ("rarest", 5)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng([len(name), number]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "photos" / name / f"{number}.png")
    data = load(f"folder:{tmp_path / 'photos'}", tmp_path / "cache")
    for split in (data.train, data.choose(), data.score(), data.test):
        assert min(np.bincount(split.labels, minlength=3)) >= 1
