"""A training step gives a GPU its work without waiting for it, except where losses are logged or drawn."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
from waits import Waits

from cyclestyle.commands.fit import command
from cyclestyle.training import FiniteNumbers

METHODS = {
    "cyclegan": ["--config=configs/cyclegan.yaml", "--config=configs/overlays/small_set.yaml"],
    "dclgan": ["--config=configs/dclgan.yaml", "--model.nce_patches=16", "--model.nce_width=4"],
}
GAN = {"generator": "resnet6", "depth": 2, "ngf": 2, "ndf": 2, "discriminator": "n_layers", "n_layers": 1}


@pytest.fixture
def words(samples):
    """A run of six steps with all its callbacks."""
    return [
        *(f"--data.{key}={value}" for key, value in {"load_size": 36, "crop_size": 32, "workers": 0}.items()),
        *("--trainer.max_steps=6", "--trainer.log_every_n_steps=50", "--trainer.enable_model_summary=false"),
        *("--page.every_n_seconds=0", "--ema.decay=0.9"),
    ]


class Steps(pl.Callback):
    """Watches the third step to the fifth: the epoch has seven, and a line is drawn after the last one."""

    def __init__(self, waits):
        self.waits, self.steps = waits, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.waits.on = 2 <= trainer.global_step < 5
        if self.waits.on:
            self.steps.append(trainer.global_step)


@pytest.fixture
def waits_of(monkeypatch, cyclestyle, tmp_path, words):
    """Train with options, and return where the steps would have waited for a GPU."""
    on_batch_end = FiniteNumbers.on_train_batch_end

    def as_on_a_gpu(self, trainer, pl_module, *rest):
        on_batch_end(self, trainer, SimpleNamespace(device=SimpleNamespace(type="cuda")), *rest)

    def call(*options):
        waits = Waits()
        waits.on = False
        steps = Steps(waits)
        build = command.TrainingCLI.instantiate_trainer

        def with_steps(self, **settings):
            trainer = build(self, **settings)
            trainer.callbacks.insert(0, steps)
            return trainer

        monkeypatch.setattr(FiniteNumbers, "on_train_batch_end", as_on_a_gpu)
        monkeypatch.setattr(command.TrainingCLI, "instantiate_trainer", with_steps)
        with waits:
            status, _, error = cyclestyle("fit", *options, *words, f"--trainer.default_root_dir={tmp_path}")
        assert status == 0, error
        assert steps.steps == [2, 3, 4]
        return waits.found

    return call


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_a_gan_does_not_wait(waits_of, samples, method):
    model = [f"--model.{key}={value}" for key, value in GAN.items()]
    assert waits_of(*METHODS[method], *model, f"--data.root={samples}") == []


def test_a_step_of_johnson_does_not_wait(waits_of, samples):
    style = f"--model.style=[{samples / 'trainB' / '0000.png'}]"
    layers = ["--model.content_layers=[relu2_2]", "--model.style_layers=[relu1_2,relu2_2]", "--model.weights=random"]
    data = [f"--data.train=[{samples / 'trainA'}]", f"--data.test=[{samples / 'testA'}]", "--data.batch_size=1"]
    assert waits_of("--config=configs/johnson.yaml", style, *layers, "--model.width=2", *data) == []


def test_a_step_of_the_autoencoder_does_not_wait(waits_of, samples):
    model = ["--config=configs/autoencoder.yaml", "--model.width=4", "--model.level=2", "--data.batch_size=1"]
    assert waits_of(*model, f"--data.root={samples}") == []
