"""Every alarm is provoked for real, in a run of its own; a healthy run raises none."""

import shutil

import pytest
import torch

from cyclestyle.metrics.health import diversity, duplicate_share, luminance_correlation, thumbnails
from cyclestyle.networks import ResNetGenerator
from cyclestyle.tasks import CycleGAN
from cyclestyle.tasks.adversary import Adversary


def checks(period, direction, size):
    """A wave of 0.5 in one of the directions of a checkerboard: `(size, size)`."""
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    phase = {"rows": row, "columns": column, "diagonal": row + column, "other diagonal": row - column}[direction]
    return 0.5 * torch.cos(2 * torch.pi * phase / period)


@pytest.fixture
def alarms(cyclestyle, tiny_fit, tmp_path):
    """Train for some steps and return the lines of `alarms.txt`."""

    def train(*words, steps=112):
        epochs = [f"--model.constant_epochs={steps // 7}", "--grid.every_n_steps=0", "--alarms.after_steps=1"]
        root = [f"--trainer.default_root_dir={tmp_path / 'run'}", "--checkpoint.every_n_epochs=0"]
        status, _, error = cyclestyle(
            *tiny_fit, *epochs, *root, f"--trainer.check_val_every_n_epoch={steps // 7}", *words
        )
        assert status == 0, error
        file = tmp_path / "run" / "alarms.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        assert [f"cyclestyle: alarm: {line}" for line in lines] == [
            line for line in error.splitlines() if line.startswith("cyclestyle: alarm: ")
        ]
        return lines

    return train


def patched_generator(monkeypatch, change):
    """Generators with a known failure in both directions, and gradients of 0."""
    idle = lambda self: sum(p.sum() for p in self.parameters()) * 0  # noqa: E731
    monkeypatch.setattr(ResNetGenerator, "forward", lambda self, images: change(images) + idle(self))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda images: images * 1.001, "the translation {} returns its input"),
        (lambda images: torch.zeros_like(images) + 0.2, "the translation {} ignores its input"),
        (lambda images: -images, "the translation {} swaps light and dark"),
    ],
    ids=["identity", "collapse", "inversion"],
)
def test_failing_generators_raise_an_alarm(monkeypatch, alarms, change, text):
    patched_generator(monkeypatch, change)
    lines = alarms(steps=7)
    for direction in ("AtoB", "BtoA"):
        assert sum(text.format(direction) in line for line in lines) == 1
    assert sum("the gradients of the generators vanish" in line for line in lines) == 1


def checkered(images):
    return images * 0.8 + 0.2 * checks(4, "diagonal", images.shape[-1])


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ([], "translate with --model.comb_filter true"),
        (["--model.comb_filter=true"], "anew with --model.resample blur"),
    ],
)
def test_a_checkerboard_raises_an_alarm_that_names_the_remedy(monkeypatch, alarms, words, remedy):
    patched_generator(monkeypatch, checkered)
    lines = alarms("--data.crop_size=64", "--data.load_size=64", *words, steps=7)
    found = [line for line in lines if "has a checkerboard" in line]
    assert [direction in line for direction, line in zip(("AtoB", "BtoA"), found, strict=True)] == [True, True]
    assert all(remedy in line for line in found)


def test_a_perfect_discriminator_raises_an_alarm(monkeypatch, alarms):
    original = Adversary.discriminator_loss
    monkeypatch.setattr(Adversary, "discriminator_loss", lambda *arguments: 1e-3 * original(*arguments))
    monkeypatch.setattr("cyclestyle.training.callbacks.alarms.WINDOW", 10)
    lines = alarms(steps=14)
    assert [
        f"the discriminator of domain {domain} separates real from fake perfectly" in "".join(lines) for domain in "AB"
    ] == [True] * 2


def test_the_negative_losses_of_a_critic_raise_no_alarm(monkeypatch, alarms):
    original = Adversary.discriminator_loss
    monkeypatch.setattr(Adversary, "discriminator_loss", lambda *arguments: original(*arguments) - 1)
    monkeypatch.setattr("cyclestyle.training.callbacks.alarms.WINDOW", 10)
    assert "separates real from fake perfectly" not in "".join(alarms(steps=14))


def test_exploding_gradients_raise_an_alarm(monkeypatch, alarms):
    original = CycleGAN.training_step

    def step(self, batch, batch_idx):
        outputs = original(self, batch, batch_idx)
        return {**outputs, "loss": outputs["loss"] * (1e7 if self.global_step >= 10 else 1)}

    monkeypatch.setattr(CycleGAN, "training_step", step)
    monkeypatch.setattr("cyclestyle.training.callbacks.alarms.WINDOW", 10)
    text = "".join(alarms(steps=14))
    assert "the gradients of the generators explode" in text
    assert "the gradients of the discriminators explode" in text


def test_duplicate_images_raise_an_alarm(alarms, samples, tmp_path):
    for number in range(8):
        source = sorted((samples / "trainA").iterdir())[number % 2]
        (tmp_path / "copies").mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / "copies" / f"{number}.png")
    lines = alarms(f"--data.train_A=[{tmp_path / 'copies'}]", steps=7)
    assert "75% of domain A's images are nearly copies" in "".join(lines)
    assert "domain B's images" not in "".join(lines)


def test_a_healthy_run_raises_no_alarm(alarms):
    """Wide enough to learn something in a few hundred steps."""
    assert not alarms("--model.ngf=8", "--model.ndf=8", "--model.lr=0.001", steps=105)


def test_alarms_can_be_disabled(monkeypatch, alarms):
    patched_generator(monkeypatch, lambda images: images)
    assert not alarms("--alarms.enabled=false", steps=7)


def test_figures_of_health():
    torch.manual_seed(0)
    thumbs = thumbnails(torch.rand(5, 3, 32, 48) * 2 - 1)
    pairs = [(thumbs[a] - thumbs[b]).abs().mean() for a in range(5) for b in range(5) if a != b]
    assert diversity(thumbs) == pytest.approx(torch.stack(pairs).mean().item(), rel=1e-4)
    assert diversity(thumbs[:1].expand(4, -1, -1, -1)) == pytest.approx(0, abs=1e-6)
    assert torch.allclose(luminance_correlation(thumbs, thumbs * 0.5 + 0.1), torch.ones(5))
    assert torch.allclose(luminance_correlation(thumbs, -thumbs), -torch.ones(5))
    assert luminance_correlation(thumbs, torch.zeros_like(thumbs)).eq(0).all()
    assert duplicate_share(torch.cat([thumbs, thumbs[:2] + 0.001])) == pytest.approx(2 / 7)
