"""Rollouts from a vLLM server, which gets the weights after each update."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from PIL import Image

from kvg.backbones.adapter_export import export_adapter, goes_alone
from kvg.backbones.backbone import Backbone
from kvg.backbones.processor import ChatProcessor
from kvg.batches import Batch
from kvg.errors import ConfigError
from kvg.inference.vllm_calls import VLLMCalls, read_completions
from kvg.inference.vllm_completions import ADAPTER, PromptCompletions, VLLMRollouts, sent_pictures, unexpanded
from kvg.ranges import check_number, check_whole

# Prompts and pictures of the former weights. vLLM's workers drop those of pictures by themselves, and its scheduler
# does not know of that: without these calls the next known picture ends the server.
CACHES = ("/reset_encoder_cache", "/reset_mm_cache", "/reset_prefix_cache")
_MARKER = "\u2042"  # stands for the user's turn in a rendered conversation


class VLLMServer(VLLMRollouts):
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

    remedy = (
        "chat template or picture budget; serve an export of this backbone, with --chat-template-content-format openai"
    )

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
    def where(self) -> str:
        """Its address."""
        return self.calls.url

    # -- weights ---------------------------------------------------------------------------------------------------
    def sync(self, backbone: Backbone, step: int) -> None:
        """See ``RolloutEngine.sync``; the first process brings the weights."""
        name = f"{ADAPTER}{step}" if goes_alone(backbone) else self.model
        first = not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
        if first and not self._served:
            self._connect()
        folder = self.folder / f"step{step}"
        if goes_alone(backbone):
            export_adapter(backbone, folder)
        else:
            backbone.export(folder)
        if first:
            if goes_alone(backbone):
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
    def complete(
        self,
        processor: ChatProcessor,
        batch: Batch,
        prompts: Sequence[Sequence[int]],
        parameters: Sequence[dict[str, Any]],
    ) -> list[PromptCompletions]:
        """See ``VLLMRollouts.complete``."""
        common = {"logprobs": True, "top_logprobs": 0, "return_token_ids": True, "model": self._served or self.model}
        bodies = [
            {**own, **common, "messages": messages(processor, batch, row, prompts[row])}
            for row, own in enumerate(parameters)
        ]
        return [read_completions(answer, self.calls.url) for answer in self.calls.complete(bodies)]


def messages(processor: ChatProcessor, batch: Batch, row: int, prompt: Sequence[int]) -> list[dict[str, Any]]:
    """The conversation of a prompt as vLLM takes it, read back from its tokens, whatever the prompt template was.

    Args:
        processor: that made the batch.
        batch: prompts with their pictures.
        row: of the prompt.
        prompt: its ids, without padding.
    """
    images = sent_pictures(processor, batch, row)
    ids = unexpanded(prompt, processor.image_token_id)
    text = processor.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    head, tail = processor.chat(_MARKER, num_images=len(images)).split(_MARKER)
    if not (text.startswith(head) and text.endswith(tail)):
        raise ValueError(f"a prompt of several turns cannot be sent: '{text}'")
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": _png_url(image)}} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text[len(head) : len(text) - len(tail)]}]}]


def _png_url(image: Image.Image) -> str:
    """A picture as a PNG in a data URL."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
