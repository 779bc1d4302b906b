"""What the discriminators say of real images that they were trained on, and of others."""

import csv

import pytest
import torch

from cyclestyle.cli import main
from cyclestyle.data.transforms import Preparation
from cyclestyle.images import read_image, to_tensor
from cyclestyle.tasks import CUT, CycleGAN, load
from cyclestyle.tasks.adversary import AdversarialTask, Adversary
from cyclestyle.training import DiscriminatorAccuracy

TINY = {"generator": "resnet6", "depth": 2, "ngf": 2, "ndf": 2, "discriminator": "n_layers", "n_layers": 1}


def last_figures(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["val/cycle"]][-1]


@pytest.mark.parametrize(("mode", "threshold"), [("lsgan", 0.5), ("hinge", 0.0), ("vanilla", 0.0)])
def test_the_share_is_that_of_the_scores_above_the_threshold(mode, threshold):
    torch.manual_seed(0)
    task = CycleGAN(**TINY, gan_mode=mode, init_gain=0.5)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    scores = task.D_B(images)
    expected = torch.stack([(one > threshold).float().mean() for one in scores])
    assert 0 < expected.mean() < 1
    assert torch.allclose(task.judged_real("D_B", images), expected)


def test_wgangp_has_no_threshold():
    assert Adversary("wgangp").judged_real(torch.nn.Identity(), torch.ones(1)) is None
    assert CUT(**TINY, gan_mode="wgangp", nce_features=["pixels"]).judged_real("D_B", torch.ones(1, 3, 16, 16)) is None


def test_the_logged_shares_are_those_of_the_images(tiny_fit, samples, tmp_path):
    words = ["--model.init_gain=0.3", "--model.diff_augment=[color,cutout]", f"--trainer.default_root_dir={tmp_path}"]
    assert main([*tiny_fit, *words]) == 0
    task, row = load(tmp_path / "checkpoints" / "last.ckpt"), last_figures(tmp_path)
    prepare = Preparation(load_size=36, crop_size=32)
    for name, domain in (("D_A", "A"), ("D_B", "B")):
        for split, key in (("test", f"val/{name}_real"), ("train", f"val/{name}_real_train")):
            folder = samples / f"{split}{domain}"
            images = [to_tensor(prepare.for_evaluation(read_image(path))) for path in sorted(folder.iterdir())]
            scores = task.get_submodule(name)(torch.stack(images))
            assert float(row[key]) == pytest.approx((scores > 0.5).float().mean().item(), abs=1e-3)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions(tiny_fit, tmp_path, precision):
    words = [f"--trainer.precision={precision}", "--evaluation.extractor=none", "--grid.every_n_steps=0"]
    assert main([*tiny_fit, *words, f"--trainer.default_root_dir={tmp_path}"]) == 0
    assert 0 <= float(last_figures(tmp_path)["val/D_A_real_train"]) <= 1


def test_wgangp_logs_none(tiny_fit, tmp_path):
    assert main([*tiny_fit, "--model.gan_mode=wgangp", f"--trainer.default_root_dir={tmp_path}"]) == 0
    assert "val/D_B_real" not in last_figures(tmp_path)


def test_training_images_that_are_known_by_heart_raise_an_alarm(monkeypatch, tiny_fit, tmp_path):
    """The shares are made up: first those of the three test images, then those of the seven training images."""
    calls = iter([0.25] * 3 + [0.9] * 7)
    original = AdversarialTask.judged_real

    def judge(self, name, images):
        return original(self, name, images) if name == "D_A" else torch.full((len(images),), next(calls))

    monkeypatch.setattr(AdversarialTask, "judged_real", judge)
    words = ["--alarms.after_steps=1", "--trainer.num_sanity_val_steps=0", "--model.init_gain=1e-6"]
    assert main([*tiny_fit, *words, f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 0
    lines = [line for line in (tmp_path / "run" / "alarms.txt").read_text().splitlines() if "overfits" in line]
    assert len(lines) == 1
    assert "domain B overfits its training images: it takes 90% of them for real, but 25% of held" in lines[0]
    assert "--model.diff_augment" in lines[0]


def test_a_discriminator_trained_on_few_images_knows_them_better_than_others():
    """For real: a wide discriminator and four images, against fakes that are noise."""
    torch.manual_seed(0)
    task = CycleGAN(**{**TINY, "ndf": 16})
    trained, others = (torch.rand(4, 3, 24, 24) * 2 - 1 for _ in range(2))
    optimizer = torch.optim.Adam(task.D_B.parameters(), lr=2e-3)
    for _ in range(150):
        fake = torch.rand(4, 3, 24, 24) * 2 - 1
        loss = task.adversary.discriminator_loss(task.D_B, trained, fake)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shares = [task.judged_real("D_B", images).mean().item() for images in (trained, others)]
    assert shares[0] - shares[1] > 0.3


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="max_images must be at least 1, got 0"):
        DiscriminatorAccuracy(max_images=0)
