"""The options for small sets: each against its definition, in every GAN task, and through the command line."""

import pytest
import torch
from torch import nn

from cyclestyle.cli import main
from cyclestyle.errors import CheckpointError, DataError
from cyclestyle.functional import discriminator_loss
from cyclestyle.functional.augmentation import diff_augment
from cyclestyle.networks import build_discriminator, initialise
from cyclestyle.networks.spectral import add_spectral_norm, without_spectral_norm
from cyclestyle.tasks import CUT, DCLGAN, CycleGAN
from cyclestyle.tasks.adversary import Adversary
from cyclestyle.tasks.load import start_from
from cyclestyle.tasks.pseudo_reals import PseudoReals
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.official import write_official

TINY = {"generator": "resnet6", "depth": 2, "ngf": 2, "ndf": 2, "discriminator": "n_layers", "n_layers": 1}
CONTRAST = {"nce_patches": 16, "nce_width": 8, "nce_features": ["pixels", "down2"]}
TASKS = {CycleGAN: TINY, CUT: TINY | CONTRAST, DCLGAN: TINY | CONTRAST}
POLICY = ["color", "translation", "cutout"]
EVERYTHING = {
    "diff_augment": POLICY,
    "apa": True,
    "apa_target": -0.99,
    "apa_images": 8,
    "r1_gamma": 1.0,
    "lambda_GP": 0.5,
    "spectral_norm": True,
    "label_smoothing": 0.1,
    "gan_mode": "lsgan",
}


def images(count=2, size=16, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(count, 3, size, size, generator=generator) * 2 - 1).to(dtype) for _ in range(2)]


def critic(dtype=torch.float64):
    torch.manual_seed(0)
    network = build_discriminator("n_layers", ndf=4, n_layers=1)
    initialise(network, "normal", 0.3)
    return network.to(dtype)


def input_gradients(network, x):
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(x).mean(dim=(1, 2, 3)).sum(), x, create_graph=True)
    return slope


# The losses, written out


def test_without_options_the_losses_are_the_plain_ones_and_nothing_is_drawn():
    network, (real, fake) = critic(), images()
    before = torch.get_rng_state()
    found = Adversary("lsgan").discriminator_loss(network, real, fake)
    assert torch.allclose(found, 0.5 * (((network(real) - 1) ** 2).mean() + (network(fake) ** 2).mean()))
    assert torch.allclose(Adversary("lsgan").generator_loss(network, fake), ((network(fake) - 1) ** 2).mean())
    assert torch.equal(torch.get_rng_state(), before)


def test_discriminator_and_generator_see_augmented_images_with_new_draws():
    network, (real, fake) = critic(), images()
    adversary = Adversary("lsgan", diff_augment=POLICY)
    torch.manual_seed(7)
    loss_D, loss_G = adversary.discriminator_loss(network, real, fake), adversary.generator_loss(network, fake)
    torch.manual_seed(7)
    seen_real, seen_fake, seen_again = (diff_augment(one, POLICY) for one in (real, fake, fake))
    assert not torch.equal(seen_fake, seen_again)
    assert torch.allclose(loss_D, discriminator_loss(network(seen_real), network(seen_fake), "lsgan"))
    assert torch.allclose(loss_G, ((network(seen_again) - 1) ** 2).mean())


def test_the_generator_learns_through_the_augmentation():
    network, (_, fake) = critic(), images()
    fake.requires_grad_()
    torch.manual_seed(7)
    Adversary("lsgan", diff_augment=["cutout"]).generator_loss(network, fake).backward()
    torch.manual_seed(7)
    cut = diff_augment(torch.ones_like(fake), ["cutout"]) == 0
    assert cut.any()
    assert (fake.grad[cut] == 0).all()
    assert (fake.grad[~cut] != 0).any()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("policy", [[], POLICY])
def test_penalties_are_added_whole_and_see_what_the_discriminator_sees(policy):
    network, (real, fake) = critic(), images()
    adversary = Adversary("lsgan", diff_augment=policy, r1_gamma=3.0, lambda_GP=0.7, label_smoothing=0.1)
    torch.manual_seed(7)
    found = adversary.discriminator_loss(network, real, fake)
    torch.manual_seed(7)
    real, fake = diff_augment(real, policy), diff_augment(fake, policy)
    alpha = torch.rand(1).double()
    expected = 0.5 * (((network(real) - 0.9) ** 2).mean() + (network(fake) ** 2).mean())
    expected += 3.0 / 2 * input_gradients(network, real).flatten(1).norm(dim=1).square().mean()
    mixed = alpha * real + (1 - alpha) * fake
    expected += 0.7 * input_gradients(network, mixed).flatten(1).norm(dim=1).square().mean()
    assert torch.allclose(found, expected)
    ours, theirs = (torch.autograd.grad(loss, network.model[2].weight)[0] for loss in (found, expected))
    assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("option", ["r1_gamma", "lambda_GP"])
@pytest.mark.parametrize("spectral", [False, True])
def test_gradients_of_the_penalised_loss_are_exact(option, spectral):
    """Of a tiny discriminator without kinks, in float64, by differences."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 3, stride=2), nn.Tanh(), nn.Conv2d(2, 1, 2)).double()
    if spectral:
        add_spectral_norm(network)
    network.eval()  # otherwise each call moves the estimate of the singular value
    real, fake = images(size=6)
    adversary = Adversary("lsgan", **{option: 2.0})
    parameters = dict(network.named_parameters())

    class Replaced(nn.Module):
        def forward(self, x):
            return torch.func.functional_call(network, self.values, x)

    def loss(*values):
        torch.manual_seed(1)
        replaced = Replaced()
        replaced.values = dict(zip(parameters, values, strict=True))
        return adversary.discriminator_loss(replaced, real, fake)

    assert torch.autograd.gradcheck(loss, tuple(parameters.values()))
    assert torch.autograd.gradgradcheck(loss, tuple(parameters.values()))


@pytest.mark.parametrize("spectral", [False, True])
def test_compiled_discriminators_have_the_same_penalties_also_under_bf16(spectral):
    real, fake = images(dtype=torch.float32)
    adversary, losses = Adversary("lsgan", r1_gamma=5.0, lambda_GP=5.0), []
    for compiled in (False, True):
        network = critic(torch.float32)
        if spectral:
            add_spectral_norm(network)
        if compiled:
            network.compile(backend="aot_eager")
        torch.manual_seed(2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = adversary.discriminator_loss(network, real, fake)
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


# Adaptive pseudo augmentation


def test_the_probability_follows_the_signs_of_four_batches():
    pseudo = PseudoReals(["D_A", "D_B"], target=0.5, images=100)
    for share in (1.0, 1.0, 1.0, 0.0):  # r = (1 + 1 + 1 - 1) / 4 = 0.5, which is not above the target
        pseudo.observe("D_B", torch.full((2, 1, 3, 3), 2 * share - 1), images=2)
    assert pseudo.probability["D_B"] == 0
    for _ in range(3):
        pseudo.observe("D_B", torch.ones(2, 1, 3, 3), images=2)
        assert pseudo.probability["D_B"] == 0
    pseudo.observe("D_B", torch.ones(2, 1, 3, 3), images=2)
    assert pseudo.probability["D_B"].item() == pytest.approx(8 / 100)
    for _ in range(4):
        pseudo.observe("D_B", torch.ones(2, 1, 3, 3), images=2)
    assert pseudo.probability["D_B"].item() == pytest.approx(16 / 100)
    for _ in range(4):
        pseudo.observe("D_B", -torch.ones(2, 1, 3, 3), images=2)
    assert pseudo.probability["D_B"].item() == pytest.approx(8 / 100)
    assert pseudo.probability["D_A"] == 0


def test_the_probability_stays_between_0_and_1():
    pseudo = PseudoReals(["D_B"], images=5)
    for sign, expected in ((-1, 0), (1, 0.8), (1, 1), (1, 1), (-1, 0.2), (-1, 0)):
        for _ in range(4):
            pseudo.observe("D_B", torch.full((1, 1), float(sign)), images=1)
        assert pseudo.probability["D_B"].item() == pytest.approx(expected, abs=1e-6)


def test_that_share_of_the_real_images_is_replaced_whole():
    pseudo, real, fake = PseudoReals(["D_B"]), torch.ones(2000, 3, 2, 2), torch.zeros(2000, 3, 2, 2)
    assert torch.equal(pseudo.mixed("D_B", real, fake), real)
    pseudo.probability["D_B"] = torch.tensor(0.3)
    torch.manual_seed(0)
    kept = pseudo.mixed("D_B", real, fake).flatten(1)
    assert (kept == kept[:, :1]).all()
    assert 1 - kept[:, 0].mean().item() == pytest.approx(0.3, abs=0.03)


def test_replaced_images_are_labelled_real_and_counted():
    network, (real, fake) = critic(), images()
    pseudo = PseudoReals(["D_B"], target=0.0, images=16)
    pseudo.probability["D_B"] = torch.tensor(1.0)
    adversary = Adversary("lsgan", pseudo_reals=pseudo)
    found = adversary.discriminator_loss(network, real, fake, "D_B")
    assert torch.allclose(found, 0.5 * (((network(fake) - 1) ** 2).mean() + (network(fake) ** 2).mean()))
    for _ in range(3):
        adversary.discriminator_loss(network, real, fake, "D_B")
    up = (network(fake) > 0.5).double().mean() > 0.5
    assert pseudo.probability["D_B"].item() == (1.0 if up else 0.5)


def test_validation_counts_nothing_and_has_no_penalties():
    network, (real, fake) = critic(), images()
    pseudo = PseudoReals(["D_B"], target=-0.99, images=8)
    pseudo.probability["D_B"] = torch.tensor(0.5)
    adversary = Adversary("lsgan", pseudo_reals=pseudo, r1_gamma=10.0, lambda_GP=10.0)
    with torch.inference_mode():
        for _ in range(8):
            found = adversary.discriminator_loss(network, real, fake, "D_B")
    assert torch.equal(found, Adversary("lsgan").discriminator_loss(network, real, fake).detach())
    assert pseudo.probability["D_B"] == 0.5


def test_a_process_that_a_checkpoint_lacks_takes_the_probability_of_the_first(monkeypatch):
    """Otherwise it would change it at other batches than the others, which wait for it."""
    task, other = (CycleGAN(**TINY, pool_size=4, apa=True, apa_images=8, apa_target=-0.99) for _ in range(2))
    for one in (task, other):
        one.pool_B.reseed(3)
    for _ in range(6):
        task.pseudo_reals.observe("D_B", torch.ones(1, 1), images=1)
    task.pool_B.query(torch.ones(1, 3, 4, 4))
    checkpoint = {}
    task.on_save_checkpoint(checkpoint)
    monkeypatch.setattr(CycleGAN, "global_rank", 1)
    other.on_load_checkpoint(checkpoint)
    assert other.pseudo_reals.probability["D_B"] == 0.5
    assert other.pseudo_reals.state_dict()["D_B"]["batches"] == 6
    assert len(other.pool_B) == 0


def test_images_of_different_sizes_cannot_be_exchanged():
    with pytest.raises(DataError, match=r"model.apa mixes real with generated images.*got 4×4 and 3×4"):
        PseudoReals(["D_B"]).mixed("D_B", torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 3))


# Spectral norm


def test_weights_are_divided_by_their_largest_singular_value():
    network = critic()
    plain = {name: value.clone() for name, value in network.named_parameters() if value.ndim > 1}
    add_spectral_norm(network)
    real, _ = images()
    for _ in range(50):  # of the power iteration
        network(real)
    network.eval()
    for name, weight in plain.items():
        module = network.get_submodule(name.removesuffix(".weight"))
        largest = torch.linalg.svdvals(weight.flatten(1))[0]
        assert torch.allclose(module.weight, weight / largest)
    before = network(real)
    assert torch.equal(network(real), before)


@pytest.mark.parametrize(("task", "settings"), TASKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_every_task_has_the_options(task, settings):
    built = task(**settings, **EVERYTHING)
    for name in task.discriminators:
        network = built.get_submodule(name)
        assert any("original" in key for key, _ in network.named_parameters())
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                assert torch.linalg.matrix_norm(module.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=0.2)
    assert not any("original" in key for key, _ in built.G_AB.named_parameters())
    batch = {"A": images(dtype=torch.float32)[0], "B": images(dtype=torch.float32)[1]}
    losses = built.losses(batch)
    assert all(value.isfinite() for value in losses.values())
    for _ in range(3):
        built.losses(batch)
    assert {name: value.item() for name, value in built.pseudo_reals.probability.items()} == dict.fromkeys(
        task.discriminators, 1.0
    )


@pytest.mark.parametrize(("task", "settings"), TASKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_defaults_change_nothing(task, settings):
    built = task(**settings)
    assert built.pseudo_reals is None
    assert not any("parametrizations" in key for key in built.state_dict())
    assert (built.adversary.r1_gamma, built.adversary.lambda_GP, built.adversary.real_target) == (0, 0, 1)
    assert built.adversary.policy == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"diff_augment": ["flip"]}, "diff_augment must name some of color, translation, cutout"),
        ({"apa": True, "apa_target": 1.0}, "apa_target must be between -1 and 1, got 1.0"),
        ({"apa": True, "apa_images": 0}, "apa_images must be above 0, got 0"),
        ({"r1_gamma": -1.0}, "r1_gamma must not be below 0, got -1.0"),
        ({"lambda_GP": -1.0}, "lambda_GP must not be below 0, got -1.0"),
        ({"label_smoothing": 0.5}, r"label_smoothing must be in \[0, 0.5\), got 0.5"),
        ({"label_smoothing": 0.1, "gan_mode": "hinge"}, "label_smoothing needs gan_mode lsgan or vanilla"),
        ({"apa": True, "gan_mode": "wgangp"}, "apa does not go with gan_mode wgangp"),
        ({"lambda_GP": 1.0, "gan_mode": "wgangp"}, "lambda_GP does not go with gan_mode wgangp"),
    ],
)
def test_mistakes_get_one_line(changes, message):
    with pytest.raises(ValueError, match=message):
        CycleGAN(**TINY, **changes)


@pytest.mark.parametrize(("task", "settings"), TASKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_official_files_are_written_with_the_normalised_weights_and_not_read_with_spectral_norm(
    task, settings, tmp_path
):
    built = task(**settings, spectral_norm=True, init_gain=0.3)
    batch = {"A": images(dtype=torch.float32)[0], "B": images(dtype=torch.float32)[1]}
    built.losses(batch)
    write_official(built.eval().state_dict(), tmp_path)
    changes = {"nce_features": settings["nce_features"]} if "nce_features" in settings else {}
    plain = task.load_official(tmp_path, **changes).eval()
    for name, domain in task.discriminators.items():
        assert torch.allclose(
            plain.get_submodule(name)(batch[domain]), built.get_submodule(name)(batch[domain]), atol=1e-5
        )
    assert torch.equal(plain.G_AB(batch["A"]), built.G_AB(batch["A"]))
    with pytest.raises(ValueError, match="spectral_norm must be false for files of the original implementation"):
        task.load_official(tmp_path, spectral_norm=True, **changes)
    with pytest.raises(CheckpointError, match=r"have model.spectral_norm False, but the config says True"):
        start_from(built, tmp_path)
    with pytest.raises(ValueError, match="residual must be 0 for files of the original implementation"):
        task.load_official(tmp_path, residual=0.9, **changes)
    with pytest.raises(CheckpointError, match=r"have model.residual 0.0, but the config says 0.9"):
        start_from(task(**settings, residual=0.9), tmp_path)


def test_plain_weights_are_kept_as_they_are():
    state = critic().state_dict()
    assert without_spectral_norm(state).keys() == state.keys()


# Runs


@pytest.mark.parametrize("method", ["CycleGAN", "CUT"])
def test_a_run_with_every_option_resumes_exactly(tiny_fit, tmp_path, method):
    words = [*tiny_fit, "--ckpt_path=last", "--best.monitor=val/kid", "--ema.decay=0.9", "--data.batch_size=2"]
    words = [*words, "--model.constant_epochs=3"]
    if method == "CUT":
        words = [word.replace("cyclegan.yaml", "cut.yaml") for word in words if "pool_size" not in word]
        words += ["--model.nce_patches=16", "--model.nce_width=8"]
    for name, value in EVERYTHING.items():
        words.append(f"--model.{name}={str(value).replace(chr(39), '')}")
    folders = [tmp_path / name for name in ("whole", "parts")]
    assert main([*words, f"--trainer.default_root_dir={folders[0]}"]) == 0
    assert main([*words, f"--trainer.default_root_dir={folders[1]}", "--trainer.max_steps=5"]) == 0
    assert main([*words, f"--trainer.default_root_dir={folders[1]}"]) == 0
    whole, parts = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in folders)
    assert whole["global_step"] == parts["global_step"] > 8
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, parts["state_dict"][name]), name
    assert torch.equal(whole["random"][0]["cpu"], parts["random"][0]["cpu"])
    ours, theirs = (one["rank_states"][0]["pseudo_reals"]["D_B"] for one in (whole, parts))
    assert ours["probability"] > 0
    assert torch.equal(ours["probability"], theirs["probability"])
    assert torch.equal(ours["seen"], theirs["seen"])
    assert ours["batches"] == theirs["batches"]
    assert whole["hyper_parameters"]["diff_augment"] == POLICY
    assert not any(name.startswith("D_") for name in whole["ema"])
