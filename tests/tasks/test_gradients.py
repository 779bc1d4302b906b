"""Every way to run the step has the gradients of float64, within its own bound."""

import copy
from contextlib import nullcontext

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from cyclestyle.networks import normalisation
from cyclestyle.speed.choice import Tuning
from cyclestyle.speed.training import TrainingSpeed
from cyclestyle.tasks import CycleGAN

GENERATORS = {
    "resnet": {"generator": "resnet6", "depth": 2},
    "resize": {"generator": "resnet6", "depth": 2, "resample": "resize"},
    "blur": {"generator": "resnet6", "depth": 2, "resample": "blur"},
    "unet": {"generator": "unet128", "depth": 5},
}
WAYS = {
    "eager": ({}, Tuning()),
    "channels_last": ({}, Tuning(channels_last=True)),
    "checkpointed": ({"checkpoint_activations": True}, Tuning()),
    "checkpointed, channels_last": ({"checkpoint_activations": True}, Tuning(channels_last=True)),
    "compiled": ({}, Tuning(compile=True)),
    "compiled, channels_last": ({}, Tuning(compile=True, channels_last=True)),
}
FLOAT32 = 2e-2  # rounding is about 1e-5; where it carries a value across the kink of a ReLU or of L1, 1e-3, or 8e-3
SLOW = [pytest.param(way, marks=pytest.mark.slow) for way in WAYS if way.startswith("compiled")]
FAST = [way for way in WAYS if not way.startswith("compiled")]


def new_task(generator, way="eager"):
    torch.manual_seed(0)
    settings = {"ngf": 8, "ndf": 8, "discriminator": "n_layers", "n_layers": 2, "init_gain": 0.1}
    options, tuning = WAYS[way]
    task = CycleGAN(**settings, **GENERATORS[generator], **options)
    task.speed = TrainingSpeed(tuning)
    return task


def make_images(count, *, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {domain: torch.rand(count, 3, 32, 32, generator=generator) * 2 - 1 for domain in "AB"}


def gradients(task, batch, context=None):
    """The gradients of one step."""
    task = copy.deepcopy(task)
    task.log = lambda *args, **kwargs: None
    task.setup("fit")
    task.compile_for_training(steps=1)
    with context or nullcontext():
        loss = task.training_step(batch, 0)["loss"]
    loss.backward()
    return {name: parameter.grad for name, parameter in task.named_parameters()}


def exact(generator, batch):
    doubled = {domain: images.double() for domain, images in batch.items()}
    return gradients(new_task(generator).double(), doubled)


def error(ours, theirs):
    """The greatest relative error of a network's gradient."""

    def distance(prefix):
        names = [name for name in theirs if name.startswith(prefix)]
        difference = torch.stack([(ours[name].double() - theirs[name]).norm() for name in names]).norm()
        return (difference / torch.stack([theirs[name].norm() for name in names]).norm()).item()

    return max(distance(prefix) for prefix in ("G_AB", "G_BA", "D_A", "D_B"))


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("way", [*FAST, *SLOW])
def test_float32(generator, batch_size, way):
    batch = make_images(batch_size)
    assert error(gradients(new_task(generator, way), batch), exact(generator, batch)) < FLOAT32


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_accumulated(generator, batch_size):
    """Two batches before one step have the mean of their gradients, which is that of both together."""
    whole = make_images(2 * batch_size)
    halves = [
        {domain: images[part] for domain, images in whole.items()}
        for part in (slice(batch_size), slice(batch_size, None))
    ]
    caught = {}

    class Catch(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            caught.update({name: parameter.grad.clone() for name, parameter in pl_module.named_parameters()})

    trainer = pl.Trainer(
        accumulate_grad_batches=2, max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Catch()],
    )  # fmt: skip
    trainer.fit(new_task(generator), DataLoader(halves, batch_size=None))
    assert error(caught, exact(generator, whole)) < FLOAT32


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.6), (torch.float16, 0.3)])
@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("way", FAST)
def test_half_precision(generator, batch_size, way, dtype, bound):
    batch = make_images(batch_size)
    ours = gradients(new_task(generator, way), batch, torch.autocast("cpu", dtype=dtype))
    assert error(ours, exact(generator, batch)) < bound


@pytest.mark.slow
def test_what_is_fast_with_bfloat16():
    batch = make_images(1)
    ours = gradients(new_task("resnet", "compiled, channels_last"), batch, torch.autocast("cpu", dtype=torch.bfloat16))
    assert error(ours, exact("resnet", batch)) < 0.6


@pytest.mark.parametrize("way", ["eager", "channels_last"])
def test_the_wrong_gradient_of_instance_norm_would_be_caught(monkeypatch, way):
    """PyTorch's own instance norm on the CPU, with a batch of one in channels_last, is what the bound is there for."""
    monkeypatch.setattr(normalisation.InstanceNorm2d, "forward", torch.nn.InstanceNorm2d.forward)
    batch = make_images(1)
    wrong = error(gradients(new_task("resnet", way), batch), exact("resnet", batch))
    assert wrong < FLOAT32 if way == "eager" else wrong > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize(
    "colour", [(-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), (0.2, -0.7, 0.9)], ids=["black", "white", "one"]
)
def test_flat_images_have_finite_losses_and_gradients(colour, generator, dtype):
    """Instance norm divides by their deviation, which is nothing."""
    flat = torch.tensor(colour)[None, :, None, None].expand(1, 3, 32, 32)
    context = nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype=dtype)
    for batch in ({"A": flat, "B": flat}, {"A": flat, "B": make_images(1)["B"]}):
        found = gradients(new_task(generator), batch, context)
        assert all(torch.isfinite(gradient).all() for gradient in found.values())
