"""Asks the base: greedy answers for its box convention, and groups of completions for their rewards."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from kvg.backbones.answers import completions, read_answers
from kvg.backbones.backbone import Backbone
from kvg.backbones.resize_rules import ResizeRules
from kvg.evaluation.diagnostics.box_convention import BoxAnswer
from kvg.modules.grpo import ALIKE, GRPOModule
from kvg.report.doctor_page import Check, Status
from kvg.rewards.diagnosis import Start, likely_causes
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from kvg.text.box_codec import last_numbers
from kvg.text.completion import parse_completion
from kvg.types import Completion, Sample
from kvg.work.job import Units
from kvg.work.progress import progress_bar

_MANY = 0.5  # share of groups with equal rewards from which on it is noted


@dataclasses.dataclass(frozen=True)
class Questions:
    """Questions about samples, and how they are answered.

    Attributes:
        samples: each asks for its target.
        mode: prompt mode.
        sampling: how tokens are sampled.
        group_size: completions of each prompt.
        batch_size: prompts at once.
        seed: of all chance.
    """

    samples: Sequence[Sample]
    mode: str
    sampling: SamplingSettings
    group_size: int = 1
    batch_size: int = 8
    seed: int = 0

    def ask(self, backbone: Backbone, folder: Path, identity: str) -> list[Completion]:
        """Answers that are there already, and those that are missing.

        Args:
            backbone: frozen, in evaluation mode.
            folder: for the answers of each batch.
            identity: text of all else that the answers depend on.

        Returns:
            ``group_size`` completions of each sample, side by side.

        Raises:
            DataError: a picture cannot be used, or the disk cannot be written.
            TrainingError: logits are not finite.
        """
        batches = [self.samples[at : at + self.batch_size] for at in range(0, len(self.samples), self.batch_size)]
        settings = [self.mode, self.sampling, self.group_size, self.seed]
        units = Units(folder, [f"{identity} {settings} {[sample.key for sample in batch]}" for batch in batches])
        left = units.left()
        done = sum(len(batch) for number, batch in enumerate(batches) if number not in left)
        with progress_bar() as progress:
            title = f"asking in mode {self.mode}" + (f", {self.group_size} times" if self.group_size > 1 else "")
            task = progress.add_task(title, total=len(self.samples), completed=done, began=done)
            for number in left:
                units.save(number, [vars(one) for one in self._answer(backbone, batches[number], number)])
                progress.advance(task, len(batches[number]))
        return [Completion(**one) for unit in units.results() for one in unit]

    def _answer(self, backbone: Backbone, samples: Sequence[Sample], number: int) -> list[Completion]:
        processor = backbone.processor
        examples = [processor.encode(sample, mode=self.mode, target=None) for sample in samples]
        batch = processor.collate(examples, samples, pad_left=True).to(backbone.device)
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * number)
        out = rollout(backbone, batch, self.sampling, self.group_size, generator)
        return completions(backbone, out, self.sampling.max_new_tokens)


def box_answers(backbone: Backbone, samples: Sequence[Sample], answers: Sequence[Completion]) -> list[BoxAnswer]:
    """The boxes of greedy answers, as numbers and as declared.

    Args:
        backbone: that answered.
        samples: N samples.
        answers: N answers.
    """
    rules = ResizeRules(backbone)
    made = []
    for sample, answer, read in zip(samples, answers, read_answers(backbone, answers, samples), strict=True):
        last = last_numbers(parse_completion(answer.text).answer)
        numbers = None if last is None else last[0]
        boxes = [item.box_px for item in sample.objects]
        sizes = rules.sizes(sample.width, sample.height)
        made.append(BoxAnswer(numbers, read.box_px, boxes, sample.target, sizes))
    return made


def answer_check(answers: Sequence[Completion], boxes: Sequence[BoxAnswer], mode: str) -> Check:
    """How many answers hold a box, and how many are cut off."""
    num = len(answers)
    num_boxes = sum(box.numbers is not None or box.declared_px is not None for box in boxes)
    num_cut = sum(answer.finish_reason == "length" for answer in answers)
    text = f"{num_boxes} of {num} answers hold a box (mode {mode})"
    if num_cut:
        text += f"; {num_cut} are cut off at {answers[0].max_tokens} tokens"
    return Check("answers", "ok" if num_boxes > 0.5 * num and num_cut <= 0.1 * num else "note", text)


def group_check(module: GRPOModule, mode: str, samples: Sequence[Sample], generated: Sequence[Completion]) -> Check:
    """Whether the rewards of a group differ, so that stage 2 has something to learn from.

    Args:
        module: the stage.
        mode: prompt mode of the data.
        samples: B samples.
        generated: B * G completions, those of a sample side by side.
    """
    size = module.group_size
    repeated = [sample for sample in samples for _ in range(size)]
    answers = read_answers(module.backbone, generated, repeated)
    rewards, parts = module.reward(answers, repeated)
    groups = rewards.view(-1, size)
    equal = float((groups == groups[:, :1]).all(dim=1).float().mean())
    spread = float(groups.std(dim=1).mean()) if size > 1 else 0.0
    means = {f"reward/{name}": float(values.mean()) for name, values in parts.items()}
    means["unparsed"] = sum(answer.box_px is None for answer in answers) / len(answers)
    means["truncated"] = sum(one.finish_reason == "length" for one in generated) / len(generated)
    listed = ", ".join(f"{name.removeprefix('reward/')} {value:.2f}" for name, value in means.items())
    num = round(equal * len(groups))
    text = f"{num} of {len(groups)} groups of {size} have equal rewards; mean reward {float(rewards.mean()):.2f}"
    text += f", standard deviation within a group {spread:.2f}"
    status: Status = "fault" if equal > ALIKE else "note" if equal > _MANY else "ok"
    if status != "ok":
        start: Start = dataclasses.replace(module.start(), mode=mode)
        causes = likely_causes(means, start) or ["the answers to a prompt hardly differ: raise model.temperature"]
        text += f"; likely causes: {'; '.join(causes)}"
    rows = [", ".join(f"{value:.2f}" for value in group) for group in groups.tolist()]
    lines = [f"{sample.key}: {row}" for sample, row in zip(samples, rows, strict=True)]
    return Check("group rewards", status, text, [f"means: {listed}", *lines])
