"""Devices that a test runs on: a CPU always, and a GPU under the marker ``gpu`` where there is one."""

from __future__ import annotations

import pytest
import torch

CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]
