"""Training on two processes, on the CPU by gloo."""

import csv
import os
import subprocess
import sys

import pytest
import torch


def fit(words, run, *more):
    command = [sys.executable, "-m", "cyclestyle", *words, f"--trainer.default_root_dir={run}", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    return result


def losses(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss_G"]) for row in csv.DictReader(file) if row["train/loss_G"]]


TWO = ["--config=configs/overlays/ddp.yaml", "--trainer.devices=2", "--trainer.accelerator=cpu"]


def test_two_processes_train_as_one_with_a_batch_of_two(tiny_fit, tmp_path):
    words = [*tiny_fit, "--model.pool_size=0", "--trainer.limit_val_batches=0", "--trainer.precision=64-true"]
    fit(words, tmp_path / "one", "--data.batch_size=2")
    fit([words[0], words[1], *TWO, *words[2:]], tmp_path / "two")
    one, two = (torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("one", "two"))
    # Seven pictures: the odd one out is a third of a batch alone, and is left to another epoch by two processes.
    assert (one["global_step"], two["global_step"]) == (4, 3)
    assert len(two["image_pools"]) == 2


def test_two_processes_follow_the_path_of_one(tiny_fit, samples, tmp_path):
    words = [*tiny_fit, "--model.pool_size=0", "--trainer.limit_val_batches=0", "--trainer.precision=64-true"]
    words += ["--trainer.max_steps=3"]
    fit(words, tmp_path / "one", "--data.batch_size=2")
    fit([words[0], words[1], *TWO, *words[2:]], tmp_path / "two")
    one, two = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in ("one", "two")
    )
    for name, weight in one.items():  # Adam turns the noise of zero gradients into small steps
        assert torch.allclose(weight, two[name], rtol=1e-9, atol=1e-8), (
            name
        )  # Adam turns the noise of zero gradients into steps


@pytest.mark.parametrize("nodes", [2])
def test_two_nodes_under_torchrun(tiny_fit, tmp_path, nodes):
    """Two launchers on the loopback stand for two machines."""
    words = [*tiny_fit, f"--trainer.num_nodes={nodes}", "--trainer.devices=1", "--trainer.accelerator=cpu"]
    words += ["--trainer.strategy=ddp", f"--trainer.default_root_dir={tmp_path}"]
    port = 20000 + os.getpid() % 20000
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", "--nproc_per_node=1"]
    launch += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    launchers = [
        subprocess.Popen(
            [*launch, f"--node_rank={rank}", "-m", "cyclestyle", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(nodes)
    ]
    outputs = [launcher.communicate(timeout=300)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0] * nodes, outputs
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert len(last["image_pools"]) == nodes
    assert len(losses(tmp_path)) == 3
