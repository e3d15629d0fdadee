"""Rollouts from vLLM, be it a server or in this process: what goes to it, and what comes back and is checked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image

from kvg.backbones.backbone import Backbone
from kvg.backbones.picture_processor import PatchProcessor
from kvg.backbones.processor import ChatProcessor
from kvg.batches import Batch
from kvg.errors import ConfigError, EngineError
from kvg.inference.rollout_engine import RolloutEngine
from kvg.pictures import read_rgb
from kvg.rl.completions import Rollouts
from kvg.rl.sampling import SamplingSettings

ADAPTER = "kvg-step"  # start of the names of adapters


@dataclass(frozen=True)
class SampledCompletion:
    """One completion as vLLM sampled it.

    Attributes:
        tokens: ids, the end token included.
        logprobs: of the tokens, in nats.
        truncated: whether it was stopped by its length.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    truncated: bool


@dataclass(frozen=True)
class PromptCompletions:
    """The completions of a prompt.

    Attributes:
        prompt: its ids as vLLM read it, with a placeholder for each visual token.
        completions: G of them.
    """

    prompt: tuple[int, ...]
    completions: tuple[SampledCompletion, ...]


class VLLMRollouts(RolloutEngine):
    """What all engines share that sample by vLLM: subclasses bring weights and requests to it."""

    remedy: ClassVar[str]  # where vLLM reads another prompt than the trainer

    @property
    def external(self) -> bool:
        """Always: vLLM has kernels of its own."""
        return True

    @property
    @abstractmethod
    def where(self) -> str:
        """Address or name of the engine, for errors."""

    @abstractmethod
    def complete(
        self,
        processor: ChatProcessor,
        batch: Batch,
        prompts: Sequence[Sequence[int]],
        parameters: Sequence[dict[str, Any]],
    ) -> list[PromptCompletions]:
        """Samples completions of each prompt.

        Args:
            processor: that made the batch.
            batch: prompts with their pictures.
            prompts: ids of each prompt without padding, with a placeholder for each visual token.
            parameters: see ``sampling_parameters``, with the seed of each prompt.

        Raises:
            EngineError: vLLM cannot be reached, or does not answer as it should.
        """

    def sample(
        self,
        backbone: Backbone,
        batch: Batch,
        settings: SamplingSettings,
        group_size: int,
        generator: torch.Generator,
    ) -> Rollouts:
        """See ``RolloutEngine.sample``; each prompt has a seed of its own, drawn from the generator.

        Raises:
            ConfigError: the backbone does not cut its pictures into patches.
        """
        if not isinstance(backbone.processor.pictures, PatchProcessor):  # vLLM would cut and mark them once more
            kind = backbone.family.model_type
            raise ConfigError(
                "model.engine", f"vLLM cannot sample for {kind}, which cuts pictures into tiles; set null"
            )
        never = placeholder_ids(backbone)
        common = sampling_parameters(settings, group_size, never, backbone.end_token_ids)
        seeds = torch.randint(2**31, (len(batch),), generator=generator, device=generator.device).tolist()
        prompts = [ids[keep.bool()].tolist() for ids, keep in zip(batch.input_ids, batch.attention_mask, strict=True)]
        answers = self.complete(backbone.processor, batch, prompts, [{**common, "seed": seed} for seed in seeds])
        for prompt, answer in zip(prompts, answers, strict=True):
            self._check(answer, prompt, never)
        completions = [one for answer in answers for one in answer.completions]
        return as_rollouts(completions, backbone.pad_token_id, backbone.device)

    def _check(self, answer: PromptCompletions, prompt: Sequence[int], never: Sequence[int]) -> None:
        """Refuses completions that are not of this prompt, or hold what they must not."""
        read = answer.prompt
        if list(read) != list(prompt):
            place = next((n for n, pair in enumerate(zip(read, prompt, strict=False)) if pair[0] != pair[1]), "the end")
            sizes = f"{len(read)} tokens for {len(prompt)}, which differ at {place}"
            raise EngineError(self.where, f"vLLM reads another prompt ({sizes}): {self.remedy}")
        for one in answer.completions:
            if len(one.tokens) != len(one.logprobs) or not one.tokens:
                remedy = f"{len(one.tokens)} tokens with {len(one.logprobs)} log-probabilities; update vLLM"
                raise EngineError(self.where, remedy)
            if forbidden := set(one.tokens) & set(never):
                raise EngineError(
                    self.where, f"placeholders of pictures were sampled in spite of logit_bias: {forbidden}"
                )


# -- out ---------------------------------------------------------------------------------------------------------------
def placeholder_ids(backbone: Backbone) -> tuple[int, ...]:
    """Ids that stand for visual tokens, which no completion may hold: vLLM would look for their picture."""
    video = getattr(backbone.model.config, "video_token_id", None)
    return tuple(dict.fromkeys([backbone.processor.image_token_id, *([] if video is None else [int(video)])]))


def sampling_parameters(
    settings: SamplingSettings, group_size: int, never: Sequence[int], ends: Sequence[int]
) -> dict[str, Any]:
    """Parameters of a prompt under the names that vLLM has for them, in Python and over HTTP.

    Args:
        settings: how tokens are sampled.
        group_size: G.
        never: ids that no completion may hold.
        ends: ids that end a completion.
    """
    return {
        "n": group_size,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "max_tokens": settings.max_new_tokens,
        # vLLM would take these from the checkpoint's generation_config.json, which has 1.05 for Qwen2-VL.
        "repetition_penalty": 1.0,
        "min_p": 0.0,
        "logit_bias": {str(token): -100 for token in never},
        "stop_token_ids": list(ends),
        "skip_special_tokens": False,
    }


def unexpanded(prompt: Sequence[int], image: int) -> list[int]:
    """A prompt with one placeholder for each picture, which vLLM expands.

    >>> unexpanded([1, 9, 9, 9, 2, 9, 9, 3], 9)
    [1, 9, 2, 9, 3]
    """
    return [token for n, token in enumerate(prompt) if not (n and token == image and prompt[n - 1] == image)]


def sent_pictures(processor: ChatProcessor, batch: Batch, row: int) -> list[Image.Image]:
    """Pictures of a prompt, resized as the backbone resizes them, so that vLLM leaves them as they are."""
    sources = [] if batch.pictures is None else [batch.pictures.sources[n] for n in batch.pictures.of_prompts([row])]
    return [_resized(processor, source) for source in sources]


def _resized(processor: ChatProcessor, source: bytes) -> Image.Image:
    image = read_rgb(source, "a picture of the batch")
    size = processor.image_size(*image.size)
    if image.size == (size.resized_width, size.resized_height):
        return image
    return image.resize((size.resized_width, size.resized_height), Image.Resampling.BICUBIC)


# -- back --------------------------------------------------------------------------------------------------------------
def as_rollouts(completions: Sequence[SampledCompletion], pad: int, device: torch.device | str) -> Rollouts:
    """Completions of a batch, the rows of a group side by side, padded to the longest.

    >>> two = [SampledCompletion((5, 6), (-0.5, -1.0), False), SampledCompletion((7,), (-2.0,), True)]
    >>> out = as_rollouts(two, 0, "cpu")
    >>> out.tokens.tolist(), out.completion_mask.tolist(), out.truncated.tolist()
    ([[5, 6], [7, 0]], [[True, True], [True, False]], [False, True])
    """
    longest = max(len(one.tokens) for one in completions)
    tokens = [[*one.tokens, *[pad] * (longest - len(one.tokens))] for one in completions]
    logprobs = [[*one.logprobs, *[0.0] * (longest - len(one.tokens))] for one in completions]
    lengths = torch.tensor([len(one.tokens) for one in completions], device=device)
    return Rollouts(
        torch.tensor(tokens, device=device),
        torch.arange(longest, device=device)[None] < lengths[:, None],
        torch.tensor(logprobs, device=device),
        torch.tensor([one.truncated for one in completions], device=device),
    )
