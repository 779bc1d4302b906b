import json

import pytest
from PIL import Image


@pytest.fixture
def folders(samples):
    return {
        "--output": samples / "truthB",
        "--truth": samples / "truthB",
        "--input": samples / "testA",
        "--source": samples / "trainA",
        "--target": samples / "trainB",
    }


def test_the_truth_scores_best(cyclestyle, folders, tmp_path):
    words = {**folders, "--json": tmp_path / "s.json", "--sheet": tmp_path / "s.png", "--columns": 2}
    status, text, _ = cyclestyle("score", *(word for pair in words.items() for word in pair))
    assert status == 0
    assert "against the 3 true pictures" in text
    table = json.loads((tmp_path / "s.json").read_text())
    assert list(table) == ["untouched", "colour transfer, domain", "colour transfer, each picture", "cyclestyle"]
    assert table["cyclestyle"]["texture_distance"] == 0
    assert table["cyclestyle"]["psnr"] > 100
    assert 5 < table["untouched"]["psnr"] < 25
    assert table["untouched"]["texture_distance"] > 0.1
    assert Image.open(tmp_path / "s.png").size == (64, 128)


def test_a_missing_counterpart_is_named(cyclestyle, folders, tmp_path):
    words = {**folders, "--output": tmp_path}
    status, _, error = cyclestyle("score", *(word for pair in words.items() for word in pair))
    assert status == 1
    assert "0000.png does not exist; every picture of" in error


def test_sample_data_from_the_command_line(cyclestyle, tmp_path):
    words = ["sample-data", tmp_path / "s", "--train", 1, "--test", 1, "--size", 32]
    assert cyclestyle(*words)[1] == f"5 pictures drawn into {tmp_path / 's'}\n"
    assert cyclestyle(*words)[1] == f"0 pictures drawn into {tmp_path / 's'}\n"
    assert "holds samples with other settings" in cyclestyle(*words, "--seed", 3)[2]
    assert "size must be at least 32, got 5" in cyclestyle("sample-data", tmp_path / "t", "--size", 5)[2]
