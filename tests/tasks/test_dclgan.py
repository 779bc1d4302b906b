"""DCLGAN: its step, its channels and its files."""

import copy

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from cyclestyle.functional import discriminator_loss, generator_loss
from cyclestyle.functional.contrastive import l2_normalise, patch_nce, take_patches
from cyclestyle.tasks import DCLGAN
from cyclestyle.weights.official import write_official

TINY = {"generator": "resnet6", "depth": 2, "ngf": 2, "ndf": 2, "discriminator": "n_layers", "n_layers": 1}
TINY |= {"nce_patches": 9, "nce_width": 8, "nce_features": ["down1", "block0"]}
NETWORKS = ("G_AB", "G_BA", "D_A", "D_B", "F_AB", "F_BA")


def batches(count, *, images=2, channels=(3, 3)):
    generator = torch.Generator().manual_seed(0)

    def draw(size):
        return torch.rand(images, size, 16, 16, generator=generator) * 2 - 1

    def ids():
        return [torch.randperm(places, generator=generator)[:9] for places in (16 * 16, 4 * 4)]

    return [
        {"A": draw(channels[0]), "B": draw(channels[1]), "patch_ids": {"NCE_AB": ids(), "NCE_BA": ids()}}
        for _ in range(count)
    ]


def train(task, data, **settings):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=1, enable_model_summary=False, **quiet, **settings)
    trainer.fit(task, DataLoader(data, batch_size=None, shuffle=False))
    return trainer


def nce(source, translation, ids, keys_by, queries_by):
    losses = []
    for number, name in enumerate(TINY["nce_features"]):
        rows = []
        for images, (G, heads) in ((source, keys_by), (translation, queries_by)):
            patches = take_patches(G.features(images, [name])[0], ids[number])
            rows.append(l2_normalise(getattr(heads, f"mlp_{number}")(patches)))
        losses.append(patch_nce(rows[1], rows[0]).mean())
    return sum(losses) / 2


def by_hand(task, data):
    """Discriminators first, then generators and heads, as the authors' code does it, in plain PyTorch."""
    adam = {name: torch.optim.Adam(getattr(task, name).parameters(), 1e-4, (0.5, 0.999)) for name in NETWORKS}
    losses = []
    for batch in data:
        A, B, ids = batch["A"].double(), batch["B"].double(), batch["patch_ids"]
        fake_B, fake_A, same_B, same_A = task.G_AB(A), task.G_BA(B), task.G_AB(B), task.G_BA(A)
        for name, real, fake in (("D_A", A, fake_A), ("D_B", B, fake_B)):
            D = getattr(task, name)
            adam[name].zero_grad()
            discriminator_loss(D(real), D(fake.detach()), "hinge").backward()
            adam[name].step()
        of_A, of_B = (task.G_AB, task.F_AB), (task.G_BA, task.F_BA)
        loss = (generator_loss(task.D_B(fake_B), "hinge") + generator_loss(task.D_A(fake_A), "hinge")) / 2
        loss = loss + nce(A, fake_B, ids["NCE_AB"], of_A, of_B) + nce(B, fake_A, ids["NCE_BA"], of_B, of_A)  # 2 / 2
        loss = loss + (F.l1_loss(same_A, A) + F.l1_loss(same_B, B)) / 2
        for name in ("G_AB", "G_BA", "F_AB", "F_BA"):
            adam[name].zero_grad()
        loss.backward()
        for name in ("G_AB", "G_BA", "F_AB", "F_BA"):
            adam[name].step()
        losses.append(loss.item())
    return losses


def test_a_step_is_that_of_the_authors_code():
    torch.manual_seed(0)
    task, found = DCLGAN(**TINY, init_gain=1.0), []
    other = copy.deepcopy(task).double()

    class Record(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            found.append(outputs["losses"]["loss_G"].item())

    data = batches(4)
    train(task, data, precision="64-true", callbacks=[Record()])
    assert found == pytest.approx(by_hand(other, data), rel=1e-10)
    for name, weight in other.named_parameters():
        bound = 1e-6 if name.endswith("bias") else 1e-10  # biases in front of a norm follow rounding
        assert (task.get_parameter(name) - weight).abs().max() < bound, name


def test_domains_may_have_different_channels():
    """Each domain has an encoder of its own."""
    task = DCLGAN(**TINY, channels_A=1, channels_B=3, lambda_identity=0.0)
    before = copy.deepcopy(task.state_dict())
    train(task, batches(2, channels=(1, 3)))
    for name, weight in task.named_parameters():
        assert name.endswith("bias") or not torch.equal(weight, before[name]), name
    assert (task.in_channels("AtoB"), task.in_channels("BtoA")) == (1, 3)
    with torch.no_grad():
        assert task.translate(torch.rand(1, 1, 9, 11), "AtoB").shape == (1, 3, 9, 11)
    with pytest.raises(ValueError, match="channels_A=1 and channels_B=3; set lambda_identity to 0"):
        DCLGAN(**TINY, channels_A=1)


def test_the_losses_and_figures():
    task, (batch,) = DCLGAN(**TINY), batches(1)
    assert set(task.losses(batch)) == {"D_A", "D_B", "G_AB", "G_BA", "NCE_AB", "NCE_BA", "idt_A", "idt_B"}
    assert set(DCLGAN(**TINY, lambda_identity=0.0).losses(batch)) & {"idt_A", "idt_B"} == set()
    figures = task.figures(batch, task.sample(batch))
    assert figures["NCE"] == (figures["NCE_AB"] + figures["NCE_BA"]) / 2
    assert DCLGAN(ngf=1, ndf=1).contrast.features == ("down1", "down2", "block0", "block4")


def test_written_files_are_read_bit_for_bit(tmp_path):
    task = DCLGAN(**TINY, channels_A=1, lambda_identity=0.0)
    paths = write_official(task.state_dict(), tmp_path, epoch="7")
    assert {path.name for path in paths} == {f"7_net_{name}.pth" for name in ("G_A", "G_B", "D_A", "D_B", "F1", "F2")}
    loaded = DCLGAN.load_official(tmp_path, epoch="7", nce_features=TINY["nce_features"])
    assert (loaded.hparams["channels_A"], loaded.hparams["lambda_identity"]) == (1, 0.0)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in task.state_dict().items())
