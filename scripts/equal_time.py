"""Trains methods for the same time on two domains, and scores them side by side.

    python scripts/equal_time.py --output runs/equal_time --seeds 0 1 2
    python scripts/equal_time.py --output runs/monet --data datasets/monet2photo --photos B --size 128 --width 32 \\
        --minutes 60 --extractors squeezenet vgg16=vgg16.pth --vgg vgg16.pth

The domains are the sample domains, or those of a folder with `trainA`, `trainB`, `testA` and `testB`; their images are
scaled to squares of `--size`. With `--holdout 40`, the last 40 training images of each domain are the test images:
choose on them what is then measured on the real ones.

Every method gets as many steps as take `--minutes`, or the time of `--epochs` epochs of CycleGAN, and networks of the
same width, except for the recipe of `monet_small`. The speeds are measured first, in short runs of all methods by
turns. With `--steps`, every method gets this number instead. A run that exists is not trained again. `--vgg` adds the
methods of Gram matrices. The output folder gets `table.txt`, `results.json` with the scores, the time of each row, the
versions and the machine, and `sheet.png` with the first photos.
"""

import argparse
import csv
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import cyclestyle
from cyclestyle.files import write_json
from cyclestyle.images import read_image, write_image
from cyclestyle.images.folders import find_images
from cyclestyle.weights.checkpoints import read_checkpoint

LAST = "--ckpt_path {run}/checkpoints/last.ckpt"


@dataclass(frozen=True)
class Method:
    """What `fit` and `predict` are given. Names in braces are filled in; `{style}` is a painting, `{styles}` a list.

    Attributes:
        fit: None for a method without training.
        rows: what `predict` is given for each row.
        pairs: whether the training takes pairs of both domains; otherwise photos alone, or none.
        vgg: whether it needs the weights of a VGG-16.
        crop: side of the crops that are trained on, instead of `--crop`.
        batch: images of a domain in a step.
    """

    fit: str | None
    rows: dict[str, str] = field(default_factory=lambda: {"": LAST})
    pairs: bool = True
    vgg: bool = False
    crop: int | None = None
    batch: int = 1


METHODS = {
    "CycleGAN": Method(
        "--config=cyclegan {networks} --model.lr={lr}",
        {
            "as published": f"{LAST} --averaging=raw",
            "small_set": f"{LAST} --averaging=ema --model.comb_filter=true",  # has no influence on the training
        },
    ),
    "monet_small": Method("--config=cyclegan --config=monet_small", {"": f"{LAST} --averaging=ema"}, crop=64, batch=4),
    "CUT": Method("--config=cut {networks}"),
    "FastCUT": Method("--config=cut --config=fastcut {networks}"),
    "DCLGAN": Method("--config=dclgan {networks}"),
    "Gatys": Method(
        None,
        {"": "--config=gatys --model.network=vgg16 --model.weights={vgg} --style={style} --model.sizes=[{size}] "
             "--model.steps=[{gatys_steps}] --model.features_precision={gatys_precision}"},
        vgg=True,
    ),
    "Johnson": Method(
        "--config=johnson --model.network=vgg16 --model.weights={vgg} --model.style={styles} --model.width=16 "
        "--model.style_size={size}",
        pairs=False,
        vgg=True,
    ),
    "Autoencoder": Method(
        "--config=autoencoder --model.encoder=vgg16 --model.level=4 --model.weights={vgg} --model.lr=0.0003",
        {
            "WCT": f"{LAST} --style={{style}} --model.transfer_level=2 --model.strength=1.0",  # as in compare.sh
            "AdaIN": f"{LAST} --style={{style}} --model.transfer=adain --model.strength=1.0",
        },
        vgg=True,
        crop=64,
    ),
}  # fmt: skip
NETWORKS = (
    "--model.generator=resnet6 --model.discriminator=n_layers --model.n_layers=2 --model.ngf={width} "
    "--model.ndf={width}"
)


def main() -> None:
    """Prepare, measure, train, translate and score."""
    options = _options()
    bench = Bench(options)
    rows: dict[str, dict[str, Any]] = {}
    speeds = {} if options.steps else bench.step_seconds()
    for name in options.methods:
        method = METHODS[name]
        for seed in options.seeds if method.fit else options.seeds[:1]:
            run = options.output / f"{name}_{seed}"
            cost = {"seed": seed, **(bench.train(name, run, seed, speeds) if method.fit else {})}
            for row, words in method.rows.items():
                folder, seconds = bench.translate(run, row, words)
                rows[str(folder)] = {**cost, "translation_seconds": seconds}
    table, scores = bench.score(list(rows))
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cyclestyle": cyclestyle.__version__,
    }
    counts = {folder.name: len(find_images(folder)) for folder in sorted(bench.data.iterdir()) if folder.is_dir()}
    facts = {"machine": machine, "images": counts, "step_seconds": speeds, "rows": rows, "scores": scores}
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    write_json(options.output / "results.json", {"options": given, **facts})
    costs = [
        f"{Path(row).name:34}{cost.get('epochs', 0):5} epochs {cost.get('seconds', 0):8.0f} s of training "
        f"{cost['translation_seconds']:8.0f} s of translating"
        for row, cost in rows.items()
    ]
    measured = [f"{name:34}{seconds:8.3f} s a step" for name, seconds in speeds.items()]
    text = "\n".join([str(machine), str(counts), *measured, *costs, table])
    (options.output / "table.txt").write_text(text)
    print(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the data, the runs and the table")
    parser.add_argument("--data", type=Path, help="folder of two domains; by default the sample domains")
    parser.add_argument("--photos", choices=["A", "B"], default="A", help="the domain of the photos in --data")
    parser.add_argument("--holdout", type=int, default=0, help="training images that take the place of the test images")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--crop", type=int, default=96, help="side of the crops that are trained on")
    parser.add_argument("--width", type=int, default=16, help="filters of the first layers")
    parser.add_argument("--lr", type=float, default=0.0003, help="of CycleGAN")
    parser.add_argument("--epochs", type=int, default=8, help="of CycleGAN; the others get the same time, in 8 epochs")
    parser.add_argument("--minutes", type=float, help="training time of each method, instead of --epochs")
    parser.add_argument("--steps", type=int, help="the same number of steps for each method, instead of the same time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run each")
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--vgg", help="a file of VGG-16 weights, for the methods of Gram matrices")
    parser.add_argument(
        "--extractors",
        nargs="+",
        default=["statistics"],
        metavar="NAME[=FILE]",
        help="of the scores",
    )
    parser.add_argument("--config", nargs="+", default=[], help="overlays for every training, such as wandb_offline")
    parser.add_argument("--speed", default="fast", help="exact, fast or auto")
    parser.add_argument("--gatys_steps", type=int, default=100, help="evaluations of Gatys for each photo")
    parser.add_argument("--gatys_precision", choices=["fp32", "bf16"], default="fp32", help="of the features of Gatys")
    parser.add_argument("--rounds", type=int, default=3, help="short runs that measure the speed of each method")
    options = parser.parse_args()
    options.methods = options.methods or [name for name, method in METHODS.items() if options.vgg or not method.vgg]
    if options.steps is not None and options.steps < 1:
        parser.error("--steps must be at least 1")
    if not options.vgg and (missing := [name for name in options.methods if METHODS[name].vgg]):
        parser.error(f"{missing[0]} needs --vgg")
    return options


class Bench:
    """The data, and calls of the program with the settings that all methods share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.data = options, options.output / "data"
        if not self.data.is_dir():
            self._prepare()
        paintings = find_images(self.data / "trainB")
        self.words = {
            "width": options.width,
            "lr": options.lr,
            "style": paintings[0],
            "styles": "[" + ",".join(map(str, paintings[:20])) + "]",
            "size": options.size,
            "vgg": options.vgg,
            "gatys_steps": options.gatys_steps,
            "gatys_precision": options.gatys_precision,
        }

    def _prepare(self) -> None:
        """Draw the sample domains, or copy both domains as squares, photos as A and paintings as B."""
        options = self.options
        if options.data is None:
            _cyclestyle("sample-data", str(self.data), "--size", str(options.size))
            return
        unfinished = self.data.with_name("unfinished")
        for target, source in (("A", options.photos), ("B", "A" if options.photos == "B" else "B")):
            train = find_images(options.data / f"train{source}")
            test = find_images(options.data / f"test{source}")
            if options.holdout:
                train, test = train[: -options.holdout], train[-options.holdout :]
            for split, paths in (("train", train), ("test", test)):
                for path in paths:
                    image = read_image(path).resize((options.size, options.size), Image.Resampling.BICUBIC)
                    file = unfinished / f"{split}{target}" / f"{path.stem}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_image(image, file)
        unfinished.rename(self.data)

    def step_seconds(self) -> dict[str, float]:
        """The median seconds of a step of each method, measured by turns, and kept in a file."""
        file = self.options.output / "step_seconds.json"
        known: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        missing = [name for name in {"CycleGAN": 0, **dict.fromkeys(self.options.methods)} if name not in known]
        missing = [name for name in missing if METHODS[name].fit]
        found: dict[str, list[float]] = {name: [] for name in missing}
        for turn in range(self.options.rounds):
            for name in missing:
                run = self.options.output / "speed" / f"{name}_{turn}"
                steps = ("--trainer.max_steps=60", "--trainer.log_every_n_steps=20", "--trainer.limit_val_batches=0")
                self._fit(name, run, [*steps, "--grid.every_n_steps=0"])
                with (run / "metrics.csv").open() as csv_file:
                    rows = [row["train/images_per_second"] for row in csv.DictReader(csv_file)]
                *_, speed = filter(None, rows)  # over 50 steps, without the first, which may compile
                found[name].append(METHODS[name].batch / float(speed))
        known |= {name: statistics.median(seconds) for name, seconds in found.items()}
        write_json(file, known)
        return known

    def train(self, name: str, run: Path, seed: int, speeds: dict[str, float]) -> dict[str, float]:
        """Train one run, and return what it took."""
        last, options, method = run / "checkpoints" / "last.ckpt", self.options, METHODS[name]
        photos, paintings = (len(find_images(self.data / f"train{domain}")) for domain in "AB")
        pairs = max(photos, paintings)
        steps = options.steps or self._seconds(speeds, pairs) / speeds[name]
        batches = (pairs if method.pairs else photos) // method.batch
        length_of_epoch = min(batches, math.ceil(steps / options.epochs))
        epochs = max(2, round(steps / length_of_epoch))
        if not last.exists():
            length = [f"--model.constant_epochs={epochs - epochs // 2}", f"--model.decay_epochs={epochs // 2}"]
            length += [f"--trainer.limit_train_batches={length_of_epoch}", "--trainer.limit_val_batches=16"]
            length += ["--trainer.max_steps=-1", f"--trainer.max_epochs={epochs}"]
            self._fit(name, run, [*length, f"--trainer.check_val_every_n_epoch={epochs}", f"--seed_everything={seed}"])
        checkpoint = read_checkpoint(last)
        seconds = checkpoint["callbacks"]["Speed"]["seconds"]
        return {"epochs": epochs, "steps": checkpoint["global_step"], "seconds": seconds}

    def _seconds(self, speeds: dict[str, float], pairs: int) -> float:
        """The time that every method gets."""
        minutes: float | None = self.options.minutes
        epochs: int = self.options.epochs
        return minutes * 60 if minutes else epochs * speeds["CycleGAN"] * pairs

    def _fit(self, name: str, run: Path, words: list[str]) -> None:
        method, options = METHODS[name], self.options
        assert method.fit is not None
        data = ["--data.resize=crop", f"--data.crop_size={method.crop or options.crop}", "--data.workers=0"]
        data += [f"--data.batch_size={method.batch}", "--data.cache=memory", "--data.cache_size=2GB"]
        folders = [f"--data.train=[{self.data}/trainA]", f"--data.test=[{self.data}/testA]"]
        data += [f"--data.root={self.data}", "--ema.decay=0.99"] if method.pairs else folders
        place = [f"--trainer.default_root_dir={run}", "--trainer.enable_progress_bar=false", f"--speed={options.speed}"]
        overlays = [f"--config={name}" for name in options.config]
        _cyclestyle("fit", *self._filled_in(method.fit), *overlays, *data, *place, *words)

    def translate(self, run: Path, row: str, words: str) -> tuple[Path, float]:
        """Translate the test photos; return the folder, which is named after the row, and the seconds it took."""
        folder = run / " ".join(filter(None, [run.name.replace("_", " "), row]))
        timing = run / f"{folder.name}.json"
        given = self._filled_in(words, run=run)
        paths = ("--input", str(self.data / "testA"), "--output", str(folder))
        if not timing.exists():
            start = time.perf_counter()
            _cyclestyle("predict", *given, *paths, "--speed", self.options.speed)
            write_json(timing, {"seconds": time.perf_counter() - start})
        return folder, json.loads(timing.read_text())["seconds"]

    def _filled_in(self, words: str, **more: Any) -> list[str]:
        """Split first, because paths may have spaces."""
        return [word.format(**self.words, **more) for word in words.replace("{networks}", NETWORKS).split()]

    def score(self, folders: list[str]) -> tuple[str, dict[str, Any]]:
        """Return the tables of every extractor and both sets of paintings, and what they were made of."""
        data, root = self.data, self.options.output
        truth = ("--truth", str(data / "truthB")) if (data / "truthB").is_dir() else ()
        tables, scores = [], {}
        for extractor, _, weights in (given.partition("=") for given in self.options.extractors):
            for target in ("trainB", "testB"):
                table = _cyclestyle(
                    *("score", "--output", *folders, *truth, "--input", str(data / "testA")),
                    *("--source", str(data / "trainA"), "--target", str(data / target)),
                    *("--extractor", extractor, *(("--weights", weights) if weights else ())),
                    *("--json", str(root / "scores.json"), "--sheet", str(root / "sheet.png")),
                )
                tables.append(table)
                scores[f"{extractor}, {target}"] = json.loads((root / "scores.json").read_text())
        return "\n".join(tables), scores


def _cyclestyle(*words: str) -> str:
    """Run a command and return what it prints."""
    command = [sys.executable, "-m", "cyclestyle", *words]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main()
