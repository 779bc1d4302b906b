import check_gpu
import pytest


def test_without_a_gpu_what_needs_one_is_skipped_and_the_rest_is_checked(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert check_gpu.main(["--only", "translator", "large"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row[:2] for row in rows] == [["| translator", "skipped"], ["| large", "yes"]]
    assert rows[0][2] == "needs a GPU"


def test_a_check_that_fails_is_told_and_the_others_go_on(capsys, monkeypatch):
    def broken(machine):
        raise RuntimeError("CUDA error: an illegal\nmemory access")

    monkeypatch.setitem(check_gpu.CHECKS, "exact", broken)
    assert check_gpu.main(["--only", "exact", "waits"]) == 1
    output = capsys.readouterr().out
    assert "| exact | NO | RuntimeError: CUDA error: an illegal memory access |" in output
    assert "| waits | " in output
    with pytest.raises(SystemExit):
        check_gpu.main(["--only", "nothing"])
