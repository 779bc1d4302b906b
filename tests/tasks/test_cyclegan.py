import copy

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from cyclestyle.cli import main
from cyclestyle.networks.calls import frozen
from cyclestyle.tasks import CycleGAN
from cyclestyle.weights.checkpoints import read_checkpoint

TINY = {"generator": "resnet6", "ngf": 2, "ndf": 2, "discriminator": "n_layers", "n_layers": 1}


def quiet_trainer(**settings):
    return pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **settings,
    )


def batches(count, *, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [{d: torch.rand(1, 3, size, size, generator=generator) * 2 - 1 for d in "AB"} for _ in range(count)]


def loader(data):
    return DataLoader(data, batch_size=None, shuffle=False)


class Record(pl.Callback):
    """Keeps the logged losses of every step."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def test_one_backward_is_the_update_of_two():
    """Two optimisers and two backward passes, written out as in the paper, follow the same path."""
    torch.manual_seed(0)
    task = CycleGAN(**TINY, pool_size=2)
    other = copy.deepcopy(task).double()
    data = batches(6)
    quiet_trainer(precision="64-true", max_epochs=1).fit(task, loader(data))

    G_AB, G_BA, D_A, D_B = other.networks
    adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
    opt_G = torch.optim.Adam([*G_AB.parameters(), *G_BA.parameters()], **adam)
    opt_D = torch.optim.Adam([*D_A.parameters(), *D_B.parameters()], **adam)
    other.setup("fit")
    for batch in data:
        A, B = batch["A"].double(), batch["B"].double()
        fake_B, fake_A = G_AB(A), G_BA(B)
        loss_G = F.mse_loss(D_B(fake_B), torch.ones_like(D_B(fake_B)))
        loss_G += F.mse_loss(D_A(fake_A), torch.ones_like(D_A(fake_A)))
        loss_G += 10 * F.l1_loss(G_BA(fake_B), A) + 10 * F.l1_loss(G_AB(fake_A), B)
        loss_G += 5 * F.l1_loss(G_BA(A), A) + 5 * F.l1_loss(G_AB(B), B)
        opt_G.zero_grad()
        loss_G.backward()
        opt_G.step()
        opt_D.zero_grad()
        for D, real, fake, pool in ((D_B, B, fake_B, other.pool_B), (D_A, A, fake_A, other.pool_A)):
            judged = D(pool.query(fake.detach()))
            real_loss = F.mse_loss(D(real), torch.ones_like(judged))
            (0.5 * (real_loss + F.mse_loss(judged, torch.zeros_like(judged)))).backward()
        opt_D.step()
    for (name, ours), theirs in zip(task.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours.double(), theirs, rtol=0, atol=2e-7), name  # Lightning hands float32 weights back


@pytest.mark.parametrize("bf16", [False, True])
def test_the_critic_of_wgangp_has_the_loss_of_the_paper(bf16):
    """Written out with its own penalty, on the images of the pool."""
    torch.manual_seed(0)
    dtype = torch.float32 if bf16 else torch.float64
    task = CycleGAN(**TINY, pool_size=1, gan_mode="wgangp", init_gain=0.2).to(dtype)
    first, second = ({domain: images.to(dtype) for domain, images in batch.items()} for batch in batches(2))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        task.losses(first)
        task.pool_B._random.seed(0)  # the first draw is above ½: the pool returns the image of the first batch
        torch.manual_seed(1)
        loss = task.losses(second)["D_B"]
    torch.manual_seed(1)
    alpha, real = torch.rand(1), second["B"]
    candidates = []
    for batch in (first, second):
        fake = task.G_AB(batch["A"]).detach()
        mixed = (alpha * real + (1 - alpha) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(task.D_B(mixed).sum(), mixed)
        critic = task.D_B(fake).mean() - task.D_B(real).mean()
        candidates.append((0.5 * (critic + 10 * (slope.norm() - 1) ** 2)).item())
    expected = candidates[0]
    assert abs(expected - candidates[1]) > 0.03 * abs(expected)
    assert loss.item() == pytest.approx(expected, rel=1e-2 if bf16 else 1e-6)


def test_a_run_with_wgangp_resumes_exactly(tiny_fit, tmp_path):
    words = [*tiny_fit, "--model.gan_mode=wgangp", "--ckpt_path=last", "--best.monitor=val/cycle"]
    folders = [tmp_path / name for name in ("whole", "parts")]
    assert main([*words, f"--trainer.default_root_dir={folders[0]}"]) == 0
    assert main([*words, f"--trainer.default_root_dir={folders[1]}", "--trainer.max_steps=3"]) == 0
    assert main([*words, f"--trainer.default_root_dir={folders[1]}"]) == 0
    whole, parts = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in folders)
    assert whole["global_step"] == parts["global_step"] == 7
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, parts["state_dict"][name]), name
    assert torch.equal(whole["random"][0]["cpu"], parts["random"][0]["cpu"])


def test_frozen_stops_at_the_parameters_and_puts_the_state_back():
    layer = torch.nn.Linear(2, 1)
    x = torch.ones(1, 2, requires_grad=True)
    with frozen(layer):
        y = layer(x)
    y.sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None
    with pytest.raises(RuntimeError), frozen(layer):
        raise RuntimeError
    assert layer.weight.requires_grad


def test_generators_learn_nothing_from_the_discriminator_loss_and_the_reverse():
    torch.manual_seed(0)
    task = CycleGAN(**TINY, lambda_A=0, lambda_B=0, lambda_identity=0)
    task.log = lambda *args, **kwargs: None
    task.training_step(batches(1)[0], 0)["loss"].backward()
    joint = {name: p.grad.clone() for name, p in task.named_parameters()}
    task.zero_grad()
    batch = batches(1)[0]
    sum(loss for name, loss in task.losses(batch).items() if not name.startswith("D_")).backward()
    for name, parameter in task.named_parameters():
        if name.startswith("D_"):
            assert parameter.grad is None
            assert joint[name].abs().sum() > 0 or name.endswith("bias")
        else:
            assert torch.allclose(parameter.grad, joint[name], atol=1e-7)


def test_logged_losses_add_up():
    record = Record()
    quiet_trainer(max_epochs=1, callbacks=[record]).fit(CycleGAN(**TINY), loader(batches(1)))
    losses = record.losses[0]
    names = {"G_AB", "G_BA", "cycle_A", "cycle_B", "idt_A", "idt_B", "D_A", "D_B", "loss_G", "loss_D"}
    assert set(losses) == {f"train/{name}" for name in names}
    assert losses["train/loss_D"] == pytest.approx(losses["train/D_A"] + losses["train/D_B"])
    generator = sum(losses[f"train/{name}"] for name in ("G_AB", "G_BA", "cycle_A", "cycle_B", "idt_A", "idt_B"))
    assert losses["train/loss_G"] == pytest.approx(generator)


def test_learning_rate_is_constant_then_falls_linearly():
    task = CycleGAN(**TINY, lr=1.0, constant_epochs=3, decay_epochs=4)
    rates = []

    class Rates(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    quiet_trainer(max_epochs=7, limit_train_batches=1, callbacks=[Rates()]).fit(task, loader(batches(1)))
    assert [rate for rate, _ in rates] == pytest.approx([1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert all(generators == discriminators for generators, discriminators in rates)


def test_clipping_keeps_the_players_apart():
    task = CycleGAN(**TINY)
    optimizer = task.configure_optimizers()["optimizer"]
    for group, size in zip(optimizer.param_groups, (100.0, 0.001), strict=True):
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, size)
    task.configure_gradient_clipping(optimizer, 1.0, "norm")
    norms = [torch.cat([p.grad.flatten() for p in group["params"]]).norm() for group in optimizer.param_groups]
    assert norms[0].item() == pytest.approx(1.0, rel=1e-4)
    assert norms[1] < 1.0
    assert task.D_A.model[0].weight.grad.flatten()[0].item() == pytest.approx(0.001)


@pytest.mark.parametrize("generator", ["resnet6", "unet128"])
@pytest.mark.parametrize("gan_mode", ["lsgan", "vanilla", "hinge", "wgangp"])
def test_a_step_of_every_kind_moves_every_network(generator, gan_mode):
    torch.manual_seed(0)
    task = CycleGAN(generator=generator, ngf=2, ndf=2, discriminator="pixel", gan_mode=gan_mode)
    before = copy.deepcopy(task.state_dict())
    quiet_trainer(max_epochs=1).fit(task, loader(batches(1, size=128 if generator == "unet128" else 16)))
    for prefix in ("G_AB", "G_BA", "D_A", "D_B"):
        assert any(not torch.equal(before[k], v) for k, v in task.state_dict().items() if k.startswith(prefix))


def test_domains_of_other_channels_and_other_sizes():
    task = CycleGAN(**TINY, channels_A=1, channels_B=4, lambda_identity=0)
    batch = {"A": torch.rand(1, 1, 16, 24), "B": torch.rand(1, 4, 20, 16)}
    record = Record()
    quiet_trainer(max_epochs=1, callbacks=[record]).fit(task, loader([batch]))
    assert "train/idt_A" not in record.losses[0]
    shown = task.sample(batch)
    assert shown["fake_B"].shape == (1, 4, 16, 24)
    assert shown["rec_A"].shape == (1, 1, 16, 24)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gan_mode": "wgan"}, "gan_mode must be one of lsgan, vanilla, hinge, wgangp, got 'wgan'"),
        ({"ngf": 0}, "ngf must be above 0, got 0"),
        ({"lambda_A": -1.0}, "lambda_A must not be below 0, got -1"),
        ({"channels_A": 0}, "channels_A must be above 0, got 0"),
        ({"channels_A": 1}, "identity losses need the same channels"),
        ({"generator": "vit"}, "generator must be one of"),
        ({"init": "magic"}, "init must be"),
    ],
)
def test_bad_values_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CycleGAN(**settings)
