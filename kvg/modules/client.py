"""Test and prediction of a model that is asked as a client: behind a server, hosted, or with an engine of its own."""

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
    """Has no weights; ``kvg test`` and ``kvg predict`` ask the client as they ask a checkpoint.

    How the asked model writes boxes and how names are marked in its questions cannot be found out, so that both have to
    be said, and ``data.mode`` too.

    Args:
        client: that answers, such as ``kvg.inference.server.Server``.
        codec: the box convention of its answers, of ``kvg.text.box_codec``.
        prompt_format: marks before and behind a name in a question; both '' for none.
        sent_size: pictures are resized to it before they are sent; needed for boxes in pixels. None sends them in their
            own size.

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
        """Refuses what does not go with a client, before any process is started.

        Raises:
            ConfigError: there are several processes, a checkpoint, or a command that needs weights.
        """
        if command not in ("test", "predict"):
            raise ConfigError("model", f"a client has no weights for kvg {command}; use it with test and predict")
        if trainer.world_size > 1:
            raise ConfigError("trainer.devices", "must be 1: a client asks many questions at a time by itself")
        if ckpt_path:
            raise ConfigError("ckpt_path", "has no place with a client, whose weights lie elsewhere; leave it out")

    def test_step(self, batch: PreparedBatch, batch_idx: int) -> list[dict[str, Any]]:  # type: ignore[override]
        """Keeps the answers to a batch; one line per case, for callbacks to show."""
        return self.runner.lines(batch, batch_idx)

    def predict_step(self, batch: PreparedBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Keeps the answers to a batch; one line per case."""
        return self.runner.lines(batch, batch_idx)
