"""A client that runs a backbone locally: in one process, or in several under any Lightning strategy.

Torch and Lightning are imported with the first request.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from kvg.backbones.fingerprint import fingerprint
from kvg.errors import ConfigError, DataError
from kvg.inference.handover import Handover
from kvg.inference.local_settings import backbone_setting, trainer_settings
from kvg.inference.request import Client, Outcome, Request, Validator
from kvg.inference.request_batches import Again, FixedBatches, in_batches, mark_of
from kvg.ranges import check_number, check_whole
from kvg.types import Completion
from kvg.work.job import Units
from kvg.work.processes import follow_launcher, is_first, lead_others
from kvg.work.progress import progress_bar, quiet_lightning

if TYPE_CHECKING:
    import lightning as L
    from rich.progress import Progress

    from kvg.backbones.backbone import Backbone
    from kvg.inference.local_module import LocalModule
    from kvg.text.prompts import PromptFormat

T = TypeVar("T")


class LocalClient(Client):
    """A client with a local model.

    Requests are divided into batches of a fixed size, in order. Each batch has its own seed, and its answers are stored
    in a file, so that the result depends only on requests and settings, not on the number of processes or on
    interruptions. The batches are distributed over the processes.

    A truncated answer goes to the validator like any other. With repeated requests the validator is called again on
    earlier answers, and must return the same result.

    With several processes all of them run the same command, but only the first one continues: in the others ``ask``
    ends the process with exit code 0 when all requests are answered. A command must therefore not write files before
    the first outcome, and can call ``ask`` only once.

    Args:
        backbone: ``{class_path, init_args}``, or a checkpoint. LoRA adapters have to be merged.
        temperature: 0 = greedy.
        top_p: smallest set of tokens whose probabilities reach this; 1 = all.
        max_tokens: longest answer.
        seed: of the answers.
        batch_size: requests at once, each with all of its answers.
        num_workers: processes that prepare pictures; 0 prepares them in between.
        trainer: settings of the Lightning Trainer as in ``configs/strategy``; one process by default.

    Raises:
        ConfigError: a setting cannot work.
    """

    _left_alone: ClassVar[bool] = False  # the other processes have ended

    def __init__(
        self,
        backbone: Mapping[str, Any] | str,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 512,
        seed: int = 0,
        batch_size: int = 16,
        num_workers: int = 0,
        trainer: Mapping[str, Any] | None = None,
    ) -> None:
        self.setting = backbone_setting(backbone)
        for name, value, low in (("max_tokens", max_tokens, 1), ("batch_size", batch_size, 1)):
            check_whole(name, value, low)
        check_whole("num_workers", num_workers, 0)
        check_number("temperature", temperature, 0)  # 0 is greedy
        check_number("top_p", top_p, 0, 1, above=True)
        self.temperature, self.top_p, self.max_tokens, self.seed = temperature, top_p, max_tokens, seed
        self.batch_size, self.num_workers, self.trainer = batch_size, num_workers, trainer_settings(trainer)
        self._module: LocalModule | None = None
        self._made: L.Trainer | None = None
        self._num_answers = self._num_tokens = self._num_cut = 0
        self._seconds = 0.0

    # -- the client -------------------------------------------------------------------------------------------------
    def ask(
        self, requests: Iterable[Request], validator: Validator[T], work: Path, max_attempts: int = 1
    ) -> Iterator[Outcome[T]]:
        """See ``kvg.inference.request.Client``; see the class for the other processes.

        Raises:
            ConfigError: the model cannot be loaded, does not fit the memory, or several processes call this twice.
            DataError: a file cannot be written, or the requests change during the run.
        """
        rounds: list[tuple[Mapping[int, int] | None, Units]] = []
        missing: dict[int, int] | None = None
        for turn in range(max(1, max_attempts)):
            again = requests if missing is None else Again(requests, missing)
            rounds.append((missing, self._answered(again, work, turn)))
            if turn + 1 == max(1, max_attempts):
                break
            outcomes = enumerate(self._outcomes(requests, validator, rounds))
            missing = {index: num for index, (outcome, num) in outcomes if num and not outcome.complete}
            if not missing:
                break
        if self._made is not None and self._made.world_size > 1:
            LocalClient._left_alone = True
        if not is_first():
            raise SystemExit(0)
        self._num_answers = self._num_tokens = self._num_cut = 0
        for outcome, _ in self._outcomes(requests, validator, rounds, count=True):
            yield outcome

    def ask_in_order(
        self, requests: Iterable[Request], validator: Validator[T], work: Path, each: Callable[[Outcome[T]], object]
    ) -> None:
        """Asks like ``ask`` with one attempt, and hands over outcomes while others are still being answered.

        Args:
            requests: see ``ask``.
            validator: see ``ask``.
            work: see ``ask``.
            each: called with every outcome, in order, as soon as it and all before it are known.

        Raises:
            ConfigError: see ``ask``.
            DataError: see ``ask``.
        """
        self._num_answers = self._num_tokens = self._num_cut = 0
        handover = Handover(lambda units: self._outcomes(requests, validator, [(None, units)], count=True), each)
        self._answered(requests, work, 0, handover)
        if not is_first():
            raise SystemExit(0)

    def summary(self) -> str:
        """See ``kvg.inference.request.Client``."""
        cut = f" ({self._num_cut} cut off at {self.max_tokens})" if self._num_cut else ""
        minutes, seconds = divmod(round(self._seconds), 60)
        return f"{self._num_answers} answers, {self._num_tokens} tokens{cut}, {minutes}:{seconds:02} in this run"

    @property
    def prompt_format(self) -> PromptFormat:
        """That of the checkpoint's family, which its settings name; no weights are loaded.

        Raises:
            ConfigError: the checkpoint cannot be read, or is of no known family.
        """
        from kvg.inference.local_module import family_of  # imports torch

        return family_of(self.setting).prompt_format

    @property
    def backbone(self) -> Backbone:
        """The model, loaded on first use."""
        return self._loaded().backbone

    def identity(self) -> str:
        """Text that identifies all settings that determine the answers."""
        checkpoint = str((self.setting.get("init_args") or {}).get("checkpoint", ""))
        precision = self.trainer.get("precision")
        settings = [self.temperature, self.top_p, self.max_tokens, self.seed, self.batch_size, precision]
        return json.dumps([self.setting, settings, fingerprint(checkpoint)], sort_keys=True, default=str)

    # -- parts -----------------------------------------------------------------------------------------------------
    def _outcomes(
        self,
        requests: Iterable[Request],
        validator: Validator[T],
        rounds: list[tuple[Mapping[int, int] | None, Units]],
        count: bool = False,
    ) -> Iterator[tuple[Outcome[T], int]]:
        """Outcomes, each with the number of answers to repeat: 0 if the picture cannot be read."""
        streams = [(missing, chain.from_iterable(units.results())) for missing, units in rounds]
        for index, request in enumerate(requests):
            values: list[T] = []
            faults: list[str] = []
            good: list[Completion] = []
            readable = True
            for missing, records in streams:
                if missing is not None and index not in missing:
                    continue
                record = next(records)
                if "fault" in record:
                    faults.append(record["fault"])
                    readable = False
                    continue
                if count:
                    self._count(record)
                for one in _completions(record):
                    try:
                        values.append(validator(request, one.text))
                        good.append(one)
                    except DataError as error:
                        faults.append(str(error))
            yield Outcome(request, tuple(values), tuple(faults), tuple(good)), (request.num - len(values)) * readable

    def _count(self, record: Mapping[str, Any]) -> None:
        self._num_answers += len(record["texts"])
        self._num_tokens += sum(record["tokens"])
        self._num_cut += sum(record["cut"])

    def _answered(
        self, requests: Iterable[Request], work: Path, turn: int, handover: Handover[T] | None = None
    ) -> Units:
        """Answers the unanswered batches, and returns the units with all answers."""
        follow_launcher()
        settings = f"{self.identity()}/{turn}"
        with progress_bar(hidden=not is_first()) as progress:
            num_requests = len(requests) if isinstance(requests, Sized) else None
            reading = progress.add_task("reading requests", total=num_requests)
            marks, sizes, two_turns = [], [], False
            for batch in in_batches(requests, self.batch_size):
                marks.append(mark_of(batch, settings))
                sizes.append(len(batch))
                two_turns |= any(request.second_turn for request in batch)
                progress.advance(reading, len(batch))
            progress.remove_task(reading)
            units = Units(work / f"{turn}", marks)
            hand_over = handover.begin(units, sizes, progress) if handover and is_first() else lambda: None
            if left := units.left():
                batches = FixedBatches(requests, self.batch_size, settings, marks, two_turns)
                due = sum(sizes[number] for number in left)
                self._predict(batches, units, sizes, turn, due, progress, hand_over)
            hand_over()
        return units

    def _predict(
        self,
        batches: FixedBatches,
        units: Units,
        sizes: Sequence[int],
        turn: int,
        due: int,
        progress: Progress,
        hand_over: Callable[[], None],
    ) -> None:
        if self._left_alone and self._trainer().world_size > 1:
            remedy = "are several, but only one process continues after inference; run this step as a separate command"
            raise ConfigError("trainer.devices", remedy)
        module = self._loaded()
        from kvg.inference.batch_runner import RequestJob  # torch and Lightning are imported with the first request
        from kvg.inference.local_module import text_record

        total = sum(sizes)
        title = "answering" if not turn else f"answering again ({turn})"
        task = progress.add_task(title, total=total, completed=total - due, began=total - due)
        start, trainer = time.perf_counter(), self._trainer()

        def advance(num: int) -> None:
            progress.advance(task, num)
            hand_over()

        module.job = RequestJob(
            batches,
            units,
            sizes,
            text_record,
            f"{self.seed}/{turn}",
            num_workers=self.num_workers,
            advance=advance,
        )
        if trainer.local_rank == 0:
            lead_others()
        try:
            with quiet_lightning():
                trainer.predict(module, return_predictions=False)
        except SystemExit:  # Lightning's answer to Ctrl-C
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
        except Exception as error:
            if type(error).__name__ != "OutOfMemoryError":
                raise
            remedy = f"is too large for the memory of this GPU ({error}); make it smaller"
            raise ConfigError("batch_size", remedy) from error
        self._seconds += time.perf_counter() - start

    def _trainer(self) -> L.Trainer:
        if self._made is None:
            from kvg.inference.local_module import build_trainer  # as below

            with quiet_lightning():
                self._made = build_trainer(self.trainer)
        return self._made

    def _loaded(self) -> LocalModule:
        if self._module is None:
            import torch  # with the first request: a command without requests starts faster

            from kvg.inference.local_module import LocalModule, build_backbone  # as above
            from kvg.rl.sampling import SamplingSettings  # as above
            from kvg.work.cpu import prepare_cpu  # as above

            self._trainer()  # reports invalid settings before the model is loaded
            backbone = build_backbone(self.setting)
            num_weights = sum(one.numel() for one in backbone.parameters())
            if not torch.cuda.is_available() and prepare_cpu(num_weights):
                os.environ["OMP_NUM_THREADS"] = "1"  # or Lightning would set one that changes sums
            self._module = LocalModule(backbone, SamplingSettings(self.max_tokens, self.temperature, self.top_p))
        return self._module


def _completions(record: Mapping[str, Any]) -> Iterator[Completion]:
    """The completions in a record of ``kvg.inference.local_module.text_record``."""
    for text, num_tokens, cut in zip(record["texts"], record["tokens"], record["cut"], strict=True):
        yield Completion(text, num_tokens, "length" if cut else "stop")
