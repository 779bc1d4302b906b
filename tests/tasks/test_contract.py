"""The contract of a method: a small Task goes through every command, with every callback on."""

import copy
import csv
import json
import os
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import wandb
import yaml
from forks import wait_for
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

import cyclestyle as package
from cyclestyle.cli import main
from cyclestyle.functional import discriminator_loss, generator_loss
from cyclestyle.networks.calls import frozen
from cyclestyle.tasks import load
from cyclestyle.tasks.discriminators_first import DiscriminatorsFirst
from cyclestyle.tasks.image_pool import ImagePool
from cyclestyle.training import EMAGenerators

DENOISE = """
import torch, torch.nn.functional as F
from torch import nn
from cyclestyle.tasks import Task

class Denoise(Task):
    def __init__(self, width: int = 4, lr: float = 0.01):
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.network = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3, 1))
    def losses(self, batch):
        return {"l1": F.l1_loss(self.network(batch["A"] + 0.1 * torch.randn_like(batch["A"])), batch["A"])}
    def sample(self, batch):
        return {"real_A": batch["A"], "clean_A": self.network(batch["A"])}
    def translate(self, images, direction):
        return self.network(images)

class Swap(Denoise):
    directions = ("AtoB", "BtoA")
    def losses(self, batch):
        return {f"l1_{d}": F.l1_loss(self.network(batch[d]), batch[d]) for d in "AB"}
    def sample(self, batch):
        fakes = {"fake_B": self.network(batch["A"]), "fake_A": self.network(batch["B"])}
        return {"real_A": batch["A"], "real_B": batch["B"], **fakes}
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A module of a user, outside the package."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "my_module.py").write_text(DENOISE)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("my_module", None)


def words(samples, run, *more, name="Denoise"):
    return [
        *(f"--model=my_module.{name}", "--data=UnpairedImages", f"--data.root={samples}", "--data.workers=0"),
        *("--data.load_size=36", "--data.crop_size=32", f"--trainer.default_root_dir={run}"),
        *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", *more),
    ]


EVERYTHING = [
    *("--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", "--ema.decay=0.9", "--alarms.after_steps=1"),
    *("--grid.every_n_steps=4", "--grid.images=2", "--checkpoint.every_n_train_steps=2"),
    "--config=configs/overlays/wandb_offline.yaml",
]


@pytest.fixture(scope="module")
def run(module, samples, tmp_path_factory):
    """A run of the toy with every callback and both loggers."""
    folder = tmp_path_factory.mktemp("toy")
    assert main(["fit", *words(samples, folder, *EVERYTHING)]) == 0
    wandb.finish()
    return folder


def test_fit_leaves_checkpoints_grids_logs_and_averages(run):
    assert {"last.ckpt", "previous.ckpt", "best.ckpt"} == {path.name for path in (run / "checkpoints").iterdir()}
    assert Image.open(run / "grids" / "step_00000014.png").size == (2 * 34, 2 * 34)
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["train/loss"]] == list(range(14))
    assert sum(bool(row["val/loss"]) for row in rows) == 2
    assert list((run / "wandb").glob("offline-run-*"))
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["cyclestyle_task"] == "my_module.Denoise"
    assert set(last["ema"]) == set(last["state_dict"])
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    losses = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    assert best["global_step"] == [7, 14][losses.index(min(losses))]


def test_test_writes_a_report_with_its_own_figures(run, module, samples, cyclestyle):
    status, _, error = cyclestyle("test", *words(samples, run, "--ckpt_path=best"))
    assert status == 0, error
    report = json.loads((run / "test" / "report.json").read_text())
    assert report["logged"]["test/loss"] > 0
    page = (run / "test" / "report.html").read_text()
    for text in ("test/l1", "clean_A", "train/loss", "step 14"):
        assert text in page
    section = page.split("Every image")[1]
    for path in (samples / "testA").iterdir():
        assert f"<figcaption>{path.name}</figcaption>" in section
    assert "<span>real_A (image of domain A)</span><span>clean_A</span>" in section


def test_the_page_of_the_run_asks_the_task(run):
    page = (run / "index.html").read_text()
    for text in ("finished", "14 of 14", "grids/step_00000014.png", "real_A (image of domain A), clean_A.", "val/l1"):
        assert text in page


def test_predict_and_translator(run, module, samples, cyclestyle, tmp_path):
    ckpt = run / "checkpoints" / "last.ckpt"
    more = ["--input", samples / "testA", "--output", tmp_path / "out", "--ckpt_path", ckpt]
    status, _, error = cyclestyle("predict", *more, "--model", "my_module.Denoise")
    assert status == 0, error
    first = sorted((samples / "testA").iterdir())[0]
    from my_module import Denoise

    translate = package.Translator(load(ckpt, task=Denoise))
    assert translate(Image.open(first)).tobytes() == Image.open(tmp_path / "out" / first.name).tobytes()


def test_a_checkpoint_does_not_import_modules(run, module, samples, cyclestyle, tmp_path):
    """A checkpoint that could name any module could run any code."""
    more = ["--input", samples / "testA", "--output", tmp_path / "out"]
    status, _, error = cyclestyle("predict", *more, "--ckpt_path", run / "checkpoints" / "last.ckpt")
    assert status == 1
    assert "is a checkpoint of my_module.Denoise, which is not part of cyclestyle; add --model" in error


def test_a_killed_run_resumes_exactly(forks, run, module, samples, tmp_path):
    command = ["fit", *words(samples, tmp_path, *EVERYTHING[:-1]), "--ckpt_path=last"]
    process = forks.start(*command, env={"PYTHONPATH": str(module)})
    wait_for((tmp_path / "checkpoints" / "last.ckpt").exists, process)
    process.kill()
    assert main(command) == 0
    ours, theirs = (torch.load(one / "checkpoints" / "last.ckpt", weights_only=True) for one in (run, tmp_path))
    for key in ("state_dict", "ema"):
        assert all(torch.equal(ours[key][name], theirs[key][name]) for name in ours[key])
    assert torch.equal(ours["random"][0]["cpu"], theirs["random"][0]["cpu"])


def test_a_task_with_two_directions_is_evaluated(module, samples, cyclestyle, tmp_path):
    more = ["--trainer.max_epochs=2", "--grid.every_n_steps=0"]
    assert cyclestyle("fit", *words(samples, tmp_path, *more, name="Swap"))[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {"step", "epoch", "raw AtoB", "raw BtoA"}
    assert "cycle_psnr" not in rows[0]["raw AtoB"]  # sample returns no reconstructions
    kids = [(row["raw AtoB"]["kid"] + row["raw BtoA"]["kid"]) / 2 for row in rows]
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == [7, 14][kids.index(min(kids))]


def test_another_lightning_module_is_refused_in_one_line(samples, cyclestyle, tmp_path):
    model = "--model=pytorch_lightning.demos.boring_classes.BoringModel"
    status, _, error = cyclestyle("fit", *words(samples, tmp_path)[1:], model)
    assert status == 1
    assert "Traceback" not in error
    assert "Task" in error


# Discriminators that step inside the batch


class Alternating(DiscriminatorsFirst):
    """A generator, and a discriminator that is updated before the loss of the generator is computed."""

    discriminators = {"D_B": "B"}  # noqa: RUF012

    def __init__(self, pool_size=2, lr=1e-2, first=True, factor=1.0):
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.betas, self.first, self.factor = lr, (0.5, 0.999), first, factor
        self.G = nn.Conv2d(3, 3, 3, padding=1)
        self.D_B = nn.Conv2d(3, 1, 4, stride=2)
        self.pool = ImagePool(pool_size)

    def losses(self, batch):
        fake = self.G(batch["A"] + 0.01 * torch.randn_like(batch["A"]))
        loss_D = discriminator_loss(self.D_B(batch["B"]), self.D_B(self.pool.query(fake.detach())), "lsgan")
        updated = self.update_discriminators({"D_B": loss_D})
        with frozen(self.D_B):
            return {"G": generator_loss(self.D_B(fake), "lsgan"), **updated}

    def sample(self, batch):
        return {"real_A": batch["A"], "fake_B": self.G(batch["A"])}

    def translate(self, images, direction):
        return self.G(images)

    def learning_rate_factor(self, epoch):
        return self.factor**epoch


def batches(count, size=8):
    generator = torch.Generator().manual_seed(0)
    return [{domain: torch.rand(2, 3, size, size, generator=generator) for domain in "AB"} for _ in range(count)]


def loader(data):
    """A loader that draws none of the random numbers of the task."""
    return DataLoader(data, batch_size=None, generator=torch.Generator())


def trained(task, data, *, epochs=1, callbacks=(), **settings):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        max_epochs=epochs, enable_model_summary=False, callbacks=list(callbacks), **{**quiet, **settings}
    )
    trainer.fit(task, loader(data))
    return trainer


def by_hand(task, data, *, epochs=1, accumulate=1, clip=None):
    """The same training with two optimisers in plain PyTorch."""
    optimisers = {
        name: torch.optim.Adam(getattr(task, name).parameters(), task.lr, task.betas) for name in ("D_B", "G")
    }
    for epoch in range(epochs):
        for optimiser in optimisers.values():
            optimiser.param_groups[0]["lr"] = task.lr * task.learning_rate_factor(epoch)
        for number, batch in enumerate(data, start=1):
            last = number % accumulate == 0 or number == len(data)
            fake = task.G(batch["A"] + 0.01 * torch.randn_like(batch["A"]))
            scores = task.D_B(batch["B"]), task.D_B(task.pool.query(fake.detach()))
            for name in ("D_B", "G"):
                loss = (
                    discriminator_loss(*scores, "lsgan") if name == "D_B" else generator_loss(task.D_B(fake), "lsgan")
                )
                parameters = list(getattr(task, name).parameters())
                gradients = torch.autograd.grad(loss / accumulate, parameters)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
                if last:
                    if clip:
                        nn.utils.clip_grad_norm_(parameters, clip)
                    optimisers[name].step()
                    optimisers[name].zero_grad()
    return task


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({}, {}),
        ({"accumulate_grad_batches": 2}, {"accumulate": 2}),
        ({"gradient_clip_val": 0.01}, {"clip": 0.01}),
        ({"accumulate_grad_batches": 3, "gradient_clip_val": 0.01}, {"accumulate": 3, "clip": 0.01}),
    ],
    ids=["plain", "accumulated", "clipped", "both"],
)
def test_discriminators_first_is_training_with_two_optimisers(settings, same):
    torch.manual_seed(0)
    task = Alternating(factor=0.5).double()
    expected, data = copy.deepcopy(task), batches(5)
    data = [{name: value.double() for name, value in batch.items()} for batch in data]
    torch.manual_seed(1)
    trainer = trained(task, data, epochs=2, precision="64-true", **settings)
    torch.manual_seed(1)
    by_hand(expected, data, epochs=2, **same)
    for name, weight in task.state_dict().items():
        assert torch.allclose(weight, expected.state_dict()[name], rtol=1e-12, atol=1e-14), name
    assert trainer.global_step == 2 * -(-5 // settings.get("accumulate_grad_batches", 1))


def test_it_differs_from_one_combined_backward():
    results = []
    for update in (True, False):
        torch.manual_seed(0)
        task = Alternating()
        if not update:
            task.update_discriminators = dict
        torch.manual_seed(1)
        trained(task, batches(3))
        results.append(task.G.weight.detach().clone())
    assert not torch.allclose(*results, rtol=1e-3)


def test_gradients_that_reach_a_discriminator_by_mistake_are_dropped():
    results = []
    for careless in (False, True):
        torch.manual_seed(0)
        task = Alternating()
        if careless:
            task.D_B.requires_grad_ = lambda requires_grad=True: None  # frozen() has no effect
        torch.manual_seed(1)
        trained(task, batches(3))
        results.append(task.D_B.weight.detach().clone())
    assert torch.equal(*results)


def test_averaged_weights_count_batches_and_leave_the_discriminator_out():
    torch.manual_seed(0)
    task, ema = Alternating(), EMAGenerators(0.9)
    start = task.G.weight.detach().clone()
    trained(task, batches(1), callbacks=[ema])
    assert set(ema.weights) == {"G.weight", "G.bias"}
    decay = 2 / 11  # of the first step
    assert torch.allclose(ema.weights["G.weight"], decay * start + (1 - decay) * task.G.weight.detach(), atol=1e-7)


class OwnOptimiser(Alternating):
    """Different rates, and a parameter that is in no submodule."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def configure_optimizers(self):
        groups = [{**group, "lr": rate} for group, rate in zip(self.parameter_groups(), (1e-2, 1e-3), strict=True)]
        optimizer = torch.optim.Adam(groups)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)}


def test_rates_of_a_task_with_its_own_optimiser_are_kept():
    trainer = trained(OwnOptimiser(), batches(1))
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [1e-2, 1e-3]


def test_every_trained_parameter_is_in_one_group():
    task = OwnOptimiser()
    task.G.bias.requires_grad_(False)
    groups = {group["name"]: group["params"] for group in task.parameter_groups()}
    assert {id(p) for p in groups["generators"]} == {id(task.bias), id(task.G.weight)}
    assert {id(p) for p in groups["discriminators"]} == {id(p) for p in task.D_B.parameters()}


def test_bf16_trains_both():
    torch.manual_seed(0)
    task = Alternating()
    before = copy.deepcopy(task.state_dict())
    trained(task, batches(3), precision="bf16-mixed")
    for name, weight in task.state_dict().items():
        assert weight.isfinite().all()
        assert not torch.equal(weight, before[name]), name


def test_checkpoints_hold_both_players_and_every_random_state(tmp_path):
    """Stopped after an epoch and resumed: the same weights, optimiser, pool and random numbers."""
    torch.manual_seed(0)
    whole = Alternating(factor=0.5)
    parts = copy.deepcopy(whole)
    torch.manual_seed(1)
    first = trained(whole, batches(4), epochs=2)
    torch.manual_seed(1)
    stopped = trained(parts, batches(4), epochs=1)
    stopped.save_checkpoint(tmp_path / "a.ckpt")
    resumed = Alternating(factor=0.5)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=2, enable_model_summary=False, **quiet)
    trainer.fit(resumed, loader(batches(4)), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    first.save_checkpoint(tmp_path / "whole.ckpt")
    trainer.save_checkpoint(tmp_path / "parts.ckpt")
    a, b = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])
    assert torch.equal(a["rank_states"][0]["pool"]["images"], b["rank_states"][0]["pool"]["images"])
    assert torch.equal(a["random"][0]["cpu"], b["random"][0]["cpu"])
    steps = [
        {key: float(one["step"]) for key, one in content["optimizer_states"][0]["state"].items()} for content in (a, b)
    ]
    assert steps[0] == steps[1]
    assert set(steps[0].values()) == {8.0}


SCRIPT = """
import os, sys
sys.path[:0] = [{tests!r}, {parent!r}]
import torch, pytorch_lightning as pl
from torch.utils.data import DataLoader
from test_contract import Alternating, batches
rank = int(os.environ.get("LOCAL_RANK", 0))
torch.manual_seed(0)
task = Alternating(pool_size=0)
task.losses_without_noise = True
data = batches(4)
data = [{{k: v[rank:rank + 1] for k, v in batch.items()}} for batch in data]
original = torch.randn_like
torch.randn_like = lambda x: torch.zeros_like(x)
trainer = pl.Trainer(max_epochs=1, devices=2, strategy="ddp", accelerator="cpu", logger=False,
                     enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                     use_distributed_sampler=False)
trainer.fit(task, DataLoader(data, batch_size=None))
torch.save(task.state_dict(), os.path.join({folder!r}, f"rank{{rank}}.pth"))
"""


def test_two_processes_train_the_same_discriminator(forks, tmp_path, monkeypatch):
    """Plain `ddp`, each process with half of every batch: the weights of one process with whole batches."""
    tests = os.path.dirname(__file__)
    code = SCRIPT.format(tests=tests, parent=os.path.dirname(tests), folder=str(tmp_path))
    for process in forks.run_ranks(2, code=code):
        assert process.returncode == 0, process.stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in (0, 1)]
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    torch.manual_seed(0)
    task = Alternating(pool_size=0)
    trained(task, batches(4))
    for name, weight in task.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        assert torch.allclose(ranks[0][name], weight, rtol=1e-4, atol=1e-5), name


def test_the_page_that_explains_the_contract_runs(samples, tmp_path, monkeypatch, cyclestyle):
    """The code of docs/write_a_method.md, saved as the page says, trained, used and exported as the page says."""
    page = Path(__file__).parents[2] / "docs" / "write_a_method.md"
    code = page.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "colourise.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])  # that of the installed program
    run = tmp_path / "run"
    common = words(samples, run, "--trainer.max_epochs=1")
    assert cyclestyle("fit", "--model=colourise.Colourise", *common[1:])[0] == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["class_path"] == "colourise.Colourise"
    more = ["--input", samples / "testA", "--output", tmp_path / "out"]
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert cyclestyle("predict", "--model=colourise.Colourise", "--ckpt_path", checkpoint, *more)[0] == 0
    assert len(list((tmp_path / "out").iterdir())) == 3
    for name in ("pt2", "safetensors"):
        export = ["export", "--model=colourise.Colourise", "--ckpt_path", checkpoint, "--format", name]
        assert cyclestyle(*export, "--output", tmp_path / f"file.{name}")[0] == 0
    more[-1] = tmp_path / "safetensors"
    options = ["--model=colourise.Colourise", "--ckpt_path", tmp_path / "file.safetensors"]
    assert cyclestyle("predict", *options, *more)[0] == 0
    assert len(list((tmp_path / "safetensors").iterdir())) == 3
    sys.modules.pop("colourise", None)
