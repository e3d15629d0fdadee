"""Detects collapse in stage 2: short completions, low entropy, equal rewards, unparsed answers."""

from __future__ import annotations

import warnings
from collections import deque
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from kvg.errors import TrainingError
from kvg.ranges import check_number, check_whole
from kvg.rewards.diagnosis import Start, nothing_learnt

LENGTH, ENTROPY = "train/completion_length", "train/entropy"
SPREAD, UNPARSED = "train/reward_std_in_group", "train/unparsed"
_STAGE, _REWARDS = "train/", "train/reward/"
_CAUSES = ("train/truncated", "train/equal_groups")  # with the reward components: input of ``nothing_learnt``


class CollapseGuard(Callback):
    """Warns, or stops the run, when a mean over the last steps leaves its range.

    Args:
        steps: window of the means; there are no warnings before the first full window.
        min_length_share: smallest mean completion length, as a share of the mean in the first window.
        min_entropy: smallest mean entropy, in nats per token.
        min_reward_std: smallest mean standard deviation of rewards within a group; equal rewards give no gradient.
        max_unparsed: largest share of unparsed answers.
        stop: stop the run at the first sign instead of warning once for each sign.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        steps: int = 20,
        min_length_share: float = 0.5,
        min_entropy: float = 0.002,
        min_reward_std: float = 0.01,
        max_unparsed: float = 0.5,
        stop: bool = False,
    ) -> None:
        field = "callbacks.CollapseGuard"
        check_whole(f"{field}.steps", steps, 1)
        for name, value in (("min_entropy", min_entropy), ("min_reward_std", min_reward_std)):
            check_number(f"{field}.{name}", value, 0)
        for name, value in (("min_length_share", min_length_share), ("max_unparsed", max_unparsed)):
            check_number(f"{field}.{name}", value, 0, 1)
        self.steps, self.min_length_share, self.min_entropy = steps, min_length_share, min_entropy
        self.min_reward_std, self.max_unparsed, self.stop = min_reward_std, max_unparsed, stop
        self.first_length: float | None = None
        names = (LENGTH, ENTROPY, SPREAD, UNPARSED, *_CAUSES)
        self._seen: dict[str, deque[float]] = {name: deque(maxlen=steps) for name in names}
        self._warned: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """The values of the current window, for a resumed run."""
        return {"first_length": self.first_length, "seen": {name: list(v) for name, v in self._seen.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the window."""
        self.first_length = state_dict["first_length"]
        self._seen = {name: deque(values, maxlen=self.steps) for name, values in state_dict["seen"].items()}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the values of a step and checks the means.

        Raises:
            TrainingError: there is a sign of collapse, and ``stop`` is set.
        """
        for name, value in trainer.callback_metrics.items():
            if name in self._seen or name.startswith(_REWARDS):
                self._seen.setdefault(name, deque(maxlen=self.steps)).append(float(value))
        means = {name: sum(v) / len(v) for name, v in self._seen.items() if len(v) == self.steps}
        if self.first_length is None and LENGTH in means:
            self.first_length = means[LENGTH]
        signs = self._signs(means, getattr(pl_module, "start", lambda: None)())
        pl_module.log("train/collapse_signs", float(len(signs)), batch_size=1)
        for sign in signs.keys() - self._warned:
            self._warned.add(sign)
            warnings.warn(f"step {trainer.global_step}: {signs[sign]}", stacklevel=2)
        # All processes must stop together: the others would wait forever for a process that stops alone.
        if self.stop and trainer.strategy.reduce_boolean_decision(bool(signs), all=False):
            reasons = "; ".join(signs.values()) or "another process has detected collapse"
            raise TrainingError(f"step {trainer.global_step}", f"{reasons}; callbacks.CollapseGuard stops the run")

    def _signs(self, means: dict[str, float], start: Start | None) -> dict[str, str]:
        signs = {}
        over = f"over {self.steps} steps"
        if LENGTH in means and self.first_length and means[LENGTH] < self.min_length_share * self.first_length:
            signs[LENGTH] = f"completions shrank from {self.first_length:.0f} to {means[LENGTH]:.0f} tokens {over}"
        if means.get(ENTROPY, self.min_entropy) < self.min_entropy:
            signs[ENTROPY] = f"entropy is {means[ENTROPY]:.4f} nats per token {over}: all answers are nearly equal"
        if means.get(SPREAD, self.min_reward_std) < self.min_reward_std:
            causes = nothing_learnt({name.removeprefix(_STAGE): mean for name, mean in means.items()}, over, start)
            signs[SPREAD] = f"rewards differ by {means[SPREAD]:.4f} within groups: {causes}"
        if means.get(UNPARSED, self.max_unparsed) > self.max_unparsed:
            signs[UNPARSED] = f"{means[UNPARSED]:.0%} of the answers hold no box {over}"
        return signs
