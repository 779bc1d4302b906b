import json
import os
import re
import struct
import time

import wandb
from pytorch_lightning import loggers
from wandb.proto import wandb_internal_pb2

from cyclestyle.cli import main
from cyclestyle.training import CSVLogger

BLOCK, WHOLE, LAST = 32768, 1, 4


def rows(folder):
    lines = (folder / "metrics.csv").read_text().split()
    return [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]


def test_a_resumed_csv_log_continues_without_repeating_a_step(tmp_path):
    first = CSVLogger(str(tmp_path))
    for step in range(5):
        first.log_metrics({"loss": step / 10}, step)
    resumed = CSVLogger(str(tmp_path))
    for step in range(3, 6):
        resumed.log_metrics({"loss": step + 0.5, "val": 1.0}, step)
    resumed.finalize("success")
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
        ("0", "0.0"),
        ("1", "0.1"),
        ("2", "0.2"),
        ("3", "3.5"),
        ("4", "4.5"),
        ("5", "5.5"),
    ]
    assert rows(tmp_path)[0]["val"] == ""
    finished = CSVLogger(str(tmp_path))
    _ = finished.experiment  # a run that is resumed after its end logs nothing
    finished.finalize("success")
    assert len(rows(tmp_path)) == 6


def records(path):
    """The records of an offline run's file: a header of 7 bytes, then LevelDB's log format."""
    data, record, position = path.read_bytes(), b"", 7
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:  # what is left of a block is too short for a record's head
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (WHOLE, LAST):
            yield record
            record = b""


def read_offline_run(folder):
    """History, config and id of an offline run, which a process of W&B writes: on a busy machine a little later."""
    deadline = time.monotonic() + 20
    while (found := parse_offline_run(folder))[2] is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def parse_offline_run(folder):
    history, config, run_id = [], {}, None
    for data in (data for path in folder.glob("*.wandb") for data in records(path)):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            items = ((item.key or ".".join(item.nested_key), item.value_json) for item in record.history.item)
            history.append({key: json.loads(value) for key, value in items})
        if kind in ("run", "config"):
            updates = (record.run.config if kind == "run" else record.config).update
            config |= {update.key or ".".join(update.nested_key): json.loads(update.value_json) for update in updates}
            run_id = record.run.run_id or run_id
    return history, config, run_id


def read_artifacts(file):
    for data in records(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "artifact":
            yield record.artifact


def test_wandb_offline_holds_config_scalars_and_grids_and_goes_on(tiny_fit, tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    words = [tiny_fit[0], tiny_fit[1], "--config=configs/overlays/wandb_offline.yaml", *tiny_fit[2:]]
    words += [f"--trainer.default_root_dir={tmp_path}", "--model.decay_epochs=1"]
    assert main([*words, "--trainer.max_epochs=1"]) == 0
    wandb.finish()
    assert main([*words, "--ckpt_path=last"]) == 0
    wandb.finish()

    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    history, config, run_id = zip(*(read_offline_run(run) for run in runs), strict=True)
    assert run_id[0] == run_id[1] == (tmp_path / "wandb_run_id.txt").read_text().strip()
    assert config[0]["config"]["model"]["init_args"]["ngf"] == 2
    assert config[0]["config"]["data"]["init_args"]["crop_size"] == 32
    steps = [[row["trainer/global_step"] for row in part if "train/loss_G" in row] for part in history]
    assert steps == [list(range(7)), list(range(7, 14))]
    assert any("val/cycle" in row for row in history[0])
    grids = [row for part in history for row in part if "samples.filenames" in row]
    assert [row["trainer/global_step"] for row in grids] == [4, 7, 8, 12, 14]
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/samples_*.png"))) == len(grids)
    tables = [json.loads(path.read_text()) for path in tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")]
    assert sorted(table["data"][0][0] for table in tables) == [4, 7, 8, 12, 14]
    assert tables[0]["columns"] == ["step", "image", "real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B"]
    assert all(len(table["data"]) == 2 for table in tables)  # the same two images each time
    # the CSV log stands beside it, whole
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/loss_G")
    assert sum(bool(re.match(r"\d", line.split(",")[column])) for line in lines[1:]) == 14


def test_wandb_works_without_a_home_and_no_logger_ends_a_training(cyclestyle, tiny_fit, tmp_path, monkeypatch):
    for name in ("WANDB_DATA_DIR", "WANDB_DIR"):
        monkeypatch.setenv(name, "")  # so that it is restored after the test, whatever the run sets
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("XDG_DATA_HOME", "/dev/null/home")

    def broken(*_, **__):
        raise OSError("no space left for this image")

    monkeypatch.setattr(loggers.WandbLogger, "log_image", broken)
    words = [f"--trainer.default_root_dir={tmp_path}", "--config=configs/overlays/wandb_offline.yaml"]
    status, _, error = cyclestyle(*tiny_fit, *words)
    wandb.finish()
    assert status == 0, error
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert error.count("training goes on: no space left for this image") == 1
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/table/sample_table_*.json"))


def test_a_run_continues_if_wandb_cannot_be_reached(forks, tiny_fit, tmp_path):
    """In a process of its own, because W&B reads its environment once."""
    nobody = {name: None for name in os.environ if name.startswith("WANDB_")}
    nobody |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40, "WANDB_INIT_TIMEOUT": "2"}
    words = [*tiny_fit[:2], "--config=configs/overlays/wandb.yaml", *tiny_fit[2:]]
    result = forks.run(*words, f"--trainer.default_root_dir={tmp_path}", env=nobody)
    assert result.returncode == 0, result.stderr
    assert "cyclestyle: warning: W&B is unavailable" in result.stderr
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    artifacts = {artifact.type: artifact for artifact in read_artifacts(file)}
    assert set(artifacts["model"].aliases) == {"latest", "best"}
    assert [entry.path for entry in artifacts["model"].manifest.contents] == ["model.ckpt"]
    assert len([entry for entry in artifacts["run_table"].manifest.contents if entry.path.endswith(".png")]) == 12
    assert (tmp_path / "metrics.csv").read_text().count("\n") > 7


def test_the_report_of_test_reaches_the_run(cyclestyle, tiny_fit, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    words = [f"--trainer.default_root_dir={tmp_path}", "--config=configs/overlays/wandb_offline.yaml"]
    assert cyclestyle(*tiny_fit, *words)[0] == 0
    wandb.finish()
    assert cyclestyle("test", *tiny_fit[1:], *words, "--ckpt_path=last")[0] == 0
    wandb.finish()
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    assert {run.name.rpartition("-")[2] for run in runs} == {(tmp_path / "wandb_run_id.txt").read_text().strip()}
    assert list(runs[1].glob("files/media/html/report*.html"))
