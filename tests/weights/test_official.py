import re
from collections import OrderedDict

import pytest
import torch
from conftest import HERE, TINY
from torch import nn

from cyclestyle import Translator
from cyclestyle.errors import CheckpointError
from cyclestyle.networks import ResNetGenerator, UNetGenerator
from cyclestyle.tasks import CycleGAN
from cyclestyle.weights.official import NETWORKS, write_official

REFERENCE = HERE / "reference"


def as_old_wrapped_file(network, prefix):
    """A state_dict as saved by old versions of PyTorch and by wrappers."""
    weights = OrderedDict((prefix + key, value) for key, value in network.state_dict().items())
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            weights[f"{prefix}{name}.running_mean"] = torch.zeros(2)
            weights[f"{prefix}{name}.running_var"] = torch.ones(2)
            weights[f"{prefix}{name}.num_batches_tracked"] = torch.tensor(3)
    return weights


@pytest.mark.parametrize(
    "network",
    [
        ResNetGenerator(in_channels=1, out_channels=3, ngf=3, blocks=2),
        ResNetGenerator(ngf=2, blocks=9, dropout=True),
        ResNetGenerator(ngf=2, blocks=3, resample="resize"),
        ResNetGenerator(ngf=2, blocks=3, resample="blur"),
        UNetGenerator(in_channels=3, out_channels=1, ngf=2, depth=6),
    ],
    ids=["resnet", "dropout", "resize", "blur", "unet"],
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "2017"])
def test_the_architecture_of_a_generator_is_inferred_from_its_file(tmp_path, network, prefix, zip_format):
    file = tmp_path / "latest_net_G_A.pth"
    torch.save(as_old_wrapped_file(network, prefix), file, _use_new_zipfile_serialization=zip_format)
    translator = Translator.load(file)
    batch = torch.rand(1, translator.in_channels, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.equal(translator.translate(batch), network.eval()(batch))


@pytest.mark.parametrize(
    ("settings", "discriminator"),
    [
        ({"generator": "resnet9", "depth": 3, "dropout": True, "discriminator": "n_layers", "n_layers": 1}, "n_layers"),
        ({"generator": "resnet9", "resample": "resize", "discriminator": "n_layers", "n_layers": 5}, "n_layers"),
        ({"generator": "resnet6", "resample": "blur"}, "basic"),
        ({"generator": "unet128", "discriminator": "pixel"}, "pixel"),
        ({"channels_A": 1, "channels_B": 4, "lambda_identity": 0.0}, "basic"),
    ],
)
def test_exported_networks_can_be_loaded(tmp_path, settings, discriminator):
    task = CycleGAN(ngf=3, ndf=5, **settings)
    write_official(task.state_dict(), tmp_path)
    loaded = CycleGAN.load_official(tmp_path)
    assert loaded.hparams["discriminator"] == discriminator
    assert {k: v for k, v in loaded.hparams.items() if k in settings} == settings
    for name, weight in task.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name


def test_arguments_override_the_options_of_the_original(tmp_path):
    write_official(CycleGAN(**TINY).state_dict(), tmp_path, epoch="35")
    (tmp_path / "train_opt.txt").write_text(
        "----------------- Options ---------------\n"
        "                    beta1: 0.4                           \t[default: 0.5]\n"
        "                 gan_mode: vanilla                       \t[default: lsgan]\n"
        "                 lambda_A: 8.0                           \n"
        "                  n_epochs: 7                            \n"
        "                    niter_decay: 9                       \n"
        "                lr_policy: lambda                        \n"
        "           lr_decay_iters: 30                            \n"
        "                     name: flowers                       \t[default: experiment_name]\n"
    )
    task = CycleGAN.load_official(tmp_path, epoch="35", lambda_A=3.0, pool_size=2)
    assert (task.hparams["gan_mode"], task.betas, task.lambda_A) == ("vanilla", (0.4, 0.999), 3.0)
    assert (task.schedule.constant_epochs, task.schedule.decay_epochs, task.pool_A.size) == (7, 9, 2)
    assert (task.schedule.lr_policy, task.schedule.lr_step_epochs) == ("linear", 30)


def test_written_files_equal_those_of_the_original(tmp_path):
    """Names, their order, shapes and types are the same, so that the original can load the files."""
    write_official(CycleGAN.load_official(REFERENCE).state_dict(), tmp_path)
    for name in NETWORKS.values():
        theirs = torch.load(REFERENCE / f"latest_net_{name}.pth", weights_only=True)
        ours = torch.load(tmp_path / f"latest_net_{name}.pth", weights_only=True)
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in theirs)


def save_changed(folder, name, change):
    weights = torch.load(REFERENCE / f"latest_net_{name}.pth", weights_only=True)
    change(weights)
    torch.save(weights, folder / f"latest_net_{name}.pth")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("G_A", lambda w: w.pop("model.1.bias"), "G_A.pth looks like a resnet9 network, but model.1.bias is miss"),
        ("G_A", lambda w: w.update({"extra": torch.zeros(1)}), "G_A.pth"),
        ("G_A", lambda w: w.update({"model.2.weight": torch.zeros(4)}), "G_A.pth has norms with weights: batch norm"),
        ("G_B", lambda w: w.clear(), "G_B.pth is not a generator"),
        (
            "D_A",
            lambda w: w.update({"model.5.bias": torch.zeros(1)}),
            "model.5.bias is missing, unexpected or of a different",
        ),
        ("D_B", lambda w: w.update({"x": "text"}), "D_B.pth is not a discriminator"),
        ("D_B", lambda w: w.update({"model.0.weight": torch.zeros(4, 1, 4, 4)}), "do not match: "),
    ],
)
def test_an_error_names_the_file_and_the_weight(tmp_path, name, change, message):
    for theirs in NETWORKS.values():
        save_changed(tmp_path, theirs, change if theirs == name else lambda weights: None)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        CycleGAN.load_official(tmp_path)


def test_an_error_names_missing_files_and_folders(tmp_path):
    with pytest.raises(CheckpointError, match=r"latest_net_G_A\.pth does not exist"):
        CycleGAN.load_official(tmp_path)
    with pytest.raises(CheckpointError, match="nowhere is not a folder"):
        CycleGAN.load_official(tmp_path / "nowhere")


def with_statistics(network):
    """The network with all batch norms as after a training, in evaluation."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 2)
            for values in (module.bias, module.running_mean):
                nn.init.uniform_(values, -0.5, 0.5)
    return network.eval()


class Block(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(12, 12, 3, bias=False), nn.BatchNorm2d(12)]
        other = [nn.ReflectionPad2d(1), nn.Conv2d(12, 12, 3, bias=False), nn.BatchNorm2d(12)]
        self.conv_block = nn.Sequential(*half, nn.ReLU(), *([nn.Dropout(0.5)] if dropout else []), *other)

    def forward(self, x):
        return x + self.conv_block(x)


class ResNetWithBatchNorm(nn.Module):
    """`--netG resnet_9blocks --norm batch` of the original, smaller."""

    def __init__(self, dropout):
        super().__init__()
        self.model = nn.Sequential(
            *(nn.ReflectionPad2d(3), nn.Conv2d(3, 3, 7, bias=False), nn.BatchNorm2d(3), nn.ReLU()),
            *(nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
            *(nn.Conv2d(6, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
            *(Block(dropout) for _ in range(2)),
            *(nn.ConvTranspose2d(12, 6, 3, 2, 1, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
            *(nn.ConvTranspose2d(6, 3, 3, 2, 1, 1, bias=False), nn.BatchNorm2d(3), nn.ReLU()),
            *(nn.ReflectionPad2d(3), nn.Conv2d(3, 3, 7), nn.Tanh()),
        )

    def forward(self, x):
        return self.model(x)


class Level(nn.Module):
    """One level of `--netG unet_128 --norm batch` of the original."""

    def __init__(self, outer, channels, inner=None, outermost=False):
        super().__init__()
        self.outermost = outermost
        down = nn.Conv2d(outer, channels, 4, 2, 1, bias=False)
        up = nn.ConvTranspose2d(channels * (2 if inner else 1), outer, 4, 2, 1, bias=outermost)
        if outermost:
            layers = [down, inner, nn.ReLU(), up, nn.Tanh()]
        elif inner is None:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, nn.BatchNorm2d(outer)]
        else:
            layers = [nn.LeakyReLU(0.2), down, nn.BatchNorm2d(channels), inner, nn.ReLU(), up, nn.BatchNorm2d(outer)]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        if self.outermost:
            return self.model(x)
        activated = self.model[0](x)  # in place in the original
        return torch.cat([activated, self.model[1:](activated)], 1)


class UNetWithBatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        level = Level(16, 16)
        for outer, channels in ((16, 16), (8, 16), (4, 8), (2, 4)):
            level = Level(outer, channels, level)
        self.model = Level(3, 2, level, outermost=True)

    def forward(self, x):
        return self.model(x)


@pytest.mark.parametrize(
    "network",
    [lambda: ResNetWithBatchNorm(dropout=False), lambda: ResNetWithBatchNorm(dropout=True), UNetWithBatchNorm],
    ids=["resnet", "dropout", "unet"],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_generator_with_batch_norm_translates_as_in_evaluation(tmp_path, network, prefix):
    torch.manual_seed(0)
    network = with_statistics(network())
    torch.save({prefix + key: value for key, value in network.state_dict().items()}, tmp_path / "G.pth")
    images = torch.rand(2, 3, 64, 128) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(Translator.load(tmp_path / "G.pth").translate(images), network(images))


@pytest.mark.parametrize(
    "nest",
    [
        lambda weights, other: {"state_dict": weights},
        lambda weights, other: {"epoch": 3, "model": {"netG": weights, "netD": {"model.0.weight": torch.zeros(1)}}},
        lambda weights, other: {"params": other, "params_ema": weights},
        lambda weights, other: {"state_dict": {f"module.netG.{key}": value for key, value in weights.items()}},
    ],
    ids=["state_dict", "two keys", "averaged", "prefix"],
)
def test_a_nested_generator_is_found(tmp_path, nest):
    network, other = (ResNetGenerator(ngf=2, blocks=1).eval() for _ in range(2))
    torch.save(nest(network.state_dict(), other.state_dict()), tmp_path / "model.pth")
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(Translator.load(tmp_path / "model.pth").translate(images), network(images))


def test_a_nested_file_without_one_generator_names_what_it_holds(tmp_path):
    weights = ResNetGenerator(ngf=2, blocks=1).state_dict()
    torch.save({"net": {"G_A": weights, "G_B": weights}}, tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match=r"two\.pth holds several generators, net\.G_A, net\.G_B; save one"):
        Translator.load(tmp_path / "two.pth")
    torch.save({"state_dict": {"encoder.0.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"no generator of a known kind \(its weights are state_dict\.encoder"):
        Translator.load(tmp_path / "other.pth")


def test_a_discriminator_cannot_translate():
    with pytest.raises(CheckpointError, match=r"latest_net_D_A\.pth holds a discriminator; expected a generator"):
        Translator.load(REFERENCE / "latest_net_D_A.pth")


def test_export(cyclestyle, checkpoint, tmp_path):
    words = ("export", "--ckpt_path", checkpoint, "--format", "official", "--output", tmp_path / "out")
    status, out, _ = cyclestyle(*words)
    assert status == 0
    assert len(out.splitlines()) == 4
    ours = torch.load(checkpoint, weights_only=True)["state_dict"]
    again = CycleGAN.load_official(tmp_path / "out").state_dict()
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    status, _, error = cyclestyle(*words)
    assert status == 1
    assert "exists already; add --overwrite" in error
    assert cyclestyle(*words, "--overwrite")[0] == 0
    status, _, error = cyclestyle("export", "--ckpt_path", REFERENCE / "latest_net_G_A.pth", "--output", tmp_path)
    assert status == 1
    assert "is not a checkpoint of a run of CycleGAN, CUT, DCLGAN" in error
    assert cyclestyle(*words[:-1], "/proc/nowhere")[0] == 1
