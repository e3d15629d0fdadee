"""The kind of device that code runs for: that of its tensors, or the one that a plan of memory is made for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_PLANNED: ContextVar[str | None] = ContextVar("planned", default=None)


def device_kind(tensor: Tensor) -> str:
    """``cpu``, ``cuda`` and so on.

    >>> import torch
    >>> with planned_for("cuda"):
    ...     device_kind(torch.zeros(1))
    'cuda'
    """
    return _PLANNED.get() or tensor.device.type


@contextmanager
def planned_for(kind: str) -> Iterator[None]:
    """Within this block code takes the ways of another device, on tensors without memory (``kvg.planning``).

    Args:
        kind: ``cpu`` or ``cuda``.
    """
    token = _PLANNED.set(kind)
    try:
        yield
    finally:
        _PLANNED.reset(token)
