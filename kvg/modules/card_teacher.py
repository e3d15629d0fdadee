"""A privileged teacher of stage 2: the policy itself, with the entity's card in its prompt, weighs the tokens."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.errors import DataError
from kvg.masking import masked_mean
from kvg.ranges import check_number
from kvg.rl.mismatch import log_ratios
from kvg.text.prompts import prompt, with_card


@dataclass(frozen=True)
class CardTeacher:
    """Weights of the policy loss, from the log-probability of each sampled token with and without the card.

    The card says which looks the name stands for, so a token that it makes more probable is one that knowledge
    supports. The weight of a token is ``exp(sign(advantage) * (teacher - policy))``, cut off at ``cap`` and
    ``1 / cap``: in a completion that is better than its group such tokens are learnt more, in a worse one those that
    the card speaks against. The reward alone decides the direction (RLSD, arXiv 2604.03128): a KL to the teacher would
    decide it, too, and teach what only its prompt holds.

    Weights multiply the surrogate, not the KL term, and the loss is averaged over as many tokens as without them. The
    entities of the training set need traits.

    Attributes:
        cap: largest weight, above 1; ``1 / cap`` is the smallest.

    Raises:
        ConfigError: the cap is out of range.
    """

    cap: float = 2.0

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_number("model.teacher.cap", self.cap, 1, above=True)

    def prompts(self, backbone: Backbone, batch: Batch, mode: str) -> Batch:
        """The prompts of a batch with the card of their entity before the question, padded on the left.

        Args:
            backbone: tokenises.
            batch: B prompts; its visual tokens serve again.
            mode: prompt mode of the batch.

        Raises:
            DataError: the traits of an entity are not known.
        """
        processor, examples = backbone.processor, []
        for sample in batch.samples:
            traits = sample.objects[sample.target].description
            if not traits:
                raise DataError(sample.key, "traits", "are not known of its entity; set model.teacher to null")
            text = with_card(sample.entity, traits, prompt(sample.entity, mode, processor.prompt_format))
            examples.append(processor.encode_turns(sample, [text]))
        longer = processor.collate(examples, batch.samples, pad_left=True).to(batch.input_ids.device)
        return dataclasses.replace(longer, pictures=batch.pictures, visual=batch.visual)

    def weights(self, teacher: Tensor, policy: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        """Weights of the surrogate.

        Args:
            teacher: ``[N, T]`` log-probabilities with the card, in nats, without gradient.
            policy: ``[N, T]`` of the same model without the card.
            advantages: ``[N]``.
            mask: ``[N, T]`` bool, True = counts.

        Returns:
            ``[N, T]`` between 1 / ``cap`` and ``cap``, 0 where the mask is False; 1 where the advantage is 0.
        """
        signed = advantages.to(teacher).sign()[:, None] * log_ratios(teacher, policy, mask)
        return torch.where(mask, signed.exp().clamp(1 / self.cap, self.cap), torch.zeros_like(signed))

    def figures(self, teacher: Tensor, policy: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """What is logged; arguments as for ``weights``.

        Returns:
            Scalars: ``gain``, by how much the card raises the log-probability of a token in the mean, in nats, negative
            where it lowers it; ``beyond_cap``, the share of tokens whose ratio is cut off.
        """
        difference = log_ratios(teacher, policy, mask)
        beyond = difference.abs() > torch.tensor(self.cap).log().to(difference)
        return {"gain": masked_mean(difference, mask), "beyond_cap": masked_mean(beyond.to(difference), mask)}
