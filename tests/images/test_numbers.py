"""Files of numbers: of every type, with any number of bands, as they are."""

from contextlib import closing

import numpy as np
import pytest
import torch
from conftest import save_dicom
from PIL import Image

from cyclestyle.errors import ImageError
from cyclestyle.images import (
    WRITTEN,
    ImageFile,
    Source,
    ValueRange,
    Values,
    finish,
    format_named,
    read_header,
    read_image,
    read_sample,
    read_size,
    read_values,
    target_format,
    write_frames,
)

TYPES = ["uint8", "uint16", "int16", "int32", "float16", "float32", "float64"]


def values(dtype, bands, size=(6, 9)):
    """Numbers that use a good part of their type."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1000, (*size, bands)).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, (*size, bands), dtype=dtype, endpoint=True)


def write(path, array, name):
    """Write numbers as a translation is written."""
    low, high = float(array.min()), float(array.max())
    known = ValueRange(low, high)
    unit = torch.from_numpy((array.astype(np.float64) - low) * 2 / (high - low) - 1).permute(2, 0, 1)
    source = Source(values=Values(known, str(array.dtype)))
    write_frames([finish(unit, source, format_named(name))], path, format_named(name))


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", [name for name, one in WRITTEN.items() if "numbers" in one.keeps])
def test_every_type_comes_back_with_every_number_of_bands(tmp_path, name, dtype, bands):
    array = values(dtype, bands)
    path = tmp_path / f"a.{name}"
    write(path, array, name)
    header = read_header(path)
    assert (header.dtype, header.size) == (dtype, (9, 6))
    assert read_size(path) == (9, 6)
    with closing(ImageFile(path, channels=bands)) as file:
        back = file.read_values(0, bands)[0]
    assert back.dtype == dtype
    assert np.allclose(back.astype(np.float64), array.astype(np.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, one in WRITTEN.items() if "numbers" not in one.keeps])
def test_other_formats_refuse_numbers_and_name_those_that_hold_them(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} cannot hold 1 band of int16; choose --format tiff or npy or npz"):
        write(tmp_path / "a", values("int16", 1), name)


def test_12_bits_in_16_stay_12_bits(tmp_path):
    array = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(array).save(tmp_path / "a.png")
    known = ValueRange(0, 4095)
    seen = read_sample(tmp_path / "a.png", 1, known)
    assert len(np.unique(seen.numpy())) == 4096
    assert (seen.min(), seen.max()) == (-1, 1)
    assert np.array_equal(known.to_values(seen, "uint16")[..., 0], array)


def test_values_outside_are_clipped_and_counted(tmp_path):
    array = np.array([[-1024, 0], [40, 3000]], np.int16)
    np.save(tmp_path / "a.npy", array)
    known = ValueRange(-1000, 1000)
    assert known.clipped(array) == 2
    with closing(ImageFile(tmp_path / "a.npy", known)) as file:
        seen, source = file.read(0, 1)
    assert source.cut
    assert np.allclose(seen[0], [[-1, 0], [0.04, 1]])


@pytest.mark.parametrize("ending", ["tif", "npy"])
def test_values_that_are_not_finite_are_named(tmp_path, ending):
    array = np.ones((4, 5, 1), np.float32)
    array[1, 2], array[1, 3] = np.nan, np.inf
    path = tmp_path / f"a.{ending}"
    write(path, np.arange(20, dtype=np.float32).reshape(4, 5, 1), {"tif": "tiff"}.get(ending, ending))
    assert read_values(path).shape == (4, 5, 1)
    np.save(path, array) if ending == "npy" else Image.fromarray(array[..., 0]).save(path)
    with pytest.raises(ImageError, match=rf"a\.{ending}: it has values that are NaN or infinite \(2\); replace them"):
        read_sample(path, 1, ValueRange(0, 1))


def test_bands_that_are_not_expected_are_named(tmp_path):
    np.save(tmp_path / "a.npy", values("uint16", 5))
    with pytest.raises(ImageError, match=r"a\.npy: it has 5 bands of uint16, but 3 are expected \(channels_A"):
        read_sample(tmp_path / "a.npy", 3)
    with pytest.raises(ImageError, match=r"a\.npy: it has 5 bands, which are no colours"):
        read_image(tmp_path / "a.npy")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: it has 3 bands of uint8, but 5 are expected"):
        read_sample(tmp_path / "a.png", 5)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((2, 3, 4, 5)), r"float64 of the shape \(2, 3, 4, 5\); expected numbers \(H, W\) or \(H, W, C\)"),
        (np.array([["a"]]), "it holds <U1"),
        (np.zeros((0, 4)), "expected numbers"),
    ],
)
def test_arrays_of_other_shapes_and_kinds_are_refused(tmp_path, array, text):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ImageError, match=text):
        read_header(tmp_path / "a.npy")


def test_an_archive_has_one_array(tmp_path):
    np.savez(tmp_path / "a.npz", one=np.zeros((4, 4)), two=np.zeros((4, 4)))
    with pytest.raises(ImageError, match=r"it holds 2 arrays \(one, two\); expected one"):
        read_header(tmp_path / "a.npz")


def test_tiffs_of_other_programs_are_read(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    array = values("float64", 5)
    layouts = {"contig": array, "separate": array.transpose(2, 0, 1)}
    for planar, stored in layouts.items():
        path = tmp_path / f"{planar}.tif"
        tifffile.imwrite(path, stored, photometric="minisblack", planarconfig=planar)
        assert np.array_equal(read_values(path), array), planar
    tifffile.imwrite(tmp_path / "big.tif", array[..., 0], bigtiff=True)
    assert np.array_equal(read_values(tmp_path / "big.tif")[..., 0], array[..., 0])
    nir = values("uint8", 4)
    tifffile.imwrite(tmp_path / "nir.tif", nir, photometric="rgb", extrasamples=["unspecified"])
    seen = read_sample(tmp_path / "nir.tif", 4)  # four bands where four are wanted, else RGB as before
    assert np.array_equal(np.rint((seen.numpy() + 1) * 127.5).transpose(1, 2, 0), nir)
    assert np.array_equal(np.asarray(read_sample(tmp_path / "nir.tif", 3)), nir[..., :3])


def test_dicom_has_the_units_of_its_modality(tmp_path):
    path = save_dicom(tmp_path / "a.dcm", np.arange(24, dtype=np.uint16).reshape(4, 6))
    header = read_header(path)
    assert (header.dtype, header.size, header.format) == ("int16", (6, 4), "DICOM")
    assert np.array_equal(read_values(path)[..., 0], np.arange(24).reshape(4, 6) - 1024)
    assert target_format(path) == (format_named("tiff"), "a.tif")


def test_packages_that_are_missing_are_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pydicom", None)
    (tmp_path / "a.dcm").write_bytes(bytes(200))
    with pytest.raises(ImageError, match=r"cannot read .*a\.dcm: DICOM needs pydicom: pip install pydicom"):
        read_header(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("low", "high", "wanted", "chosen"),
    [
        (-1024, 3071, "int16", "int16"),
        (-1024, 3071, "uint16", "int16"),
        (0, 4095, "uint8", "uint16"),
        (0, 255, "uint8", "uint8"),
        (0, 1, "uint16", "float32"),  # integers would be 0 and 1 alone
        (0, 1, "float16", "float16"),
        (-1e6, 1e6, "int16", "float32"),
        (0, 1e6, "float16", "float32"),
    ],
)
def test_the_type_of_a_result_holds_its_range(low, high, wanted, chosen):
    assert ValueRange(low, high).best_type(wanted) == chosen
