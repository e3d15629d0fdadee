"""``kvg doctor``: what would go wrong in a training, from the answers of the base to some twenty of its samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch

from kvg.backbones.fingerprint import fingerprint
from kvg.errors import ConfigError, DataError
from kvg.evaluation.diagnostics.box_convention import BoxAnswer, ConventionFits, convention_fits
from kvg.modules.base import StageModule
from kvg.modules.grpo import GRPOModule
from kvg.pipeline.doctor.answers import Questions, answer_check, box_answers, group_check
from kvg.pipeline.doctor.text_checks import Lengths, length_check, measure, name_check, picture_check, token_check
from kvg.report.doctor_page import Check, DoctorCase, DoctorContents, Status, doctor_page
from kvg.shards.dataset import ShardDataset
from kvg.shards.reader import SampleStore, Tally
from kvg.text.prompts import PROMPTS
from kvg.training.prepared import PreparedCLI, prepared
from kvg.types import Completion, Sample
from kvg.work.files import atomic_write, disk_errors
from kvg.work.job import Job

AUTO: Final = "auto"
RECORD, PAGE = "doctor.json", "doctor.html"
_PLAIN: Final = "direct"
_OTHERS: Final = ("json", "qwen")  # modes that a base is asked in if it writes no boxes in its own
_CHECKED: Final = 200  # samples whose names, pictures and lengths are checked
_VERSION: Final = 1  # increased when the same settings give different files


@dataclass(frozen=True)
class DoctorSettings:
    """Settings of the command.

    Attributes:
        num: samples that the base is asked about.
        mode: prompt mode of these questions; ``auto`` is that of the data in stage 2, and in stage 1 the mode that the
            base was trained with, or ``direct``.
        out: folder for the page and the record; None for ``trainer.default_root_dir`` with ``-doctor``.
        seed: of the choice of samples and of rollouts.
    """

    num: int = 20
    mode: str = AUTO
    out: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: ``num`` is too small, or there is no such mode.
        """
        if self.num < 5:
            raise ConfigError("--num", f"{self.num} answers show nothing; give at least 5")
        if self.mode != AUTO and self.mode not in PROMPTS:
            raise ConfigError("--mode", f"'{self.mode}' is not one of {', '.join((AUTO, *PROMPTS))}")


@dataclass(frozen=True)
class Diagnosis:
    """The result.

    Attributes:
        checks: in order.
        fits: of all conventions.
        page: the written page.
    """

    checks: Sequence[Check]
    fits: ConventionFits
    page: Path

    @property
    def num_faults(self) -> int:
        """Number of checks that found a fault."""
        return sum(check.status == "fault" for check in self.checks)

    def text(self) -> str:
        """All checks and the page, a line each."""
        width = max(len(check.name) for check in self.checks)
        lines = [f"{check.mark} {check.name:<{width}}  {check.text}" for check in self.checks]
        verdict = f"{self.num_faults} faults" if self.num_faults != 1 else "1 fault"
        return "\n".join([*lines, f"{verdict if self.num_faults else 'no fault'}; the answers are in {self.page}"])


def examine(args: Sequence[str], settings: DoctorSettings) -> Diagnosis:
    """Examines what ``kvg fit ARGS`` would train, or resumes an interrupted examination.

    Args:
        args: arguments after ``kvg fit``.
        settings: of the examination.

    Returns:
        The result, which is also written.

    Raises:
        KVGError: a setting or the data cannot be used.
    """
    cli = prepared(args)
    module, data = cli.model, cli.datamodule
    if not isinstance(module, StageModule) or not hasattr(data, "recipe"):
        raise ConfigError("model", "is no stage with composites; give configs/stage/cot_sft.yaml, direct_sft or grpo")
    backbone = module.backbone.requires_grad_(False).eval()
    backbone.to("cuda" if torch.cuda.is_available() else "cpu")
    folder = settings.out or Path(f"{cli.plain_settings['trainer']['default_root_dir']}-doctor")
    tally = Tally(log_problems=False)
    samples = list(islice(_samples(data.training_store(data.train, data.recipe), settings.seed, tally), _CHECKED))
    validation = []
    if data.val:
        validation = list(islice(_samples(data.store(data.val, "val"), settings.seed, tally), _CHECKED))
    lengths, faults = measure(backbone.processor, samples, data.recipe.mode, data.recipe.target)
    keys = {one.key for one in lengths}
    usable = [sample for sample in samples if sample.key in keys]
    if faults and not usable:
        raise DataError(str(data.train), "samples", f"none can be used; the first: {faults[0]}")
    chosen = _distinct(usable, settings.num)
    checks = _text_checks(module, data, usable, validation, lengths)
    checks.insert(2, picture_check(lengths, [*tally.problems, *faults]))
    identity = json.dumps([_VERSION, _identity(cli, module), asdict(settings), data.train], default=str)
    job = Job(folder, RECORD, identity)
    job.reopen()
    mode, answers, boxes = _ask(module, data, chosen, settings, job)
    fits = convention_fits(boxes, backbone.codec.name, settings.seed)
    checks[:0] = [_convention_check(fits), answer_check(answers, boxes, mode)]
    checks.append(_rewards(module, data, chosen, settings, job))
    cases = [
        DoctorCase(sample, answer.text, fits.declared.shares[n], fits.declared.overlaps[n],
                   fits.best.shares[n], fits.best.overlaps[n])
        for n, (sample, answer) in enumerate(zip(chosen, answers, strict=True))
    ]  # fmt: skip
    facts = {"model": backbone.checkpoint, "data": str(data.train), "mode": mode, "samples asked": str(len(chosen))}
    page = doctor_page(DoctorContents(facts, checks, fits, cases))
    with disk_errors(folder):
        atomic_write(folder / PAGE, page)
    listed = [check.record() for check in checks]
    records = [{"key": s.key, "entity": s.entity, "answer": a.text} for s, a in zip(chosen, answers, strict=True)]
    job.complete({"facts": facts, "checks": listed, "convention": fits.record(), "answers": records})
    return Diagnosis(checks, fits, folder / PAGE)


def _samples(store: SampleStore, seed: int, tally: Tally) -> Iterator[Sample]:
    """Samples with a box in a random order; only the first parts of a set are read."""
    dataset = ShardDataset(store, seed, shuffle_buffer=2 * _CHECKED)
    dataset.tally = tally
    return (sample for sample in dataset.stream(0) if sample.has_box and not sample.options)


def _distinct(samples: Sequence[Sample], num: int) -> list[Sample]:
    """The first samples, each about another picture.

    Raises:
        DataError: there are fewer than two.
    """
    pictures = {hashlib.sha256(sample.image).digest(): sample for sample in reversed(samples)}
    chosen = list(reversed(pictures.values()))[:num]
    if len(chosen) < 2:
        raise DataError("data.train", "samples", "has fewer than two pictures with a box; give another set")
    return chosen


def _text_checks(
    module: StageModule, data: Any, samples: Sequence[Sample], validation: Sequence[Sample], lengths: Sequence[Lengths]
) -> list[Check]:
    backbone, recipe = module.backbone, data.recipe
    num_embeddings = len(backbone.model.get_input_embeddings().weight)
    positions = getattr(backbone.model.config.get_text_config(), "max_position_embeddings", None)
    limit = module.validation.sampling.max_new_tokens
    return [
        token_check(backbone.processor, samples[0], recipe.mode, num_embeddings),
        name_check(backbone.processor, samples, validation, recipe.mode),
        length_check(lengths, recipe.max_tokens, limit, positions),
    ]


def _identity(cli: PreparedCLI, module: StageModule) -> list[Any]:
    """All that the answers depend on beside the settings of the command."""
    return [cli.plain_settings["model"], fingerprint(module.backbone.checkpoint)]


def _ask(
    module: StageModule, data: Any, samples: Sequence[Sample], settings: DoctorSettings, job: Job
) -> tuple[str, list[Completion], list[BoxAnswer]]:
    """Mode, greedy answers and boxes; of the first mode with boxes in most answers, or with the most boxes."""
    modes = [settings.mode]
    if settings.mode == AUTO:
        own = module.backbone.trained_mode or _PLAIN
        modes = [data.mode] if isinstance(module, GRPOModule) else list(dict.fromkeys([own, *_OTHERS]))
    best: tuple[int, str, list[Completion], list[BoxAnswer]] | None = None
    for mode in modes:
        questions = Questions(samples, mode, module.validation.sampling, 1, data.batch_size, settings.seed)
        answers = questions.ask(module.backbone, job.units / mode, job.identity)
        boxes = box_answers(module.backbone, samples, answers)
        num = sum(box.numbers is not None or box.declared_px is not None for box in boxes)
        if best is None or num > best[0]:
            best = num, mode, answers, boxes
        if num > len(samples) / 2:
            break
    assert best is not None
    return best[1:]


def _convention_check(fits: ConventionFits) -> Check:
    status: Status = "unknown" if not fits.is_known else "fault" if fits.is_wrong else "ok"
    text = fits.text()
    if fits.is_wrong:
        text += "; declare the convention of the model (docs/explanation/box_conventions.md)"
    return Check("box convention", status, text)


def _rewards(module: StageModule, data: Any, samples: Sequence[Sample], settings: DoctorSettings, job: Job) -> Check:
    if not isinstance(module, GRPOModule):
        return Check("group rewards", "skipped", "only stage 2 has rewards")
    sizes = module.group_size, max(1, data.batch_size // 2)
    questions = Questions(samples, data.mode, module.rollout_sampling, *sizes, settings.seed)
    generated = questions.ask(module.backbone, job.units / "groups", job.identity)
    return group_check(module, data.mode, samples, generated)
