"""Training in `16-mixed`, where losses are multiplied by a scale that changes; the CPU has such a scaler too."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch.utils.data import DataLoader

from cyclestyle.tasks import CUT, CycleGAN

TINY = {"generator": "resnet6", "depth": 1, "ngf": 2, "ndf": 2, "discriminator": "pixel", "init_gain": 1.0}


class Gradients(pl.Callback):
    """Keeps the gradients that the first step of the generators sees."""

    def __init__(self):
        self.of_step = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = [one.grad for one in pl_module.G_AB.parameters() if one.grad is not None]
        self.of_step.append([one.clone() for one in gradients])


def fit(method=CycleGAN, *, fused=False, steps=1, scaler=None, resume=None, save=None, **settings):
    """Train on random images, and return the task, the parameter groups of Adam, and the gradients."""
    torch.manual_seed(0)
    task, kept = method(**TINY), Gradients()
    task.speed.fused = fused
    scaler = torch.amp.GradScaler("cpu", **(scaler or {"init_scale": 1024.0}))
    random = torch.Generator().manual_seed(0)
    images = [{domain: torch.rand(3, 16, 16, generator=random) * 2 - 1 for domain in "AB"} for _ in range(4)]
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
    trainer = pl.Trainer(max_steps=steps, accelerator="cpu", callbacks=[kept], plugins=plugins, **quiet, **settings)
    trainer.fit(task, DataLoader(images, batch_size=1), ckpt_path=resume, weights_only=resume is not None or None)
    if save:
        trainer.save_checkpoint(save)
    return task, trainer.optimizers[0].param_groups, kept.of_step


def test_clipped_gradients_are_those_without_the_scale():
    """Fused Adam removes the scale by itself, after the clipping, which would see gradients of 1,024 times the size."""
    plain, _, _ = fit(gradient_clip_val=1e-3, steps=2)
    fused, _, _ = fit(gradient_clip_val=1e-3, steps=2, fused=True)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], weight, msg=name)


@pytest.mark.parametrize("first", [False, True])
def test_a_resumed_run_fuses_adam_as_it_is_set_now(tmp_path, first):
    fit(fused=first, save=tmp_path / "a.ckpt")
    _, groups, _ = fit(fused=not first, steps=2, resume=tmp_path / "a.ckpt")
    assert [bool(group["fused"]) for group in groups] == [not first, not first]


def test_gradients_that_accumulate_have_one_scale():
    """The step of the discriminator inside the last batch may change the scale of this batch."""
    found = []
    for interval in (1, 1000):  # steps after which the scale is doubled
        scaler = {"init_scale": 64.0, "growth_interval": interval}
        gradients = fit(CUT, scaler=scaler, accumulate_grad_batches=4)[2]
        found.append(torch.cat([one.flatten() for one in next(filter(None, gradients))]))
    changed, constant = found
    assert (changed - constant).norm() < 0.1 * constant.norm()  # 0.4 where three of the four batches count half
