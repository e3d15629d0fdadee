"""What stage 2 learns from: prompts, their completions and their advantages, which can be cut by prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kvg.batches import Batch


@dataclass(frozen=True)
class Experience:
    """B prompts with G completions each; N = B * G, the rows of a group side by side, T = longest completion.

    Attributes:
        batch: the prompts.
        tokens: ``[N, T]``.
        mask: ``[N, T]`` bool, which tokens are learnt from.
        advantages: ``[N]``.
        old_logprobs: ``[N, T]`` of the policy that sampled; None where it is the policy that learns.
        ref_logprobs: ``[N, T]`` of the reference; None where there is none.
        weights: ``[N, T]`` of the surrogate, see ``kvg.rl.mismatch``; None where nothing is corrected.
    """

    batch: Batch
    tokens: Tensor
    mask: Tensor
    advantages: Tensor
    old_logprobs: Tensor | None = None
    ref_logprobs: Tensor | None = None
    weights: Tensor | None = None

    @property
    def num_prompts(self) -> int:
        """B."""
        return len(self.batch)

    def take(self, prompts: Sequence[int]) -> Experience:
        """Only these prompts, in this order, with their completions."""
        if list(prompts) == list(range(self.num_prompts)):
            return self
        group = len(self.tokens) // self.num_prompts
        rows = torch.tensor([p * group + g for p in prompts for g in range(group)], device=self.tokens.device)
        tensors = {
            field.name: value[rows]
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, batch=self.batch.take(prompts), **tensors)

    def save(self, path: Path) -> None:
        """Writes everything, pictures too, to be read by ``load``; an interrupted write leaves no file."""
        _save({field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> Experience:
        """Reads what ``save`` wrote, without running anything that a file may hold."""
        return cls(**_load(path))


@dataclass(frozen=True)
class TrainingBatch:
    """A batch of examples with their labels, to be written and read again.

    Attributes:
        batch: see ``kvg.batches.Batch``; or tensors by name (the lab's pretraining).
    """

    batch: Batch | dict[str, Tensor]

    def save(self, path: Path) -> None:
        """Writes everything, pictures too, to be read by ``load``; an interrupted write leaves no file."""
        _save({"batch": self.batch}, path)

    @classmethod
    def load(cls, path: Path) -> TrainingBatch:
        """Reads what ``save`` wrote, without running anything that a file may hold."""
        return cls(**_load(path))


def _save(state: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    batch = state["batch"]
    torch.save({**state, "batch": {"plain": batch} if isinstance(batch, dict) else batch.state()}, part)
    part.replace(path)


def _load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    batch = state["batch"]
    return {**state, "batch": batch["plain"] if "plain" in batch else Batch.from_state(batch)}


def first_prompts(experiences: Sequence[Experience], num: int) -> list[Experience]:
    """The first ``num`` prompts of these pieces."""
    kept: list[Experience] = []
    for experience in experiences:
        if num > 0:
            kept.append(experience.take(range(min(num, experience.num_prompts))))
            num -= kept[-1].num_prompts
    return kept


def in_minibatches(
    experiences: Sequence[Experience], num_minibatches: int, microbatch_size: int
) -> list[list[Experience]]:
    """Cuts experience into minibatches, and each into parts that are learnt one after another.

    Args:
        experiences: of a rollout batch.
        num_minibatches: optimizer steps; the prompts are spread evenly, the first ones may get one more.
        microbatch_size: prompts of a part at most; 0 for no limit but the borders of pieces and minibatches.

    Returns:
        The parts of each minibatch.

    Raises:
        ValueError: there are fewer prompts than minibatches.
    """
    places = [
        (number, prompt) for number, experience in enumerate(experiences) for prompt in range(experience.num_prompts)
    ]
    if len(places) < num_minibatches:
        raise ValueError(f"{len(places)} prompts cannot be spread over {num_minibatches} minibatches")
    minibatches, start = [], 0
    for minibatch in range(num_minibatches):
        stop = start + len(places) // num_minibatches + (minibatch < len(places) % num_minibatches)
        parts: list[tuple[int, list[int]]] = []
        for number, prompt in places[start:stop]:
            full = microbatch_size and parts and len(parts[-1][1]) == microbatch_size
            if not parts or parts[-1][0] != number or full:
                parts.append((number, []))
            parts[-1][1].append(prompt)
        minibatches.append([experiences[number].take(prompts) for number, prompts in parts])
        start = stop
    return minibatches
