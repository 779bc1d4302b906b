"""What a command does to its own process."""

import subprocess
import sys
from pathlib import Path

import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
USE_256_MB = """
import resource, sys
from cyclestyle.speed.memory import keep_memory

def figure(file, name):
    return next(int(line.split()[1]) for line in open(f"/proc/self/{file}") if line.startswith(name)) // 1024

if limit := int(sys.argv[1]) * 2**20:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
keep_memory()
used = b"1" * 2**28
huge = figure("smaps_rollup", "AnonHugePages")
del used
print(huge, figure("status", "VmRSS"), figure("status", "VmSize"))
"""

pytestmark = pytest.mark.skipif(
    not (sys.platform == "linux" and Path("/proc/self/smaps_rollup").exists()), reason="it is done on Linux, with /proc"
)


def use_256_mb(limit: int = 0) -> tuple[int, int, int]:
    """Megabytes in huge pages, megabytes that stay with the process after their use, and megabytes of addresses."""
    command = [sys.executable, "-c", USE_256_MB, str(limit)]
    printed = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    huge, kept, addresses = map(int, printed.split())
    return huge, kept, addresses


def test_memory_stays_with_the_process() -> None:
    _, kept, _ = use_256_mb()
    assert kept > 256


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="this system has no huge pages"
)
def test_memory_is_in_huge_pages() -> None:
    huge, _, _ = use_256_mb()
    assert huge > 200


def test_nothing_is_reserved_where_addresses_are_limited() -> None:
    _, kept, addresses = use_256_mb(limit=2048)
    assert kept > 256
    assert addresses < 1024
