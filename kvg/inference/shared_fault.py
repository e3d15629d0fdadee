"""Raises an error of one process in all processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from kvg.errors import EngineError, KVGError, TrainingError


class SharedFault:
    """Stores the error of one process until all processes raise it; otherwise the others would wait forever.

    Attributes:
        error: the first error of this process, or None.
    """

    def __init__(self) -> None:
        self.error: KVGError | None = None

    @contextmanager
    def kept(self, alone: bool) -> Iterator[None]:
        """Stores a ``TrainingError`` or ``EngineError`` in this block for ``end``.

        Args:
            alone: raise it at once, because no process waits for this one, or all have the same error.
        """
        try:
            yield
        except (TrainingError, EngineError) as error:
            if alone:
                raise
            self.error = self.error or error

    def end(self, world_size: int) -> None:
        """Raises the stored error in all processes; every process must call this method.

        Raises:
            KVGError: the error of the first process that has one.
        """
        errors: list[KVGError | None] = [self.error]
        if world_size > 1:
            errors = [None] * world_size
            dist.all_gather_object(errors, self.error)
        for error in errors:
            if error is not None:
                raise error
