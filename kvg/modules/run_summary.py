"""The summary of a run: means over its first and its last batches, and what comes next."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kvg.backbones.backbone import Backbone
from kvg.rewards.diagnosis import Start
from kvg.rl.sampling import SamplingSettings

EDGE = 10  # number of batches in the first and the last means
ORDER = ("total", "iou", "format")  # of the reward components; others follow


class RunHistory:
    """Collects numbers per batch: the first ones, the last ones, and the sum of all.

    Tensors stay on the GPU until the end.

    Args:
        edge: number of batches at either end.
    """

    def __init__(self, edge: int = EDGE) -> None:
        self.num_batches = 0
        self._edge = edge
        self._names: tuple[str, ...] = ()
        self._first: list[Tensor] = []
        self._last: deque[Tensor] = deque(maxlen=edge)
        self._sum: Tensor | None = None

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Adds the numbers of a batch; the names must be the same each time."""
        self._names = self._names or tuple(values)
        device = next((v.device for v in values.values() if isinstance(v, Tensor) and v.is_cuda), torch.device("cpu"))
        row = torch.stack([torch.as_tensor(values[n], dtype=torch.float32).detach().to(device) for n in self._names])
        if len(self._first) < self._edge:
            self._first.append(row)
        self._last.append(row)
        self._sum = row if self._sum is None else self._sum + row
        self.num_batches += 1

    def means(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, dict[str, float]]:
        """Means ``first``, ``last`` and ``all`` by name; empty without batches.

        Args:
            reduce: mean over processes; every process must call this with the same number of batches.
        """
        if self._sum is None:
            return {}
        ends = self._first[: self.edge], [*self._last][-self.edge :]
        first, last = (torch.stack(rows).mean(0) for rows in ends)
        reduced = reduce(torch.stack([first, last, self._sum / self.num_batches])).tolist()
        spans = zip(("first", "last", "all"), reduced, strict=True)
        return {span: dict(zip(self._names, row, strict=True)) for span, row in spans}

    @property
    def edge(self) -> int:
        """Number of batches in the first and the last means; half of a short run."""
        return min(self._edge, max(1, self.num_batches // 2))


def start_of(backbone: Backbone, mode: str | None, sampling: SamplingSettings, group_size: int) -> Start:
    """Returns initial checkpoint and sampling settings of a run of stage 2, for warnings about rewards.

    Args:
        backbone: the policy.
        mode: prompt mode of the data; None if it has none.
        sampling: of the rollouts.
        group_size: completions per prompt.
    """
    pixels = (backbone.processor.min_pixels, backbone.processor.max_pixels)
    settings = (sampling.max_new_tokens, group_size, sampling.temperature)
    return Start(backbone.checkpoint, backbone.trained_mode, mode, pixels, backbone.stored_pixels, *settings)


def change(means: Mapping[str, Mapping[str, float]], name: str, form: str = ".2f") -> str:
    """The first and the last mean of a number, as text.

    >>> change({"first": {"loss": 2.0}, "last": {"loss": 0.5}}, "loss")
    '2.00 -> 0.50'
    """
    return f"{means['first'][name]:{form}} -> {means['last'][name]:{form}}"


def reward_lines(
    means: Mapping[str, Mapping[str, float]], edge: int, num_tokens: float, num_steps: int
) -> Sequence[str]:
    """The summary lines of stage 2.

    Args:
        means: see ``RunHistory.means``.
        edge: number of batches at either end.
        num_tokens: number of tokens sampled in all processes.
        num_steps: number of optimizer steps.
    """
    parts = [name.removeprefix("reward/") for name in means["all"] if name.startswith("reward/")]
    parts.sort(key=lambda part: ORDER.index(part) if part in ORDER else len(ORDER))
    rewards = ", ".join(f"{part} {change(means, f'reward/{part}')}" for part in parts)
    labels = {"equal_groups": "groups with equal rewards", "unparsed": "no box", "truncated": "truncated"}
    shares = ", ".join(f"{label} {change(means, name, '.0%')}" for name, label in labels.items())
    equal = means["all"]["equal_groups"]
    return (
        f"Stage 2: {num_steps} steps, {num_tokens:,.0f} tokens sampled, {equal:.0%} of all groups had equal rewards.",
        f"Mean reward in the first -> last {edge} batches: {rewards}.",
        f"Shares in the first -> last {edge} batches: {shares}.",
    )


def next_steps(export: Path | None, logs: str | None) -> Sequence[str]:
    r"""The last lines of a run: where the model is, and what can be done with it.

    Args:
        export: folder of the model; None if there is none.
        logs: folder of the run, if it has curves; None if not.

    >>> print(*next_steps(Path("runs/cot_sft/export"), "runs/cot_sft"), sep="\n")
    The trained model is in runs/cot_sft/export.
    Try it:  kvg ground PICTURE NAME --checkpoint runs/cot_sft/export
    Curves:  tensorboard --logdir runs/cot_sft
    """
    lines = []
    if export is not None:
        place = shlex.quote(str(export))
        lines += [f"The trained model is in {export}.", f"Try it:  kvg ground PICTURE NAME --checkpoint {place}"]
    return [*lines, f"Curves:  tensorboard --logdir {shlex.quote(str(logs))}"] if logs else lines
