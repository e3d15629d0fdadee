"""Rollouts from a vLLM server, which gets the weights after each update."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image

from kvg.backbones.adapter_export import export_adapter
from kvg.backbones.backbone import Backbone
from kvg.backbones.processor import ChatProcessor
from kvg.batches import Batch
from kvg.errors import ConfigError
from kvg.inference.rollout_engine import RolloutEngine
from kvg.inference.vllm_calls import SampledCompletion, VLLMCalls, read_completions
from kvg.pictures import read_rgb
from kvg.ranges import check_number, check_whole
from kvg.rl.completions import Rollouts
from kvg.rl.sampling import SamplingSettings

ADAPTER = "kvg-step"  # start of the names of adapters on the server
# Prompts and pictures of the former weights. vLLM's workers drop those of pictures by themselves, and its scheduler
# does not know of that: without these calls the next known picture ends the server.
CACHES = ("/reset_encoder_cache", "/reset_mm_cache", "/reset_prefix_cache")
_MARKER = "\u2042"  # stands for the user's turn in a rendered conversation


class VLLMServer(RolloutEngine):
    """Samples on a vLLM server that serves an export of the stage-1 model; see docs/how-to/choose_an_engine.md.

    Prompts go as text with one placeholder for each picture, pictures as PNG files of the size that the backbone sees.
    Token ids and log-probabilities come back, and the ids of the prompt, which are compared with those of the trainer.
    After each update the weights are written to ``folder``: the adapters alone if only adapters are trained, the whole
    model otherwise; then the server loads them.

    A lost server ends the run, because one that was started again would sample from other weights; see
    ``kvg.runs.lost_engine`` for the checkpoint.

    Args:
        url: base of the server, up to ``/v1``.
        model: its name there.
        folder: for the weights; trainer and server must both see it.
        concurrency: prompts that are sampled at a time by each process.
        timeout: seconds for one call.
        wait: seconds to wait at the start of the run for a server that is starting.

    Raises:
        ConfigError: a setting cannot work.
    """

    def __init__(
        self, url: str, model: str, folder: str, concurrency: int = 64, timeout: float = 600.0, wait: float = 600.0
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError("model.engine.url", f"'{url}' is no address; give one such as http://127.0.0.1:8000/v1")
        for name, value in (("model", model), ("folder", folder)):
            if not value:
                raise ConfigError(f"model.engine.{name}", "is empty; give its name")
        check_whole("model.engine.concurrency", concurrency, 1)
        check_number("model.engine.timeout", timeout, 0, above=True)
        check_number("model.engine.wait", wait, 0)
        self.calls = VLLMCalls(url.rstrip("/"), concurrency, timeout)
        self.model, self.folder, self.wait = model, Path(folder).absolute(), wait
        self._served = ""  # name of what samples: the model, or the adapters of a step; '' before the first sync
        self._weights: Path | None = None

    @property
    def external(self) -> bool:
        """Always: vLLM has kernels of its own."""
        return True

    # -- weights ---------------------------------------------------------------------------------------------------
    def sync(self, backbone: Backbone, step: int) -> None:
        """See ``RolloutEngine.sync``; the first process brings the weights."""
        name = f"{ADAPTER}{step}" if backbone.keeps_base else self.model
        first = not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
        if first and not self._served:
            self._connect()
        folder = self.folder / f"step{step}"
        if backbone.keeps_base:
            export_adapter(backbone, folder)
        else:
            backbone.export(folder)
        if first:
            if backbone.keeps_base:
                self.calls.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
                if self._served:
                    self.calls.post("/v1/unload_lora_adapter", {"lora_name": self._served})
            else:
                body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
                self.calls.post("/collective_rpc", body)
                for cache in CACHES:
                    self.calls.post(cache, {})
            if self._weights is not None:
                shutil.rmtree(self._weights, ignore_errors=True)
        self._served, self._weights = name, folder

    def _connect(self) -> None:
        """Waits for the server, and removes adapters that an earlier part of this run has left there."""
        for name in self.calls.wait(self.wait):
            if name.startswith(ADAPTER):
                self.calls.post("/v1/unload_lora_adapter", {"lora_name": name})

    # -- sampling --------------------------------------------------------------------------------------------------
    def sample(
        self,
        backbone: Backbone,
        batch: Batch,
        settings: SamplingSettings,
        group_size: int,
        generator: torch.Generator,
    ) -> Rollouts:
        """See ``RolloutEngine.sample``; each prompt has a seed of its own, drawn from the generator."""
        never = placeholder_ids(backbone)
        seeds = torch.randint(2**31, (len(batch),), generator=generator, device=generator.device).tolist()
        common = {**_sampling(settings, group_size, never, backbone.end_token_ids), "model": self._served or self.model}
        prompts = [ids[keep.bool()].tolist() for ids, keep in zip(batch.input_ids, batch.attention_mask, strict=True)]
        bodies = [
            {**common, "seed": seed, "messages": messages(backbone.processor, batch, row, prompts[row])}
            for row, seed in enumerate(seeds)
        ]
        completions: list[SampledCompletion] = []
        for prompt, answer in zip(prompts, self.calls.complete(bodies), strict=True):
            completions += read_completions(answer, prompt, never, self.calls.url)
        return as_rollouts(completions, backbone.pad_token_id, backbone.device)


def placeholder_ids(backbone: Backbone) -> tuple[int, ...]:
    """Ids that stand for visual tokens, which no completion may hold: the server would look for their picture."""
    video = getattr(backbone.model.config, "video_token_id", None)
    return tuple(dict.fromkeys([backbone.processor.image_token_id, *([] if video is None else [int(video)])]))


def _sampling(settings: SamplingSettings, group_size: int, never: Sequence[int], ends: Sequence[int]) -> dict[str, Any]:
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
        "logprobs": True,
        "top_logprobs": 0,
        "return_token_ids": True,
        "skip_special_tokens": False,
    }


def messages(processor: ChatProcessor, batch: Batch, row: int, prompt: Sequence[int]) -> list[dict[str, Any]]:
    """The conversation of a prompt as vLLM takes it, read back from its tokens, whatever the prompt template was.

    Args:
        processor: that made the batch.
        batch: prompts with their pictures.
        row: of the prompt.
        prompt: its ids, without padding.
    """
    pictures = batch.pictures
    sources = [] if pictures is None else [pictures.sources[number] for number in pictures.of_prompts([row])]
    image = processor.image_token_id
    collapsed = [token for n, token in enumerate(prompt) if not (n and token == image and prompt[n - 1] == image)]
    text = processor.tokenizer.decode(collapsed, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    head, tail = processor.chat(_MARKER, num_images=len(sources)).split(_MARKER)
    if not (text.startswith(head) and text.endswith(tail)):
        raise ValueError(f"a prompt of several turns cannot be sent: '{text}'")
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": png_url(processor, x)}} for x in sources]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text[len(head) : len(text) - len(tail)]}]}]


def png_url(processor: ChatProcessor, source: bytes) -> str:
    """A picture as a PNG in a data URL, resized as the backbone resizes it, so that the server leaves it as it is."""
    image = read_rgb(source, "a picture of the batch")
    size = processor.image_size(*image.size)
    if image.size != (size.resized_width, size.resized_height):
        image = image.resize((size.resized_width, size.resized_height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


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
