"""Trainings on numbers, from `fit` to `predict`, as users of CT, radar or several bands type them."""

import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from PIL import Image

from cyclestyle import Translator
from cyclestyle.cli import main
from cyclestyle.images import ValueRange, read_header, read_values

SIZE = 32


def bodies(seed):
    """Where there is a body, `(H, W)` of bools, and noise of the same shape."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    return x**2 + y**2 < rng.uniform(0.08, 0.15), rng.normal(0, 1, (SIZE, SIZE))


def ct(seed):
    inside, noise = bodies(seed)
    return (np.where(inside, 300, -1000) + 15 * noise).astype(np.int16)


def mr(seed):
    inside, noise = bodies(seed)
    return (np.where(inside, 3000, 20) + 5 * noise).clip(0).astype(np.uint16)


def five_bands(seed):
    inside, noise = bodies(seed)
    bands = [np.where(inside, 0.1 * band, 0.6 - 0.1 * band) + 0.01 * noise for band in range(1, 6)]
    return np.stack(bands, axis=2).clip(0, 1).astype(np.float32)


def rgb(seed):
    inside, _ = bodies(seed)
    return np.stack([np.where(inside, 200 - 40 * band, 30) for band in range(3)], axis=2).astype(np.uint8)


def save(array, path):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        import tifffile

        tifffile.imwrite(path, array, photometric="minisblack")


def make(root, domains):
    """Write 6 training images and 2 test images a domain."""
    for domain, (draw, ending) in domains.items():
        for split, count in (("train", 6), ("test", 2)):
            folder = root / f"{split}{domain}"
            folder.mkdir(parents=True)
            for number in range(count):
                save(draw(100 * (domain == "B") + 10 * (split == "test") + number), folder / f"{number}{ending}")
    return root


def channels(**numbers):
    return [f"--{part}.channels_{key}={value}" for part in ("model", "data") for key, value in numbers.items()]


@pytest.fixture(scope="module")
def scans(tiny_fit, tmp_path_factory):
    """A run from CT, signed numbers, to MR, 12 bits in 16."""
    pytest.importorskip("tifffile")
    data = make(tmp_path_factory.mktemp("scans"), {"A": (ct, ".tif"), "B": (mr, ".png")})
    run = tmp_path_factory.mktemp("run")
    words = [*tiny_fit, f"--data.root={data}", *channels(A=1, B=1), f"--trainer.default_root_dir={run}"]
    with redirect_stdout(io.StringIO()) as said:
        assert main(words) == 0
    return data, run, words, said.getvalue()


def test_ranges_are_found_said_and_stored(scans):
    _, run, words, said = scans
    low, high = min(int(ct(n).min()) for n in range(6)), max(int(ct(n).max()) for n in range(6))
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["ranges"] == {"A": [low, high], "B": [0, 4095]}
    assert f"data.range_A: int16 (6) of {low} to {high}; taken as {low} to {high}, which clips nothing" in said
    assert "taken as 0 to 4095" in said
    assert main([*words, "--trainer.max_epochs=2", "--ckpt_path=last", "--data.range_A=percentile:10,90"]) == 0
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["ranges"]["A"] == [low, high]  # a network keeps the range of its training


def test_translations_are_in_the_units_of_the_other_domain(scans, cyclestyle, tmp_path):
    data, run, *_ = scans
    for source, direction, dtype, ends in (("A", "AtoB", "int16", (0, 4095)), ("B", "BtoA", "int16", (-1100, 400))):
        out = tmp_path / direction
        words = ["--ckpt_path", run, "--input", data / f"test{source}", "--output", out, "--direction", direction]
        words += ["--format", "tiff"]
        assert cyclestyle("predict", *words)[0] == 0
        for number in range(2):
            path = out / f"{number}.tif"
            values = read_values(path)
            assert read_header(path).dtype == dtype
            assert ends[0] <= values.min() < values.max() <= ends[1]
            assert len(np.unique(values)) > 256
    assert cyclestyle("predict", *words, "--overwrite", "--dtype", "float64")[0] == 0
    assert np.abs(read_values(path) - values).max() <= 0.5
    translate = Translator.load(run / "checkpoints" / "last.ckpt", direction="BtoA")
    given = read_values(data / "testB" / "1.png")
    assert np.array_equal(translate(given), translate(data / "testB" / "1.png"))
    assert np.abs(translate(given).astype(int) - values).max() <= 1


def test_values_outside_of_the_range_are_said(scans, cyclestyle, tmp_path):
    _, run, *_ = scans
    np.save(tmp_path / "metal.npy", np.full((SIZE, SIZE), 3000, np.int16))
    words = ["--ckpt_path", run, "--input", tmp_path / "metal.npy", "--output", tmp_path / "out.npy"]
    status, _, err = cyclestyle("predict", *words)
    assert status == 0
    assert "were clipped in 1 file: metal.npy" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--dtype", "uint8"], "uint8 cannot hold the values 0 to 4095; choose one of uint16, int16, int32, float16"),
        (["--dtype", "int12"], "dtype must be one of uint8, uint16"),
        (["--mask", "{image}"], "--mask keeps the input, whose values are -10"),
        (["--format", "jpeg"], "jpeg cannot hold 1 band of int16; choose --format tiff or npy or npz"),
    ],
)
def test_mistakes_get_one_line(scans, cyclestyle, tmp_path, words, text):
    data, run, *_ = scans
    image = data / "testA" / "0.tif"
    given = ["--ckpt_path", run, "--input", image, "--output", tmp_path / "out"]
    status, _, err = cyclestyle("predict", *given, *(word.format(image=image) for word in words))
    assert status == 1
    assert text in err
    assert "Traceback" not in err


def test_outside_of_a_mask_numbers_stay(tiny_fit, cyclestyle, tmp_path):
    data = make(tmp_path / "data", {"A": (ct, ".npy"), "B": (lambda seed: ct(seed) // 2, ".npy")})
    ranges = ["--data.range_A=-1100,400", "--data.range_B=-1100,400"]
    words = [f"--data.root={data}", *channels(A=1, B=1), *ranges, f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert main([*tiny_fit, *words, "--trainer.limit_val_batches=0"]) == 0
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[8:20, 8:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    given = ["--ckpt_path", tmp_path / "run", "--input", data / "testA" / "0.npy", "--output", tmp_path / "out.npy"]
    assert cyclestyle("predict", *given, "--mask", tmp_path / "mask.png")[0] == 0
    before, after = np.load(data / "testA" / "0.npy"), np.load(tmp_path / "out.npy")
    assert before.dtype == after.dtype
    assert np.array_equal((before != after)[mask == 0], np.zeros((mask == 0).sum(), bool))
    assert (before != after)[mask > 0].mean() > 0.9


def test_five_bands_become_colours_and_come_back(tiny_fit, cyclestyle, tmp_path, capsys):
    data = make(tmp_path / "data", {"A": (five_bands, ".npy"), "B": (rgb, ".png")})
    run = tmp_path / "run"
    words = [f"--data.root={data}", *channels(A=5, B=3), "--model.lambda_identity=0", "--data.show_A=4,3,2"]
    assert main([*tiny_fit, *words, f"--trainer.default_root_dir={run}"]) == 0
    assert "data.show_A: grids, pages and metrics take the bands 4, 3, 2 as RGB" in capsys.readouterr().out
    grid = np.asarray(Image.open(sorted((run / "grids").iterdir())[-1]).convert("RGB"))
    first = ValueRange(0, 1).to_unit(five_bands(10))[[3, 2, 1], 0, 0]  # the corner of real_A of the first test image
    assert np.abs(grid[0, 0] - 127.5 * (first.numpy() + 1)).max() <= 1
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert cyclestyle("test", "--ckpt_path", run)[0] == 0
    assert json.loads((run / "test" / "report.json").read_text())["figures"]
    assert cyclestyle("export", "--ckpt_path", checkpoint, "--format", "safetensors")[0] == 0
    for path in (checkpoint, checkpoint.with_suffix(".safetensors")):
        given = ["--ckpt_path", path, "--overwrite", "--output", tmp_path / "out"]
        assert cyclestyle("predict", *given, "--input", data / "testA", "--format", "png")[0] == 0
        assert Image.open(tmp_path / "out" / "0.png").mode == "RGB"
        assert (
            cyclestyle("predict", *given, "--input", data / "testB", "--direction", "BtoA", "--format", "npy")[0] == 0
        )
        bands = np.load(tmp_path / "out" / "0.npy")
        assert (bands.shape, bands.dtype) == ((SIZE, SIZE, 5), np.float32)
        assert 0 <= bands.min() < bands.max() <= 1
    status, _, err = cyclestyle("predict", *given, "--input", data / "testB")
    assert status == 1
    assert "0.png: it has 3 bands of uint8, but 5 are expected" in err
