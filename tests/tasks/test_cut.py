"""CUT and FastCUT: the numbers of the original implementation, and what it does not do."""

import copy
import json

import pytest
import pytorch_lightning as pl
import torch
from conftest import HERE, SHARED
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from cyclestyle.errors import CheckpointError, DataError
from cyclestyle.functional.contrastive import l2_normalise, patch_nce, take_patches
from cyclestyle.networks import PatchMLP
from cyclestyle.networks.resampling import BlurDown, BlurUp
from cyclestyle.tasks import CUT

NETWORKS = {"G_AB": "G", "D_B": "D", "F_AB": "F"}
SETS = {name: SHARED / "reference" / name for name in ("cut_cut", "cut_fastcut", "cut_cut_batch2")}
FEATURES = {0: "pixels", 4: "down1", 8: "down2", 12: "block0"}
TINY = {"generator": "resnet6", "depth": 2, "ngf": 2, "ndf": 2, "discriminator": "n_layers", "n_layers": 1}
TINY |= {"nce_patches": 16, "nce_width": 8}


def quiet_trainer(**settings):
    return pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **settings,
    )


def batches(count, *, images=1, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [{d: torch.rand(images, 3, size, size, generator=generator) * 2 - 1 for d in "AB"} for _ in range(count)]


def loader(data):
    return DataLoader(data, batch_size=None, shuffle=False)


class Record(pl.Callback):
    """Keeps the logged losses of every step, and the gradients that each optimiser step of the first batch sees."""

    def __init__(self):
        self.losses, self.gradients = [], {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if not self.losses:
            self.gradients |= {n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append({name: value.item() for name, value in trainer.callback_metrics.items()})


@pytest.fixture(params=SETS)
def folder(request):
    if not SETS[request.param].is_dir():
        pytest.skip(f"the reference figures are not at {SETS[request.param]}")
    return SETS[request.param]


@pytest.fixture
def settings(folder):
    return json.loads((folder / "losses.json").read_text())


def load_task(folder, settings):
    return CUT.load_official(
        folder,
        nce_features=[FEATURES[layer] for layer in settings["nce_layers"]],
        nce_patches=settings["num_patches"],
        lambda_NCE=settings["lambda_NCE"],
        nce_identity=settings["nce_idt"],
        flip_equivariance=settings["flip_equivariance"],
    )


def steps(folder, settings):
    inputs = load_file(folder / "inputs.safetensors")
    kinds = ("NCE", "NCE_Y") if settings["nce_idt"] else ("NCE",)
    return [
        {domain: inputs[f"step{t}.real_{domain}"] for domain in "AB"}
        | {
            "patch_ids": {
                kind: [inputs[f"step{t}.patch_ids.{kind}.{i}"] for i in range(len(settings["nce_layers"]))]
                for kind in kinds
            },
            "flip": settings["flips"][t],
        }
        for t in range(len(settings["losses"]))
    ]


def expected_losses(theirs, identity):
    """The original's losses under the names and with the weights that they have here."""
    half = 0.5 if identity else 1.0
    named = {"G_AB": theirs["G_GAN"], "D_B": theirs["D"], "NCE": half * theirs["NCE"]}
    named |= {"NCE_idt": half * theirs["NCE_Y"]} if identity else {}
    return named | {"loss_G": theirs["G"], "loss_D": theirs["D"]}


def test_losses_gradients_and_final_weights(folder, settings):
    """In float64, through the trainer. The biases in front of a norm have no gradient but rounding."""
    expected = load_file(folder / "expected.safetensors")
    task, record = load_task(folder, settings), Record()
    quiet_trainer(precision="64-true", max_epochs=1, callbacks=[record]).fit(task, loader(steps(folder, settings)))
    for losses, theirs in zip(record.losses, settings["losses"], strict=True):
        for name, value in expected_losses(theirs, settings["nce_idt"]).items():
            assert losses[f"train/{name}"] == pytest.approx(value, rel=1e-9), name
    for ours, theirs in NETWORKS.items():
        for name, weight in task.get_submodule(ours).named_parameters():
            norm = expected[f"step0.grad_norm.{theirs}.{name}"].item()
            assert record.gradients[f"{ours}.{name}"].norm().item() == pytest.approx(norm, rel=1e-8, abs=1e-10), name
            final = expected[f"final.{theirs}.{name}"]
            bound = 1e-6 if name.endswith("bias") and norm < 1e-10 else 1e-9
            assert (weight.detach() - final).abs().max() < bound, name


# What the original computes, part by part, in the figures that are carried here


@pytest.fixture(scope="module")
def units():
    return load_file(HERE / "reference" / "cut" / "units.safetensors")


def test_the_normalisation_of_the_original(units):
    assert torch.allclose(l2_normalise(units["normalize.input"]), units["normalize.output"], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("name", "negatives"), [("own", "image"), ("all", "batch")])
def test_the_loss_of_the_original(units, name, negatives):
    queries = units["nce.q"].view(2, 12, 16).requires_grad_()
    losses = patch_nce(queries, units["nce.k"].view(2, 12, 16), negatives=negatives)
    assert torch.allclose(losses.flatten(), units[f"nce.{name}.rows"], rtol=1e-12)
    (gradient,) = torch.autograd.grad(losses.mean(), queries)
    assert torch.allclose(gradient.flatten(0, 1), units[f"nce.{name}.grad_q"], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["even", "odd"])
def test_the_resampling_of_the_original(units, name):
    images = units[f"blur.{name}.input"]
    down, up = BlurDown(images.shape[1]).double(), BlurUp(images.shape[1]).double()
    assert torch.allclose(down(images), units[f"blur.{name}.down"], rtol=1e-12, atol=1e-14)
    assert torch.allclose(up(images), units[f"blur.{name}.up"], rtol=1e-12, atol=1e-14)


def test_the_embeddings_of_the_original(units):
    heads = PatchMLP([5, 3], width=8).double()
    prefix = "sample.weights."
    heads.load_state_dict({k.removeprefix(prefix): v for k, v in units.items() if k.startswith(prefix)})
    patches = [take_patches(units[f"sample.{i}.feature"], units[f"sample.{i}.ids"]) for i in range(2)]
    for i, embedded in enumerate(heads(patches)):
        assert torch.allclose(l2_normalise(embedded).flatten(0, 1), units[f"sample.{i}.pooled"], rtol=1e-12)


def test_the_filters_are_those_that_are_stored():
    """Interpolation is the transposed convolution with the stored filter, edges repeated."""
    images = torch.randn(2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    up = BlurUp(3).double()
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    expected = torch.nn.functional.conv_transpose2d(padded, up.filt, stride=2, padding=3, groups=3)
    assert torch.allclose(up(images), expected, rtol=1e-12, atol=1e-14)
