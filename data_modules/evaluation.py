"""Data of an evaluation: one or several sets, each sample once."""

from __future__ import annotations

from data_modules.base import CompositeDataModule
from data_modules.loader import StreamLoader
from kvg.errors import ConfigError


class EvaluationDataModule(CompositeDataModule):
    """Prompts, padded on the left, for ``kvg test``, ``kvg validate`` and ``kvg predict``.

    Args:
        test: a folder of shards or a published file, or several by name.
        mode: prompt mode; baselines are asked with ``direct``, as published.
        batch_size: prompts a batch and process.
        num_workers: processes that make batches.

    Raises:
        ConfigError: ``test`` is empty.
    """

    def __init__(
        self, test: str | dict[str, str], mode: str = "think", batch_size: int = 8, num_workers: int = 0
    ) -> None:
        super().__init__(batch_size, num_workers)
        self.test = {"test": test} if isinstance(test, str) else dict(test)
        if not self.test:
            raise ConfigError("data.test", "names no set; give at least one")
        self.mode = mode

    @property
    def names(self) -> list[str]:
        """Names of the sets, in the order of their loaders."""
        return list(self.test)

    def setup(self, stage: str) -> None:
        """Opens everything, so that a wrong path fails before a model runs."""
        for path in self.test.values():
            self.store(path)

    def test_dataloader(self) -> list[StreamLoader]:
        """One loader a set."""
        return [self.prompt_loader(path, self.mode) for path in self.test.values()]

    def val_dataloader(self) -> list[StreamLoader]:
        """The same as for a test."""
        return self.test_dataloader()

    def predict_dataloader(self) -> list[StreamLoader]:
        """The same as for a test."""
        return self.test_dataloader()
