"""Dynamic sampling: replaces prompts whose rewards are all equal."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kvg.rl.experience import Experience, first_prompts


class Resampling:
    """Collects groups with unequal rewards until there are as many as in a batch (DAPO, arXiv 2503.14476, section 3.2).

    Args:
        max_batches: largest number of further batches that are sampled for one update; 0 uses all groups.
        group_size: G.

    Attributes:
        sampled: batches since the last update.
    """

    def __init__(self, max_batches: int, group_size: int) -> None:
        self.max_batches, self.group_size = max_batches, group_size
        self.sampled = 0
        self._waiting: list[Experience] = []

    def add(
        self, experience: Experience, rewards: Tensor, all_agree: Callable[[bool], bool]
    ) -> list[Experience] | None:
        """Adds a batch.

        Args:
            experience: B prompts.
            rewards: ``[N]`` of their completions.
            all_agree: whether something holds in all processes.

        Returns:
            The experiences for the update, B prompts; None if more must be sampled first. All processes decide
            together.
        """
        if not self.max_batches:
            return [experience]
        together = experience.batch.prompts_per_group
        groups = rewards.view(-1, self.group_size * together)
        unequal = (groups != groups[:, :1]).any(1).repeat_interleave(together).tolist()
        informative = [number for number, is_unequal in enumerate(unequal) if is_unequal]
        rest = [number for number, is_unequal in enumerate(unequal) if not is_unequal]
        self._waiting += [experience.take(informative)] if informative else []
        self.sampled += 1
        missing = experience.num_prompts - sum(piece.num_prompts for piece in self._waiting)
        full = all_agree(missing <= 0)
        if not full and self.sampled <= self.max_batches:
            return None
        experiences = self._waiting + ([experience.take(rest[:missing])] if missing > 0 else [])
        self._waiting, self.sampled = [], 0
        return first_prompts(experiences, experience.num_prompts)  # the same number in every process and step
