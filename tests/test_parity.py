"""The numbers of the original implementation, from figures carried here and, where they lie, from larger ones."""

import json

import pytest
import pytorch_lightning as pl
import torch
from conftest import HERE, SHARED
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from cyclestyle.tasks import CycleGAN
from cyclestyle.weights.official import LOSSES, NETWORKS

SETS = {
    "carried": HERE / "reference",
    "lsgan": SHARED / "reference" / "cyclegan_lsgan",
    "vanilla": SHARED / "reference" / "cyclegan_vanilla",
}
IMAGES = ("fake_A", "fake_B", "rec_A", "rec_B", "idt_A", "idt_B")


@pytest.fixture(params=SETS)
def folder(request):
    if not SETS[request.param].is_dir():
        pytest.skip(f"the reference figures are not at {SETS[request.param]}")
    return SETS[request.param]


@pytest.fixture
def settings(folder):
    return json.loads((folder / "losses.json").read_text())


@pytest.fixture
def data(folder, settings):
    inputs = load_file(folder / "inputs.safetensors")
    return [{domain: inputs[f"step{i}.real_{domain}"] for domain in "AB"} for i in range(len(settings["losses"]))]


class Record(pl.Callback):
    """Keeps the logged losses of every step, and the gradients of the first."""

    def __init__(self):
        self.losses, self.gradients = [], {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if not self.gradients:
            self.gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def trained(folder, settings, data):
    record = Record()
    task = CycleGAN.load_official(folder, gan_mode=settings["gan_mode"])
    trainer = pl.Trainer(
        precision="64-true", max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, callbacks=[record],
    )  # fmt: skip
    trainer.fit(task, DataLoader(data, batch_size=None, shuffle=False))
    return task, record


def strided(ours, expected, step):
    """What of `ours` the carried figures keep."""
    return ours if ours.shape == expected.shape else ours.flatten()[::step]


def test_images_of_the_first_step(folder, settings, data):
    """In float32; `rec` goes through two networks, and the first one's rounding through the second."""
    expected = load_file(folder / "expected.safetensors")
    task = CycleGAN.load_official(folder).eval()
    shown = task.sample(data[0])
    with torch.no_grad():
        shown |= {"idt_A": task.G_AB(data[0]["B"]), "idt_B": task.G_BA(data[0]["A"])}  # the original's names
    for name in IMAGES:
        theirs = expected[f"step0.{name}"]
        ours = shown[name] if shown[name].shape == theirs.shape else shown[name][..., ::4, ::4]
        assert (ours - theirs).abs().max() < (2e-5 if name.startswith("rec") else 1e-5), name


def test_reconstructions_of_the_same_fakes(folder, settings, data):
    expected = load_file(folder / "expected.safetensors")
    if expected["step0.fake_A"].shape != data[0]["A"].shape:
        pytest.skip("the carried figures hold every fourth pixel")
    task = CycleGAN.load_official(folder).eval()
    with torch.no_grad():
        assert (task.G_BA(expected["step0.fake_B"]) - expected["step0.rec_A"]).abs().max() < 1e-5
        assert (task.G_AB(expected["step0.fake_A"]) - expected["step0.rec_B"]).abs().max() < 1e-5


def test_scores_of_the_discriminators(folder, settings, data):
    """The losses of the first step, from the official weights in float32."""
    task = CycleGAN.load_official(folder, gan_mode=settings["gan_mode"])
    task.log = lambda *args, **kwargs: None
    losses = task.training_step(data[0], 0)["losses"]
    for name, value in settings["losses"][0].items():
        assert losses[LOSSES[name]].item() == pytest.approx(value, rel=1e-5)


def test_losses_gradients_and_final_weights(folder, settings, data):
    expected = load_file(folder / "expected.safetensors")
    task, record = trained(folder, settings, data)
    for losses, theirs in zip(record.losses, settings["losses"], strict=True):
        for name, value in theirs.items():
            assert losses[f"train/{LOSSES[name]}"] == pytest.approx(value, rel=1e-9)
    for ours, theirs in NETWORKS.items():
        for name, weight in task.get_submodule(ours).state_dict().items():
            norm = expected[f"step0.grad_norm.{theirs}.{name}"].item()
            assert record.gradients[f"{ours}.{name}"].norm().item() == pytest.approx(norm, rel=1e-8, abs=1e-13)
            final = expected[f"final.{theirs}.{name}"]
            assert torch.allclose(strided(weight, final, 17).to(final.dtype), final, rtol=1e-6, atol=1e-7), name
