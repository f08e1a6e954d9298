from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from distill.images.preprocess import Preprocess, fit_preprocess
from distill.recipe import PREPROCESSES
from distill.run import Progress


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """1,200 of the real digits as three-channel uint8 images of 8 x 8."""
    grey = (load_digits().images[:1200] * 255 / 16).astype(np.uint8)
    return np.stack([grey, grey // 2, 255 - grey.transpose(0, 2, 1)], axis=1)


@pytest.mark.parametrize("kind", PREPROCESSES)
def test_invert_undoes_apply(kind: str, images: np.ndarray) -> None:
    fitted = fit_preprocess(kind, images, dataset="cifar10")
    applied = fitted.apply(images)
    assert applied.dtype == torch.float32
    assert applied.shape == images.shape
    back = fitted.invert(applied)
    assert (back - torch.from_numpy(images).float() / 255).abs().max() < 2e-5


@pytest.mark.parametrize("kind", PREPROCESSES)
def test_stored_tensors_give_back_the_same_preprocessing(kind: str, images: np.ndarray) -> None:
    fitted = fit_preprocess(kind, images, dataset="cifar10")
    again = Preprocess.from_tensors(fitted.kind, fitted.to_tensors(), (3, 8, 8))
    assert again.fingerprint == fitted.fingerprint
    assert torch.equal(again.apply(images), fitted.apply(images))
    assert torch.equal(again.invert(again.apply(images[:9])), fitted.invert(fitted.apply(images[:9])))


@pytest.mark.parametrize("kind", PREPROCESSES)
def test_arrays_tensors_floats_and_memory_maps_agree(kind: str, images: np.ndarray, tmp_path: Path) -> None:
    fitted = fit_preprocess(kind, images, dataset="cifar10")
    expected = fitted.apply(images)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert fit_preprocess(kind, mapped, dataset="cifar10").fingerprint == fitted.fingerprint
    assert torch.equal(fitted.apply(mapped), expected)
    assert torch.equal(fitted.apply(torch.from_numpy(images)), expected)
    assert torch.equal(fitted.apply(torch.from_numpy(images).float() / 255), expected)


def test_standardize_gives_zero_mean_and_unit_deviation_per_channel(images: np.ndarray) -> None:
    applied = fit_preprocess("standardize", images).apply(images).double()
    assert applied.mean((0, 2, 3)).abs().max() < 1e-5
    assert (applied.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_published_takes_the_fields_constants_and_not_the_images(images: np.ndarray) -> None:
    fitted = fit_preprocess("published", images, dataset="cifar100")  # which the field standardises as CIFAR-10
    white = fitted.apply(np.full((1, 3, 8, 8), 255, np.uint8))[0, :, 0, 0]
    assert white.tolist() == pytest.approx([2.5141, 2.5968, 2.7537], abs=1e-4)
    assert fitted.kind == "standardize"  # so that whatever reads a set reads it
    for name in ("tiny-imagenet", "imagenette", "imagewoof"):
        assert fit_preprocess("published", images, dataset=name).tensors["std"].tolist() == pytest.approx(
            [0.229, 0.224, 0.225]
        )
    grey = fit_preprocess("published", images[:, :1], dataset="mnist")
    assert float(grey.apply(images[:1, :1] * 0).max()) == pytest.approx(-0.4242, abs=1e-4)


@pytest.mark.parametrize(
    ("dataset", "told"),
    [("digits", "data set 'digits', only for cifar10, "), ("mnist", "images of 3 channels of mnist")],
)
def test_where_nothing_is_published_says_so_and_what_to_take(dataset: str, told: str, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=f"no published constants for {told}.*take preprocess standardize"):
        fit_preprocess("published", images, dataset=dataset)


def test_a_constant_channel_stays_finite(images: np.ndarray) -> None:
    flat = images.copy()
    flat[:, 1] = 255
    assert torch.isfinite(fit_preprocess("standardize", flat).apply(flat)).all()


def test_zca_is_the_formula(images: np.ndarray) -> None:
    flat = images.reshape(len(images), -1) / 255.0
    centred = flat - flat.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / (len(flat) - 1))
    expected = centred @ vectors @ np.diag((values + 0.1) ** -0.5) @ vectors.T
    applied = fit_preprocess("zca", images).apply(images).flatten(1).numpy()
    np.testing.assert_allclose(applied, expected, atol=2e-5)


def test_zca_stores_only_the_upper_triangle(images: np.ndarray) -> None:
    stored = fit_preprocess("zca", images).to_tensors()
    assert {name: tuple(t.shape) for name, t in stored.items()} == {
        "mean": (192,),
        "whitening_upper": (192 * 193 // 2,),
    }


def test_zca_is_computed_once_per_pixels(images: np.ndarray, tmp_path: Path) -> None:
    said: list[Progress] = []
    first = fit_preprocess("zca", images, cache=tmp_path, listener=said.append)
    assert [p.done for p in said] == [0, 1]
    second = fit_preprocess("zca", images, cache=tmp_path, listener=said.append)
    assert len(said) == 2
    assert second.fingerprint == first.fingerprint
    fit_preprocess("zca", images[:-1], cache=tmp_path, listener=said.append)
    assert len(said) == 4
    assert len(list(tmp_path.iterdir())) == 2  # and nothing half-written beside them


def test_a_damaged_cache_file_is_made_again(images: np.ndarray, tmp_path: Path) -> None:
    first = fit_preprocess("zca", images, cache=tmp_path)
    (stored,) = tmp_path.iterdir()
    whole = stored.read_bytes()
    stored.write_bytes(whole[: len(whole) // 2])
    assert fit_preprocess("zca", images, cache=tmp_path).fingerprint == first.fingerprint
    assert stored.read_bytes() == whole


def test_refusals_say_what_is_wrong(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"unknown preprocess 'pca': choose from none, standardize, published, zca"):
        fit_preprocess("pca", images)
    with pytest.raises(ValueError, match="uint8"):
        fit_preprocess("zca", images.astype(np.float32))
    with pytest.raises(ValueError, match="uint8 images"):
        fit_preprocess("zca", images[:0])
    with pytest.raises(ValueError, match="at least two"):
        fit_preprocess("zca", images[:1])
    with pytest.raises(ValueError, match="192 values per image"):
        fit_preprocess("zca", images).apply(images[:, :1])
    with pytest.raises(ValueError, match="3 channels, got images of 1"):
        fit_preprocess("standardize", images).apply(images[:, :1])
    with pytest.raises(ValueError, match=r"not torch\.int64"):
        fit_preprocess("none", images).apply(images[:3].astype(np.int64))


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("pca", {}, "unknown preprocess"),
        ("none", {"mean": torch.zeros(3)}, "needs tensors"),
        ("standardize", {"std": torch.zeros(3)}, "not positive"),
        ("standardize", {"std": torch.ones(2)}, "not float32"),
        ("standardize", {"std": torch.ones(3, dtype=torch.float64)}, "float64"),
        ("standardize", {"mean": torch.full((3,), torch.nan)}, "not finite"),
        ("zca", {"whitening_upper": torch.zeros(192 * 193 // 2)}, "not positive definite"),
        ("zca", {"whitening_upper": torch.zeros(7)}, "not float32"),
    ],
)
def test_stored_tensors_are_checked(
    kind: str, change: dict[str, torch.Tensor], reason: str, images: np.ndarray
) -> None:
    tensors = fit_preprocess(kind if kind in PREPROCESSES else "none", images).to_tensors() | change
    with pytest.raises(ValueError, match=reason):
        Preprocess.from_tensors(kind, tensors, (3, 8, 8))


def test_a_matrix_that_cannot_be_inverted_is_refused_when_inverting(images: np.ndarray) -> None:
    tensors = fit_preprocess("zca", images).to_tensors()
    tensors["whitening_upper"][1] = 1e6  # symmetric with a positive diagonal, but no whitening
    broken = Preprocess.from_tensors("zca", tensors, (3, 8, 8))
    with pytest.raises(ValueError, match="not positive definite"):
        broken.invert(broken.apply(images[:2]))


@pytest.mark.parametrize("kind", PREPROCESSES)
def test_images_are_preprocessed_on_the_device_that_is_named(kind: str, images: np.ndarray) -> None:
    fitted = fit_preprocess(kind, images[:50], dataset="cifar10")
    expected = fitted.apply(images[:20])
    assert fitted.apply(images[:20], "meta").device.type == "meta"
    assert torch.equal(fitted.apply(images[:20], "cpu"), expected)  # what was moved elsewhere is still here
