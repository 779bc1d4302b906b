"""What `--speed` chooses, and that translations stay what they are."""

import json
from dataclasses import fields, replace

import pytest
import torch

from cyclestyle.speed.choice import (
    COMPILED_STEPS,
    EXACT,
    Hardware,
    Tuning,
    choose,
    hardware_for,
    hardware_name,
    known_hardware,
)
from cyclestyle.speed.setup import choose_tuning
from cyclestyle.speed.training import TrainingSpeed
from cyclestyle.tasks import CycleGAN
from cyclestyle.translation.engine import Engine
from cyclestyle.translation.large import LargeImages
from cyclestyle.translation.plain import GeneratorOnly
from cyclestyle.translator import Translator

PLAIN = Hardware(kind="cpu", bfloat16=0.1, winograd=1.8, winograd_training=1.5, compiler=True)
AMX = replace(PLAIN, bfloat16=6.0)
GPU = Hardware(kind="cuda", bfloat16=2.0, winograd=0.0, winograd_training=0.0, compiler=True)


def chosen(speed, hardware, *, bfloat16=True, training=True, **given):
    return choose(speed, Tuning(**given), hardware, bfloat16=bfloat16, training=training)


@pytest.mark.parametrize("hardware", [PLAIN, AMX, GPU])
@pytest.mark.parametrize("training", [True, False])
def test_exact_changes_no_number_on_any_hardware(hardware, training):
    assert chosen("exact", hardware, training=training).tuning == EXACT


def test_the_fastest_precision_of_the_hardware():
    assert chosen("fast", AMX).tuning.precision == "bfloat16"
    assert chosen("fast", GPU).tuning.precision == "bfloat16"
    plain = chosen("fast", PLAIN).tuning
    assert (plain.precision, plain.winograd, plain.channels_last, plain.compile) == ("float32", True, False, False)
    assert chosen("fast", PLAIN, training=False).tuning.channels_last


def test_a_method_that_is_worse_in_bfloat16_stays_in_float32():
    choice = chosen("fast", AMX, bfloat16=False)
    assert choice.tuning.precision == "float32"
    assert choice.tuning.winograd
    assert "not as good in bfloat16" in choice.reason


def test_auto_compiles_long_trainings_alone():
    assert chosen("auto", AMX).compiled_steps == COMPILED_STEPS
    assert chosen("fast", AMX).compiled_steps == 0
    assert chosen("auto", AMX, compile=True).compiled_steps == 0  # as given
    assert chosen("auto", AMX).tuning.compile
    assert not chosen("fast", AMX, training=False).tuning.compile
    assert "compiled" not in chosen("fast", AMX, compile=False).reason  # the user knows why


@pytest.mark.parametrize("name", [field.name for field in fields(Tuning) if field.type in ("bool | None", bool | None)])
@pytest.mark.parametrize("speed", ["exact", "fast"])
def test_what_is_given_is_taken(name, speed):
    hardware = GPU if name in ("tf32", "fused") else PLAIN
    for value in (True, False):
        choice = chosen(speed, hardware, **{name: value})
        assert getattr(choice.tuning, name) is value
        assert f"{name}" in choice.reason


@pytest.mark.parametrize(
    ("given", "hardware"),
    [
        ({"compile": True}, replace(AMX, compiler=False)),
        ({"tf32": True}, PLAIN),
        ({"winograd": True}, GPU),
        ({"winograd": True, "precision": "bfloat16"}, PLAIN),
    ],
)
def test_what_does_not_exist_is_left_out_with_a_word(given, hardware):
    name = next(iter(given))
    choice = chosen("fast", hardware, **given)
    assert getattr(choice.tuning, name) is False
    assert f"{name} left out" in choice.reason


def test_trainings_on_processors_keep_the_memory_format():
    """Eager, they are slower in channels_last and bfloat16; compiled, PyTorch gives NaN on processors with AMX."""
    assert not any(chosen(speed, AMX).tuning.channels_last for speed in ("auto", "fast"))
    assert chosen("auto", AMX, channels_last=True).tuning.channels_last
    assert chosen("auto", GPU).tuning.channels_last


@pytest.mark.parametrize("steps", [1999, 2000])
def test_long_trainings_are_compiled(monkeypatch, steps):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, options: compiled.append(options))
    task, choice = CycleGAN(generator="resnet6", ngf=2, ndf=2), chosen("auto", AMX)
    task.speed = TrainingSpeed(choice.tuning, compiled_steps=choice.compiled_steps)
    task.compile_for_training(steps=steps)
    # Without a mode: CUDA graphs overwrite results. The layouts of the compiler are channels_last.
    assert compiled == ([] if steps < 2000 else 4 * [{"layout_optimization": False}])


@pytest.mark.parametrize("hardware", [PLAIN, AMX, GPU])
def test_adam_is_one_call_in_fast_trainings_alone(hardware):
    assert chosen("fast", hardware).tuning.fused
    assert not chosen("fast", hardware, training=False).tuning.fused


def test_one_call_of_adam_takes_the_same_steps():
    tasks = [CycleGAN(generator="resnet6", ngf=2, ndf=2).double() for _ in range(2)]
    tasks[1].load_state_dict(tasks[0].state_dict())
    before = tasks[0].G_AB.model[1].weight.clone()
    for task, fused in zip(tasks, (False, True), strict=True):
        task.speed = TrainingSpeed(replace(EXACT, fused=fused))
        optimizer = task.configure_optimizers()["optimizer"]
        random = torch.Generator().manual_seed(0)
        for _ in range(3):
            for parameter in task.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            optimizer.step()
    for plain, fused in zip(tasks[0].parameters(), tasks[1].parameters(), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-15)
    assert not torch.equal(tasks[0].G_AB.model[1].weight, before)


def test_wrong_values():
    with pytest.raises(ValueError, match="speed must be exact, fast or auto, got 'turbo'"):
        chosen("turbo", PLAIN)
    with pytest.raises(ValueError, match="precision must be float32 or bfloat16, got 'half'"):
        Tuning(precision="half")
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        Tuning(threads=0)


def test_hardware_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = torch.get_rng_state()
    with torch.inference_mode():
        found = known_hardware("cpu")
    assert found.winograd > 0
    assert torch.equal(torch.get_rng_state(), before)  # else the first run on a machine would have other weights
    path = tmp_path / "cyclestyle" / "hardware.json"
    known = json.loads(path.read_text())
    known[hardware_name("cpu")]["winograd"] = 123.0
    path.write_text(json.dumps(known))
    assert known_hardware("cpu").winograd == 123.0
    path.write_text("{broken")
    assert known_hardware("cpu").winograd != 123.0


def test_a_run_on_the_processor_leaves_a_gpu_alone(monkeypatch):
    """To ask for the name of a GPU takes memory on it, and figures of the processor do not belong under that name."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: pytest.fail("CUDA is initialised"))
    known_hardware("cpu")


@pytest.mark.parametrize(
    ("kind", "compilers", "found"),
    [("cpu", {"c++"}, True), ("cuda", {"c++"}, False), ("cuda", {"gcc"}, True), ("cpu", {"gcc"}, False)],
)
def test_what_compiling_needs(monkeypatch, tmp_path, kind, compilers, found):
    """C++ on processors; on GPUs Triton, which looks for a C compiler; and the headers of Python on both."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: name if name in compilers else None)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert not hardware_for("exact", kind).compiler
    (tmp_path / "Python.h").touch()
    assert hardware_for("exact", kind).compiler is found


def by_command(speed):
    choose_tuning(speed, {}, "cuda", bfloat16=True, training=True)


def by_translator(speed):
    Translator(GeneratorOnly(ngf=2, depth=1)).choose_speed(speed)


@pytest.mark.parametrize("choose_speed", [by_command, by_translator])
@pytest.mark.parametrize(("speed", "short"), [("exact", False), ("fast", True)])
def test_exact_is_float32_on_a_gpu_too(monkeypatch, choose_speed, speed, short):
    """PyTorch shortens the mantissas of convolutions unless it is told not to."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(Engine, "device", torch.device("cuda"))
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not short)
    try:
        choose_speed(speed)
        assert torch.backends.cudnn.allow_tf32 is short
        assert torch.get_float32_matmul_precision() == ("high" if short else "highest")
    finally:
        torch.set_float32_matmul_precision(before)


def test_exact_measures_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hardware_for("exact", "cpu").kind == "cpu"
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    task = CycleGAN(generator="resnet6", ngf=32, ndf=2).eval()
    for module in task.G_AB.modules():  # weights of a trained network are larger than those that are drawn
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.normal_(module.weight, std=0.03)
    return task


@pytest.fixture(scope="module")
def image():
    small = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return torch.nn.functional.interpolate(small, (72, 52), mode="bicubic").clamp(-1, 1)  # smooth, as photos are


def translated(task, tuning, image):
    copy = CycleGAN(generator="resnet6", ngf=32, ndf=2)
    copy.load_state_dict(task.state_dict())
    translator = Translator(copy)
    translator.engine.tune(tuning)
    return translator.translate(image)


def test_fast_float32_lies_within_a_ten_thousandth(task, image):
    exact = translated(task, EXACT, image)
    fast = translated(task, chosen("fast", PLAIN, training=False).tuning, image)
    assert not torch.equal(fast, exact)
    torch.testing.assert_close(fast, exact, rtol=0, atol=1e-4)


def test_bfloat16_changes_few_levels(task, image):
    exact = translated(task, EXACT, image)
    fast = translated(task, chosen("fast", AMX, training=False).tuning, image)
    assert fast.dtype == image.dtype
    assert not torch.equal(fast, exact)
    assert (fast - exact).abs().mean() * 127.5 < 2  # random weights are worse than trained ones: 0.2 to 0.5 levels


@pytest.mark.parametrize("tuning", [chosen("fast", PLAIN, training=False).tuning])
def test_a_streamed_image_is_the_whole_one(task, image, tuning):
    copy = CycleGAN(generator="resnet6", ngf=32, ndf=2)
    copy.load_state_dict(task.state_dict())
    translator = Translator(copy)
    translator.engine.tune(tuning)
    whole = translator.translate(image)
    translator.engine.large_images = LargeImages(memory="2MB")
    streamed = translator.translate(image)
    torch.testing.assert_close(streamed, whole, rtol=0, atol=1e-4)
