"""An client that loads a backbone and answers here: in one process, or in many under any strategy of Lightning.

Nothing heavy is imported before the first request is put.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from kvg.backbones.fingerprint import fingerprint
from kvg.errors import ConfigError, DataError
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
_NOISE = (
    r".*does not have many workers",  # small pictures are decoded faster than they cross a queue
    r".*`srun` command is available on your system but is not used",  # one process on a login node is a choice
    r".*predict returned None",  # answers go to files
    r".*`IterableDataset` has `__len__` defined",  # and knows its workers
    r".*LeafSpec.*is deprecated",  # Lightning 2.6 beside newer torch; nothing a user can do
)


class LocalClient(Client):
    """A client with a model of its own.

    Requests are cut into batches of a fixed size, in their order. A batch is answered with random numbers of its own
    and its answers are a file, so that the result depends on nothing but requests and settings: not on the number of
    processes, nor on where a run was interrupted. Processes take turns with the batches.

    An answer that was cut off at ``max_tokens`` goes to the validator like any other. Where answers may be asked for
    again the validator sees those that it has seen once more, and has to say the same of them.

    In several processes every one of them comes here by the same command, but only the first goes on from here: for the
    others ``ask`` ends the process, with success, once all is answered. So a command must not have written anything
    before the first outcome comes, and can ask once only.

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
        """See ``kvg.inference.request.Client``; and the class, for what becomes of the other processes.

        Raises:
            ConfigError: the model cannot be loaded, does not fit the memory, or is asked again by many processes.
            DataError: the disk refuses, or the requests change while they are answered.
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
        """The model; loads it where it has not been yet."""
        return self._loaded().backbone

    def identity(self) -> str:
        """Text that changes when answers would."""
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
        """Outcomes, each with the answers that may still be asked for: none where the picture cannot be read."""
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

    def _answered(self, requests: Iterable[Request], work: Path, turn: int) -> Units:
        """Answers what has no answer yet."""
        follow_launcher()
        settings = f"{self.identity()}/{turn}"
        with progress_bar(hidden=not is_first()) as progress:
            reading = progress.add_task("reading what is asked", total=None)
            marks, sizes, two_turns = [], [], False
            for batch in in_batches(requests, self.batch_size):
                marks.append(mark_of(batch, settings))
                sizes.append(len(batch))
                two_turns |= any(request.second_turn for request in batch)
                progress.advance(reading, len(batch))
            progress.remove_task(reading)
            units = Units(work / f"{turn}", marks)
            if left := units.left():
                batches = FixedBatches(requests, self.batch_size, settings, marks, two_turns)
                self._predict(batches, units, sizes, turn, sum(sizes[number] for number in left), progress)
        return units

    def _predict(
        self, batches: FixedBatches, units: Units, sizes: Sequence[int], turn: int, due: int, progress: Progress
    ) -> None:
        if self._left_alone and self._trainer().world_size > 1:
            remedy = "are several, and only one can go on after it has asked; run this step by a command of its own"
            raise ConfigError("trainer.devices", remedy)
        module = self._loaded()
        from kvg.inference.batch_runner import RequestJob  # torch and Lightning are imported with the first request
        from kvg.inference.local_module import text_record

        total = sum(sizes)
        title = "answering" if not turn else f"answering again ({turn})"
        task = progress.add_task(title, total=total, completed=total - due, began=total - due)
        start, trainer = time.perf_counter(), self._trainer()
        module.job = RequestJob(
            batches,
            units,
            sizes,
            text_record,
            f"{self.seed}/{turn}",
            num_workers=self.num_workers,
            advance=lambda num: progress.advance(task, num),
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

            for message in _NOISE:
                warnings.filterwarnings("ignore", message)
            with quiet_lightning():
                self._made = build_trainer(self.trainer)
        return self._made

    def _loaded(self) -> LocalModule:
        if self._module is None:
            import torch  # not before the first request: a command that has nothing to ask starts without it

            from kvg.inference.local_module import LocalModule, build_backbone  # as above
            from kvg.rl.rollout import SamplingSettings  # as above
            from kvg.work.cpu import prepare_cpu  # as above

            if not torch.cuda.is_available():
                prepare_cpu()
                os.environ.setdefault("OMP_NUM_THREADS", "1")  # or Lightning would set one that changes sums
            self._trainer()  # says what is wrong before the model is loaded
            backbone = build_backbone(self.setting)
            self._module = LocalModule(backbone, SamplingSettings(self.max_tokens, self.temperature, self.top_p))
        return self._module


def _completions(record: Mapping[str, Any]) -> Iterator[Completion]:
    """The completions that ``kvg.inference.local_module.text_record`` made a record of."""
    for text, num_tokens, cut in zip(record["texts"], record["tokens"], record["cut"], strict=True):
        yield Completion(text, num_tokens, "length" if cut else "stop")
