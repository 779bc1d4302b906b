"""CUT and FastCUT: the numbers of the original implementation, and what it does not do."""

import copy
import json
import os

import pytest
import pytorch_lightning as pl
import torch
from conftest import HERE, SHARED
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from cyclestyle.errors import CheckpointError, DataError
from cyclestyle.functional import discriminator_loss, generator_loss
from cyclestyle.functional.contrastive import l2_normalise, patch_nce, take_patches
from cyclestyle.networks import PatchMLP
from cyclestyle.networks.resampling import BlurDown, BlurUp
from cyclestyle.speed.choice import Tuning
from cyclestyle.speed.training import TrainingSpeed
from cyclestyle.tasks import CUT
from cyclestyle.tasks.schedule import scheduled_epochs
from cyclestyle.translator import Translator
from cyclestyle.weights.official import write_official

NETWORKS = {"G_AB": "G", "D_B": "D", "F_AB": "F"}
SETS = {name: SHARED / "reference" / name for name in ("cut_cut", "cut_fastcut", "cut_cut_batch2")}
FEATURES = {0: "pixels", 4: "down1", 8: "down2", 12: "block0"}
TINY = {"generator": "resnet6", "depth": 2, "ngf": 2, "ndf": 2, "discriminator": "n_layers", "n_layers": 1}
TINY |= {"nce_patches": 16, "nce_width": 8, "nce_features": ["pixels", "down2", "block1"]}
PLACES = (22 * 22, 8 * 8, 4 * 4)
"""Of the feature maps of TINY, for images of 16×16."""


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


# The step


def with_ids(data, *, flips=(), seed=1):
    """The batches with places that are drawn here."""
    generator = torch.Generator().manual_seed(seed)
    return [
        batch
        | {"flip": bool(flips) and flips[t % len(flips)]}
        | {
            "patch_ids": {
                kind: [torch.randperm(places, generator=generator)[:16] for places in PLACES]
                for kind in ("NCE", "NCE_idt")
            }
        }
        for t, batch in enumerate(data)
    ]


def nce_by_hand(task, source, translation, ids, flip):
    losses = []
    for number, name in enumerate(task.contrast.features):
        mlp = getattr(task.F_AB, f"mlp_{number}")
        (key,), (query,) = (task.G_AB.features(images, [name]) for images in (source, translation))
        query = query.flip(-1) if flip else query
        rows = []
        for image in range(len(source)):
            k, q = (mlp(one[image].flatten(1).T[ids[number]]) for one in (key, query))  # one row a place
            k, q = (one / (one.norm(dim=1, keepdim=True) + 1e-7) for one in (k.detach(), q))
            rows.append(-torch.log_softmax(q @ k.T / 0.07, dim=1).diagonal())
        losses.append(torch.cat(rows).mean())
    return sum(losses) / len(losses)


def by_hand(task, data):
    """The training of the original, with three optimisers in plain PyTorch; the losses of every step."""
    adam = {name: torch.optim.Adam(getattr(task, name).parameters(), 2e-4, (0.5, 0.999)) for name in NETWORKS}
    losses = []
    for batch in data:
        A, B, ids, flip = batch["A"].double(), batch["B"].double(), batch["patch_ids"], batch["flip"]
        turn = (lambda images: images.flip(-1)) if flip else lambda images: images
        fake_B, idt_B = task.G_AB(turn(A)), task.G_AB(turn(B))
        loss_D = discriminator_loss(task.D_B(B), task.D_B(fake_B.detach()), "lsgan")
        adam["D_B"].zero_grad()
        loss_D.backward()
        adam["D_B"].step()
        loss_G = generator_loss(task.D_B(fake_B), "lsgan")
        loss_NCE = nce_by_hand(task, A, fake_B, ids["NCE"], flip)
        if task.nce_identity:
            loss_NCE = (loss_NCE + nce_by_hand(task, B, idt_B, ids["NCE_idt"], flip)) / 2
        for name in ("G_AB", "F_AB"):
            adam[name].zero_grad()
        (loss_G + task.lambda_NCE * loss_NCE).backward()
        adam["G_AB"].step()
        adam["F_AB"].step()
        losses.append((loss_G + task.lambda_NCE * loss_NCE).item())
    return losses


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("fast", [False, True], ids=["CUT", "FastCUT"])
def test_a_step_is_that_of_three_optimisers(fast, images):
    """The last batch is smaller than the others."""
    settings = {"lambda_NCE": 10.0, "nce_identity": False, "flip_equivariance": True} if fast else {}
    torch.manual_seed(0)
    task, record = CUT(**TINY, **settings, init_gain=1.0), Record()
    other = copy.deepcopy(task).double()
    data = [*batches(3, images=images), *batches(1, images=1, seed=5)]
    data = with_ids(data, flips=(True, False) if fast else ())
    quiet_trainer(precision="64-true", max_epochs=1, callbacks=[record]).fit(task, loader(data))
    expected = by_hand(other, data)
    assert [row["train/loss_G"] for row in record.losses] == pytest.approx(expected, rel=1e-10)
    for name, weight in other.named_parameters():
        bound = 1e-6 if name.endswith("bias") else 1e-10  # biases in front of a norm follow rounding
        assert (task.get_parameter(name) - weight).abs().max() < bound, name


def losses_of(task, batch, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        return task.losses(batch)


def test_the_losses_are_weighted_and_their_sum_is_trained_on():
    torch.manual_seed(0)
    data = with_ids(batches(1))[0]
    one, ten = CUT(**TINY), CUT(**TINY, lambda_NCE=10.0, lambda_GAN=3.0)
    ten.load_state_dict(one.state_dict())
    low, high = losses_of(one, data), losses_of(ten, data)
    assert set(low) == {"D_B", "G_AB", "NCE", "NCE_idt"}
    for name, factor in {"D_B": 1, "G_AB": 3, "NCE": 10, "NCE_idt": 10}.items():
        assert high[name].item() == pytest.approx(factor * low[name].item(), rel=1e-6)


def test_places_and_flips_are_drawn_anew_in_every_step():
    torch.manual_seed(0)
    task = CUT(**TINY, flip_equivariance=True, init_gain=1.0)
    batch = batches(1)[0]
    assert losses_of(task, batch, 0)["NCE"] == losses_of(task, batch, 0)["NCE"]
    assert len({losses_of(task, batch, seed)["NCE"].item() for seed in range(6)}) == 6
    flips = [task._flips(batch) for _ in range(100)]
    assert 30 < sum(flips) < 70
    assert not any(CUT(**TINY)._flips(batch) for _ in range(20))


def test_validation_draws_the_same_places_and_leaves_the_training_alone():
    torch.manual_seed(0)
    task, batch = CUT(**TINY, init_gain=1.0), batches(1)[0]
    before = torch.get_rng_state()
    first, second = (task.figures(batch, task.sample(batch)) for _ in range(2))
    assert first == second
    assert set(first) == {"NCE", "NCE_idt"}
    assert torch.equal(torch.get_rng_state(), before)


def test_negatives_of_the_batch():
    torch.manual_seed(0)
    task, data = CUT(**TINY, init_gain=1.0), with_ids(batches(1, images=3))[0]
    joined = CUT(**TINY, nce_negatives="batch")
    joined.load_state_dict(task.state_dict())
    assert losses_of(joined, data)["NCE"] > losses_of(task, data)["NCE"]
    one = {name: value[:1] if name in "AB" else value for name, value in data.items()}
    assert losses_of(joined, one)["NCE"].item() == pytest.approx(losses_of(task, one)["NCE"].item(), rel=1e-6)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("generator", [{}, {"generator": "unet128", "depth": 5, "resample": "transpose"}])
def test_other_channels_and_generators(channels, generator):
    settings = {**TINY, "nce_features": None, **generator}
    task = CUT(**settings, channels_A=channels, channels_B=channels)
    before = copy.deepcopy(task.state_dict())
    images = torch.rand(2, channels, 32, 64) * 2 - 1
    quiet_trainer(max_epochs=1).fit(task, loader([{"A": images, "B": images.flip(0)}] * 2))
    for name, weight in task.named_parameters():
        assert weight.isfinite().all()
        assert name.endswith("bias") or not torch.equal(weight, before[name]), name
    assert task.in_channels("AtoB") == channels
    with torch.no_grad():
        assert task.eval().translate(torch.rand(1, channels, 13, 21), "AtoB").shape == (1, channels, 13, 21)


def test_the_heads_and_the_encoder_learn_in_half_precision():
    """Keys come first and without a gradient, which must not turn off that of the queries under autocast."""
    torch.manual_seed(0)
    task, record = CUT(**TINY, init_gain=1.0), Record()
    trainer = quiet_trainer(precision="bf16-mixed", max_epochs=1, callbacks=[record])
    trainer.fit(task, loader(batches(1)))
    assert all(record.gradients[f"{n}"].isfinite().all() for n, _ in task.named_parameters())
    for name in ("F_AB.mlp_0.0.weight", "F_AB.mlp_2.2.weight", "G_AB.model.4.weight", "G_AB.model.1.weight"):
        assert record.gradients[name].norm() > 1e-6, name


@pytest.mark.parametrize(
    "way", ["checkpoint_activations", "channels_last", pytest.param("compile", marks=pytest.mark.slow)]
)
def test_other_ways_to_run_the_step_have_the_same_gradients(way):
    data = with_ids(batches(1, images=2))
    found = []
    for used in (False, True):
        torch.manual_seed(0)
        task, record = CUT(**TINY, checkpoint_activations=used and way.startswith("check"), init_gain=1.0), Record()
        if used and not way.startswith("check"):
            task.speed = TrainingSpeed(Tuning(**{way: True}))
        quiet_trainer(precision="64-true", max_epochs=1, callbacks=[record]).fit(task, loader(data))
        found.append(record.gradients)
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], rtol=1e-9, atol=1e-12), name


def test_the_rate_falls_after_200_epochs_to_0():
    task = CUT(**TINY)
    factors = [task.learning_rate_factor(epoch) for epoch in (0, 199, 200, 399, 400)]
    assert factors == pytest.approx([1, 1, 200 / 201, 1 / 201, 0])
    assert scheduled_epochs({"constant_epochs": 150, "decay_epochs": 50}) == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels_B": 1}, r"same channels in both domains, got channels_A=3 and channels_B=1; use DCLGAN"),
        ({"channels_A": 0, "channels_B": 0}, "channels_A must be above 0, got 0"),
        ({"nce_features": ["pixels", "block2"]}, r"among pixels, down1, down2, block0, block1 .*got 'block2'"),
        ({"nce_features": ["pixels", "pixels"]}, r"none twice, got \['pixels', 'pixels'\]"),
        ({"nce_features": []}, "at least one feature"),
        ({"nce_patches": -1}, "nce_patches must not be below 0, got -1"),
        ({"nce_temperature": 0.0}, "nce_temperature must be above 0, got 0.0"),
        ({"nce_width": 0}, "nce_width must be above 0, got 0"),
        ({"nce_negatives": "all"}, "nce_negatives must be one of image, batch, got 'all'"),
        ({"lambda_NCE": -1.0}, "lambda_NCE must not be below 0, got -1.0"),
        ({"gan_mode": "wgan"}, "gan_mode must be one of"),
        ({"generator": "unet128", "depth": 5}, "a U-Net supports only resample transpose, got 'blur'"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        CUT(**{**TINY, **settings})


def test_too_few_places_are_named():
    batch = batches(1)[0] | {"patch_ids": {"NCE": [torch.arange(3)]}}
    with pytest.raises(DataError, match="patch_ids have 1 tensors for 3 features"):
        CUT(**TINY).losses(batch)


# Files of the original


@pytest.mark.parametrize("changes", [{}, {"resample": "transpose"}, {"discriminator": "pixel"}, {"channels_A": 1}])
def test_written_files_are_read_bit_for_bit(tmp_path, changes):
    settings = {**TINY, **changes, "channels_B": changes.get("channels_A", 3)}
    task = CUT(**settings)
    paths = write_official(task.state_dict(), tmp_path)
    assert [path.name for path in paths] == ["latest_net_G.pth", "latest_net_D.pth", "latest_net_F.pth"]
    loaded = CUT.load_official(tmp_path, nce_features=TINY["nce_features"])
    assert loaded.state_dict().keys() == task.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in task.state_dict().items())
    for name in ("depth", "ngf", "ndf", "nce_width", "discriminator", "channels_A", "channels_B"):
        assert loaded.hparams[name] == task.hparams[name], name
    assert loaded.hparams["resample"] == changes.get("resample", "blur")


def test_written_files_are_those_of_the_original(folder, settings, tmp_path):
    """Names, their order, shapes, types and values."""
    write_official(load_task(folder, settings).state_dict(), tmp_path)
    for theirs in NETWORKS.values():
        ours = torch.load(tmp_path / f"latest_net_{theirs}.pth", weights_only=True)
        original = torch.load(folder / f"latest_net_{theirs}.pth", weights_only=True)
        assert list(ours) == list(original)
        assert all(torch.equal(ours[k], v) and ours[k].dtype == v.dtype for k, v in original.items())


def save_changed(task, folder, name, change):
    write_official(task.state_dict(), folder)
    path = folder / f"latest_net_{name}.pth"
    weights = torch.load(path, weights_only=True)
    change(weights)
    torch.save(weights, path)


def test_files_without_filters_and_of_wrapped_networks_are_read(tmp_path):
    task = CUT(**TINY)

    def strip(weights):
        for key in [key for key in weights if key.endswith("filt")]:
            del weights[key]
        for key in list(weights):
            weights[f"module.{key}"] = weights.pop(key)

    save_changed(task, tmp_path, "G", strip)
    loaded = CUT.load_official(tmp_path, nce_features=TINY["nce_features"])
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in task.state_dict().items())
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.equal(Translator.load(tmp_path / "latest_net_G.pth").translate(images), task.G_AB(images))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("G", lambda w: w.update({"model.7.filt": w["model.7.filt"] * 2}), "another antialiasing filter, model.7.filt"),
        ("G", lambda w: w.clear(), "latest_net_G.pth is not a generator"),
        ("D", lambda w: w.update({"model.0.weight": torch.zeros(2, 1, 4, 4)}), "do not match"),
        ("F", lambda w: w.clear(), "latest_net_F.pth is not a patch MLP"),
        (
            "F",
            lambda w: w.update({"mlp_1.0.weight": torch.zeros(8, 5)}),
            r"with \[3, 5, 8\] channels, but those of nce_features have \[3, 8, 8\]",
        ),
        ("F", lambda w: w.pop("mlp_1.0.bias"), "latest_net_F.pth looks like a patch MLP network, but mlp_1.0.bias"),
    ],
)
def test_wrong_files_are_named(tmp_path, name, change, message):
    save_changed(CUT(**TINY), tmp_path, name, change)
    with pytest.raises(CheckpointError, match=message):
        CUT.load_official(tmp_path, nce_features=TINY["nce_features"])


def test_the_options_of_the_original_are_read(tmp_path):
    write_official(CUT(**TINY).state_dict(), tmp_path)
    (tmp_path / "train_opt.txt").write_text(
        "                 CUT_mode: FastCUT                       \t[default: CUT]\n"
        "               lambda_NCE: 10.0                          \t[default: 1.0]\n"
        "                  nce_idt: False                         \t[default: True]\n"
        "        flip_equivariance: True                          \t[default: False]\n"
        "nce_includes_all_negatives_from_minibatch: True          \n"
        "                    nce_T: 0.1                           \n"
        "                 n_epochs: 150                           \n"
        "                pool_size: 0                             \n"
        "              num_patches: 64                            \n"
    )
    task = CUT.load_official(tmp_path, nce_features=TINY["nce_features"], nce_patches=9)
    assert (task.lambda_NCE, task.nce_identity, task.flip_equivariance) == (10, False, True)
    assert task.schedule.constant_epochs == 150
    assert (task.contrast.temperature, task.contrast.negatives, task.contrast.patches) == (0.1, "batch", 9)


def test_heads_and_discriminators_cannot_translate(tmp_path):
    write_official(CUT(**TINY).state_dict(), tmp_path)
    for name, message in (("D", "holds a discriminator"), ("F", "holds the heads of a contrastive loss")):
        with pytest.raises(CheckpointError, match=message):
            Translator.load(tmp_path / f"latest_net_{name}.pth")


# Several processes

SCRIPT = """
import os, sys
sys.path[:0] = [{tests!r}, {parent!r}]
import torch, pytorch_lightning as pl
from test_cut import CUT, TINY, batches, loader, quiet_trainer, with_ids
rank = int(os.environ.get("LOCAL_RANK", 0))
torch.manual_seed(0)
task = CUT(**TINY, init_gain=1.0)
whole = with_ids(batches(4, images=2))
data = [{{k: v[rank:rank + 1] if k in "AB" else v for k, v in batch.items()}} for batch in whole]
calls, in_step = [], False
for name in ("all_reduce", "barrier"):
    real = getattr(torch.distributed, name)
    counted = lambda *args, name=name, real=real, **options: in_step and calls.append(name) or real(*args, **options)
    setattr(torch.distributed, name, counted)

class Steps(pl.Callback):
    def on_train_batch_start(self, *_):
        global in_step
        in_step = True
    def on_train_batch_end(self, *_):
        global in_step
        in_step = False

settings = dict(strategy="ddp", precision="64-true", use_distributed_sampler=False, callbacks=[Steps()])
trainer = quiet_trainer(max_epochs=1, devices=2, **settings)
trainer.fit(task, loader(data))
assert calls == ["all_reduce"] * 4, calls  # one for all discriminators of a batch, and nobody waits at a barrier
torch.save(task.state_dict(), os.path.join({folder!r}, f"rank{{rank}}.pth"))
"""


def test_two_processes_with_one_pair_each_are_one_with_two(forks, tmp_path):
    """Plain `ddp`: every network, the heads and the discriminator included."""
    tests = os.path.dirname(__file__)
    code = SCRIPT.format(tests=tests, parent=os.path.dirname(tests), folder=str(tmp_path))
    for process in forks.run_ranks(2, code=code):
        assert process.returncode == 0, process.stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in (0, 1)]
    torch.manual_seed(0)
    task = CUT(**TINY, init_gain=1.0)
    quiet_trainer(max_epochs=1, precision="64-true").fit(task, loader(with_ids(batches(4, images=2))))
    for name, weight in task.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        bound = 1e-6 if name.endswith("bias") else 1e-9  # biases in front of a norm follow rounding
        assert (ranks[0][name] - weight).abs().max() < bound, name
