"""Runs of ContentGAN from the command line, which begin with a style of a many-styles network."""

import pytest
import torch
from PIL import Image

from cyclestyle.cli import main
from cyclestyle.tasks import Johnson, load
from cyclestyle.translation.opening import open_method

TINY = [
    *("--model=ContentGAN", "--model.generator=resnet6", "--model.depth=5", "--model.ngf=2", "--model.resample=resize"),
    *("--model.discriminator=n_layers", "--model.n_layers=1", "--model.ndf=2", "--model.perceptual_features=random"),
    *("--model.perceptual_layers=[relu1_2]", "--model.style_layers=[relu1_1]", "--data=UnpairedImages"),
    *(
        "--data.load_size=32",
        "--data.crop_size=32",
        "--data.workers=0",
        "--trainer.max_steps=2",
        "--grid.every_n_steps=0",
    ),
    *("--evaluation.extractor=none", "--trainer.enable_progress_bar=false"),
]


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    """A checkpoint of two styles, and a data set."""
    folder = tmp_path_factory.mktemp("painter")
    torch.manual_seed(0)
    task = Johnson(conditional=True, style_names=["dots", "lines"], preset="magenta", width=2)
    checkpoint = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams), "cyclestyle_task": "Johnson"}
    torch.save({**checkpoint, "pytorch-lightning_version": "2.5"}, folder / "styles.ckpt")
    for split in ("trainA", "trainB", "testA", "testB"):
        (folder / split).mkdir()
        for number in range(2):
            Image.effect_noise((40, 32), 90).convert("RGB").save(folder / split / f"{number}.png")
    return folder


def fit(painter, run, *words):
    return main(["fit", *TINY, f"--data.root={painter}", f"--trainer.default_root_dir={run}", *words])


def test_a_run_begins_with_a_style_is_resumed_and_translates(painter, tmp_path, capsys):
    begin = (f"--init_from={painter / 'styles.ckpt'}", "--init_style=dots:0.5,lines:0.5", "--model.norm=none")
    assert fit(painter, tmp_path / "run", *begin, "--model.lr=1e-9") == 0
    last = tmp_path / "run/checkpoints/last.ckpt"
    photo = torch.rand(1, 3, 32, 32) * 2 - 1
    painted = load(last).translate(photo, "AtoB")
    assert torch.allclose(open_method(last).translate(photo, "AtoB"), painted, atol=1e-5)
    assert painted.std() > 0.05  # drawn weights of 0.02 without norms would give a plain grey
    assert fit(painter, tmp_path / "run", *begin, "--ckpt_path=last", "--trainer.max_steps=3") == 0
    assert "step 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--init_style=dots"], "--init_style is a style of the network that --init_from names"),
        (["--init_from=styles", "--init_style=nothing", "--model.norm=none"], "there is no style 'nothing'"),
        (["--init_from=styles", "--init_style=wave", "--model.norm=none"], "model.ngf 16, but the config says 2"),
        (["--init_from=styles", "--init_style=wave"], "model.norm none, but the config says instance"),
        (["--init_from=styles"], "holds a Johnson, but the config says ContentGAN; name one of its styles with"),
        (
            [
                *("--init_from=styles", "--init_style=wave", "--data.channels_A=1", "--data.channels_B=1"),
                *("--model.channels_A=1", "--model.channels_B=1"),
            ],
            "--init_style is for photos of 3 channels, got 1",
        ),
    ],
)
def test_a_style_that_does_not_fit_is_named(painter, tmp_path, words, error, capsys):
    assert fit(painter, tmp_path / "run", *words) == 1
    assert error in capsys.readouterr().err
    assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix != ".lock"]  # nothing was written
