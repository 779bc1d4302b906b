import os
from pathlib import Path

import pytest
import torch
from forks import wait_for

from cyclestyle import scratch
from cyclestyle.networks.streaming.rows import RowStore
from cyclestyle.scratch import available_memory, format_bytes, free_room, parse_bytes


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_come_back_as_they_were(tmp_path, on_disk, dtype):
    values = torch.randn(1, 5, 37, 11).to(dtype)
    store = RowStore(values.shape, dtype, tmp_path if on_disk else None)
    for start in range(0, 37, 8):
        store.write(start, values[:, :, start : start + 8])
    for start, stop in [(0, 37), (7, 9), (36, 37), (0, 1)]:
        assert torch.equal(store.read(start, stop), values[:, :, start:stop])
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_the_room_is_free_again_with_the_object(tmp_path):
    def open_files():
        return [link for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(link)]

    store = RowStore(torch.Size((1, 1, 1, 1)), torch.float32, tmp_path)
    assert len(open_files()) == 1
    del store
    assert open_files() == []


def test_a_killed_process_leaves_no_file(forks, tmp_path):
    code = (
        "import sys, time, torch; from pathlib import Path; from cyclestyle.networks.streaming.rows import RowStore\n"
        "store = RowStore(torch.Size((1, 8, 256, 256)), torch.float32, Path(sys.argv[1]))\n"
        "store.write(0, torch.ones(1, 8, 256, 256)); print('written', flush=True); time.sleep(60)"
    )
    process = forks.start(tmp_path, code=code)
    wait_for(lambda: process.stdout == "written\n", process)
    files = [os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    assert any(str(tmp_path) in name for name in files)
    process.kill()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_of_the_system(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch.os, "pwritev", full)
    store = RowStore(torch.Size((1, 1, 4, 4)), torch.float32, tmp_path)
    with pytest.raises(OSError, match="No space left"):
        store.write(0, torch.zeros(1, 1, 4, 4))


def test_transfers_that_the_system_does_in_parts(monkeypatch, tmp_path):
    for name in ("pwritev", "preadv"):
        original = getattr(os, name)
        part = lambda file, buffers, offset, call=original: call(file, [buffers[0][:7]], offset)  # noqa: E731
        monkeypatch.setattr(scratch.os, name, part)
    values = torch.randn(1, 2, 3, 5)
    store = RowStore(values.shape, torch.float32, tmp_path)
    store.write(0, values)
    assert torch.equal(store.read(0, 3), values)


@pytest.mark.parametrize(
    ("text", "count"), [("4GB", 4e9), ("500M", 5e8), ("2GiB", 2**31), ("1.5 gb", 1.5e9), ("1024", 1024), (77, 77)]
)
def test_amounts_of_memory(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "4 apples", "-1GB", "0", "GB", "1e9"])
def test_amounts_that_are_none(text):
    with pytest.raises(ValueError, match="expected an amount of memory such as 4GB"):
        parse_bytes(text)


def test_amounts_are_written_as_people_write_them():
    assert [format_bytes(count) for count in (7, 40_000, 12_345_678, 1.5e9)] == ["7 bytes", "40 kB", "12 MB", "1.5 GB"]


def test_memory_is_that_of_the_tightest_control_group(monkeypatch, tmp_path):
    unlimited = available_memory()
    assert unlimited > 0
    for folder, limit in ((tmp_path, "max"), (tmp_path / "job", "3000000")):
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text("1000000")
        (folder / "memory.stat").write_text("anon 600000\nactive_file 100000\ninactive_file 300000\n")
    names = ("memory.max", "memory.current")
    monkeypatch.setattr(scratch, "_groups", lambda: [(tmp_path / "job", *names), (tmp_path, *names)])
    assert available_memory() == 2_400_000


def test_a_scratch_folder_that_is_missing(tmp_path):
    assert free_room(tmp_path) > 0
    with pytest.raises(scratch.CycleStyleError, match=r"scratch folder .* choose another --scratch"):
        free_room(tmp_path / "nowhere")
