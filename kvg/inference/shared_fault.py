"""An error of one process that ends all of them, where they meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from kvg.errors import KVGError, TrainingError


class SharedFault:
    """Keeps the error of one process until all processes can raise it: others would wait for one that leaves alone.

    Attributes:
        error: the first error of this process; None so far.
    """

    def __init__(self) -> None:
        self.error: KVGError | None = None

    @contextmanager
    def kept(self, alone: bool) -> Iterator[None]:
        """Within this block a ``TrainingError`` is kept for ``end``.

        Args:
            alone: no process waits for this one, or all meet the same error: it is raised at once.
        """
        try:
            yield
        except TrainingError as error:
            if alone:
                raise
            self.error = self.error or error

    def end(self, world_size: int) -> None:
        """Ends all processes where one has an error; every process has to call it.

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
