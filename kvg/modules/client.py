"""Test and prediction with a client: a model behind a server, or one with its own engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from kvg.errors import ConfigError
from kvg.inference.client_engine import ClientEngine
from kvg.inference.prediction_runner import PredictionRunner
from kvg.inference.prepared import PreparedBatch
from kvg.inference.request import Client
from kvg.inference.sent_pictures import SentSize
from kvg.text.box_codec import BoxCodec
from kvg.text.prompts import PromptFormat


class ClientModule(L.LightningModule):
    """A module without weights, for ``kvg test`` and ``kvg predict`` with a client instead of a checkpoint.

    The box convention and the prompt format of the served model are not known, so both must be configured, and
    ``data.mode`` too.

    Args:
        client: such as ``kvg.inference.server.Server``.
        codec: the box convention of its answers, from ``kvg.text.box_codec``.
        prompt_format: marks before and after a name in a question; both '' for none.
        sent_size: size limits for resizing pictures before sending; required for boxes in pixels. None sends pictures
            in their own size.

    Raises:
        ConfigError: boxes are in pixels, and ``sent_size`` is missing.
    """

    def __init__(
        self, client: Client, codec: BoxCodec, prompt_format: PromptFormat, sent_size: SentSize | None = None
    ) -> None:
        super().__init__()
        self.runner = PredictionRunner(ClientEngine(client, codec, prompt_format, sent_size))

    def configure_callbacks(self) -> Sequence[Callback]:
        """The runner of test and prediction."""
        return [self.runner]

    def check_command(self, trainer: L.Trainer, command: str, ckpt_path: str | None) -> None:
        """Checks that command and settings work with a client, before processes are started.

        Raises:
            ConfigError: there are several processes, a checkpoint, or a command that needs weights.
        """
        if command not in ("test", "predict"):
            raise ConfigError("model", f"a client has no weights for kvg {command}; use it with test and predict")
        if trainer.world_size > 1:
            raise ConfigError("trainer.devices", "must be 1: a client sends many requests concurrently by itself")
        if ckpt_path:
            raise ConfigError("ckpt_path", "cannot be used with a client, which loads no weights; remove it")

    def test_step(self, batch: PreparedBatch, batch_idx: int) -> list[dict[str, Any]]:  # type: ignore[override]
        """Stores the answers to a batch; returns one line per case, for callbacks."""
        return self.runner.lines(batch, batch_idx)

    def predict_step(self, batch: PreparedBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Stores the answers to a batch; returns one line per case."""
        return self.runner.lines(batch, batch_idx)
