"""A batch of rollouts with their rewards: what stage 2 logs of it, and its records."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvg.boxes import MISSING_BOX, iou
from kvg.formats.rollout_files import RolloutRecord
from kvg.masking import masked_mean
from kvg.rl.completions import Rollouts
from kvg.text.answer import Answer
from kvg.text.box_codec import ImageSize, to_norm
from kvg.types import Box, Sample


@dataclass(frozen=True)
class ScoredRollouts:
    """B prompts with G completions each; N = B * G, the rows of a group side by side.

    Attributes:
        samples: the B samples that ask.
        out: N completions.
        answers: the N completions, parsed.
        rewards: ``[N]``.
        breakdown: components of the rewards by name, each ``[N]``.
        advantages: ``[N]``.
        group_size: G.
        optimizer_step: number of optimizer steps of the policy that sampled them.
        prompts_per_group: neighbouring prompts that are compared with each other, see ``kvg.batches.Batch``.
    """

    samples: Sequence[Sample]
    out: Rollouts
    answers: Sequence[Answer]
    rewards: Tensor
    breakdown: Mapping[str, Tensor]
    advantages: Tensor
    group_size: int
    optimizer_step: int
    prompts_per_group: int = 1

    def figures(self) -> dict[str, Tensor | float]:
        """Rewards, lengths, and the share of answers in which no box can be read: scalars by name."""
        out, size = self.out, self.group_size * self.prompts_per_group
        groups = self.rewards.view(-1, size)
        return {
            "reward/total": self.rewards.mean(),
            **{f"reward/{name}": part.mean() for name, part in self.breakdown.items()},
            "reward_std_in_group": groups.std(dim=1).mean() if size > 1 else torch.tensor(0.0),
            "equal_groups": (groups == groups[:, :1]).all(dim=1).float().mean(),
            "completion_length": out.completion_mask.sum(1).float().mean(),
            "truncated": out.truncated.float().mean(),
            "unparsed": sum(answer.box_px is None for answer in self.answers) / len(self.answers),
            **({} if out.counts is None else out.counts.figures()),
        }

    def records(self, step: int, rank: int, max_rollouts: int) -> list[RolloutRecord]:
        """The first groups, as records.

        Args:
            step: number of the batch.
            rank: of this process.
            max_rollouts: largest number of records; only whole groups are returned, and at least one.
        """
        num_prompts = min(len(self.samples), max(1, max_rollouts // self.group_size))
        num = num_prompts * self.group_size
        mask = self.out.completion_mask[:num]
        entropies = masked_mean(-self.out.logprobs[:num].float(), mask, dim=1).tolist()
        parts = {name: values[:num].tolist() for name, values in self.breakdown.items()}
        rewards, advantages = self.rewards[:num].tolist(), self.advantages[:num].tolist()
        marks = [hashlib.sha256(self.samples[n].image).hexdigest()[:16] for n in range(num_prompts)]
        records = []
        for row, answer in enumerate(self.answers[:num]):
            prompt, number = divmod(row, self.group_size)
            sample = self.samples[prompt]
            records.append(
                RolloutRecord(
                    step=step,
                    optimizer_step=self.optimizer_step,
                    rank=rank,
                    prompt=prompt,
                    sample=number,
                    key=sample.key,
                    entity=sample.entity,
                    category=sample.category,
                    split=sample.split,
                    image=marks[prompt],
                    width=sample.width,
                    height=sample.height,
                    target=_on_grid(sample.box_px, sample),
                    text=answer.completion.text,
                    box=None if answer.box_px is None else _on_grid(answer.box_px, sample),
                    finish_reason=answer.completion.finish_reason,
                    num_tokens=answer.completion.num_tokens or 0,
                    entropy=entropies[row],
                    parts={name: values[row] for name, values in parts.items()},
                    reward=rewards[row],
                    advantage=advantages[row],
                )
            )
        return records


def box_overlaps(answers: Sequence[Answer], samples: Sequence[Sample], group_size: int) -> Tensor:
    """IoU of each of the ``[N]`` answers with the true box, 0 where no box can be read.

    Args:
        answers: N = B * ``group_size``.
        samples: the B samples that ask.
        group_size: answers to each.
    """
    preds = torch.tensor([answer.box_px or MISSING_BOX for answer in answers], dtype=torch.float32)
    target = torch.tensor([sample.box_px for sample in samples], dtype=torch.float32)
    return iou(preds, target.repeat_interleave(group_size, dim=0))


def _on_grid(box_px: Box, sample: Sample) -> Box:
    size = (sample.width, sample.height)
    x1, y1, x2, y2 = to_norm(box_px, ImageSize(*size, *size))
    return float(x1), float(y1), float(x2), float(y2)
