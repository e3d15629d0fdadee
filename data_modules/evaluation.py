"""Data of an evaluation: one or several sets, each question once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from data_modules.base import BySet, CompositeDataModule, HasProcessor
from data_modules.loader import StreamLoader
from kvg.errors import ConfigError
from kvg.evaluation.records.question_sets import ArtifactSettings, QuestionBatches, check_set, question_batches
from kvg.text.prompts import DESCRIBE, PROMPTS

AUTO, PLAIN = "auto", "direct"


AnswerLoader = Callable[[QuestionBatches, str, int, bool], Iterable[Any]]


class EvaluationDataModule(CompositeDataModule):
    """Questions for ``kvg test`` and ``kvg predict``; the same samples as prompts for ``kvg validate``.

    What has been answered already, and how a question is tokenised, is known to the one who answers: the module sets
    ``answer_loader``, a function of the questions, the prompt mode, ``num_workers`` and ``skip_bad``.

    Args:
        test: a folder of shards or a published file, or several by name.
        mode: prompt mode. ``auto`` asks as the model was trained to be asked, and one that does not tell plainly
            (``direct``), as the published baselines are. Besides those of training there are ``cot``, ``json`` and
            ``describe`` (two turns).
        batch_size: questions a batch.
        num_workers: processes that make batches.
        skip_bad: leave out and count what cannot be asked about, instead of ending there.
        artifacts: ask again about disturbed pictures; None for no such test.
        box_unit: see ``CompositeDataModule``; by the names of ``test``.
        boxes_of: likewise.

    Raises:
        ConfigError: ``test`` is empty, or ``mode`` is unknown.
    """

    def __init__(
        self,
        test: str | dict[str, str],
        mode: str = AUTO,
        batch_size: int = 8,
        num_workers: int = 0,
        skip_bad: bool = False,
        artifacts: ArtifactSettings | None = None,
        box_unit: BySet = None,
        boxes_of: BySet = "upright",
    ) -> None:
        self.test = {"test": test} if isinstance(test, str) else dict(test)
        super().__init__(batch_size, num_workers, box_unit=box_unit, boxes_of=boxes_of, sets=self.test)
        if not self.test:
            raise ConfigError("data.test", "names no set; give at least one")
        if mode not in (AUTO, DESCRIBE, *PROMPTS):
            raise ConfigError("data.mode", f"'{mode}' is not one of {', '.join((AUTO, *PROMPTS, DESCRIBE))}")
        self.requested_mode, self.skip_bad, self.artifacts = mode, skip_bad, artifacts
        self.batches: QuestionBatches | None = None
        self.answer_loader: AnswerLoader | None = None
        self._backbone: HasProcessor | None = None

    def connect(self, backbone: HasProcessor) -> None:
        """Also takes up how the backbone was trained to be asked, once that is wanted."""
        super().connect(backbone)
        self._backbone = backbone

    @property
    def names(self) -> list[str]:
        """Names of the sets, in order."""
        return list(self.test)

    @property
    def trained_mode(self) -> str | None:
        """The mode that the model was trained with; None where that is not known."""
        return cast("str | None", getattr(self._backbone, "trained_mode", None))

    @property
    def mode(self) -> str:
        """The mode in which is asked."""
        return (self.trained_mode or PLAIN) if self.requested_mode == AUTO else self.requested_mode

    def setup(self, stage: str) -> None:
        """Opens everything; for questions also goes through it once, so that bad input ends here. Comes twice.

        Raises:
            ConfigError: questions of several choices are to be asked in two turns.
            DataError: see ``kvg.evaluation.records.question_sets.check_set``.
        """
        if stage not in ("test", "predict"):
            for name, path in self.test.items():
                self.store(path, name)
        elif self.batches is None:
            sets = [check_set(name, path, self.skip_bad, self.reading(name)) for name, path in self.test.items()]
            choices = [one.name for one in sets if one.num_choices]
            if choices and self.requested_mode == DESCRIBE:
                remedy = f"describe asks for boxes, and {choices[0]} holds names to choose from; take another mode"
                raise ConfigError("data.mode", remedy)
            self.batches = question_batches(sets, self.batch_size, self.artifacts)

    def test_dataloader(self) -> Iterable[Any]:
        """This process's share of what has no answers yet, of all sets."""
        assert self.batches is not None, "setup comes before"
        if self.answer_loader is None:
            raise ConfigError("model", "answers no questions; give a module with a PredictionRunner")
        self._tell_mode()
        return self.answer_loader(self.batches, self.mode, self.num_workers, self.skip_bad)

    def predict_dataloader(self) -> Iterable[Any]:
        """The same as for a test."""
        return self.test_dataloader()

    def val_dataloader(self) -> list[StreamLoader]:
        """One loader a set."""
        self._tell_mode()
        return [self.prompt_loader(path, self.mode, name) for name, path in self.test.items()]

    def _tell_mode(self) -> None:
        if self.requested_mode == AUTO and self._backbone is None:
            remedy = "auto needs a model that tells; name the one that the asked model was trained with, or direct"
            raise ConfigError("data.mode", remedy)
        if self.requested_mode == AUTO and self.trained_mode is None:
            rank_zero_info("The model does not tell how it was trained to be asked; it is asked plainly (direct).")
        elif self.requested_mode == AUTO:
            rank_zero_info("The model is asked as it was trained to be: %s.", self.mode)
        elif self.trained_mode not in (None, self.requested_mode):
            rank_zero_warn(
                f"the model is asked in the mode {self.requested_mode}, but was trained with {self.trained_mode}"
            )
