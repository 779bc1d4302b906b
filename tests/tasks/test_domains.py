"""Losses of masks and pairs, the same for every GAN task."""

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image

from cyclestyle.cli import main
from cyclestyle.tasks import CUT, DCLGAN, ContentGAN, CycleGAN

SMALL = {name: value for name, value in TINY.items() if name != "pool_size"}
NCE = {"nce_patches": 8, "nce_width": 8}
TASKS = {
    "cyclegan": lambda **options: CycleGAN(**{**TINY, **options}),
    "cut": lambda **options: CUT(**{**SMALL, **NCE, **options}),
    "fastcut": lambda **options: CUT(**{**SMALL, **NCE, "flip_equivariance": True, **options}),
    "dclgan": lambda **options: DCLGAN(**{**SMALL, **NCE, **options}),
    "content": lambda **options: ContentGAN(**{**SMALL, "lambda_style": 0.0, **options}),
}


def batch(seed=0):
    torch.manual_seed(seed)
    images = {name: torch.rand(1, 3, 32, 32) * 2 - 1 for name in ("A", "B", "pair_A", "pair_B")}
    masks = {name: torch.zeros(1, 1, 32, 32) for name in ("mask_A", "mask_B")}
    masks["mask_A"][..., :10], masks["mask_B"][..., 20:, :] = 1, 1
    return {**images, **masks, "flip": True}


def task_of(name, monkeypatch, **options):
    torch.manual_seed(0)
    task = TASKS[name](**options)
    monkeypatch.setattr(ContentGAN, "features", lambda self, images: {"pixels": images})  # without a VGG
    monkeypatch.setattr(ContentGAN, "summed_distances", lambda self, one, other: 0 * one["pixels"].sum())
    return task


@pytest.mark.parametrize("name", TASKS)
def test_what_lies_outside_and_what_is_known_is_compared(name, monkeypatch):
    task = task_of(name, monkeypatch, lambda_outside=10.0, lambda_pairs=2.0)
    given = batch()
    losses = task.losses(given)
    for direction in task.directions:
        source, target = direction[0], direction[-1]
        generator = task.generator(direction)
        image = given[source].flip(-1) if name == "fastcut" else given[source]
        fake = generator(image).flip(-1) if name == "fastcut" else generator(image)
        outside = 10 * ((fake - given[source]) * (1 - given[f"mask_{source}"])).abs().mean()
        known = 2 * (generator(given[f"pair_{source}"]) - given[f"pair_{target}"]).abs().mean()
        assert torch.allclose(losses[f"outside_{source}{target}"], outside, rtol=1e-4)
        assert torch.allclose(losses[f"pairs_{source}{target}"], known, rtol=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_off_they_change_no_loss(name, monkeypatch):
    plain, given = batch(), batch()
    plain = {key: plain[key] for key in ("A", "B", "flip")}
    results = []
    for one in (plain, given):
        task = task_of(name, monkeypatch)
        torch.manual_seed(1)
        results.append(task.losses(one))
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


@pytest.mark.parametrize("name", TASKS)
def test_discriminators_see_nothing_outside(name, monkeypatch):
    """What they are shown is 0 there, and the shown part of a mirrored fake is mirrored too."""
    task = task_of(name, monkeypatch, judge_inside=True, init_gain=1.0)
    given, seen = batch(), {"real": [], "fake": []}

    def discriminator_loss(network, real, fake, name="D"):
        seen["real"].append(real)
        seen["fake"].append(fake)
        return real.sum() * 0

    monkeypatch.setattr(task.adversary, "discriminator_loss", discriminator_loss)
    monkeypatch.setattr(
        task.adversary, "generator_loss", lambda network, fake: seen["fake"].append(fake) or fake.sum() * 0
    )
    task.losses(given)
    masks = {domain: given[f"mask_{domain}"].expand(-1, 3, -1, -1) for domain in "AB"}
    masks["A mirrored"] = masks["A"].flip(-1)
    for kind, allowed in (("real", ("A", "B")), ("fake", ("A mirrored",) if name == "fastcut" else ("A", "B"))):
        assert seen[kind]
        for images in seen[kind]:
            assert any(
                not images[masks[mask] == 0].any() and (images[masks[mask] > 0] != 0).float().mean() > 0.5
                for mask in allowed
            )


@pytest.fixture
def data(tmp_path):
    """Four images a split, with masks for both domains."""
    rng = np.random.default_rng(0)
    for split in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / split).mkdir()
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / split / f"{number}.png")
    (tmp_path / "masks").mkdir()
    for number in range(4):
        Image.new("L", (32, 32), 255 * (number % 2)).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path


def test_a_training_logs_them_and_measures_held_out_pairs(tiny_fit, data, cyclestyle):
    run = data / "run"
    words = ["--data.masks_A", data / "masks", "--data.masks_B", data / "masks", "--data.pairs=names"]
    words += ["--model.lambda_outside=10", "--model.judge_inside=true", "--model.lambda_pairs=5"]
    status, out, err = cyclestyle(*tiny_fit, f"--data.root={data}", *words, f"--trainer.default_root_dir={run}")
    assert status == 0, err
    assert "data.pairs: 4 to train with, 4 to test with" in out
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/outside_AB", "train/outside_BA", "train/pairs_AB", "train/pairs_BA"} <= set(header)
    assert {"val/psnr_AtoB", "val/ssim_BtoA"} <= set(header)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--model.lambda_outside=10"], "model.lambda_outside needs masks; name their folder with data.masks_A"),
        (
            ["--model.judge_inside=true", "--data.masks_A={}/masks"],
            "model.judge_inside needs the masks of both domains",
        ),
        (["--model.lambda_pairs=1"], "model.lambda_pairs needs pairs of training images; name them with data.pairs"),
        (["--model.lambda_pairs=-1"], "lambda_pairs must not be below 0, got -1"),
    ],
)
def test_options_without_their_data_get_one_line(tiny_fit, data, capsys, words, text):
    given = [word.format(data) for word in words]
    assert main([*tiny_fit, f"--data.root={data}", *given, f"--trainer.default_root_dir={data / 'run'}"]) == 1
    error = capsys.readouterr().err
    assert text in error
    assert "Traceback" not in error
