"""What samples the completions that stage 2 learns from; a config names one by its class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.rl.completions import Rollouts
from kvg.rl.drafter import NGramDrafter
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings


class RolloutEngine(ABC):
    """Samples groups of completions from the policy, here or elsewhere.

    Weights come by ``sync``, chance by the generator of each call. What it learns beside them is in its state.
    """

    @property
    @abstractmethod
    def external(self) -> bool:
        """Whether log-probabilities are of another implementation than the one that learns.

        Then ``GRPOModule`` scores the completions once more, logs the gap, and corrects it (``kvg.rl.mismatch``).
        """

    @property
    def beside_update(self) -> bool:
        """Whether it can sample in a thread while the policy is updated (``model.overlap``)."""
        return True

    @abstractmethod
    def sync(self, backbone: Backbone, step: int) -> None:
        """Takes over the weights; called by all processes before they sample from weights that have changed.

        Args:
            backbone: the policy. With sharded weights, all processes take part in whatever gathers them.
            step: optimizer steps so far.

        Raises:
            EngineError: the engine cannot be reached, or refuses them.
            TrainingError: weights are not finite.
        """

    @abstractmethod
    def sample(
        self,
        backbone: Backbone,
        batch: Batch,
        settings: SamplingSettings,
        group_size: int,
        generator: torch.Generator,
    ) -> Rollouts:
        """Samples ``group_size`` completions of each prompt.

        With ``GRPOModule.overlap`` it is called in another thread while the policy is updated. It must make no
        collective calls then, and an external engine must not read weights of the backbone.

        Args:
            backbone: the policy, in evaluation mode; with ``overlap`` a copy of it unless the engine is external.
            batch: left-padded prompts with their pictures.
            settings: how tokens are sampled.
            group_size: G.
            generator: source of all chance.

        Raises:
            EngineError: the engine cannot be reached, or does not answer as it should.
            TrainingError: logits are NaN or infinite.
        """

    def learn(self, out: Rollouts) -> None:  # noqa: B027  # most engines learn nothing
        """Looks at what was sampled, for later batches; called by all processes."""

    def state_dict(self) -> dict[str, Tensor]:
        """What was learnt, the same in all processes; for checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027  # as ``learn``
        """Takes back what ``state_dict`` gave."""


class BuiltInEngine(RolloutEngine):
    """The policy samples by itself, see ``kvg.rl.rollout``: each prompt is computed once for its group.

    Args:
        drafter: of speculative sampling, which learns from all rollouts of the run; None for ``NGramDrafter()``. One
            with ``max_draft: 0`` samples one token a pass. The tokens are the same in any case.
    """

    def __init__(self, drafter: NGramDrafter | None = None) -> None:
        self.drafter = NGramDrafter() if drafter is None else drafter

    @property
    def external(self) -> bool:
        """Never: the log-probabilities are the policy's own."""
        return False

    def sync(self, backbone: Backbone, step: int) -> None:
        """Nothing to do: the weights are the policy's own."""

    def sample(
        self,
        backbone: Backbone,
        batch: Batch,
        settings: SamplingSettings,
        group_size: int,
        generator: torch.Generator,
    ) -> Rollouts:
        """See ``kvg.rl.rollout.rollout``."""
        return rollout(backbone, batch, settings, group_size, generator, self.drafter)

    def learn(self, out: Rollouts) -> None:
        """Gives the completions of all processes to the drafter."""
        own = [row[keep].tolist() for row, keep in zip(out.tokens, out.completion_mask, strict=True)]
        gathered = [own]
        if dist.is_available() and dist.is_initialized():
            gathered = [own] * dist.get_world_size()
            dist.all_gather_object(gathered, own)
        self.drafter.learn([row for rows in gathered for row in rows])

    def state_dict(self) -> dict[str, Tensor]:
        """See ``NGramDrafter.state_dict``."""
        return self.drafter.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See ``NGramDrafter.load_state_dict``."""
        self.drafter.load_state_dict(state)
