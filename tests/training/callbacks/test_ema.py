import pytest
import pytorch_lightning as pl
import torch
from conftest import TINY
from torch.utils.data import DataLoader

from cyclestyle import Translator
from cyclestyle.tasks import CycleGAN
from cyclestyle.training import EMAGenerators
from cyclestyle.training.callbacks.ema import averaged_weights


class History(pl.Callback):
    """The generators' weights after each step."""

    def __init__(self):
        self.weights = []

    def on_train_start(self, trainer, pl_module):
        self.weights.append({name: value.clone() for name, value in averaged_weights(pl_module).items()})

    on_train_batch_end = lambda self, trainer, pl_module, *args: self.on_train_start(trainer, pl_module)  # noqa: E731


def test_the_average_is_that_of_its_formula():
    torch.manual_seed(0)
    ema, history = EMAGenerators(0.9), History()
    data = [{domain: torch.rand(1, 3, 16, 16) for domain in "AB"} for _ in range(6)]
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=1, accumulate_grad_batches=2, callbacks=[ema, history], **settings)
    task = CycleGAN(**TINY)
    trainer.fit(task, DataLoader(data, batch_size=None))
    steps = history.weights[0], *history.weights[2::2]  # a step every second batch
    for name, average in ema.weights.items():
        expected = steps[0][name]
        for t, weights in enumerate(steps[1:], start=1):
            decay = min(0.9, (1 + t) / (10 + t))
            expected = decay * expected + (1 - decay) * weights[name]
        assert torch.allclose(average, expected, atol=1e-7), name
    assert not any(name.startswith("D_") for name in ema.weights)


def test_weights_are_restored():
    task, ema = CycleGAN(**TINY), EMAGenerators(0.9)
    ema.weights = {name: torch.zeros_like(value) for name, value in averaged_weights(task).items()}
    before = {name: value.clone() for name, value in task.state_dict().items()}
    with ema.in_place(task):
        assert all(value.eq(0).all() for value in averaged_weights(task).values())
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_invalid_decays_raise_an_error(decay):
    with pytest.raises(ValueError, match=rf"decay must be in \[0, 1\), got {decay}"):
        EMAGenerators(decay)


def test_predict_chooses_the_weights(cyclestyle, tiny_fit, samples, checkpoint, tmp_path):
    assert cyclestyle(*tiny_fit, "--ema.decay=0.9", f"--trainer.default_root_dir={tmp_path}")[0] == 0
    last = tmp_path / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    for averaging, stored in (("raw", content["state_dict"]), ("ema", content["ema"]), ("auto", content["ema"])):
        translator = Translator.load(last, averaging=averaging)
        assert torch.equal(translator.method.G_AB.state_dict()["model.1.weight"], stored["G_AB.model.1.weight"])
    assert not torch.equal(content["ema"]["G_AB.model.1.weight"], content["state_dict"]["G_AB.model.1.weight"])
    words = ["--input", samples / "testA", "--output", tmp_path / "out", "--averaging", "ema"]
    assert cyclestyle("predict", "--ckpt_path", last, *words)[0] == 0
    status, _, error = cyclestyle("predict", "--ckpt_path", checkpoint, *words)
    assert status == 1
    assert "holds no averaged weights; train with --ema.decay 0.999" in error
