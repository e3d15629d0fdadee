from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from kvg.work.cpu import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
def touch():
    torch.ones(10 * 2**20)  # 40 MiB
for _ in range(20):  # a freed block is a little too small for the next aligned one, until several have merged
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    touch()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
THREADS = """
import sys, torch
from kvg.work.cpu import prepare_cpu
torch.set_num_threads(2)
print(prepare_cpu(int(sys.argv[1])), torch.get_num_threads())
"""


def run(*words, **env):
    plain = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", *words], env={**plain, **env}, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_not_mapped_again():
    """Twenty blocks of 40 MiB are 204,800 pages of 4 KiB (or 400 of 2 MiB) where each is mapped anew."""
    kept, faults = run(FAULTS, "keep")
    _, without = run(FAULTS, "leave")
    if kept != "True":
        pytest.skip("the C library is not glibc")
    assert int(without) >= 400
    assert int(faults) < 100


def test_one_thread_unless_the_user_says_otherwise():
    assert run(THREADS, "0") == run(THREADS, "99999999") == ["True", "1"]
    assert run(THREADS, "0", OMP_NUM_THREADS="2") == ["False", "2"]


def test_a_large_model_keeps_its_threads():
    assert run(THREADS, "100000000") == ["False", "2"]
