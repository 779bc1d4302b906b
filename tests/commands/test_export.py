"""`export` to other programs: what the file says, what it gives, and what `predict` makes of it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cyclestyle.errors import CheckpointError, CycleStyleError
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.sharing.exporting import Exporting, export_method
from cyclestyle.tasks import CUT, Autoencoder, CycleGAN, Johnson
from cyclestyle.translation.opening import open_method
from cyclestyle.translator import Translator
from cyclestyle.weights.checkpoints import write_checkpoint
from cyclestyle.weights.exported import RUNTIMES, Description, open_exported
from cyclestyle.weights.exported.program import trace

TINY_GAN = {"generator": "resnet6", "depth": 1, "ngf": 2, "ndf": 2, "discriminator": "pixel"}


def write(task, path):
    settings = {"hyper_parameters": dict(task.hparams), "cyclestyle_task": type(task).__name__}
    write_checkpoint({"state_dict": task.state_dict(), **settings}, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run: a checkpoint, and a config that names a folder of this machine."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    (folder / "checkpoints").mkdir()
    write(CycleGAN(**TINY_GAN), folder / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text("data: {init_args: {root: /home/somebody/paintings}}\nmodel: {lr: 0.1}\n")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 50, 3), dtype=np.uint8)).save(folder / "photo.png")
    return folder


def translated(cyclestyle, run, checkpoint, name):
    output = run / f"{name}.png"
    words = ["--input", run / "photo.png", "--output", output, "--trainer.enable_progress_bar=false"]
    status, _, err = cyclestyle("predict", "--ckpt_path", checkpoint, *words)
    assert status == 0, err
    return np.asarray(Image.open(output)).astype(int)


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("safetensors", ["safetensors"]),
        ("onnx", ["onnxscript", "onnxruntime"]),
        pytest.param("openvino", ["onnxscript", "openvino"], marks=pytest.mark.slow),
    ],
)
def test_an_export_is_compared_and_translated_with(cyclestyle, run, name, modules):
    for module in modules:
        pytest.importorskip(module)
    ending = ".safetensors" if name == "safetensors" else RUNTIMES[name].ending
    file = run / f"mine{ending}"
    words = ["--ckpt_path", run, "--format", name, "--output", file, "--licence", "CC-BY-4.0"]
    status, out, err = cyclestyle("export", *words)
    assert status == 0, err
    assert "1 × 101×75: largest" in out
    assert str(file) in out
    own, its = (translated(cyclestyle, run, one, n) for n, one in (("own", run), (name, file)))
    assert np.abs(own - its).max() <= (0 if name == "safetensors" else 1)
    assert cyclestyle("export", *words)[0] == 1  # it exists
    photo = torch.rand(1, 3, 41, 30) * 2 - 1
    expected = Translator.load(run).translate(photo)
    torch.testing.assert_close(Translator.load(file).translate(photo), expected, atol=1e-4, rtol=0)
    (run / f"cut{ending}").write_bytes(file.read_bytes()[:-200])
    (run / "cut.bin").write_bytes(b"")  # of openvino
    with pytest.raises(CheckpointError, match="damaged"):
        open_method(run / f"cut{ending}")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("onnx", []),
        pytest.param("onnx", ["--precision", "int8"], marks=pytest.mark.slow),
    ],
)
def test_a_file_of_a_fixed_shape(cyclestyle, run, tmp_path, form, words):
    file = tmp_path / f"fixed{RUNTIMES[form].ending}"
    options = ("--ckpt_path", run, "--format", form, "--output", file, "--shape", 2, 36, 52, *words)
    status, out, err = cyclestyle("export", *options)
    assert status == 0, err
    assert "2 × 52×36: largest" in out
    if form == "onnx":
        graph = pytest.importorskip("onnx").load(file).graph
        sizes = [[one.dim_value for one in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.output)]
        assert sizes == [[2, 3, 36, 52]] * 2
    translate, photos = Translator.load(file), torch.rand(3, 3, 36, 50) * 2 - 1  # padded, and a part of a batch
    tolerance = 0.5 if words else 1e-4
    expected = Translator.load(run).translate(photos)
    torch.testing.assert_close(translate.translate(photos), expected, atol=tolerance, rtol=0)
    Image.new("RGB", (64, 36)).save(tmp_path / "other.png")
    status, _, err = cyclestyle("predict", "--ckpt_path", file, "--input", tmp_path / "other.png", "--output", run)
    assert status == 1
    assert "64×36 is not of the size that fixed" in err
    assert "52×36; crop or resize it, or export without --shape" in err


def test_a_file_describes_its_network_without_folders(cyclestyle, run):
    safetensors = pytest.importorskip("safetensors")
    file = run / "described.safetensors"
    assert cyclestyle("export", "--ckpt_path", run, "--format", "safetensors", "--output", file)[0] == 0
    with safetensors.safe_open(file, framework="pt") as opened:
        description = Description.read(opened.metadata()["cyclestyle"], file)
        names = list(opened.keys())
    assert (description.method, description.directions, description.multiple) == ("CycleGAN", ("AtoB", "BtoA"), 4)
    assert description.settings["ngf"] == 2
    assert description.training["data"]["init_args"]["root"] == "paintings"
    assert description.licence == "not stated"
    assert not [name for name in names if name.startswith("D_")]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--format", "onnx", "--output", "x.pt2"], "has to end with .onnx"),
        (["--format", "safetensors", "--direction", "BtoA"], "holds all directions"),
        (["--format", "pt2", "--precision", "int8"], "int8 is for onnx and openvino"),
        (["--format", "official"], "name the folder"),
        (["--format", "onnx", "--calibration", "photos"], "--calibration is for --precision int8"),
        (["--format", "official", "--output", "x", "--direction", "BtoA"], "--direction has no meaning for the format"),
        (["--format", "onnx", "--shape", "1", "30", "32"], "takes heights and widths that are multiples of 4, from 8"),
        (["--format", "onnx", "--shape", "512"], "--shape takes the number, height and width of images, such as 1 512"),
        (["--format", "safetensors", "--shape", "1", "32", "32"], "--shape has no meaning for the format safetensors"),
        (["--format", "pt2", "--epoch", "5"], "--epoch has no meaning for the format pt2"),
        (["--format", "official", "--output", "x", "--averaging", "ema"], "holds no averaged weights"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(cyclestyle, run, words, text):
    before = sorted(run.rglob("*"))
    status, _, err = cyclestyle("export", "--ckpt_path", run / "checkpoints" / "last.ckpt", *words)
    assert status == 1
    assert text in err
    assert len(err.splitlines()) == 1
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(("averaging", "value"), [("auto", 2.0), ("raw", 0.0)])
def test_official_files_hold_the_averaged_weights_like_all_others(cyclestyle, run, tmp_path, averaging, value):
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    name = next(name for name in checkpoint["state_dict"] if name.startswith("G_AB."))
    checkpoint["ema"] = {name: torch.full_like(checkpoint["state_dict"][name], 2)}
    checkpoint["state_dict"][name].zero_()
    torch.save(checkpoint, tmp_path / "averaged.ckpt")
    words = ("--ckpt_path", tmp_path / "averaged.ckpt", "--format", "official", "--output", tmp_path / "files")
    assert cyclestyle("export", *words, "--averaging", averaging)[0] == 0
    weights = torch.load(tmp_path / "files" / "latest_net_G_A.pth", weights_only=True)
    assert (next(iter(weights.values())) == value).all()


def test_residual_generators_have_no_official_format(cyclestyle, run, tmp_path):
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["residual"] = 0.9
    torch.save(checkpoint, tmp_path / "residual.ckpt")
    words = ("--ckpt_path", tmp_path / "residual.ckpt", "--format", "official", "--output", tmp_path / "files")
    status, _, err = cyclestyle("export", *words)
    assert status == 1
    assert "has residual generators, which the original implementations lack" in err
    assert not (tmp_path / "files").exists()


def test_methods_of_many_passes_are_told(run):
    wct = Autoencoder(width=2, level=2)
    with pytest.raises(CycleStyleError, match="only AdaIN can be exported"):
        wct.exported("AtoB")


def test_a_file_that_does_something_else_is_not_kept(tmp_path, monkeypatch):
    task = CycleGAN(**TINY_GAN)
    other = CycleGAN(**TINY_GAN)
    monkeypatch.setattr(task, "exported", other.exported)
    wanted = Exporting(format="pt2", training={}, checks=[torch.rand(1, 3, 32, 32)])
    with pytest.raises(CheckpointError, match="nothing is kept"):
        export_method(task, tmp_path / "wrong.pt2", wanted)
    assert list(tmp_path.iterdir()) == []


GENERATORS = {
    "unet": lambda: CycleGAN(generator="unet128", depth=5, ngf=2, ndf=2, discriminator="pixel"),
    "resize": lambda: CycleGAN(**TINY_GAN, resample="resize", residual=0.9, comb_filter=True),
    "cut": lambda: CUT(**TINY_GAN),
    "johnson": lambda: Johnson(width=2),
    "adain": lambda: Autoencoder(width=2, level=3, transfer="adain"),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", RUNTIMES)
@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_is_exported_for_every_size(tmp_path, name, form):
    for module in {"onnx": ["onnxscript", "onnxruntime"], "openvino": ["onnxscript", "openvino"]}.get(form, []):
        pytest.importorskip(module)
    torch.manual_seed(0)
    task = GENERATORS[name]()
    sizes = ((1, 64, 96), (2, 40, 51), (1, 33, 70))
    checks = [torch.rand(count, 3, height, width) * 2 - 1 for count, height, width in sizes]
    style = torch.rand(3, 37, 44) * 2 - 1 if task.takes_styles else None
    file = tmp_path / f"file{RUNTIMES[form].ending}"
    result = export_method(task, file, Exporting(format=form, training={}, checks=checks, style=style))
    assert max(one.largest for one in result.differences) <= 1e-4
    if form != "pt2":
        assert open_exported(file).description.method == type(task).__name__


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("precision", ["half", "int8"])
def test_other_precisions_are_near(cyclestyle, run, form, precision):
    for module in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(module)
    file = run / f"{precision}{RUNTIMES[form].ending}"
    words = ["--format", form, "--precision", precision, "--output", file]
    status, out, err = cyclestyle("export", "--ckpt_path", run, *words)
    assert status == 0, err
    assert "seconds for one image" in out
    assert open_exported(file).description.precision == precision


def test_a_program_is_for_others(cyclestyle, run, tmp_path):
    """PyTorch loads it without cyclestyle. Here it is not loaded, because it could run code."""
    file = tmp_path / "mine.pt2"
    status, _, error = cyclestyle("export", "--ckpt_path", run, "--format", "pt2", "--output", file)
    assert status == 0, error
    images = torch.rand(2, 3, 36, 40) * 2 - 1
    result = torch.export.load(file).module()(images)
    torch.testing.assert_close(result, Translator.load(run).translate(images), atol=1e-4, rtol=0)
    status, _, error = cyclestyle("predict", "--ckpt_path", file, "--input", run, "--output", tmp_path / "out")
    assert status == 1
    assert "could run code and is not loaded; translate with the checkpoint that it is from" in error


def test_an_own_task_is_exported_by_its_translate():
    class Network(nn.Module):
        def forward(self, images):
            return images.flip(1)

    program = trace(OnePass(network=Network()), "float32")
    images = torch.rand(3, 3, 11, 70)
    torch.testing.assert_close(program.module()(images), images.flip(1))
    assert "stack_trace" not in json.dumps([str(node.meta) for node in program.graph.nodes])


def test_a_network_of_many_styles_takes_their_shares(cyclestyle, samples, tmp_path):
    pytest.importorskip("onnxruntime")
    file, words = tmp_path / "styles.onnx", ["--input", samples / "testA", "--speed", "exact", "--style"]
    status, _, error = cyclestyle("export", "--ckpt_path", "styles", "--format", "onnx", "--output", file)
    assert status == 0, error
    for style in ("wave", "wave:0.3,starry_night:0.7"):
        for name, more in (("ours", ["--work_size", 0]), ("file", ["--ckpt_path", file])):
            status, _, error = cyclestyle("predict", *more, *words, style, "--output", tmp_path / name, "--overwrite")
            assert status == 0, error
        ours, theirs = (np.asarray(Image.open(tmp_path / name / "0000.png")).astype(int) for name in ("ours", "file"))
        assert np.abs(ours - theirs).max() <= 1
    status, _, error = cyclestyle("predict", "--ckpt_path", file, *words, "nix", "--output", tmp_path / "no")
    assert status == 1
    assert "there is no style 'nix'" in error
