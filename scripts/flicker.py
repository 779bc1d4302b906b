"""Flicker of videos, in levels of 0 to 255, along the motion of the first one, which is the input.

python scripts/flicker.py film.mp4 plain/film.mp4 steady/film.mp4
python scripts/flicker.py --scenes photo.jpg --ckpt_path runs/mine/checkpoints/last.ckpt --weights squeezenet.onnx

The second form makes moving scenes of a photo, whose motion is known, and translates them with and without averages.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from cyclestyle.functional.motion import not_occluded, optical_flow
from cyclestyle.images import VideoFile, read_image, to_tensor
from cyclestyle.metrics import Extractor, build_extractor, content_distance, flicker
from cyclestyle.tasks import Task, load
from cyclestyle.translation.engine import Engine
from cyclestyle.translation.steady import Steady

HEIGHT, WIDTH, FRAMES, STEP = 128, 128, 24, 2


def frames_of(path: Path) -> Iterator[torch.Tensor]:
    """The frames of a video, `(1, 3, H, W)`."""
    file = VideoFile(path)
    for number in range(len(file.video.timestamps)):
        yield file.read(number, 3)[0][None]
    file.close()


def of_videos(paths: list[Path]) -> None:
    """Print the mean flicker of each video. Motion is estimated between the frames of the first one."""
    sums, last, count = torch.zeros(len(paths)), None, 0
    for frames in zip(*map(frames_of, paths), strict=True):
        if last is not None:
            flow, back = optical_flow(frames[0], last[0]), optical_flow(last[0], frames[0])
            mask = not_occluded(flow, back)
            found = [flicker(torch.cat(pair), flow, mask) for pair in zip(last, frames, strict=True)]
            if torch.isfinite(found[0]).all():
                sums, count = sums + torch.cat(found), count + 1
        last = frames
    for path, value in zip(paths, sums / max(1, count), strict=True):
        print(f"{path}: {value:.2f}")


def scenes(photo: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
    """Pans over a photo `(3, H, W)` of at least 128×176: frames `(T, 3, 128, 128)`, and a mask of what is compared."""
    random = torch.Generator().manual_seed(0)
    pan = torch.stack([photo[:, :HEIGHT, k * STEP : k * STEP + WIDTH] for k in range(FRAMES)])
    noise = pan + 0.08 * torch.randn(pan.shape, generator=random)
    exposure = (pan + 1) * (1 + 0.15 * torch.randn(FRAMES, 1, 1, 1, generator=random)) - 1
    slow = (pan + 1) * (1 + 0.25 * torch.sin(torch.arange(FRAMES) / 3)[:, None, None, None]) - 1
    flash = pan.clone()
    for k in range(FRAMES):
        flash[k, :, :32] = 1 if k // 3 % 2 else flash[k, :, :32]
    mask = torch.ones(FRAMES - 1, 1, HEIGHT, WIDTH)
    mask[:, :, :36] = 0
    made = {"pan": (pan, None), "noise": (noise, None), "exposure": (exposure, None)}
    made |= {"slow exposure": (slow, None), "flashing block": (flash, mask)}
    return {name: (frames.clamp(-1, 1), mask) for name, (frames, mask) in made.items()}


def translated(task: Task, frames: torch.Tensor, steady: Steady | None) -> torch.Tensor:
    engine = Engine(task)
    engine.steady = steady
    if steady is not None:
        steady.watch(Path("scene"))
    return torch.cat([engine(batch) for batch in torch.split(frames, 4)]).clamp(-1, 1)


def of_scenes(photo: Path, task: Task, extractor: Extractor) -> None:
    """Print a table of flicker and content distance."""
    image = to_tensor(read_image(photo))[None]
    size = HEIGHT, max(WIDTH + FRAMES * STEP, round(HEIGHT * image.shape[3] / image.shape[2]))
    image = F.interpolate(image, size, mode="bicubic", antialias=True).clamp(-1, 1)[0]
    flow = torch.zeros(FRAMES - 1, 2, HEIGHT, WIDTH)
    flow[:, 0] = STEP  # what is seen at x now was at x + 2 in the frame before
    kinds = {"plain": lambda: None, "steady": Steady}
    print("| scene | input | " + " | ".join(f"{name} | content" for name in kinds) + " |")
    for scene, (frames, mask) in scenes(image).items():
        cells = [f"{flicker(frames, flow, mask).mean():.2f}"]
        for make in kinds.values():
            result = translated(task, frames, make())
            content = content_distance(extractor, frames, result).mean()
            cells += [f"{flicker(result, flow, mask).mean():.2f}", f"{content:.3f}"]
        print(f"| {scene} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", type=Path, help="the input, and translations of it")
    parser.add_argument("--scenes", type=Path, help="a photo to pan over")
    parser.add_argument("--ckpt_path", help="checkpoint to translate scenes with")
    parser.add_argument("--weights", help="weights of SqueezeNet for the content distance")
    options = parser.parse_args()
    if options.scenes:
        of_scenes(options.scenes, load(options.ckpt_path).eval(), build_extractor("squeezenet", options.weights))
    elif options.videos:
        of_videos(options.videos)
    else:
        parser.error("name videos, or a photo with --scenes")


if __name__ == "__main__":
    main()
