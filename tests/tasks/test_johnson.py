import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from cyclestyle.errors import CheckpointError, CycleStyleError, DataError, ImageError
from cyclestyle.functional.style import gram_matrix
from cyclestyle.images import read_image, to_tensor
from cyclestyle.networks.vgg import ORIGINAL_MEANS, build_vgg, random_weights
from cyclestyle.tasks import Johnson, load
from cyclestyle.translation.engine import Engine
from cyclestyle.translation.large import LargeImages

LAYERS = {"content_layers": ["relu2_2"], "style_layers": ["relu1_2", "relu2_2"]}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture
def paintings(samples):
    return [str(path) for path in sorted((samples / "trainB").iterdir())[:2]]


@pytest.fixture
def new_task(paintings):
    def new(**changes):
        torch.manual_seed(0)
        task = Johnson(**{"style": paintings, "weights": "random", "width": 2, **LAYERS, **changes})
        task.log = lambda *values, **options: None  # there is no trainer to log to
        task.setup("fit")
        return task

    return new


def photos(count=2, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def step(task, images):
    return task.training_step({"images": images}, 0)


def test_only_the_network_is_trained_and_stored(new_task):
    task = new_task()
    before = {key: value.clone() for key, value in task.perceptual[0].state_dict().items()}
    optimiser = task.configure_optimizers()["optimizer"]
    step(task, photos())["loss"].backward()
    optimiser.step()
    assert all(parameter.grad is None for parameter in task.perceptual[0].parameters())
    assert all(torch.equal(value, before[key]) for key, value in task.perceptual[0].state_dict().items())
    named = dict(task.named_parameters())
    assert named.keys() == task.state_dict().keys()
    assert all(name.startswith("transform.") for name in named)
    assert {id(p) for group in optimiser.param_groups for p in group["params"]} == {id(p) for p in named.values()}


@pytest.mark.parametrize("preset", ["pytorch_example", "reference"])
def test_losses_are_those_of_the_formulas(new_task, preset):
    """From the definitions and the weights of both implementations."""
    content_weight, style_weight, tv_weight = {"reference": (1, 5, 1e-6), "pytorch_example": (1e5, 1e10, 0)}[preset]
    task = new_task(preset=preset, content_weight=2.0, style_weight=3.0, tv_weight=4.0)
    features, images = task.perceptual[0].features, photos(1)
    with torch.no_grad():
        painted = task.transform(images)
        seen, wanted, styles = features(painted), features(images), [features(p) for p in shown(task)]
    content = 2.0 * content_weight * (seen["relu2_2"] - wanted["relu2_2"]).square().mean()
    style = 0.0
    for layer in LAYERS["style_layers"]:
        channels, height, width = seen[layer].shape[1:]
        target = sum(gram_matrix(one[layer], "none") / one[layer][0].numel() for one in styles) / len(styles)
        squares = (gram_matrix(seen[layer], "none") / (channels * height * width) - target).square().sum()
        style = style + 3.0 * style_weight * squares / channels**2
    levels = painted * 127.5
    rows, columns = levels.diff(dim=2).square().sum(), levels.diff(dim=3).square().sum()
    found = step(task, images)["losses"]
    assert found["content"] == pytest.approx(content.item(), rel=1e-4)
    assert found["style"] == pytest.approx(style.item(), rel=1e-4)
    assert found["tv"] == pytest.approx(4.0 * tv_weight * (rows + columns).item(), rel=1e-4)
    assert found["loss"] == pytest.approx((found["content"] + found["style"] + found["tv"]).item(), rel=1e-5)


def shown(task):
    return [to_tensor(read_image(path))[None] for path in task.style]


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_weak_activations_are_scaled_to_those_that_the_weights_are_for(new_task, monkeypatch, scale):
    """Random weights and ten times smaller ones give the original's mean activations; the example takes any as is."""
    weights = {key: value / scale for key, value in random_weights("vgg16").items()}
    monkeypatch.setattr(
        "cyclestyle.tasks.johnson.load_vgg", lambda layers, **_: build_vgg(layers, weights, name="vgg16")
    )
    task, example = new_task(), new_task(preset="pytorch_example")
    with torch.no_grad():
        found = [task.perceptual[0].features(painting) for painting in shown(task)]
        plain = [example.perceptual[0].features(painting) for painting in shown(task)]
        expected = [build_vgg(LAYERS["style_layers"], weights, name="vgg16")(painting) for painting in shown(task)]
    for layer in LAYERS["style_layers"]:
        assert torch.stack([one[layer].mean() for one in found]).mean() == pytest.approx(
            ORIGINAL_MEANS[layer], rel=1e-4
        )
        assert all(torch.allclose(one[layer], other[layer]) for one, other in zip(plain, expected, strict=True))


def test_paintings_are_mixed_by_their_weights(new_task):
    task = new_task(style_weights=[3.0, 1.0])
    judge = task.perceptual[0]
    with torch.no_grad():
        first, second = (gram_matrix(judge.features(one)["relu1_2"], "elements") for one in shown(task))
    assert torch.allclose(judge.get_buffer("relu1_2"), 0.75 * first + 0.25 * second, rtol=1e-4)
    assert torch.allclose(new_task().perceptual[0].get_buffer("relu1_2"), (first + second) / 2, rtol=1e-4)
    with pytest.raises(CycleStyleError, match=r"style_weights \[1\.0\] for 2 styles"):
        new_task(style_weights=[1.0])


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_steps_gradients_are_those_of_double_precision(new_task, batch_size):
    """The VGG's memory format reaches the network's instance norms, where PyTorch's own gradient can be wrong."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        task = new_task(width=4).to(dtype)
        step(task, photos(batch_size).to(dtype))["loss"].backward()
        found[dtype] = torch.cat([parameter.grad.flatten().double() for parameter in task.parameters()])
    exact = found[torch.float64]
    assert (found[torch.float32] - exact).norm() / exact.norm() < 5e-3  # rounding that tips rectified units


def test_the_content_of_a_photo_is_seen_with_the_same_weights(new_task):
    judge = new_task(content_layers=["relu1_2"]).perceptual[0]
    assert len(judge.shallow.convolutions) == 2
    assert judge.shallow.convolutions[1].weight is judge.features.convolutions[1].weight
    assert torch.equal(judge.shallow(photos())["relu1_2"], judge.features(photos())["relu1_2"])


def test_the_loss_falls(new_task):
    task, images = new_task(width=8), photos()
    optimiser = task.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = step(task, images)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions(paintings, precision):
    torch.manual_seed(0)
    task = Johnson(style=paintings, weights="random", width=2, **LAYERS)
    before = {key: value.clone() for key, value in task.state_dict().items()}
    data = DataLoader([{"images": photos(1)[0]} for _ in range(2)], batch_size=1)
    trainer = pl.Trainer(max_steps=2, accelerator="cpu", precision=precision, log_every_n_steps=1, **QUIET)
    trainer.fit(task, data)
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert any(not torch.equal(value, before[key].to(value)) for key, value in task.state_dict().items())


def test_gram_matrices_are_summed_in_single_precision_under_autocast(new_task):
    task = new_task(style_layers=["relu1_2"])
    judge = task.perceptual[0]
    with torch.autocast("cpu", torch.float16):  # whose largest number is 65,504, the sum of a few squares here
        assert all(value.isfinite() for value in judge(photos(), photos()))


def test_a_checkpoint_needs_neither_paintings_nor_vgg(new_task, tmp_path, samples):
    style = tmp_path / "painting.png"
    style.write_bytes((samples / "trainB" / "0000.png").read_bytes())
    torch.save(random_weights("vgg19"), tmp_path / "vgg.pth")
    task = Johnson(style=[str(style)], network="vgg19", weights=str(tmp_path / "vgg.pth"), width=2, **LAYERS)
    data = DataLoader([{"images": photos(1)[0]}], batch_size=1)
    trainer = pl.Trainer(max_steps=1, accelerator="cpu", **QUIET)
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    style.unlink()
    (tmp_path / "vgg.pth").unlink()
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["cyclestyle_task"] == "Johnson"
    loaded = Johnson.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    loaded.setup("predict")
    assert loaded.perceptual == ()
    with torch.no_grad():
        assert torch.equal(loaded.transform(photos()), task.transform(photos()))


def test_the_normalised_vgg_is_scaled_to_what_the_weights_are_for(tmp_path, paintings):
    """Weights whose first layer is a 1×1 convolution of the colours have activations of mean 1 already."""
    drawn = random_weights()
    weights = {f"{n + 2}.{leaf}": drawn[f"features.{n}.{leaf}"] for n in range(5) for leaf in ("weight", "bias")}
    weights |= {"0.weight": torch.eye(3)[:, :, None, None], "0.bias": torch.zeros(3)}
    assert build_vgg(["relu1_2"], weights).normalised
    torch.save(weights, tmp_path / "vgg.pth")
    task = Johnson(style=paintings, network="vgg19", weights=str(tmp_path / "vgg.pth"), width=2, **LAYERS)
    task.setup("fit")
    scale = ORIGINAL_MEANS["relu1_2"]  # relu1_1 is no layer of a loss and keeps its activations
    assert torch.allclose(task.perceptual[0].features.convolutions[1].weight, scale * weights["3.weight"])
    perceptual = task.perceptual[0]
    assert torch.equal(perceptual.shallow(photos())["relu2_2"], perceptual.features(photos())["relu2_2"])


def test_mistakes_in_what_is_learnt_from(new_task, tmp_path):
    with pytest.raises(CycleStyleError, match=r"no painting: list files in model\.style"):
        new_task(style=None)
    with pytest.raises(ImageError, match=r"cannot read nowhere\.jpg"):
        new_task(style=["nowhere.jpg"])
    (tmp_path / "fake.jpg").write_text("text")
    with pytest.raises(ImageError, match=r"fake\.jpg: its content is not an image"):
        new_task(style=[str(tmp_path / "fake.jpg")])
    with pytest.raises(CheckpointError, match=r"nowhere\.pth do not exist"):
        new_task(weights="nowhere.pth")
    with pytest.raises(DataError, match=r"photos of 12×12 are too small for relu4_1, which needs 16 .*data\.crop_size"):
        step(new_task(style_layers=["relu4_1"]), photos(1, 12))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "gatys"}, "preset must be one of reference, pytorch_example, magenta, got 'gatys'"),
        ({"network": "vgg11"}, "network must be vgg16 or vgg19, got 'vgg11'"),
        ({"style_layers": ["relu3_4"]}, "vgg16 has no layer 'relu3_4'"),
        ({"content_layers": ["conv1"]}, "vgg16 has no layer 'conv1'"),
        ({"style_layers": []}, "style_layers must name at least one layer"),
        ({"style_weight": 0}, "style_weight must be above 0, got 0"),
        ({"style_size": -1}, "style_size must be above 0, got -1"),
        ({"tv_weight": -1.0}, "tv_weight must not be below 0, got -1.0"),
        ({"upsample": "nearest"}, "upsample must be resize or transpose, got 'nearest'"),
        ({"lr": 0}, "lr must be above 0, got 0"),
        ({"extend": "a.ckpt"}, "extend and style_names are for networks of many styles"),
        ({"conditional": True, "style": ["a/x.jpg", "b/x.png"]}, "two paintings are called x"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Johnson(**settings)


# Many styles


def many(new_task, **changes):
    return new_task(conditional=True, preset="magenta", **changes)


def test_each_image_has_the_loss_of_its_own_style(new_task, monkeypatch):
    """The losses of a batch are the means of those of its images, each with a network of its style alone."""
    task, images = many(new_task, style_weights=[3.0, 1.0]), photos(2)
    features, preset = task.perceptual[0].features, (1.0, 1e-4)  # weights of Magenta; G = F Fᵀ / (H W)
    monkeypatch.setattr("torch.randint", lambda *_, **__: torch.tensor([1, 0]))
    found = step(task, images)["losses"]
    content, style = torch.zeros(()), torch.zeros(())
    with torch.no_grad():
        for number, (image, factor) in enumerate(zip(torch.split(images, 1), (2 * 0.25, 2 * 0.75), strict=True)):
            task.use_styles([task.style_names[1 - number]])
            painted = task.translate(image, "AtoB")
            seen, wanted, model = features(painted), features(image), features(shown(task)[1 - number])
            content += preset[0] * (seen["relu2_2"] - wanted["relu2_2"]).square().mean() / 2
            for layer in LAYERS["style_layers"]:
                squares = (gram_matrix(seen[layer]) - gram_matrix(model[layer])).square().mean()
                style += preset[1] * factor * squares / 2
    assert found["content"] == pytest.approx(content.item(), rel=1e-4)
    assert found["style"] == pytest.approx(style.item(), rel=1e-4)
    assert features.pooling == "average"


def test_paintings_of_a_folder_are_styles_with_their_names(new_task, samples):
    assert many(new_task, style=[str(samples / "trainB")]).style_names == tuple(f"{n:04}" for n in range(7))


def test_styles_are_mixed_by_their_weights(new_task):
    task, images = many(new_task), photos()
    for table in (parameter for name, parameter in task.transform.named_parameters() if ".norm." in name):
        torch.nn.init.normal_(table)
    task.use_styles(["0001", "0000"], [3, 1])
    with torch.no_grad():
        mixed = task.translate(images, "AtoB")
        shares = torch.tensor([0.25, 0.75])[None, :, None, None]
        assert torch.allclose(mixed, task.transform(images, shares))
        task.use_styles(["0001"])
        alone = task.translate(images, "AtoB")
    assert not torch.allclose(alone, mixed)
    with pytest.raises(CycleStyleError, match="there is no style 'nix'; the styles are 0000, 0001"):
        task.use_styles(["nix"])


def test_styles_are_on_the_device_of_the_images(new_task):
    task = many(new_task).to("meta")
    for size in (3, 5):  # without regions, and with two
        task.use_styles(["0001", "0000"])
        assert task.translate(torch.empty(1, size, 16, 16, device="meta"), "AtoB").device.type == "meta"


def test_regions_have_their_styles_also_where_images_are_streamed(new_task):
    task, images = many(new_task), torch.cat([photos(1, 64), torch.full((1, 2, 64, 64), -1.0)], dim=1)
    for table in (parameter for name, parameter in task.transform.named_parameters() if ".norm." in name):
        torch.nn.init.normal_(table, 1.0)
    images[:, 3, :, :20], images[:, 4, :, 12:40] = 1, 1  # they overlap, and leave a part out
    task.use_styles(["0001", "0000"])
    with torch.no_grad():
        engine = Engine(task)
        whole = engine(images)
        shares = torch.zeros(1, 2, 64, 64)
        shares[:, 1, :, :12], shares[:, :, :, 12:20], shares[:, 0, :, 20:40], shares[:, 1, :, 40:] = 1, 0.5, 1, 1
        assert torch.allclose(whole, task.transform(images[:, :3], shares), atol=1e-6)
        engine.large_images = LargeImages(memory="300KB")
        done = []
        engine.on_progress = done.append
        assert torch.allclose(engine(images), whole, atol=1e-4)
    assert len(done) > 1


def fitted(task, folder, steps=2):
    data = DataLoader([{"images": image} for image in photos(2 * steps)], batch_size=2)
    trainer = pl.Trainer(max_steps=steps, accelerator="cpu", **QUIET)
    trainer.fit(task, data)
    trainer.save_checkpoint(folder / "many.ckpt")
    return folder / "many.ckpt"


def test_new_styles_change_nothing_of_the_others(paintings, samples, tmp_path):
    new = str(samples / "trainB" / "0005.png")
    settings = {"weights": "random", "width": 2, "conditional": True, "preset": "magenta", **LAYERS}
    base = fitted(Johnson(style=paintings, **settings), tmp_path)
    before = torch.load(base, weights_only=True)["state_dict"]
    task = Johnson(style=[new], extend=str(base), **settings)
    after = torch.load(fitted(task, tmp_path), weights_only=True)
    assert after["hyper_parameters"]["style_names"] == ["0000", "0001", "0005"]
    for key, value in after["state_dict"].items():
        assert torch.equal(value[:2] if ".norm." in key else value, before[key]), key
    trained = after["state_dict"]["transform.last.norm.bias"]
    assert not torch.equal(trained[2], before["transform.last.norm.bias"].mean(0))
    loaded = load(tmp_path / "many.ckpt")
    loaded.use_styles(["0005"])
    shares = torch.eye(3)[2][None, :, None, None]
    with torch.no_grad():
        assert torch.equal(loaded.translate(photos(), "AtoB"), task.transform(photos(), shares))
    with pytest.raises(CycleStyleError, match=r"has model\.width 2, not 3; set both to the same"):
        Johnson(style=[new], extend=str(base), **{**settings, "width": 3})


def test_only_a_network_of_many_styles_is_extended(paintings, tmp_path):
    base = fitted(Johnson(style=paintings, weights="random", width=2, **LAYERS), tmp_path)
    with pytest.raises(CycleStyleError, match="is no network of many styles"):
        Johnson(style=paintings, extend=str(base), conditional=True, width=2)
