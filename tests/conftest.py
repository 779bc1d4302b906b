"""What several tests share: tiny images, tiny networks, and where the optional reference data lies."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from forks import Forks
from PIL import Image
from torch import nn

from cyclestyle.cli import main
from cyclestyle.data.sample import write_samples
from cyclestyle.networks.projected import TAPS
from cyclestyle.speed.choice import Hardware, hardware_name

# Tests run in as many processes as there are cores, and tiny networks gain nothing from more threads.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"

TINY = {
    "generator": "resnet6",
    "depth": 1,
    "ngf": 2,
    "ndf": 2,
    "discriminator": "n_layers",
    "n_layers": 1,
    "pool_size": 4,
}
"""A CycleGAN that takes a step on 32×32 images in milliseconds."""


class Taps(nn.Module):
    """Four maps with the channels and strides of EfficientNet-Lite0, from averages of pixels, without timm."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        for level, channels in enumerate(TAPS):
            self.register_buffer(f"mixture{level}", torch.randn(channels, 3, 1, 1, generator=generator))

    def forward(self, images):
        return [
            torch.tanh(F.conv2d(F.avg_pool2d(images, stride, ceil_mode=True), self.get_buffer(f"mixture{level}")))
            for level, stride in enumerate((4, 8, 16, 32))
        ]


def save_dicom(path, stored, *, intercept=-1024, window=(40, 400)):
    """Write a slice as a scanner does: numbers from 0 on, and what they stand for."""
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dataset.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.CTImageStorage, pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, intercept
    dataset.WindowCenter, dataset.WindowWidth = window
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(autouse=True, scope="session")
def _slow_hardware(tmp_path_factory):
    """Nothing is faster than float32 as it is, on every machine that runs the tests."""
    folder = tmp_path_factory.mktemp("cache")
    hardware = Hardware(kind="cpu", bfloat16=0.0, winograd=0.0, winograd_training=0.0, compiler=False)
    (folder / "cyclestyle").mkdir()
    (folder / "cyclestyle" / "hardware.json").write_text(json.dumps({hardware_name("cpu"): asdict(hardware)}))
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(autouse=True)
def _nothing_from_other_tests(monkeypatch):
    """A training sets a seed and may set deterministic algorithms, for the whole process."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """The sample domains at 32×32: 7 training and 3 test images a domain."""
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder, train=7, test=3, size=32, workers=1)
    return folder


@pytest.fixture(scope="session")
def reference():
    """The folder of reference figures; tests that want it are skipped where it is missing."""
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip(f"the reference figures are not at {folder}")
    return folder


@pytest.fixture
def cyclestyle(capsys):
    """Call the command line in process: `cyclestyle("fit", ...) -> (status, stdout, stderr)`."""

    def call(*words):
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """Start the program in processes of their own, without the seconds of the imports."""
    server = Forks(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def tiny_fit(samples):
    """The words of a `fit` that trains for six steps in about a second, into the folder that follows."""
    return [
        "fit",
        "--config=configs/cyclegan.yaml",
        *(f"--model.{key}={value}" for key, value in TINY.items()),
        "--model.constant_epochs=1",
        "--model.decay_epochs=0",
        f"--data.root={samples}",
        "--data.load_size=36",
        "--data.crop_size=32",
        "--data.workers=0",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--grid.every_n_steps=4",
        "--grid.images=2",
        "--page.every_n_seconds=0",  # drawing its curves takes longer than the steps
    ]


@pytest.fixture(scope="session")
def checkpoint(tiny_fit, tmp_path_factory):
    """The checkpoint of a tiny training run."""
    run = tmp_path_factory.mktemp("run")
    assert main([*tiny_fit, f"--trainer.default_root_dir={run}"]) == 0
    return run / "checkpoints" / "last.ckpt"


@pytest.fixture
def save_image(tmp_path):
    """Save an image below the test's folder: `save_image("a/b.png", size=(8, 8)) -> path`."""

    def save(name, *, size=(8, 8), mode="RGB", colour=0, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, colour).save(path, **options)
        return path

    return save
