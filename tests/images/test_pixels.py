import os
import stat
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cyclestyle.errors import DiskError, ImageError
from cyclestyle.images import WRITTEN, ImageFile, convert, read_image, read_size, to_image, to_tensor, write_image

RED = (200, 30, 40)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@given(values=st.lists(st.integers(0, 255), min_size=24, max_size=24))
def test_every_eight_bit_value_survives_a_round_trip_to_a_tensor(channels, values):
    pixels = torch.tensor(values, dtype=torch.uint8).reshape(2, 12)[:, :: 12 // 3].repeat(1, channels)
    image = Image.fromarray(
        pixels.reshape(2, 3, channels).numpy().squeeze(-1) if channels == 1 else pixels.reshape(2, 3, channels).numpy()
    )
    tensor = to_tensor(image)
    assert tensor.shape == (channels, 2, 3)
    assert tensor.min() >= -1
    assert tensor.max() <= 1
    assert np.array_equal(np.asarray(to_image(tensor)), np.asarray(image))


def test_range_of_a_tensor():
    assert to_tensor(Image.new("RGB", (1, 1), (0, 255, 0))).flatten().tolist() == [-1.0, 1.0, -1.0]


def test_values_are_rounded_and_clamped():
    tensor = torch.tensor([-2.0, 2.0, 0.0]).reshape(3, 1, 1)
    assert to_image(tensor).getpixel((0, 0)) == (0, 255, 128)


def test_nan_raises_an_error():
    with pytest.raises(ValueError, match="NaN"):
        to_image(torch.full((3, 2, 2), torch.nan))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", RED, RED),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (*RED, 255), RED),
        ("RGBA", (*RED, 0), (255, 255, 255)),  # transparent pixels are composited over white
        ("LA", (77, 255), (77, 77, 77)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("I;16", 40000, (156, 156, 156)),
        ("I;16", 65535, (255, 255, 255)),
        ("I", 40000, (156, 156, 156)),
        ("F", 0.5, (128, 128, 128)),
    ],
)
def test_every_mode_is_converted_to_rgb_by_value(mode, colour, expected):
    assert convert(Image.new(mode, (2, 2), colour)).getpixel((1, 1)) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(tmp_path, value):
    Image.new("F", (2, 2), value).save(tmp_path / "grey.tif")
    for read in (read_image, lambda path: ImageFile(path).read(0, 3)):
        with pytest.raises(ImageError, match=r"grey\.tif: it has values that are NaN or infinite \(4\)"):
            read(tmp_path / "grey.tif")


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "p.png", transparency=1)
    loaded = read_image(tmp_path / "p.png")
    assert [loaded.getpixel((0, 0)), loaded.getpixel((1, 0))] == [RED, (255, 255, 255)]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_files(tmp_path, suffix):
    values = np.array([[0, 257, 40000, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep{suffix}")
    assert np.asarray(read_image(tmp_path / f"deep{suffix}", channels=1)).tolist() == [[0, 1, 156, 255]]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels(save_image, channels):
    assert to_tensor(read_image(save_image("x.png", colour=RED), channels)).shape == (channels, 8, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = Image.new("RGB", (6, 4))
    upright.putpixel((0, 0), (255, 255, 255))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # inverse of the transposition that each orientation asks for
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert read_size(tmp_path / "turned.png") == (6, 4)
    loaded = read_image(tmp_path / "turned.png")
    assert loaded.size == (6, 4)
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getexif().get(0x0112, 1) == 1  # the tag is removed, so that the image is not rotated twice


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_an_error_names_a_file_that_is_not_an_image(tmp_path, content):
    path = tmp_path / "fake.jpg"
    path.write_bytes(content)
    for read in (read_image, read_size):
        with pytest.raises(ImageError, match=r"fake\.jpg"):
            read(path)


@pytest.mark.parametrize(
    ("dtype", "sample_format", "bands", "photometric", "kind"),
    [
        ("<f4", 3, 3, 2, "float32 RGB TIFF of 3 bands"),
        ("<f8", 3, 1, 1, "float64 grey TIFF of 1 band"),
        ("<u1", 1, 5, 1, "uint8 grey TIFF of 5 bands"),
    ],
)
def test_an_error_says_what_a_tiff_holds(tmp_path, monkeypatch, dtype, sample_format, bands, photometric, kind):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    monkeypatch.setattr("cyclestyle.images.files.find_spec", lambda name: None)
    pixels = np.zeros((4, 6, bands), dtype)
    start = 8 + 2 + 12 * 10 + 4  # of the bits of each sample, then their formats, then the pixels
    tags = {256: (3, 1, 6), 257: (3, 1, 4), 258: (3, bands, start), 259: (3, 1, 1), 262: (3, 1, photometric)}
    tags |= {273: (4, 1, start + 4 * bands), 277: (3, 1, bands), 278: (3, 1, 4), 279: (4, 1, pixels.nbytes)}
    tags |= {339: (3, bands, start + 2 * bands)}
    bits, form = [8 * pixels.itemsize] * bands, [sample_format] * bands
    if bands == 1:  # a single value is in the tag itself
        tags |= {258: (3, 1, bits[0]), 339: (3, 1, form[0])}
    entries = b"".join(struct.pack("<HHII", tag, *value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    path = tmp_path / "odd.tif"
    path.write_bytes(content + struct.pack(f"<{2 * bands}H", *bits, *form) + pixels.tobytes())
    for read in (read_image, read_size):
        with pytest.raises(ImageError, match=rf"odd\.tif: {kind} is not supported; `pip install tifffile` adds it"):
            read(path)
    path.write_bytes(content[:40])
    with pytest.raises(ImageError, match=r"odd\.tif: its content is not an image"):
        read_image(path)


def test_an_error_names_missing_and_truncated_files(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.png: No such file"):
        read_image(tmp_path / "nowhere.png")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"cut\.jpg.*truncated"):
        read_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize("suffix", [*(one.endings[0] for one in WRITTEN.values()), ".jpeg", ".JPG", ".PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_every_format_is_written(tmp_path, suffix, mode):
    path = tmp_path / "nested" / "folder" / f"out{suffix}"
    write_image(Image.new(mode, (5, 3), 90), path)
    assert read_image(path).size == (5, 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def test_a_failed_write_leaves_the_existing_file_unchanged(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    (tmp_path / "out.png").write_bytes(b"before")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(DiskError, match=r"out\.png: No space left"):
        write_image(Image.new("RGB", (2, 2)), tmp_path / "out.png")
    assert os.listdir(tmp_path) == ["out.png"]
    assert (tmp_path / "out.png").read_bytes() == b"before"


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
