#!/usr/bin/env python3
"""Stops a run at random times, resumes it, and compares it with an uninterrupted run.

    python scripts/kill_and_resume.py --kills 30 --workers 2 --accumulate 2 --processes 2
    python scripts/kill_and_resume.py --kills 30 --workers 1 --signals KILL TERM INT
    python scripts/kill_and_resume.py --kills 30 --workers 1 --signals KILL TERM INT --command predict

The run takes seconds and uses `cyclestyle fit` in separate processes. It writes a checkpoint every one or two steps,
validates within and at the end of epochs, and uses dropout, image pools, grids and a CSV log. Half of the stops are at
a random time, half while a checkpoint is being written. With `--command predict` it translates a folder instead.

A signal is sent to the process alone or, as Ctrl-C is, to its whole group. Every process must be gone 30 seconds later,
loader workers included. The script prints what is wrong and exits with status 1, or prints the number of stops.
"""

import argparse
import atexit
import csv
import multiprocessing.util
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cyclestyle.cli import main as cyclestyle
from cyclestyle.commands.fit import command  # noqa: F401  # imported before any fork, because it takes seconds
from cyclestyle.files import UNFINISHED

Moment = Callable[[Path], bool]
"""A function of the folder of a run that returns whether to kill the run now."""

GONE_AFTER = 30.0  # seconds that a stopped process may take to end, with its workers

COMPARED = ("state_dict", "ema", "optimizer_states", "lr_schedulers", "rank_states", "random", "UnpairedImages")


def predict_command(options: argparse.Namespace, data: Path, checkpoint: Path, run: Path) -> list[str]:
    words = ["predict", f"--ckpt_path={checkpoint}", f"--input={data / 'trainA'}", f"--output={run}"]
    return [*words, "--batch_size=1", f"--workers={options.workers}", "--device=cpu", *options.words]


def fit_command(options: argparse.Namespace, data: Path, run: Path) -> list[str]:
    words = ["fit", "--config=configs/cyclegan.yaml", f"--data.root={data}", f"--trainer.default_root_dir={run}"]
    words += ["--model.generator=resnet6", "--model.depth=2", "--model.ngf=8", "--model.ndf=8", "--model.dropout=true"]
    words += ["--model.discriminator=n_layers", "--model.n_layers=2", "--model.pool_size=4", "--ema.decay=0.9"]
    words += ["--model.constant_epochs=2", "--model.decay_epochs=2", "--trainer.val_check_interval=5"]
    words += ["--data.load_size=36", "--data.crop_size=32", f"--data.workers={options.workers}"]
    words += ["--trainer.accelerator=cpu", f"--trainer.accumulate_grad_batches={options.accumulate}"]
    words += ["--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"]
    words += ["--trainer.enable_model_summary=false", f"--checkpoint.every_n_train_steps={options.every}"]
    words += ["--grid.every_n_steps=7", "--grid.images=1", "--ckpt_path=last", *options.words]
    if options.processes > 1:
        words += [f"--trainer.devices={options.processes}", "--trainer.strategy=ddp"]
    return words


def start(words: list[str], log: Path, processes: int) -> list[int]:
    """Fork the processes of one attempt, which avoids repeating the imports."""
    port = random.randrange(20000, 40000)
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)  # one process group with its loader workers, to find them
            atexit._clear()  # the cleanup of the parent
            atexit.register(multiprocessing.util._exit_function)  # as the import of multiprocessing does
            with log.open("ab") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            if processes > 1:  # what torchrun sets
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "0"}
                os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0"}
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            torch.set_num_threads(1)
            status = 1
            try:
                status = cyclestyle(words)
            except BaseException:
                traceback.print_exc()
            finally:
                atexit._run_exitfuncs()
                os._exit(status)
        os.setpgid(child, child)  # set by parent and child, to avoid a race
        children.append(child)
    return children


def ended(children: list[int]) -> list[int]:
    """Remove the processes that have ended from `children`, and return their exit statuses."""
    statuses = []
    for child in list(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            children.remove(child)
            statuses.append(os.waitstatus_to_exitcode(status))
    return statuses


def stop(children: list[int], number: signal.Signals) -> None:
    """Send a signal to the processes, alone or with their groups, and wait until all of them are gone."""
    groups = list(children)
    whole = random.random() < 0.5
    for child in children:
        (os.killpg if whole else os.kill)(child, number)
    deadline = time.monotonic() + GONE_AFTER
    while children or any(map(is_alive, groups)):
        ended(children)
        if time.monotonic() > deadline:
            sys.exit(f"{number.name}: not all processes were gone after {GONE_AFTER:g} seconds")
        time.sleep(0.01)


def is_alive(group: int) -> bool:
    """Return whether a process group has processes, other than workers that have ended and that nobody waits for."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(of_group) == group and state != "Z":
            return True
    return False


def attempt(
    words: list[str], log: Path, processes: int, moment: Moment, run: Path, number: signal.Signals = signal.SIGKILL
) -> bool:
    """Run until the end or until `moment` returns True. Return whether the run was stopped."""
    children = start(words, log, processes)
    while children:
        if any(ended(children)):
            stop(children, signal.SIGKILL)
            sys.exit(f"the run failed by itself:\n{log.read_text()}")
        if moment(run):
            stop(children, number)
            return True
        time.sleep(0.001)
    return False


def at_a_random_time(seconds: float) -> Moment:
    """Return a moment at a random time after training has started."""
    before: list[float] = []
    deadline: list[float] = []

    def moment(run: Path) -> bool:
        config = run / "config.yaml"  # written when training starts
        written = config.stat().st_mtime if config.exists() else 0.0
        if not before:
            before.append(written)
        if written != before[0] and not deadline:
            deadline.append(time.monotonic() + random.uniform(0, seconds))
        return bool(deadline) and time.monotonic() > deadline[0]

    return moment


def after_some_images() -> Moment:
    """Return the moment when a random number of images is there, or is being written."""
    wanted = random.randrange(1, 6)
    before: list[int] = []

    def moment(run: Path) -> bool:
        count = sum(1 for _ in run.rglob("*")) if run.exists() else 0
        if not before:
            before.append(count)
        return count >= before[0] + wanted

    return moment


def while_a_checkpoint_is_written() -> Moment:
    """Return the moment when the nth temporary checkpoint file exists, for a random n."""
    wanted = random.randrange(1, 6)
    seen: set[str] = set()
    stale: list[set[str]] = []

    def moment(run: Path) -> bool:
        names = {path.name for path in (run / "checkpoints").glob(f"{UNFINISHED}*")}
        if not stale:
            stale.append(names)  # left by an earlier attempt
        seen.update(names - stale[0])
        return len(seen) >= wanted

    return moment


def never(run: Path) -> bool:
    return False


def difference(path: str, ours: Any, theirs: Any) -> str | None:
    """Return the path of the first entry that is not bit-identical, or None."""
    if isinstance(ours, torch.Tensor):
        same = ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        return None if same else path
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return path
        pairs = [(f"{path}.{key}", ours[key], theirs[key]) for key in ours]
    elif isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            return path
        pairs = [(f"{path}[{n}]", a, b) for n, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    else:
        return None if ours == theirs else path
    return next((found for pair in pairs if (found := difference(*pair))), None)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in csv.DictReader(file)]


def differences(whole: Path, parts: Path) -> list[str]:
    found = []
    for name in ("last.ckpt", "best.ckpt"):
        if missing := [str(run) for run in (whole, parts) if not (run / "checkpoints" / name).exists()]:
            found.append(f"{name} is missing in {missing}")
            continue
        a, b = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (whole, parts))
        found += [f"{name}: {where}" for key in COMPARED if (where := difference(key, a[key], b[key]))]
        found += [f"{name}: {key}" for key in ("epoch", "global_step") if a[key] != b[key]]
    if rows(whole) != rows(parts):
        found.append("metrics.csv")
    grids = [{path.name: path.read_bytes() for path in (run / "grids").glob("*.png")} for run in (whole, parts)]
    found += [f"grids/{name}" for name in grids[0].keys() | grids[1].keys() if grids[0].get(name) != grids[1].get(name)]
    return found


def image_differences(whole: Path, parts: Path) -> list[str]:
    files = [{path.name: path.read_bytes() for path in run.iterdir()} for run in (whole, parts)]
    return sorted(name for name in files[0].keys() | files[1].keys() if files[0].get(name) != files[1].get(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", choices=["fit", "predict"], default="fit")
    parser.add_argument("--kills", type=int, default=20, help="number of stops, over as many runs as necessary")
    parser.add_argument("--signals", nargs="+", choices=["KILL", "TERM", "INT"], default=["KILL"])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--every", type=int, default=2, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random times")
    parser.add_argument("--keep", type=Path, help="folder to copy both runs to if they differ")
    parser.add_argument("words", nargs="*", help="more arguments of the command")
    options = parser.parse_args()
    os.chdir(Path(__file__).resolve().parents[1])
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        return compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> int:
    """Run once without interruption, then with stops, and compare the results."""
    data, whole, parts, log = folder / "data", folder / "whole", folder / "parts", folder / "log"
    attempt(["sample-data", str(data), "--train=11", "--test=4", "--size=32"], log, 1, never, folder)
    begun = time.monotonic()
    attempt(fit_command(options, data, whole), log, options.processes, never, whole)
    seconds, checkpoint = time.monotonic() - begun, whole / "checkpoints" / "last.ckpt"
    if options.command == "predict":
        whole = folder / "images"
        attempt(predict_command(options, data, checkpoint, whole), log, 1, never, whole)

    def once(moment: Moment, number: signal.Signals = signal.SIGKILL) -> bool:
        if options.command == "predict":
            return attempt(predict_command(options, data, checkpoint, parts), log, 1, moment, parts, number)
        return attempt(fit_command(options, data, parts), log, options.processes, moment, parts, number)

    kills = runs = 0
    while kills < options.kills:
        alive = True
        while alive and kills < options.kills:
            alive = once(a_moment(options, seconds), signal.Signals[f"SIG{random.choice(options.signals)}"])
            kills += alive
        if alive:
            once(never)
        runs += 1
        if found := (image_differences if options.command == "predict" else differences)(whole, parts):
            print(f"after {kills} stops in {runs} runs these differ: {', '.join(found)}")
            if options.keep:
                shutil.copytree(folder, options.keep)
            return 1
        shutil.rmtree(parts)
    print(f"{kills} stops in {runs} runs, 0 differences: {describe(options)}")
    return 0


def a_moment(options: argparse.Namespace, seconds: float) -> Moment:
    if options.command == "predict":
        return after_some_images()
    return random.choice([at_a_random_time(seconds / 3), while_a_checkpoint_is_written()])


def describe(options: argparse.Namespace) -> str:
    more = f", accumulating {options.accumulate} batches" if options.command == "fit" else ""
    return (
        f"{options.command} stopped by {', '.join(options.signals)}, {options.processes} processes, "
        f"{options.workers} workers each{more}"
    )


if __name__ == "__main__":
    sys.exit(main())
