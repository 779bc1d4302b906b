"""Images that are larger than memory: every method streams them, with the result of the whole image."""

import pytest
import torch
from PIL import Image
from torch import nn

from cyclestyle.errors import CycleStyleError, ImageError
from cyclestyle.images import PNG, from_levels, nearest_levels
from cyclestyle.networks.streaming import Room, plan
from cyclestyle.tasks import CUT, DCLGAN, Autoencoder, ContentGAN, CycleGAN, Johnson, Task
from cyclestyle.translation.engine import Engine
from cyclestyle.translation.jobs import Job
from cyclestyle.translation.large import LargeImages
from cyclestyle.translation.plain import GeneratorOnly
from cyclestyle.translation.run import translate_files
from cyclestyle.translator import Translator

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
    "without norms": lambda: ContentGAN(**GAN, resample="resize", norm="none"),
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
    return Engine(METHODS[name]())


def translated(engine, images, memory, **settings):
    """The translations, and the shares of progress, which are reported for an image that is streamed."""
    shares = []
    engine.large_images, engine.on_progress = LargeImages(memory=memory, **settings), shares.append
    return engine(images), shares


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_streams_a_large_image(name, direction, photo, tmp_path):
    engine = made(name)
    engine.direction = direction
    whole, none = translated(engine, photo, WIDE)
    assert none == []
    streamed, shares = translated(engine, photo, "100KB", scratch=tmp_path)
    assert len(shares) > 5
    assert shares[-1] == pytest.approx(1.0)
    assert streamed.shape == whole.shape
    assert (streamed - whole).abs().max() < 1e-4
    levels, _ = translated(engine, nearest_levels(photo), "100KB", scratch=tmp_path)
    expected = nearest_levels(translated(engine, from_levels(nearest_levels(photo)), WIDE)[0])
    assert levels.dtype == torch.uint8
    assert (levels.int() - expected.int()).abs().max() <= 1
    assert list(tmp_path.iterdir()) == []


def test_images_of_a_batch_that_fit_alone_are_translated_one_by_one(photo):
    engine = made("file")
    batch = torch.cat([photo, -photo, photo.flip(2)])
    whole, _ = translated(engine, batch, WIDE)
    one_by_one, shares = translated(engine, batch, "300KB")
    assert shares
    assert (one_by_one - whole).abs().max() < 1e-5


@pytest.fixture
def elsewhere(photo):
    """An engine and a photo on a device that is not the CPU, and a memory in which the photo is streamed there."""
    engine = made("cyclegan")
    engine.method.to("meta")
    found = plan(lambda images: engine.method.translate(images, "AtoB"), photo.shape, Room(device=engine.device))
    return engine, photo.to("meta"), 3 * found.kept_bytes


def test_results_and_kept_activations_are_on_the_device_of_the_images(elsewhere):
    """A batch may hold images that are streamed and others, and rows that are kept do not leave a GPU."""
    engine, images, memory = elsewhere
    whole, none = translated(engine, images, WIDE)
    streamed, shares = translated(engine, images, memory)
    assert none == []
    assert shares
    assert whole.device == streamed.device == images.device
    assert torch.cat([whole, streamed]).shape == (2, *images.shape[1:])


def test_deterministic_algorithms_change_no_plan(elsewhere):
    """Outside of CPUs, PyTorch takes interpolations apart then, so that their gradients are deterministic."""
    engine, images, memory = elsewhere
    torch.use_deterministic_algorithms(True)
    try:
        assert translated(engine, images, memory)[1]
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_an_activation_that_a_gpu_cannot_index_is_streamed(elsewhere, photo, monkeypatch):
    engine, images, _ = elsewhere
    monkeypatch.setattr("cyclestyle.translation.large.INDEXABLE", 3 * 103 * 67 - 1)  # the first padding makes 103×67
    assert translated(engine, images, WIDE)[1]
    assert translated(made("cyclegan"), photo, WIDE)[1] == []


def test_a_plan_is_made_once_for_each_size_and_direction(photo, monkeypatch):
    """Making one takes a tenth of a second, in which a GPU translates several batches."""
    shapes = []
    monkeypatch.setattr("cyclestyle.translation.large.plan", lambda *args: shapes.append(args[1]) or plan(*args))
    engine = made("cyclegan")
    for batch in (photo, photo + 1, torch.cat([photo, photo])):
        translated(engine, batch, WIDE)
    assert shapes == [photo.shape]
    translated(engine, photo.mT, WIDE)
    engine.direction = "BtoA"
    translated(engine, photo, WIDE)
    assert shapes == [photo.shape, photo.mT.shape, photo.shape]


def test_memory_that_pytorch_keeps_on_a_gpu_counts_as_free(monkeypatch):
    """Else the first large photo is translated whole, and every later one is streamed."""
    for name, amount in (("mem_get_info", (3_000, 24_000)), ("memory_reserved", 20_000), ("memory_allocated", 1_000)):
        monkeypatch.setattr(torch.cuda, name, lambda device, amount=amount: amount)
    assert LargeImages().bytes(torch.device("cuda")) == (3_000 + 19_000) // 2


def test_wct_takes_the_whole_image(photo):
    engine = Engine(autoencoder())
    engine.method.transfer = "wct"
    result, shares = translated(engine, photo, "100KB")
    assert shares == []
    assert torch.equal(result, engine.method.translate(photo, "AtoB"))


@pytest.mark.parametrize(
    "function",
    [lambda x: torch.from_numpy(x.numpy()[:, ::-1].copy()), lambda x: x / x.abs().max().item(), lambda x: x.sort(2)[0]],
    ids=["numpy", "item", "sort"],
)
def test_a_method_that_cannot_be_streamed_takes_the_whole_image(function, photo):
    engine = made("own")
    engine.method.translate = lambda images, direction: function(images)
    result, shares = translated(engine, photo, "100KB")
    assert shares == []
    assert torch.equal(result, function(photo))


def test_reduced_statistics_are_those_of_a_smaller_image_in_one_sweep(photo, tmp_path, monkeypatch):
    monkeypatch.setattr("cyclestyle.translation.large.REDUCED_SIDE", 97)
    engine = made("file")
    whole, _ = translated(engine, photo, WIDE)
    same, _ = translated(engine, photo, "100KB", statistics="reduced", scratch=tmp_path)
    assert (same - whole).abs().max() < 1e-4  # the image is not reduced
    monkeypatch.setattr("cyclestyle.translation.large.REDUCED_SIDE", 300)
    smooth = nn.functional.interpolate(photo, (97 * 4, 61 * 4), mode="bicubic").clamp(-1, 1)
    exact, _ = translated(engine, smooth, WIDE)
    reduced, _ = translated(engine, smooth, "900KB", statistics="reduced", scratch=tmp_path)
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
    monkeypatch.setattr("cyclestyle.translation.large.free_room", lambda folder: 10**9)
    engine = made("file")
    engine.large_images = LargeImages(**{"memory": "50MB", **settings})
    with pytest.raises(ImageError, match=message):
        engine.check_fits(*size)
    engine.check_fits(300, 200)


def test_without_norms_no_scratch_file_is_needed(monkeypatch):
    monkeypatch.setattr("cyclestyle.translation.large.free_room", lambda folder: 0)
    engine = made("without norms")
    engine.large_images = LargeImages(memory="50MB")
    engine.check_fits(90_000, 90_000)


@pytest.fixture
def greys(tmp_path):
    """Three images of one size, of which the second is white, and one that is broken; and an engine."""
    for name, level in (("a", 40), ("b", 255), ("c", 200)):
        Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_text("text")
    jobs = [Job(tmp_path / f"{name}.png", tmp_path / "out" / f"{name}.png", PNG, tmp_path) for name in "abcd"]
    return made("own"), jobs


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "it does not fit into memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "it does not fit into memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "it does not fit into memory"),
        (OSError(12, "Cannot allocate memory"), "it does not fit into memory"),
        (OSError(28, "No space left on device"), "the scratch disk is full"),
        (ImageError("too large"), "too large"),
        (ValueError("the image contains NaN"), "the image contains NaN"),
    ],
)
def test_an_image_that_does_not_fit_fails_alone(greys, error, message):
    engine, jobs = greys

    def translate(images, direction):
        if (images == 1).any():
            raise error
        return -images

    engine.method.translate = translate
    report = translate_files(engine, jobs)
    assert (report.written, report.left) == (2, 0)
    assert [Image.open(jobs[number].target).getpixel((0, 0))[0] for number in (0, 2)] == [215, 55]
    assert report.failures.keys() == {str(jobs[1].source), str(jobs[3].source)}
    assert message in report.failures[str(jobs[1].source)]


def test_other_errors_are_not_hidden(greys):
    engine, jobs = greys

    def translate(images, direction):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    engine.method.translate = translate
    with pytest.raises(RuntimeError, match="mat1"):
        translate_files(engine, jobs)


@pytest.mark.parametrize("settings", [{"memory": "much"}, {"statistics": "about"}])
def test_settings_are_checked(settings, checkpoint):
    with pytest.raises(ValueError, match=next(iter(settings.values()))):
        Translator.load(checkpoint, **settings)


def test_a_scratch_folder_that_is_missing_is_named():
    with pytest.raises(CycleStyleError, match="scratch folder nowhere is missing or cannot be written"):
        LargeImages(scratch="nowhere")


def test_a_translator_streams(checkpoint, tmp_path):

    image = Image.effect_mandelbrot((150, 70), (-2, -1, 1, 1), 50).convert("RGB")
    whole = Translator.load(checkpoint, memory="1GB")(image)
    streamed = Translator.load(checkpoint, memory="200KB", scratch=tmp_path)(image)
    pairs = zip(whole.tobytes(), streamed.tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= 1
