"""Training on several processes, on the CPU by gloo."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forks import wait_for

from cyclestyle.data.sample import write_samples

# Restarted workers must not meet in the store of the workers before them (pytorch issue 135712).
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}

# One process of a job: twenty steps, and what it saw and became, in `rank<N>.pt`.
WORKER = """
import json, os, sys, torch, pytorch_lightning as pl
from cyclestyle.data import UnpairedImages
from cyclestyle.tasks import CycleGAN

root, out, settings = sys.argv[1:]
world = int(os.environ.get("WORLD_SIZE", 1))

class Record(pl.Callback):
    losses, paths = [], []
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append({name: value.item() for name, value in outputs["losses"].items()})
        self.paths.append((trainer.current_epoch, batch["paths_A"], batch["paths_B"]))

pl.seed_everything(0)
tiny = {"generator": "resnet6", "depth": 2, "ngf": 4, "ndf": 4, "discriminator": "n_layers", "n_layers": 1}
task = CycleGAN(**tiny, **json.loads(settings))
data = UnpairedImages(root, resize="crop", crop_size=32, batch_size=2 // world, workers=0)
trainer = pl.Trainer(
    max_steps=20, precision="64-true", accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto",
    logger=False, enable_checkpointing=False, enable_progress_bar=False, limit_val_batches=0, callbacks=[Record()],
)
trainer.fit(task, data)
torch.save({
    "losses": Record.losses, "paths": Record.paths, "weights": task.state_dict(), "pool": task.pool_A.state_dict(),
    "random": torch.get_rng_state(), "pseudo_reals": task.pseudo_reals and task.pseudo_reals.state_dict(),
}, f"{out}/rank{trainer.global_rank}.pt")
"""


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    """Twenty training images a domain, so that two epochs of two processes are twenty steps."""
    folder = tmp_path_factory.mktemp("twenty")
    write_samples(folder, train=20, test=2, size=32, workers=1)
    return folder


@pytest.fixture
def train(forks):
    """Run the worker and return what each process saved."""

    def call(root, out, *, processes, **settings):
        out.mkdir()
        for process in forks.run_ranks(processes, root, out, json.dumps(settings), code=WORKER):
            assert process.returncode == 0, process.stderr
        return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(processes)]

    return call


def assert_equal_ranks(ranks):
    for name, weight in ranks[0]["weights"].items():
        assert torch.equal(weight, ranks[1]["weights"][name]), name


def test_two_processes_follow_the_path_of_one(train, twenty, tmp_path):
    """With one pair each, as one process with batches of two: over twenty steps, in float64."""
    (one,) = train(twenty, tmp_path / "one", processes=1)
    ranks = train(twenty, tmp_path / "two", processes=2)
    assert len(one["losses"]) == 20
    for step, expected in enumerate(one["losses"]):
        for name, value in expected.items():
            mean = (ranks[0]["losses"][step][name] + ranks[1]["losses"][step][name]) / 2
            assert mean == pytest.approx(value, rel=1e-5), (step, name)
    assert_equal_ranks(ranks)
    assert not torch.equal(ranks[0]["pool"]["images"], ranks[1]["pool"]["images"])
    for epoch in range(2):
        for column in (1, 2):
            used = [path for rank in ranks for row in rank["paths"] if row[0] == epoch for path in row[column]]
            assert len(used) == len(set(used)) == 20


@pytest.mark.slow
def test_processes_have_random_numbers_of_their_own(train, twenty, tmp_path):
    """With dropout; their weights stay bitwise equal all the same."""
    ranks = train(twenty, tmp_path / "two", processes=2, dropout=True)
    assert_equal_ranks(ranks)
    assert not torch.equal(ranks[0]["random"], ranks[1]["random"])


@pytest.mark.slow
def test_frozen_parts_are_none_that_processes_wait_for(train, twenty, tmp_path):
    (one,) = train(twenty, tmp_path / "one", processes=1, freeze=["G_AB", "D_A.model.0"])
    ranks = train(twenty, tmp_path / "two", processes=2, freeze=["G_AB", "D_A.model.0"])
    assert_equal_ranks(ranks)
    for name in one["weights"]:
        same = torch.equal(one["weights"][name], ranks[0]["weights"][name])
        assert same == name.startswith(("G_AB.", "D_A.model.0.")), name


def test_adaptive_augmentation_has_one_probability_in_all_processes(train, twenty, tmp_path):
    """It follows the scores of both, as in one process with their batches; what is drawn with it differs."""
    adaptive = {"apa": True, "apa_target": 0.0, "apa_images": 200, "gan_mode": "hinge", "spectral_norm": True}
    ranks = train(twenty, tmp_path / "two", processes=2, diff_augment=["color", "cutout"], **adaptive)
    assert_equal_ranks(ranks)
    assert not torch.equal(ranks[0]["random"], ranks[1]["random"]) or ranks[0]["losses"] != ranks[1]["losses"]
    for name in ("D_A", "D_B"):
        first, second = (rank["pseudo_reals"][name] for rank in ranks)
        assert first["batches"] == second["batches"] == 20
        assert torch.equal(first["probability"], second["probability"])
    moved = {round(ranks[0]["pseudo_reals"][name]["probability"].item() * 200 / 8, 3) for name in ("D_A", "D_B")}
    assert moved <= {0, 1, 2, 3, 4, 5}  # steps of 4 batches of 2 images
    assert moved != {0}


def losses(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss_G"]) for row in csv.DictReader(file) if row["train/loss_G"]]


def stopped(process, run):
    """Check that SIGTERM has stopped a run after a step whose checkpoint is there."""
    process.wait(timeout=120)
    error = process.stderr if isinstance(process.stderr, str) else process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM, error
    (line,) = [line for line in error.splitlines() if line.startswith("cyclestyle: stopped by ")]
    step = int(line.split(" at step ")[1].split(";")[0])
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == step
    return last


def test_a_signal_to_the_first_process_of_lightnings_launcher_stops_all(tiny_fit, tmp_path):
    """As `kill` does. The launcher starts the second process itself, and must end it."""
    words = [sys.executable, "-m", "cyclestyle", *tiny_fit[:2], "--config=configs/overlays/ddp.yaml", *tiny_fit[2:]]
    words += ["--trainer.devices=2", "--trainer.accelerator=cpu", "--model.constant_epochs=1000"]
    words += ["--oversubscribe=true", f"--trainer.default_root_dir={tmp_path}"]
    run = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    wait_for((tmp_path / "checkpoints" / "last.ckpt").exists, run)
    os.kill(run.pid, signal.SIGTERM)
    last = stopped(run, tmp_path)
    assert last["global_step"] > 0
    assert len(last["rank_states"]) == len(last["random"]) == 2


def test_a_signal_to_all_processes_stops_them_at_one_step(forks, tiny_fit, tmp_path):
    """As Ctrl-C in a terminal does."""
    words = [*tiny_fit, "--config=ddp", "--trainer.devices=2", "--trainer.accelerator=cpu", "--oversubscribe=true"]
    words += ["--model.constant_epochs=1000", f"--trainer.default_root_dir={tmp_path}"]
    ranks = forks.start_ranks(2, *words)
    wait_for((tmp_path / "checkpoints" / "last.ckpt").exists, ranks[0])
    for rank in ranks:
        rank.send_signal(signal.SIGTERM)
    stopped(ranks[0], tmp_path)
    assert ranks[1].wait() == 128 + signal.SIGTERM
    assert "stopped by" not in ranks[1].stderr  # one process says so


def test_an_odd_image_is_left_to_another_epoch(forks, tiny_fit, tmp_path):
    words = [*tiny_fit, "--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"]
    words += ["--oversubscribe=true", f"--trainer.default_root_dir={tmp_path}"]
    for process in forks.run_ranks(2, *words):
        assert process.returncode == 0, process.stderr
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3  # of seven images


def launchers(words, nodes, *more):
    """Start a launcher a node; two on the loopback stand for two machines."""
    port = 20000 + (os.getpid() * 7 + time.monotonic_ns()) % 20000
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", "--nproc_per_node=1", *more]
    return [
        subprocess.Popen(
            [*(word.format(rank=rank, port=port) for word in launch), "-m", "cyclestyle", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
        )
        for rank in range(nodes)
    ]


@pytest.mark.slow
def test_two_nodes_under_torchrun(tiny_fit, tmp_path):
    words = [*tiny_fit, "--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.accelerator=cpu"]
    words += ["--trainer.strategy=ddp", f"--trainer.default_root_dir={tmp_path}"]
    nodes = launchers(words, 2, "--node_rank={rank}", "--master_addr=127.0.0.1", "--master_port={port}")
    outputs = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert len(last["rank_states"]) == 2
    assert len(losses(tmp_path)) == 3


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists(), reason="needs Linux's /proc")
def test_a_killed_worker_is_restarted_from_the_last_checkpoint(tiny_fit, tmp_path):
    """Under torchrun with two nodes: the job ends with the weights of one that was left alone."""
    words = [*tiny_fit, "--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.accelerator=cpu"]
    words += ["--trainer.strategy=ddp", "--model.constant_epochs=6", "--checkpoint.every_n_train_steps=1"]
    words += ["--grid.every_n_steps=0", "--ckpt_path=last"]
    elastic = ["--rdzv_backend=c10d", "--rdzv_endpoint=127.0.0.1:{port}", "--rdzv_id=job", "--max_restarts=3"]
    ends = {}
    for name, victim in (("whole", None), ("killed", 1)):
        run = tmp_path / name
        nodes = launchers([*words, f"--trainer.default_root_dir={run}"], 2, *elastic)
        last = run / "checkpoints" / "last.ckpt"
        deadline = time.monotonic() + 120
        while victim is not None and not last.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        if victim is not None:
            os.kill(children(nodes[victim].pid)[0], signal.SIGKILL)
        outputs = [node.communicate(timeout=300)[0] for node in nodes]
        assert [node.returncode for node in nodes] == [0, 0], outputs
        if victim is not None:
            assert f"continuing {last} " in "".join(outputs)
        ends[name] = torch.load(last, weights_only=True)
    assert ends["killed"]["global_step"] == ends["whole"]["global_step"] == 18
    for name, weight in ends["whole"]["state_dict"].items():
        assert torch.equal(weight, ends["killed"]["state_dict"][name]), name
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_two_processes_write_one_report_of_all_images(forks, tiny_fit, checkpoint, tmp_path):
    """Images that both processes get, because they do not divide evenly, count once."""
    words = ["test", *tiny_fit[1:], f"--ckpt_path={checkpoint}", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"]
    words.append("--oversubscribe=true")
    reports = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        options = [f"--trainer.devices={processes}", f"--trainer.default_root_dir={run}"]
        for process in forks.run_ranks(processes, *words, *options):
            assert process.returncode == 0, process.stderr
        reports.append(json.loads((run / "test" / "report.json").read_text()))
    one, two = reports
    assert two["content"].keys() == one["content"].keys()
    for direction, distances in one["content"].items():
        assert two["content"][direction] == pytest.approx(distances, rel=1e-5)
        rows = [report["figures"][f"raw {direction}"] for report in reports]
        first, second = ({name: one for name, one in row.items() if isinstance(one, int | float)} for row in rows)
        assert second == pytest.approx(first, rel=1e-4, abs=1e-6)
    assert two["logged"].keys() == one["logged"].keys()
