"""Workers of loaders where shared memory is full or missing, and workers that die."""

import multiprocessing
import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from cyclestyle.data import workers
from cyclestyle.data.workers import worker_options


class Numbers(Dataset):
    """Batches of two tensors, one of them empty; `fatal` kills the process that loads."""

    def __init__(self, fatal=False):
        self.fatal = fatal

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"images": torch.full((2, 3, 4, 4), index), "none": torch.empty(0, 3, 4, 4)}


@pytest.fixture
def full_memory(monkeypatch):
    """Shared memory that has no room for any tensor, also in the workers, which are forks."""

    def refuse(tensor):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    workers._notice.cache_clear()
    yield
    workers._notice.cache_clear()


def test_batches_arrive_where_shared_memory_is_full_and_one_line_says_so(full_memory, capfd):
    loader = DataLoader(Numbers(), batch_size=None, **worker_options(2))
    assert [batch["images"].float().mean() for batch in loader] == [0, 1, 2]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("cyclestyle: warning: /dev/shm (")
    assert "--shm-size" in line


def test_images_are_loaded_without_workers_where_there_are_no_semaphores(capsys, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(multiprocessing, "Event", refuse)
    assert worker_options(2) == {"num_workers": 0}
    assert "need /dev/shm (No space left on device); loading without them" in capsys.readouterr().err


def test_a_worker_that_dies_ends_the_command_in_one_line(cyclestyle, tiny_fit, tmp_path, monkeypatch):
    monkeypatch.setattr("cyclestyle.data.datasets.UnpairedTrainSet.__getitem__", lambda *_: Numbers(fatal=True)[0])
    # Seconds between two looks at the workers.
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))
    status, _, error = cyclestyle(*tiny_fit, "--data.workers=1", f"--trainer.default_root_dir={tmp_path / 'run'}")
    assert status == 1
    assert error.startswith("cyclestyle: error: a process that loads images was killed; if the memory was full")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("command", ["predict", "fit"])
def test_a_negative_number_of_workers_is_refused(cyclestyle, tiny_fit, checkpoint, samples, tmp_path, command):
    words = (
        [*tiny_fit, "--data.workers=-1", f"--trainer.default_root_dir={tmp_path}"]
        if command == "fit"
        else [command, f"--ckpt_path={checkpoint}", "--input", samples / "testA", "--output", tmp_path, "--workers=-1"]
    )
    status, _, error = cyclestyle(*words)
    assert (status, error) == (1, "cyclestyle: error: workers must be at least 0, got -1\n")
