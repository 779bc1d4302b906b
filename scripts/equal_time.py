"""Trains the unpaired methods for the same time on the sample domains, and scores them side by side.

    python scripts/equal_time.py --output runs/equal_time --seeds 0 1 2

Every method has networks of the same width, and gets as many epochs as take the time of `--epochs` epochs of CycleGAN.
The speeds are measured first, in short runs of all methods by turns. A run that exists is not trained again. The output
folder gets `table.txt`, `scores.json`, and `sheet.png` with the first photos.
"""

import argparse
import csv
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from cyclestyle.files import write_json
from cyclestyle.weights.checkpoints import read_checkpoint

NETWORKS = "--model.generator=resnet6 --model.discriminator=n_layers --model.n_layers=2 --model.ngf=16 --model.ndf=16"
DATA = "--data.resize=crop --data.crop_size=96 --data.workers=0"
METHODS = {
    "CycleGAN": f"--config=cyclegan {NETWORKS} --model.lr=0.0003",
    "CUT": f"--config=cut {NETWORKS}",
    "FastCUT": f"--config=cut --config=fastcut {NETWORKS}",
    "DCLGAN": f"--config=dclgan {NETWORKS}",
}
"""What `fit` is given for each method."""
ROWS = {
    "CycleGAN": [("as published", "--averaging=raw"), ("small_set", "--averaging=ema --model.comb_filter=true")],
}
"""What `predict` is given for each row of a method: what `small_set` changes has no influence on the training."""


def main() -> None:
    """Measure, train, translate and score."""
    options = _options()
    data, root = options.output / "sample", options.output
    if not data.is_dir():
        _cyclestyle("sample-data", str(data))
    methods = {name: METHODS[name] for name in options.methods}
    speeds = root / "step_seconds.json"
    if not speeds.exists():
        root.mkdir(parents=True, exist_ok=True)
        write_json(speeds, _step_seconds(METHODS, data, root / "speed", options.rounds))
    step_seconds = json.loads(speeds.read_text())
    rows = {}
    for name, words in methods.items():
        epochs = max(2, round(options.epochs * step_seconds["CycleGAN"] / step_seconds[name]))
        for seed in options.seeds:
            run = root / f"{name}_{seed}"
            cost = _train(run, [*words.split(), f"--seed_everything={seed}"], epochs, data)
            for row, predict in ROWS.get(name, [("", "")]):
                rows[_translate(run, row, predict.split(), data)] = cost
    folders = [str(folder) for folder in rows]
    table = _cyclestyle(
        *("score", "--output", *folders, "--truth", str(data / "truthB"), "--input", str(data / "testA")),
        *("--source", str(data / "trainA"), "--target", str(data / "trainB")),
        *("--json", str(root / "scores.json"), "--sheet", str(root / "sheet.png")),
    )
    machine = (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    costs = [f"{row.name:30}{cost['epochs']:4} epochs {cost['seconds']:8.0f} s" for row, cost in rows.items()]
    measured = [f"{name:30}{seconds:8.3f} s a step" for name, seconds in step_seconds.items()]
    text = "\n".join([machine, *measured, *costs, table])
    (root / "table.txt").write_text(text)
    print(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the data, the runs and the table")
    parser.add_argument("--epochs", type=int, default=8, help="of CycleGAN; the others get the same time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run each")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3, help="short runs that measure the speed of each method")
    return parser.parse_args()


def _step_seconds(methods: dict[str, str], data: Path, folder: Path, rounds: int) -> dict[str, float]:
    """The median seconds of a step of each method, measured by turns."""
    found: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(rounds):
        for name, words in methods.items():
            run = folder / f"{name}_{turn}"
            steps = ("--trainer.max_steps=20", "--trainer.log_every_n_steps=20", "--trainer.limit_val_batches=0")
            _fit(run, [*words.split(), *steps, "--grid.every_n_steps=0"], data)
            with (run / "metrics.csv").open() as file:
                found[name] += [1 / float(row["train/images_per_second"]) for row in csv.DictReader(file)]
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _train(run: Path, words: list[str], epochs: int, data: Path) -> dict[str, float]:
    """Train one run, and return what it took."""
    last = run / "checkpoints" / "last.ckpt"
    if not last.exists():
        length = [f"--model.constant_epochs={epochs - epochs // 2}", f"--model.decay_epochs={epochs // 2}"]
        _fit(run, [*words, *length, f"--trainer.check_val_every_n_epoch={epochs}", "--ema.decay=0.998"], data)
    callbacks = read_checkpoint(last)["callbacks"]
    return {"epochs": epochs, "seconds": callbacks["Speed"]["seconds"]}


def _translate(run: Path, row: str, words: list[str], data: Path) -> Path:
    """Translate the held-out photos, and return the folder of the translations, which is named after the row."""
    folder = run / " ".join(filter(None, [run.name.replace("_", " "), row]))
    last = run / "checkpoints" / "last.ckpt"
    paths = ("--input", str(data / "testA"), "--output", str(folder))
    _cyclestyle("predict", "--ckpt_path", str(last), *paths, *words)
    return folder


def _fit(run: Path, words: list[str], data: Path) -> None:
    place = (f"--data.root={data}", f"--trainer.default_root_dir={run}", "--trainer.enable_progress_bar=false")
    _cyclestyle("fit", *words, *DATA.split(), *place)


def _cyclestyle(*words: str) -> str:
    """Run a command and return what it prints."""
    command = [sys.executable, "-m", "cyclestyle", *words]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main()
