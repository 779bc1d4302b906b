"""Projected discriminators in the GAN tasks: alone, beside a PatchGAN, and through the command line."""

import sys

import pytest
import pytorch_lightning as pl
import torch
from conftest import Taps
from torch.utils.data import DataLoader

from cyclestyle.functional import discriminator_loss, generator_loss
from cyclestyle.functional.augmentation import diff_augment
from cyclestyle.networks import build_discriminators, initialise, projected
from cyclestyle.tasks import CUT, DCLGAN, ContentGAN, CycleGAN
from cyclestyle.tasks.adversary import Adversary
from cyclestyle.tasks.pseudo_reals import PseudoReals
from cyclestyle.weights.checkpoints import read_checkpoint

TINY = {"generator": "resnet6", "depth": 1, "ngf": 2, "ndf": 2, "n_layers": 1, "projected_size": 128}
CONTRAST = {"nce_patches": 16, "nce_width": 8, "nce_features": ["pixels"]}
TASKS = {CycleGAN: TINY, CUT: TINY | CONTRAST, DCLGAN: TINY | CONTRAST}
BOTH = ["projected", "n_layers"]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Heads of a few channels, and features that need no file."""
    monkeypatch.setattr(projected, "WIDTHS", (4, 4, 4, 4))
    monkeypatch.setattr("cyclestyle.tasks.adversary.load_efficientnet", lambda weights: Taps())


def images(seed=0):
    return [torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(n + seed)) * 2 - 1 for n in range(2)]


def judges(names):
    torch.manual_seed(0)
    network = build_discriminators(names, ndf=4, n_layers=1, projected_size=128)
    initialise(network, "normal", 0.3)
    network[0].features = (Taps(),)
    return network.eval()  # otherwise each call moves the estimates of the singular values


def test_the_losses_are_added_each_with_its_own_mode_and_augmentation():
    network, (real, fake) = judges(BOTH), images()
    adversary = Adversary("lsgan", diff_augment=["color"])
    torch.manual_seed(7)
    loss_D, loss_G = adversary.discriminator_loss(network, real, fake), adversary.generator_loss(network, fake)
    torch.manual_seed(7)
    whole = ["color", "translation", "cutout"]
    shown = [diff_augment(one, whole, cutout=0.2) for one in (real, fake)]
    plain = [diff_augment(one, ["color"]) for one in (real, fake)]
    expected = discriminator_loss(network[0](shown[0]), network[0](shown[1]), "hinge")
    expected = expected + discriminator_loss(network[1](plain[0]), network[1](plain[1]), "lsgan")
    assert torch.allclose(loss_D, expected)
    expected = generator_loss(network[0](diff_augment(fake, whole, cutout=0.2)), "hinge")
    assert torch.allclose(loss_G, expected + generator_loss(network[1](diff_augment(fake, ["color"])), "lsgan"))
    shares = [(network[0](real) > 0).float().mean(1), (network[1](real) > 0.5).float().mean((1, 2, 3))]
    assert torch.allclose(adversary.judged_real(network, real), (shares[0] + shares[1]) / 2)


def test_cutout_hides_a_fifth_of_the_side():
    hidden = diff_augment(torch.ones(200, 1, 20, 20), ["cutout"], cutout=0.2) == 0
    assert hidden.flatten(1).sum(1).max() == 4 * 4


def test_other_options_know_all_discriminators_of_a_domain():
    network, (real, fake) = judges(BOTH), images()
    pseudo = PseudoReals(["D_B"], target=-0.99, images=8)
    adversary = Adversary("lsgan", pseudo_reals=pseudo, r1_gamma=2.0, lambda_GP=1.0)
    losses = [adversary.discriminator_loss(network, real, fake, "D_B") for _ in range(4)]
    losses[0].backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert pseudo.probability["D_B"] > 0
    assert Adversary("wgangp").judged_real(network, real) is None


@pytest.mark.parametrize("discriminator", ["projected", BOTH], ids=["alone", "beside"])
@pytest.mark.parametrize(("task", "settings"), TASKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_heads_are_trained_at_their_own_rate_and_projections_stay(task, settings, discriminator):
    torch.manual_seed(0)
    built = task(**settings, discriminator=discriminator, discriminator_lr_factor=0.5, spectral_norm=True, lr=1e-3)
    before = {key: value.clone() for key, value in built.state_dict().items()}
    data = [dict(zip("AB", images(n), strict=True)) for n in range(2)]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=1, enable_model_summary=False, **quiet)
    trainer.fit(built, DataLoader(data, batch_size=None, shuffle=False))
    groups = {group["name"]: group for group in trainer.optimizers[0].param_groups}
    assert {name: group["lr"] for name, group in groups.items()} == {"generators": 1e-3, "discriminators": 5e-4}
    heads = [name for name, _ in built.named_parameters() if name.startswith("D_")]
    assert len(groups["discriminators"]["params"]) == len(heads)
    for key, value in built.state_dict().items():
        if "_mixing." in key:
            assert torch.equal(value, before[key])
        elif key in heads and not key.endswith("bias"):
            assert not torch.equal(value, before[key]), key
    assert not any("features" in key or "mixture" in key for key in before)
    assert sum("_mixing." in key for key in before) == 16 * len(built.discriminators)


def test_without_the_option_a_discriminator_is_what_it_was():
    built = CycleGAN(**TINY, discriminator="n_layers")
    assert built.D_A.model[0].weight.shape == (2, 3, 4, 4)
    assert built.lr_factors == {"discriminators": 1.0}


def test_a_resumed_run_has_the_same_projection_and_predict_needs_no_timm(
    cyclestyle, tiny_fit, samples, tmp_path, monkeypatch
):
    words = [word.replace("cyclegan.yaml", "cut.yaml") for word in tiny_fit if "pool_size" not in word]
    words += ["--ckpt_path=last", "--model.discriminator=[projected, n_layers]", "--model.projected_size=128"]
    words += ["--model.discriminator_lr_factor=0.5", "--model.nce_patches=16", "--model.nce_width=8"]
    for folder, more in (("whole", []), ("parts", ["--trainer.max_steps=3"]), ("parts", [])):
        assert cyclestyle(*words, f"--trainer.default_root_dir={tmp_path / folder}", *more)[0] == 0
    files = [tmp_path / folder / "checkpoints" / "last.ckpt" for folder in ("whole", "parts")]
    whole, parts = (read_checkpoint(file)["state_dict"] for file in files)
    assert any(key.startswith("D_B.0.channel_mixing.3.weight") for key in whole)
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("cyclestyle.tasks.adversary.load_efficientnet", None)
    status, *_ = cyclestyle(
        "predict", "--ckpt_path", files[0], "--input", samples / "testA", "--output", tmp_path / "out"
    )
    assert status == 0
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_it_is_no_network_of_the_original_implementation(cyclestyle, tiny_fit, tmp_path):
    run = tmp_path / "run"
    words = ["--model.discriminator=projected", "--model.projected_size=128", f"--trainer.default_root_dir={run}"]
    assert cyclestyle(*tiny_fit, *words)[0] == 0
    status, _, error = cyclestyle("export", "--ckpt_path", run, "--format", "official", "--output", tmp_path / "files")
    assert status != 0
    assert "has projected or several discriminators, which the original implementations lack" in error
    assert not (tmp_path / "files").exists()


def test_frozen_features_keep_their_precision():
    """Images in bfloat16 once rounded the frozen networks, while a backward pass still needed them."""
    task = ContentGAN(**TINY, discriminator="projected", perceptual_features="random", perceptual_layers=["relu1_2"])
    task.setup("fit")
    frozen = [network.state_dict() for network in (*task.D_B.features, *task.perceptual)]
    before = [{name: value.clone() for name, value in one.items()} for one in frozen]
    batch = dict(zip("AB", [torch.rand(1, 3, 128, 128) * 2 - 1 for _ in range(2)], strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        losses = task.losses(batch)
    weight = task.G_AB.model[1].weight
    assert torch.autograd.grad(losses["G_AB"] + losses["content"], weight)[0].isfinite().all()
    for one, other in zip(
        before, [network.state_dict() for network in (*task.D_B.features, *task.perceptual)], strict=True
    ):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
