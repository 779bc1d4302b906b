"""Tables of docs/large_images.md: exactness, memory and time, and the difference of reduced statistics.

python scripts/benchmark_large.py exactness
python scripts/benchmark_large.py memory --sizes 2048x2048 8192x8192 --ngf 8
python scripts/benchmark_large.py memory --sizes 512x512 --whole
python scripts/benchmark_large.py reduced --ckpt_path runs/mine/checkpoints/last.ckpt --input photos/ --side 2048
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

from cyclestyle.images import from_levels, read_image, to_levels
from cyclestyle.networks.method import Direction
from cyclestyle.networks.streaming import Room, stream
from cyclestyle.tasks import CUT, DCLGAN, Autoencoder, CycleGAN, Johnson, Task, load
from cyclestyle.translation.engine import Engine
from cyclestyle.translation.large import LargeImages
from cyclestyle.translation.plain import GeneratorOnly

WHOLE = "900GB"
SHAPES = [(256, 256), (1, 700), (700, 1), (3, 5000), (5000, 3), (533, 1021)]
GAN = {"ngf": 8, "generator": "resnet9", "ndf": 8}


def methods() -> dict[str, Task]:
    """Small networks of every kind, with weights that fill the range of the output."""
    made = {f"CycleGAN, ResNet, {resample}": CycleGAN(**GAN, resample=resample) for resample in RESAMPLE}
    made["CycleGAN, U-Net 256"] = CycleGAN(**{**GAN, "generator": "unet256"})
    made["CUT"], made["DCLGAN"] = CUT(**GAN, resample="blur"), DCLGAN(**GAN, resample="blur")
    made |= {f"Johnson, {name}": Johnson(style=["none"], width=8, upsample=name) for name in ("transpose", "resize")}
    made["AdaIN"] = Autoencoder(width=8, level=4, transfer="adain")
    made["AdaIN"].use_styles([torch.rand(3, 200, 150) * 2 - 1])
    for task in made.values():
        for name, parameter in task.named_parameters():
            width = parameter[0].numel() ** 0.5 if parameter.ndim == 4 else 5
            torch.nn.init.normal_(parameter, std=1.4 / width * (127 if name == "transform.last.weight" else 1))
    return {name: task.eval() for name, task in made.items()}


RESAMPLE = ("transpose", "resize", "blur")


@torch.inference_mode()
def translated(
    task: Task, direction: Direction, image: torch.Tensor, memory: str, statistics: str = "exact"
) -> torch.Tensor:
    engine = Engine(task, direction=direction)
    engine.large_images = LargeImages(memory=memory, statistics=statistics)
    return engine(image)


@torch.inference_mode()
def streamed(task: Task, direction: Direction, image: torch.Tensor) -> torch.Tensor:
    """Translate by strips of one row or little more, with all activations in the scratch file."""
    rows: list[torch.Tensor] = []
    stream(
        lambda images: task.translate(images, direction),
        image.shape,
        lambda start, stop: image[:, :, start:stop],
        lambda start, strip: rows.append(strip),
        Room(memory=2**18, folder=Path(tempfile.gettempdir())),
    )
    return torch.cat(rows, 2)


def exactness() -> None:
    """Largest absolute difference of the streamed and the whole result, in [-1, 1]."""
    torch.manual_seed(0)
    print("| method | direction |", " | ".join(f"{height}×{width}" for height, width in SHAPES), "|")
    print("|---|---|" + "---|" * len(SHAPES))
    for name, task in methods().items():
        for direction in task.directions if name[:3] in ("Cyc", "DCL") else ("AtoB",):
            cells = []
            for shape in SHAPES:
                image = torch.rand(1, 3, *shape) * 2 - 1
                difference = translated(task, direction, image, WHOLE) - streamed(task, direction, image)
                cells.append(f"{difference.abs().max():.0e}")
            print(f"| {name} | {direction} |", " | ".join(cells), "|", flush=True)


def memory(sizes: list[str], ngf: int, whole: bool, limit: str | None) -> None:
    """Peak memory and processor time of `predict` on one image with a resnet9, process start to exit."""
    print("| image | ngf | peak of the process | peak / image | processor time | a pixel |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        torch.save(GeneratorOnly(ngf=ngf).generator.state_dict(), f"{folder}/generator.pth")
        for size in sizes:
            width, height = map(int, size.split("x"))
            photo = Path(folder, f"{size}.png")
            Image.effect_noise((width // 4, height // 4), 60).resize((width, height)).convert("RGB").save(
                photo, compress_level=1
            )
            words = ["--ckpt_path", f"{folder}/generator.pth", "--input", str(photo), "--output", f"{folder}/out"]
            words += ["--workers", "0", "--memory", WHOLE if whole else limit] if whole or limit else ["--workers", "0"]
            process = subprocess.Popen([sys.executable, "-m", "cyclestyle", "predict", *words], stdout=sys.stderr)
            _, status, used = os.wait4(process.pid, 0)
            assert status == 0
            pixels, seconds = width * height, used.ru_utime + used.ru_stime
            peak = used.ru_maxrss * 1024
            print(
                f"| {size} | {ngf} | {peak / 1e9:.2f} GB | {peak / pixels / 3:.1f} | {seconds:.0f} s "
                f"| {seconds / pixels * 1e6:.2f} µs |",
                flush=True,
            )


def reduced(ckpt_path: str, folder: str, side: int, count: int) -> None:
    """Difference of reduced and exact statistics in levels of 0 to 255."""
    task = load(ckpt_path)
    print("| photo | size | direction | mean difference | 99th percentile | PSNR |\n|---|---|---|---|---|---|")
    for path in sorted(path for path in Path(folder).iterdir() if path.is_file())[:count]:
        image = read_image(path)
        scale = side / max(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        for direction in task.directions or ("AtoB",):
            values = from_levels(to_levels(image)[None])
            exact, fast = (translated(task, direction, values, "200MB", name) for name in ("exact", "reduced"))
            levels = ((exact - fast) * 127.5).abs()
            psnr = 10 * torch.log10(255**2 / levels.square().mean())
            high = levels.flatten().kthvalue(int(levels.numel() * 0.99)).values
            size = f"{image.width}×{image.height}"
            print(
                f"| {path.name} | {size} | {direction} | {levels.mean():.1f} | {high:.0f} | {psnr:.1f} dB |", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Tables of docs/large_images.md.")
    parser.add_argument("table", choices=["exactness", "memory", "reduced"])
    parser.add_argument("--sizes", nargs="+", default=["2048x2048", "8192x8192"], help="for memory: WIDTHxHEIGHT")
    parser.add_argument("--ngf", type=int, default=8, help="for memory: filters of the first convolution")
    parser.add_argument("--whole", action="store_true", help="for memory: translate as a whole")
    parser.add_argument("--memory", help="for memory: that of predict")
    parser.add_argument("--ckpt_path", help="for reduced: a checkpoint")
    parser.add_argument("--input", help="for reduced: a folder of photos")
    parser.add_argument("--side", type=int, default=2048, help="for reduced: longest side that photos are resized to")
    parser.add_argument("--count", type=int, default=4, help="for reduced: number of photos")
    options = parser.parse_args()
    match options.table:
        case "exactness":
            exactness()
        case "memory":
            memory(options.sizes, options.ngf, options.whole, options.memory)
        case "reduced":
            reduced(options.ckpt_path, options.input, options.side, options.count)


if __name__ == "__main__":
    main()
