import pytest
import torch

from cyclestyle.errors import CheckpointError
from cyclestyle.tasks import Autoencoder, CycleGAN, Gatys, Johnson
from cyclestyle.weights.vgg import load_encoder

LAYERS = ["relu1_2", "relu2_1"]


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of an autoencoder up to relu2_1, and its task."""
    torch.manual_seed(0)
    task = Autoencoder(level=2, width=4)
    content = {"cyclestyle_task": "Autoencoder", "hyper_parameters": dict(task.hparams)}
    torch.save({**content, "state_dict": task.state_dict()}, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt", task


def test_an_encoder_gives_its_own_activations(checkpoint):
    path, task = checkpoint
    images = torch.rand(1, 3, 24, 20) * 2 - 1
    found = load_encoder(LAYERS, str(path))(images)
    assert {layer: tuple(each.shape) for layer, each in found.items()} == {
        "relu1_2": (1, 4, 24, 20),
        "relu2_1": (1, 8, 12, 10),
    }
    assert torch.allclose(found["relu2_1"], task.encoder(images)["relu2_1"], atol=1e-6)


def test_the_averaged_weights_are_taken_where_there_are_any(checkpoint):
    path, task = checkpoint
    content = torch.load(path, weights_only=True)
    average = {key: value + 0.1 for key, value in task.state_dict().items() if key.startswith("encoder.")}
    torch.save({**content, "ema": average}, path)
    weight = load_encoder(LAYERS, str(path)).convolutions[0].weight
    assert torch.equal(weight, average["encoder.convolutions.0.weight"])


def test_gatys_and_johnson_look_through_it(checkpoint, samples):
    path, _ = checkpoint
    settings = {"features": str(path), "content_layers": ["relu2_1"], "style_layers": LAYERS}
    task = Gatys(**settings, sizes=[32], steps=[5])
    style = torch.rand(3, 32, 32)
    task.use_styles([style])
    means = [each.mean().item() for each in task.features(style[None]).values()]
    assert means == pytest.approx([101.3] * 2, abs=0.5)  # no layer outweighs the others
    photo = torch.rand(1, 3, 32, 32)
    assert not torch.equal(task.paint(photo), photo)
    johnson = Johnson(**settings, style=[str(samples / "trainB" / "0000.png")], width=2)
    johnson.setup("fit")
    assert johnson.losses({"images": photo})["style"].isfinite()


def test_mistakes_name_the_remedy(checkpoint, tmp_path):
    path, _ = checkpoint
    with pytest.raises(CheckpointError, match=r"ends at relu2_1 and has no relu4_2; set --model\.content_layers"):
        Gatys(features=str(path))
    with pytest.raises(CheckpointError, match=r"none\.ckpt does not exist"):
        load_encoder(LAYERS, str(tmp_path / "none.ckpt"))
    torch.save({"cyclestyle_task": "CycleGAN", "state_dict": CycleGAN(ngf=2, ndf=2).state_dict()}, path)
    with pytest.raises(CheckpointError, match=r"--model\.features takes a checkpoint of the autoencoder"):
        load_encoder(LAYERS, str(path))
