"""The cluster that the tests of this folder share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing_programs


@pytest.fixture(scope="session")
def cluster(find_port: Callable[[], int]) -> Iterator[Cluster]:
    """Two nodes of SLURM on this host."""
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} cannot be found; on Debian and Ubuntu: apt install slurm-wlm munge")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, Cluster(Path(folder), find_port) as cluster:
        yield cluster
