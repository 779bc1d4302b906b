"""Images that are larger than memory: every method streams them, with the result of the whole image."""

from pathlib import Path

import pytest
import torch
from torch import nn

from cyclestyle.data.prediction import Job, Origins, Piece
from cyclestyle.errors import CycleStyleError, ImageError
from cyclestyle.images import PNG, Source, from_levels, nearest_levels
from cyclestyle.networks.streaming import Room, plan
from cyclestyle.tasks import CUT, DCLGAN, Autoencoder, CycleGAN, GeneratorOnly, Johnson, Task, Translator
from cyclestyle.tasks.large import LargeImages, translate_batch

GAN = {"ngf": 3, "ndf": 2, "discriminator": "n_layers", "n_layers": 1, "generator": "resnet6"}
WIDE = "1GB"


class Sharpen(Task):
    """A method of a user."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.InstanceNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 1))

    def losses(self, batch):
        return {}

    def sample(self, batch):
        return {}

    def translate(self, images, direction):
        return images + 0.1 * self.network(images)


def autoencoder(**settings):
    task = Autoencoder(width=4, level=3, transfer="adain", **settings)
    styles = torch.rand(2, 3, 30, 26, generator=torch.Generator().manual_seed(4)) * 2 - 1
    task.use_styles(list(styles), [1.0, 2.0])
    return task


METHODS = {
    "cyclegan": lambda: CycleGAN(**GAN, resample="resize", residual=0.9, comb_filter=True),
    "cyclegan unet": lambda: CycleGAN(**{**GAN, "generator": "unet128"}),
    "cut": lambda: CUT(**GAN, resample="blur"),
    "dclgan": lambda: DCLGAN(**GAN, resample="transpose"),
    "johnson": lambda: Johnson(style=["none.jpg"], width=3),
    "adain": autoencoder,
    "file": lambda: GeneratorOnly(ngf=3, depth=1),
    "own": Sharpen,
}


@pytest.fixture
def photo():
    return torch.rand(1, 3, 97, 61, generator=torch.Generator().manual_seed(0)) * 2 - 1


def made(name):
    torch.manual_seed(0)
    return METHODS[name]().eval()


@torch.inference_mode()
def translated(task, images, memory, **settings):
    """The translations, and the shares of progress, which are reported for an image that is streamed."""
    shares = []
    task.large_images, task.on_progress = LargeImages(memory=memory, **settings), shares.append
    return task.translate_any_size(images), shares


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_streams_a_large_image(name, direction, photo, tmp_path):
    task = made(name)
    task.direction = direction
    whole, none = translated(task, photo, WIDE)
    assert none == []
    streamed, shares = translated(task, photo, "100KB", scratch=tmp_path)
    assert len(shares) > 5
    assert shares[-1] == pytest.approx(1.0)
    assert streamed.shape == whole.shape
    assert (streamed - whole).abs().max() < 1e-4
    levels, _ = translated(task, nearest_levels(photo), "100KB", scratch=tmp_path)
    expected = nearest_levels(translated(task, from_levels(nearest_levels(photo)), WIDE)[0])
    assert levels.dtype == torch.uint8
    assert (levels.int() - expected.int()).abs().max() <= 1
    assert list(tmp_path.iterdir()) == []


def test_images_of_a_batch_that_fit_alone_are_translated_one_by_one(photo):
    task = made("file")
    batch = torch.cat([photo, -photo, photo.flip(2)])
    whole, _ = translated(task, batch, WIDE)
    one_by_one, shares = translated(task, batch, "300KB")
    assert shares
    assert (one_by_one - whole).abs().max() < 1e-5


@pytest.fixture
def elsewhere(photo):
    """A task and a photo on a device that is not the CPU, and a memory in which the photo is streamed there."""
    task = made("cyclegan").to("meta")
    found = plan(lambda images: task.translate(images, "AtoB"), photo.shape, Room(device=task.device))
    return task, photo.to("meta"), 3 * found.kept_bytes


def test_results_and_kept_activations_are_on_the_device_of_the_images(elsewhere):
    """A batch may hold images that are streamed and others, and rows that are kept do not leave a GPU."""
    task, images, memory = elsewhere
    whole, none = translated(task, images, WIDE)
    streamed, shares = translated(task, images, memory)
    assert none == []
    assert shares
    assert whole.device == streamed.device == images.device
    assert torch.cat([whole, streamed]).shape == (2, *images.shape[1:])


def test_deterministic_algorithms_change_no_plan(elsewhere):
    """Outside of CPUs, PyTorch takes interpolations apart then, so that their gradients are deterministic."""
    task, images, memory = elsewhere
    torch.use_deterministic_algorithms(True)
    try:
        assert translated(task, images, memory)[1]
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_an_activation_that_a_gpu_cannot_index_is_streamed(elsewhere, photo, monkeypatch):
    task, images, _ = elsewhere
    monkeypatch.setattr("cyclestyle.tasks.large.INDEXABLE", 3 * 103 * 67 - 1)  # the first padding makes 103×67
    assert translated(task, images, WIDE)[1]
    assert translated(made("cyclegan"), photo, WIDE)[1] == []


def test_a_plan_is_made_once_for_each_size_and_direction(photo, monkeypatch):
    """Making one takes a tenth of a second, in which a GPU translates several batches."""
    shapes = []
    monkeypatch.setattr("cyclestyle.tasks.large.plan", lambda *args: shapes.append(args[1]) or plan(*args))
    task = made("cyclegan")
    for batch in (photo, photo + 1, torch.cat([photo, photo])):
        translated(task, batch, WIDE)
    assert shapes == [photo.shape]
    translated(task, photo.mT, WIDE)
    task.direction = "BtoA"
    translated(task, photo, WIDE)
    assert shapes == [photo.shape, photo.mT.shape, photo.shape]


def test_memory_that_pytorch_keeps_on_a_gpu_counts_as_free(monkeypatch):
    """Else the first large photo is translated whole, and every later one is streamed."""
    for name, amount in (("mem_get_info", (3_000, 24_000)), ("memory_reserved", 20_000), ("memory_allocated", 1_000)):
        monkeypatch.setattr(torch.cuda, name, lambda device, amount=amount: amount)
    assert LargeImages().bytes(torch.device("cuda")) == (3_000 + 19_000) // 2


def test_wct_takes_the_whole_image(photo):
    task = autoencoder()
    task.transfer = "wct"
    task.eval()
    result, shares = translated(task, photo, "100KB")
    assert shares == []
    assert torch.equal(result, task.translate(photo, "AtoB"))


@pytest.mark.parametrize(
    "function",
    [lambda x: torch.from_numpy(x.numpy()[:, ::-1].copy()), lambda x: x / x.abs().max().item(), lambda x: x.sort(2)[0]],
    ids=["numpy", "item", "sort"],
)
def test_a_method_that_cannot_be_streamed_takes_the_whole_image(function, photo):
    task = made("own")
    task.translate = lambda images, direction: function(images)
    result, shares = translated(task, photo, "100KB")
    assert shares == []
    assert torch.equal(result, function(photo))


def test_reduced_statistics_are_those_of_a_smaller_image_in_one_sweep(photo, tmp_path, monkeypatch):
    monkeypatch.setattr("cyclestyle.tasks.large.REDUCED_SIDE", 97)
    task = made("file")
    whole, _ = translated(task, photo, WIDE)
    same, _ = translated(task, photo, "100KB", statistics="reduced", scratch=tmp_path)
    assert (same - whole).abs().max() < 1e-4  # the image is not reduced
    monkeypatch.setattr("cyclestyle.tasks.large.REDUCED_SIDE", 300)
    smooth = nn.functional.interpolate(photo, (97 * 4, 61 * 4), mode="bicubic").clamp(-1, 1)
    exact, _ = translated(task, smooth, WIDE)
    reduced, _ = translated(task, smooth, "900KB", statistics="reduced", scratch=tmp_path)
    assert 1e-4 < (reduced - exact).abs().mean() < 0.1, (reduced - exact).abs().mean()


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [
        ((90_000, 90_000), {}, r"an image of 90000×90000 needs \d+\.\d GB in the scratch folder .* name"),
        (
            (900_000, 8),
            {"memory": "1MB"},
            r"one row of an image of 900000×8 takes .* but the memory is 1 MB; add",
        ),
    ],
)
def test_what_cannot_fit_is_said_before_the_work(size, settings, message, monkeypatch):
    monkeypatch.setattr("cyclestyle.tasks.large.free_room", lambda folder: 10**9)
    task = made("file")
    task.large_images = LargeImages(**{"memory": "50MB", **settings})
    with pytest.raises(ImageError, match=message):
        task.check_fits(*size)
    task.check_fits(300, 200)


def origins(*names):
    pieces = [Piece(Job(Path(name), Path("out") / name, PNG, Path())) for name in names]
    return Origins(pieces, [Source() for _ in names])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "it does not fit into memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "it does not fit into memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "it does not fit into memory"),
        (OSError(12, "Cannot allocate memory"), "it does not fit into memory"),
        (OSError(28, "No space left on device"), "the scratch disk is full"),
        (ImageError("too large"), "too large"),
    ],
)
def test_an_image_that_does_not_fit_fails_alone(error, message):
    def translate(images):
        if (images == 7).any():
            raise error
        return images + 1

    images = torch.tensor([1.0, 7.0, 3.0]).reshape(3, 1, 1, 1)
    batch = {"images": images, "origins": origins("a.png", "b.png", "c.png"), "failures": {"d.png": "bad"}}
    assert translate_batch(translate, batch).flatten().tolist() == [2, 4]
    assert [piece.job.source.name for piece in batch["origins"].pieces] == ["a.png", "c.png"]
    assert len(batch["origins"].sources) == 2
    assert batch["failures"].keys() == {"b.png", "d.png"}
    assert message in batch["failures"]["b.png"]


def test_other_errors_are_not_hidden():
    def translate(images):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        translate_batch(translate, {"images": torch.zeros(1, 3, 4, 4), "origins": origins("a"), "failures": {}})


@pytest.mark.parametrize("settings", [{"memory": "much"}, {"statistics": "about"}])
def test_settings_are_checked(settings, checkpoint):
    with pytest.raises(ValueError, match=next(iter(settings.values()))):
        Translator.load(checkpoint, **settings)


def test_a_scratch_folder_that_is_missing_is_named():
    with pytest.raises(CycleStyleError, match="scratch folder nowhere is missing or cannot be written"):
        LargeImages(scratch="nowhere")


def test_a_translator_streams(checkpoint, tmp_path):
    from PIL import Image

    image = Image.effect_mandelbrot((150, 70), (-2, -1, 1, 1), 50).convert("RGB")
    whole = Translator.load(checkpoint, memory="1GB")(image)
    streamed = Translator.load(checkpoint, memory="200KB", scratch=tmp_path)(image)
    pairs = zip(whole.tobytes(), streamed.tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= 1
