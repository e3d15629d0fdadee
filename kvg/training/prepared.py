"""Builds module and data module as ``kvg fit`` would, without a Trainer, a run folder or a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng

from kvg.training.lightning_cli import KVGCLI, reported
from kvg.training.preflight import check_data


class PreparedCLI(KVGCLI):
    """The settings of a ``fit``, and what they name; nothing is trained and no file is written.

    The model is in this process as a whole, whatever ``trainer.strategy`` says.

    Args:
        args: arguments after ``kvg fit``.

    Raises:
        KVGError: see ``KVGCLI``.
    """

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__(["fit", *args])

    def instantiate_classes(self) -> None:
        """Builds the data module, runs the checks that need no weights, and builds the model."""
        with isolate_rng():
            self.datamodule = self._get(self._built(["data"]), "data")
            self._module_without_weights()
            check_data(self.datamodule, "fit")
        self.model = self._get(self._built(["model"]), "model")

    def after_instantiate_classes(self) -> None:
        """Gives the data module the backbone's processor."""
        connect, backbone = getattr(self.datamodule, "connect", None), getattr(self.model, "backbone", None)
        if connect is not None and backbone is not None:
            connect(backbone)

    def _run_subcommand(self, subcommand: str) -> None:
        """Does nothing: the module is not trained."""

    @property
    def plain_settings(self) -> Mapping[str, Any]:
        """All merged settings."""
        settings: Mapping[str, Any] = self._settings().as_dict()  # type: ignore[no-untyped-call]
        return settings


def prepared(args: Sequence[str]) -> PreparedCLI:
    """Builds what ``kvg fit ARGS`` would train.

    Args:
        args: arguments after ``kvg fit``.

    Raises:
        KVGError: a setting or the data cannot be used.
    """
    with reported():
        return PreparedCLI(args)
