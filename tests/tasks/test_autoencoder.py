"""The autoencoder: what is trained, what a transfer leaves and takes, and the published weights."""

import pytest
import torch
from conftest import SHARED

from cyclestyle.errors import CheckpointError, CycleStyleError
from cyclestyle.functional.style import mean_and_std
from cyclestyle.networks.autoencoder import Decoder
from cyclestyle.networks.vgg import random_weights
from cyclestyle.tasks import Autoencoder
from cyclestyle.tasks.autoencoder import psnr, recoloured
from cyclestyle.translation.engine import Engine

TINY = {"width": 4, "level": 2}


def make_image(seed=0, height=24, width=28, *, bias=(0, 0, 0)):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(1, 3, height, width, generator=generator) - 0.5 + torch.tensor(bias)[:, None, None]).clamp(-1, 1)


def batch():
    return {"A": torch.cat([make_image(0), make_image(1)]), "B": torch.cat([make_image(2), make_image(3)])}


@pytest.fixture
def vgg_file(tmp_path):
    torch.save(random_weights(), tmp_path / "vgg.pth")
    return str(tmp_path / "vgg.pth")


def steps(task, count=60):
    optimiser = task.configure_optimizers()["optimizer"]
    losses = []
    task.log = lambda *args, **options: None
    for _ in range(count):
        loss = task.training_step(batch(), 0)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_from_scratch_it_learns_to_reconstruct_with_every_decoder():
    torch.manual_seed(0)
    task = Autoencoder(**TINY)
    before = [psnr((task.reconstruct(make_image(), level) - make_image()).square().mean()).item() for level in (1, 2)]
    losses = steps(task)
    after = [psnr((task.reconstruct(make_image(), level) - make_image()).square().mean()).item() for level in (1, 2)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(later > earlier + 3 for earlier, later in zip(before, after, strict=True))


@torch.no_grad()
def test_validation_has_the_psnr_of_every_trained_level(vgg_file):
    for task in (Autoencoder(**TINY), Autoencoder(encoder="vgg19", weights=vgg_file, level=2, transfer="adain")):
        found = task.figures(batch(), {})
        for level in (1, 2):
            errors = [(task.reconstruct(batch()[name], level).clamp(-1, 1) - batch()[name]).square() for name in "AB"]
            expected = psnr(torch.stack(errors).mean()).item()
            assert found[f"psnr_{level}"].item() == pytest.approx(expected, abs=1e-4)
        assert found["psnr"] == found["psnr_2"]
    alone = Autoencoder(encoder="vgg19", weights=vgg_file, level=2, transfer="adain", objective="adain")
    assert {"psnr_2", "psnr"} == {name for name in alone.figures(batch(), {}) if "psnr" in name}


@pytest.mark.parametrize("objective", ["reconstruction", "adain"])
def test_a_vgg_encoder_stays_as_it_is(vgg_file, objective):
    task = Autoencoder(encoder="vgg19", weights=vgg_file, level=2, objective=objective, transfer="adain")
    task.setup("fit")
    before = {key: value.clone() for key, value in task.state_dict().items()}
    losses = steps(task, 8)
    assert losses[-1] < losses[0]
    moved = {key for key, value in task.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.startswith("decoders.1." if objective == "adain" else "decoders.") for key in moved)


def test_recoloured_images_have_the_same_channels_in_another_order_and_sign():
    torch.manual_seed(0)
    images = torch.cat([make_image(seed) for seed in range(8)])
    changed = recoloured(images)
    assert not torch.equal(changed, images)
    for image, other in zip(images, changed, strict=True):
        matches = [[torch.equal(a, b) or torch.equal(a, -b) for b in other] for a in image]
        assert sorted(row.index(True) for row in matches) == [0, 1, 2]


def test_recolour_is_for_training_alone():
    torch.manual_seed(0)
    task = Autoencoder(**TINY, recolour=True)
    with torch.no_grad():
        validated, again, trained = (
            float(sum(task.train(training).losses(batch()).values())) for training in (False, False, True)
        )
    assert validated == again
    assert trained != validated


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_activations_of_a_vgg_are_scaled_to_1_and_those_of_a_vgg16_are_decoded(tmp_path, scale):
    weights = random_weights("vgg16")
    torch.save({**weights, "features.0.weight": scale * weights["features.0.weight"]}, tmp_path / "vgg16.pth")
    task = Autoencoder(encoder="vgg16", weights=str(tmp_path / "vgg16.pth"), level=3)
    task.setup("fit")
    image = make_image(height=64, width=64)
    with torch.no_grad():
        means = [features.mean().item() for features in task.encoder(image).values()]
        assert task.reconstruct(image).shape == image.shape
    assert all(0.3 < mean < 3 for mean in means)


@pytest.mark.parametrize("transfer", ["wct", "adain"])
def test_no_strength_reconstructs_and_an_image_is_its_own_style(transfer):
    task = Autoencoder(**TINY, transfer=transfer, strength=0.0).eval()
    chain = [2, 1] if transfer == "wct" else [2]
    expected = make_image()
    for level in chain:
        expected = task.reconstruct(expected, level)
    torch.testing.assert_close(task.stylise(make_image(), [make_image(5)], [1.0]), expected)
    whole = Autoencoder(**TINY, transfer="adain", strength=1.0).eval()
    torch.testing.assert_close(
        whole.stylise(make_image(), [make_image()], [1.0]), whole.reconstruct(make_image()), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("transfer", ["wct", "adain"])
def test_a_transfer_from_a_lower_level_leaves_the_deeper_decoders_out(transfer):
    torch.manual_seed(0)
    task = Autoencoder(**TINY, transfer=transfer, transfer_level=1, strength=0.0).eval()
    photo = make_image()
    torch.testing.assert_close(task.stylise(photo, [make_image(5)], [1.0]), task.reconstruct(photo, 1))
    if transfer == "adain":
        task.strength = 1.0
        exported = task.exported("AtoB").network(photo, make_image(5))
        torch.testing.assert_close(exported, task.stylise(photo, [make_image(5)], [1.0]))
    with pytest.raises(ValueError, match="transfer_level must be 1 to level, which is 2, got 3"):
        Autoencoder(**TINY, transfer_level=3)


def test_adain_gives_the_features_the_moments_of_the_style():
    torch.manual_seed(0)
    task = Autoencoder(width=4, level=1, transfer="adain", strength=1.0).eval()
    seen = []
    task.decoders[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    task.stylise(make_image(), [make_image(7, 40, 32)], [1.0])
    wanted = mean_and_std(task.encoder(make_image(7, 40, 32))["relu1_1"])
    for found, expected in zip(mean_and_std(seen[0]), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-2)  # eps keeps flat channels from the whole way


def test_colour_and_texture_have_strengths_of_their_own():
    blue, red = make_image(bias=(0, 0, 0.4)), make_image(1, bias=(0.4, 0, 0))
    steps(task := Autoencoder(**TINY, transfer="adain", mode="separate", strength=0.0))
    redness = {}
    for strength in (0.0, 0.5, 1.0):
        task.colour_strength = strength
        result = task.stylise(blue, [red], [1.0])[0]
        redness[strength] = (result[0] - result[2]).mean().item()
    assert redness[0.0] < -0.1 < 0.1 < redness[1.0]
    assert redness[0.0] < redness[0.5] < redness[1.0]


@pytest.mark.parametrize("size", [(3, 3), (1, 40), (17, 23)], ids=str)
@pytest.mark.parametrize("transfer", ["wct", "adain"])
def test_results_have_the_size_of_the_photo(size, transfer):
    task = Autoencoder(**TINY, transfer=transfer).eval()
    task.use_styles([make_image(1)[0]])
    result = Engine(task)(make_image(0, *size))
    assert result.shape == (1, 3, *size)
    assert result.isfinite().all()


def test_flat_images_stay_finite():
    task = Autoencoder(**TINY, transfer="wct", strength=1.0).eval()
    for level in (-1.0, 0.0, 1.0):
        flat = torch.full((1, 3, 16, 16), level)
        assert task.stylise(flat, [make_image(1)], [1.0]).isfinite().all()
        assert task.stylise(make_image(1), [flat], [1.0]).isfinite().all()


def test_untrained_decoders_of_a_vgg_give_images_near_grey(vgg_file):
    task = Autoencoder(encoder="vgg19", weights=vgg_file, level=2)
    task.setup("fit")
    images = [task.eval().reconstruct(make_image(), level) for level in (1, 2)]
    assert all(image.abs().mean() < 0.5 for image in images)
    assert all(image.std() > 0 for image in images)


def test_a_checkpoint_needs_no_other_file(vgg_file):
    trained = Autoencoder(encoder="vgg19", weights=vgg_file, level=2)
    trained.setup("fit")
    loaded = Autoencoder(encoder="vgg19", weights="/nowhere.pth", level=2)
    loaded.load_state_dict(trained.state_dict())
    loaded.setup("predict")
    assert torch.equal(loaded.eval().reconstruct(make_image()), trained.eval().reconstruct(make_image()))


@pytest.mark.parametrize("size", [(20, 20), (50, 36)], ids=str)
def test_it_is_trained_on_images_that_its_strides_do_not_divide(size):
    task = Autoencoder(width=2, level=4)
    task.log = lambda *args, **options: None
    images = torch.cat([make_image(seed, *size) for seed in range(2)])
    loss = task.training_step({"A": images, "B": images}, 0)["loss"]
    assert loss.isfinite()
    assert task.reconstruct(images).shape == images.shape


def test_published_decoders_are_refused_for_another_vgg(vgg_file, tmp_path):
    state = Decoder(1).convolutions[0].state_dict()
    torch.save({f"1.{key}": value for key, value in state.items()}, tmp_path / "decoder.pth")
    task = Autoencoder(encoder="vgg19", weights=vgg_file, level=1, decoders=[str(tmp_path / "decoder.pth")])
    with pytest.raises(CheckpointError, match="invert the normalised VGG-19"):
        task.setup("predict")


def test_untrained_decoders_are_refused(vgg_file):
    with pytest.raises(CheckpointError, match="the networks are not trained"):
        Autoencoder().setup("predict")
    with pytest.raises(CheckpointError, match=r"decoders of levels \[1, 2\] are not trained"):
        Autoencoder(encoder="vgg19", weights=vgg_file, level=2).setup("predict")
    with pytest.raises(CycleStyleError, match="no style"):
        Autoencoder().use_styles([])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"encoder": "vgg11"}, "encoder must be one of scratch, vgg19, vgg16, got 'vgg11'"),
        ({"strength": 1.5}, r"strength must be in \[0, 1\], got 1.5"),
        ({"level": 0}, "level must be 1 to 5, got 0"),
        ({"objective": "adain"}, "objective adain needs an encoder"),
        ({"objective": "adain", "encoder": "vgg19"}, "wct needs all: set transfer to adain"),
        ({"mode": "both"}, "mode must be one of joint, separate, got 'both'"),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
    ],
)
def test_bad_settings_are_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        Autoencoder(**changes)


@pytest.mark.slow
def test_the_published_weights_reconstruct():
    weights = SHARED / "weights"
    if not weights.is_dir():
        pytest.skip(f"the weights are not at {weights}")
    from cyclestyle.images import read_image, to_tensor
    from cyclestyle.images.folders import find_images

    task = Autoencoder(
        encoder="vgg19",
        weights=str(weights / "vgg_normalised_conv3_1.pth"),
        decoders=[str(weights / f"feature_invertor_conv{level}_1.pth") for level in (1, 2, 3)],
    ).eval()
    task.setup("predict")
    found = []
    for path in [*find_images(SHARED / "data" / "styles"), *find_images(SHARED / "data" / "content")]:
        image = read_image(path)
        image.thumbnail((512, 512))
        whole = to_tensor(image)[None]
        with torch.inference_mode():
            found.append(psnr((task.reconstruct(whole).clamp(-1, 1) - whole).square().mean()).item())
    assert sum(found) / len(found) > 24
