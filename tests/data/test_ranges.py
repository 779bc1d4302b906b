"""The range of a domain: what is found, what is said, and what trainings see."""

import numpy as np
import pytest
import torch
from conftest import save_dicom
from PIL import Image

from cyclestyle.data.datamodule import UnpairedImages
from cyclestyle.data.ranges import find_range, parse_bands
from cyclestyle.errors import DataError, ImageError
from cyclestyle.images import ValueRange


def save(folder, *arrays, ending="npy"):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.{ending}" for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array) if ending == "npy" else Image.fromarray(array).save(path)
    return paths


def ramp(low, high, dtype, size=32):
    return np.linspace(low, high, size * size).reshape(size, size).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "ends", "chosen"),
    [
        ("uint16", (3, 200), (0, 255)),
        ("uint16", (0, 4000), (0, 4095)),
        ("uint16", (9, 60000), (0, 65535)),
        ("int16", (0, 3000), (0, 4095)),
        ("int16", (-1024, 3071), (-1024, 3071)),
        ("float32", (0.25, 0.75), (0, 1)),
        ("float16", (-2, 5), (-2, 5)),
    ],
)
def test_auto_says_what_it_finds_and_chooses(tmp_path, dtype, ends, chosen):
    paths = save(tmp_path, ramp(*ends, dtype), ramp(*ends, dtype))
    found, line = find_range("data.range_A", "auto", paths)
    assert found == ValueRange(*chosen)
    told = f"data.range_A: {dtype} (2) of {ends[0]:g} to {ends[1]:g}; taken as {found}, which clips nothing"
    assert line == told


def test_8_bits_have_no_range_and_no_line(tmp_path):
    assert find_range("data.range_A", "auto", save(tmp_path, ramp(0, 255, "uint8"), ending="png")) == (None, "")


def test_8_and_16_bits_together_are_read_by_type_and_other_mixtures_are_refused(tmp_path):
    both = [*save(tmp_path / "a", ramp(0, 255, "uint8")), *save(tmp_path / "b", ramp(0, 999, "uint16"))]
    found, line = find_range("data.range_A", "auto", both)
    assert found is None
    assert "uint8 (1) and uint16 (1); each is read with the range of its type" in line
    mixed = [*both, *save(tmp_path / "c", ramp(0, 1, "float32"))]
    with pytest.raises(DataError, match=r"data\.range_A is auto, but the files have several types"):
        find_range("data.range_A", "auto", mixed)


def test_what_numbers_and_percentiles_clip_is_said(tmp_path):
    paths = save(tmp_path, np.arange(1000, dtype=np.int32).reshape(20, 50) - 500)
    assert find_range("data.range_A", "-500,249", paths)[1].endswith(
        "taken as -500 to 249, which clips 25 % (250) of the values"
    )
    found, line = find_range("data.range_A", "percentile:10,90", paths)
    assert (found.low, found.high) == pytest.approx((-400.1, 399.1))
    assert "which clips 20 % of the values" in line
    with pytest.raises(DataError, match="all values are 7"):
        find_range("data.range_A", "percentile:0,100", save(tmp_path / "flat", np.full((4, 4), 7)))


@pytest.mark.parametrize("wanted", ["1", "2,1", "percentile:5", "percentile:5,200", "median:1,2", "nan,1", [1, 2, 3]])
def test_other_words_are_refused(wanted):
    with pytest.raises(ValueError, match=r"range_B must be two numbers|a range must be two numbers"):
        UnpairedImages("x", range_B=wanted)


def test_bands_are_counted_from_1():
    assert parse_bands("show_A", "4,3,2", 5) == [3, 2, 1]
    assert parse_bands("show_A", [5], 5) == [4, 4, 4]
    for wrong in ("0,1,2", "4,5,6", "red", "1,2"):
        with pytest.raises(ValueError, match="show_A must be one or three bands of 1 to 5"):
            parse_bands("show_A", wrong, 5)


@pytest.mark.parametrize("resize", ["resize_and_crop", "crop", "scale_width_and_crop"])
def test_trainings_see_more_than_256_levels_and_flip_and_crop_all_bands_alike(tmp_path, resize):
    """A gradient of 12 bits, and a second band of its negative, stay each other's negative."""
    base = ramp(0, 4095, "uint16", 64)
    for split in ("trainA", "trainB", "testA", "testB"):
        save(tmp_path / split, *[np.stack([base, 4095 - base], axis=2)] * 2)
    data = UnpairedImages(
        str(tmp_path), channels_A=2, channels_B=2, resize=resize, load_size=48, crop_size=32, workers=0
    )
    data.setup("fit")
    assert data.ranges == {"A": [0, 4095], "B": [0, 4095]}
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            image = batch["A"][0]
            assert len(torch.unique(image[0])) > 256
            assert torch.allclose(image[0], -image[1], atol=1e-6)
            assert image.abs().max() <= 1


def test_files_that_are_not_finite_are_named_or_left_out(tmp_path):
    for split in ("trainA", "trainB", "testA", "testB"):
        save(tmp_path / split, *[ramp(-1, 1, "float32")] * 3)
    bad = ramp(-1, 1, "float32")
    bad[3, 4] = np.inf
    np.save(tmp_path / "trainA" / "1.npy", bad)
    with pytest.raises(ImageError, match=r"1\.npy: it has values that are NaN or infinite \(1\)"):
        UnpairedImages(str(tmp_path), channels_A=1, channels_B=1, workers=0).setup("fit")
    data = UnpairedImages(str(tmp_path), channels_A=1, channels_B=1, workers=0, on_bad_image="skip")
    data.setup("fit")
    assert len(data.paths("train_A")) == 2


def test_a_resumed_training_keeps_the_range_unless_numbers_are_given():
    stored = {"epoch": 1, "pairs": 0, "processed": 3, "length": 3, "ranges": {"A": [0, 4095], "B": [-5, 5]}}
    data = UnpairedImages("x", range_B="-1,1")
    data.load_state_dict(stored)
    assert data.ranges == {"A": [0, 4095], "B": [-1, 1]}
    old = {name: value for name, value in stored.items() if name != "ranges"}
    data = UnpairedImages("x")
    data.load_state_dict(old)
    assert data.ranges == {}  # trained when there were no ranges


def test_a_window_is_that_of_dicom(tmp_path):
    with pytest.raises(DataError, match="none of the files says what its window is"):
        find_range("data.range_A", "window", save(tmp_path, ramp(0, 9, "int16")))
    slices = [np.arange(1024, dtype=np.uint16).reshape(32, 32) + 512, np.full((32, 32), 1064, np.uint16)]
    paths = [tmp_path / f"{number}.dcm" for number in range(2)]
    for path, stored, window in zip(paths, slices, ((40, 400), (0, 200)), strict=True):
        save_dicom(path, stored, window=window)
    found, line = find_range("data.range_A", "window", paths)
    assert found == ValueRange(-160, 240)
    clipped = int(((slices[0] < 864) | (slices[0] > 1264)).sum())  # that is, -160 and 240 without the intercept
    assert line.endswith(f"taken as -160 to 240, which clips 30 % ({clipped}) of the values")
