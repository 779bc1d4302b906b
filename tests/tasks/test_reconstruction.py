"""Cycle and identity losses in pixels and in features."""

import pytest
import torch

from cyclestyle.errors import DataError
from cyclestyle.functional.perceptual import perceptual_distance
from cyclestyle.tasks import DCLGAN, CycleGAN

TINY = {"generator": "resnet6", "depth": 1, "ngf": 2, "ndf": 2, "discriminator": "n_layers", "n_layers": 1}
FEATURES = {"perceptual_layers": ["relu1_2", "relu2_1"], "perceptual_features": "random"}
WEIGHTS = {"pixel_weight": 0.1, "perceptual_weight": 3.0}


def images(seed, size=16):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def new(task=CycleGAN, **changes):
    torch.manual_seed(0)
    built = task(**{**TINY, **WEIGHTS, **FEATURES, **changes})
    built.setup("fit")
    return built


def test_the_distance_is_that_of_the_unit_vectors_of_channels():
    first, second = torch.rand(2, 2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=1)
    assert torch.allclose(perceptual_distance(first, second), (2 - 2 * cosine).mean())
    assert torch.allclose(perceptual_distance(7 * first, first), torch.zeros((), dtype=torch.float64), atol=1e-12)
    assert torch.autograd.gradcheck(perceptual_distance, (first.requires_grad_(), second))


def test_where_no_channel_is_active_the_gradient_is_finite():
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    perceptual_distance(features, torch.rand(1, 4, 2, 2)).backward()
    assert features.grad.isfinite().all()
    assert perceptual_distance(features, features.detach()) == 0


def test_cycle_and_identity_have_both_terms():
    task, (A, B) = new(lambda_A=2.0, lambda_B=3.0), (images(0), images(1))

    def expected(result, wanted):
        features = task.perceptual[0]
        seen, target = features(result), features(wanted)
        distances = [perceptual_distance(seen[layer], target[layer]) for layer in FEATURES["perceptual_layers"]]
        return 0.1 * (result - wanted).abs().mean() + 3.0 * sum(distances)

    losses = task.losses({"A": A, "B": B})
    assert torch.allclose(losses["cycle_A"], 2 * expected(task.G_BA(task.G_AB(A)), A))
    assert torch.allclose(losses["cycle_B"], 3 * expected(task.G_AB(task.G_BA(B)), B))
    assert torch.allclose(losses["idt_A"], 2 * 0.5 * expected(task.G_BA(A), A))
    assert torch.allclose(losses["idt_B"], 3 * 0.5 * expected(task.G_AB(B), B))
    contrast = new(DCLGAN, nce_patches=16, nce_width=8, nce_features=["pixels"])
    assert torch.allclose(contrast.losses({"A": A, "B": B})["idt_A"], expected(contrast.G_BA(A), A) / 2)


def test_the_vgg_is_frozen_and_neither_stored_nor_optimised():
    task, before = new(), new().perceptual[0].state_dict()
    assert task.state_dict().keys() == CycleGAN(**TINY).state_dict().keys()
    optimiser = task.configure_optimizers()["optimizer"]
    sum(task.losses({"A": images(0), "B": images(1)}).values()).backward()
    optimiser.step()
    assert all(torch.equal(value, before[key]) for key, value in task.perceptual[0].state_dict().items())
    assert task.G_AB.model[1].weight.grad.abs().max() > 0


@pytest.mark.parametrize("stage", ["fit", "predict"])
def test_the_features_are_loaded_only_where_a_loss_needs_them(stage):
    task = CycleGAN(**TINY, perceptual_weight=1.0 if stage == "predict" else 0.0, perceptual_features="missing.pth")
    task.setup(stage)
    assert not task.perceptual


def test_mistakes_get_one_line(cyclestyle, tiny_fit, tmp_path):
    with pytest.raises(ValueError, match=r"perceptual_layers must name some of relu1_1.*got \['relu9_1'\]"):
        new(perceptual_layers=["relu9_1"])
    with pytest.raises(ValueError, match=r"perceptual_weight must not be below 0, got -1\.0"):
        new(perceptual_weight=-1.0)
    with pytest.raises(DataError, match=r"16×16 are too small for relu5_3, which needs 32 pixels"):
        new(perceptual_layers=None).losses({"A": images(0), "B": images(1)})
    words = [*tiny_fit, f"--trainer.default_root_dir={tmp_path}", "--model.perceptual_weight=1"]
    status, _, error = cyclestyle(*words, f"--model.perceptual_features={tmp_path / 'missing.pth'}")
    assert status != 0
    assert "missing.pth do not exist; give a file with vgg16 weights" in error.splitlines()[-1]


def test_a_run_with_features_resumes_exactly(cyclestyle, tiny_fit, tmp_path):
    words = [*tiny_fit, "--ckpt_path=last", "--model.perceptual_weight=3", "--model.pixel_weight=0.1"]
    words += ["--model.perceptual_layers=[relu1_2,relu2_1]", "--model.perceptual_features=random"]
    for folder, more in (("whole", []), ("parts", ["--trainer.max_steps=3"]), ("parts", [])):
        assert cyclestyle(*words, f"--trainer.default_root_dir={tmp_path / folder}", *more)[0] == 0
    whole, parts = (tmp_path / folder / "checkpoints" / "last.ckpt" for folder in ("whole", "parts"))
    weights = torch.load(parts)["state_dict"]
    assert all(torch.equal(value, weights[key]) for key, value in torch.load(whole)["state_dict"].items())
