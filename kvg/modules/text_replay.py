"""Replay of texts in stage 2, so that the policy does not forget what it has read."""

from __future__ import annotations

import random
from pathlib import Path

from torch import Tensor

from kvg.errors import DataError
from kvg.modules.base import StageModule
from kvg.modules.gradients import without_sync
from kvg.ranges import check_number, check_whole
from kvg.records import json_lines, object_of, parse_json
from kvg.types import Records


class TextReplay:
    """Adds the loss of some replayed texts to each update of stage 2.

    The texts of an update depend on the seed, the step and the process, so that a resumed run replays the same ones.

    Args:
        file: texts, one JSON object a line, as ``data.replay`` of stage 1: ``kvg-data cards``.
        rows: number of texts in each update and process.
        weight: factor of their mean negative log-likelihood, in nats a token, beside the loss of the rollouts.
        seed: of the choice of texts.

    Raises:
        ConfigError: a number is outside its range.
        DataError: the file is missing or empty, or a line is wrong.
    """

    def __init__(self, file: str, rows: int = 8, weight: float = 0.1, seed: int = 0) -> None:
        check_whole("model.replay.rows", rows, 1)
        check_number("model.replay.weight", weight, 0, above=True)
        check_whole("model.replay.seed", seed, 0)
        self.file, self.rows, self.weight, self.seed = file, rows, weight, seed
        self._texts = _texts(file)

    def backward(self, module: StageModule) -> Tensor:
        """Adds the gradients of one update, before those of its rollouts, with which they are sent.

        Args:
            module: the stage whose backbone learns.

        Returns:
            The mean negative log-likelihood of the replayed tokens, without the weight.
        """
        backbone, rng = module.backbone, random.Random(f"{self.seed}/{module.global_step}/{module.global_rank}")
        examples = [backbone.processor.encode_text(*rng.choice(self._texts)) for _ in range(self.rows)]
        batch = backbone.processor.collate(examples, Records()).to(backbone.device)
        with without_sync(module.trainer.model, True):
            loss, _ = backbone.label_loss(batch)
            module.manual_backward(self.weight * loss)
        return loss.detach()


def _texts(file: str) -> list[tuple[str | None, str]]:
    path = Path(file)
    if not path.is_file():
        raise DataError(file, "replay", "does not exist; write it with `kvg-data cards`, or correct the path")
    texts: list[tuple[str | None, str]] = []
    for number, line in json_lines(path):
        where = f"{file} line {number}"
        row = object_of(where, "replay", parse_json(line, where))
        prompt, completion = row.get("prompt"), row.get("text", row.get("completion"))
        if not isinstance(completion, str) or not (prompt is None or isinstance(prompt, str)):
            raise DataError(where, "replay", "must be {'text'} or {'prompt', 'completion'}")
        texts.append((prompt, completion))
    if not texts:
        raise DataError(file, "replay", "contains no line; write some, or set model.replay to null")
    return texts
