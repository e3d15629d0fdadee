"""Sampling for stage 2: when a batch is needed, or one batch ahead, in a thread beside the update of the one before."""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ModelParallelStrategy

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.errors import ConfigError, EngineError, TrainingError
from kvg.inference.rollout_engine import RolloutEngine
from kvg.inference.shared_fault import SharedFault
from kvg.rl.sampled import SampledBatch
from kvg.rl.sampling import SamplingSettings

log = logging.getLogger(__name__)


class BatchSampler(Callback):
    """Samples the batches of a run, and holds the one that was sampled ahead until its prompts come.

    The thread samples from the weights at the beginning of the update: the built-in engine from a copy of those that
    are trained, an engine outside from what ``RolloutEngine.sync`` has brought. It ends with the update, so that
    validation and checkpoints find it at rest, and takes no part in collective calls.

    Args:
        engine: samples.
        settings: how tokens are sampled.
        group_size: G.
        seed: of all chance.
        overlap: whether batches are sampled ahead.

    Attributes:
        waited: seconds that the last update has waited for the thread.
    """

    def __init__(
        self, engine: RolloutEngine, settings: SamplingSettings, group_size: int, seed: int, overlap: bool
    ) -> None:
        self.engine, self.settings, self.group_size = engine, settings, group_size
        self.seed, self.overlap = seed, overlap
        self.waited = 0.0
        self._copy: Backbone | None = None
        self._pending: SampledBatch | None = None
        self._error: TrainingError | EngineError | None = None
        self._synced: int | None = None  # step whose weights the engine has

    def check(self, trainer: L.Trainer) -> None:
        """Checks that the engine can sample beside an update.

        Raises:
            ConfigError: the model is sharded, and the engine samples from it; or the engine never can.
        """
        if self.overlap and not self.engine.beside_update:
            remedy = f"true does not work with {type(self.engine).__name__}, which shares this process with the update"
            raise ConfigError("model.overlap", f"{remedy}; set it to false, or use a server")
        sharded = isinstance(trainer.strategy, ModelParallelStrategy)
        if self.overlap and sharded and not self.engine.external:
            remedy = "true cannot sample from a sharded model, whose processes step together, while it is updated"
            choice = "set it to false, choose configs/strategy/ddp.yaml, or an engine outside (configs/engine)"
            raise ConfigError("model.overlap", f"{remedy}; {choice}")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lets the data module hand out each batch with the next one.

        Raises:
            ConfigError: see ``check``; or the data module cannot, or the backbone would record a CUDA graph.
        """
        if not self.overlap or stage != "fit":
            return
        self.check(trainer)
        backbone: Any = pl_module.backbone
        if backbone.decoding == "fixed_shape" and not self.engine.external:
            remedy = (
                "true cannot record a CUDA graph while another thread uses the device (backbone.decoding fixed_shape)"
            )
            raise ConfigError("model.overlap", f"{remedy}; set it to false, or choose decoding: speculative")
        data: Any = getattr(trainer, "datamodule", None)
        if not hasattr(data, "look_ahead"):
            remedy = f"true needs the next batch, which {type(data).__name__} does not give; set it to false"
            raise ConfigError("model.overlap", f"{remedy}, or use a data module of this project (GRPODataModule)")
        data.look_ahead = True

    def next_batch(self, trainer: L.Trainer, batch: Batch, num_updates: int) -> Batch | None:
        """The batch that is to be sampled ahead; None at the end of an epoch, or of ``max_steps``.

        Args:
            trainer: of the run.
            batch: the one that will be learnt.
            num_updates: optimizer steps that it takes.
        """
        last_update = 0 < trainer.max_steps <= trainer.global_step + num_updates
        return None if trainer.is_last_batch or last_update else batch.following

    def sync(self, backbone: Backbone, step: int, world_size: int) -> float | None:
        """Brings the weights to the engine where a step has changed them, or the run begins or goes on.

        Every process must call this method: none samples before the first one has brought them.

        Args:
            backbone: the policy.
            step: optimizer steps so far.
            world_size: number of processes.

        Returns:
            Seconds; None where there is nothing to bring.

        Raises:
            KVGError: see ``RolloutEngine.sync``; in all processes.
        """
        if self._synced == step or not self.engine.external:
            return None
        start, fault = time.perf_counter(), SharedFault()
        with fault.kept(alone=False):
            self.engine.sync(backbone, step)
        fault.end(world_size)
        self._synced = step
        return time.perf_counter() - start

    def sample(self, backbone: Backbone, batch: Batch, step: int, batch_idx: int, rank: int) -> SampledBatch:
        """Completions of a batch: those that were sampled ahead if they are of these prompts, otherwise new ones.

        Args:
            backbone: the policy, in evaluation mode.
            batch: prompts, with their visual tokens where they are known.
            step: optimizer steps so far.
            batch_idx: number of the batch in its epoch.
            rank: of this process.

        Raises:
            EngineError: see ``RolloutEngine.sample``; also of what was to be sampled ahead.
            TrainingError: the same.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._pending is not None:
            if self._pending.belongs_to(batch, self.group_size):
                return self._pending.to(batch.input_ids.device)
            log.warning("what was sampled ahead is not of the next prompts, which are sampled anew")
        generator = self._generator(batch, step, batch_idx, rank)
        out = self.engine.sample(backbone, batch, self.settings, self.group_size, generator)
        return SampledBatch(batch.input_ids, out, step)

    def _generator(self, batch: Batch, step: int, batch_idx: int, rank: int) -> torch.Generator:
        generator = torch.Generator(device=batch.input_ids.device)
        return generator.manual_seed(self.seed + 1_000_003 * step + 7919 * rank + 13 * batch_idx)

    def with_visual_tokens(self, backbone: Backbone, batch: Batch, single_backward: bool) -> Batch:
        """See ``Backbone.with_visual_tokens``; takes those of the thread where they do not change."""
        pending = self._pending
        if pending is None or pending.visual is None or not pending.belongs_to(batch, self.group_size):
            return backbone.with_visual_tokens(batch, single_backward)
        return dataclasses.replace(batch, visual=pending.visual)

    @contextmanager
    def ahead(self, backbone: Backbone, batch: Batch | None, step: int, batch_idx: int, rank: int) -> Iterator[None]:
        """Samples a batch in a thread while this block runs, from the weights as they are when it begins.

        Args:
            backbone: the policy, which the block may change.
            batch: the next one; None samples nothing.
            step: optimizer steps so far.
            batch_idx: number of the next batch in its epoch.
            rank: of this process.
        """
        self._pending = None
        if batch is None:
            yield
            return
        policy = backbone if self.engine.external else self._copied(backbone)
        generator, kind = self._generator(batch, step, batch_idx, rank), batch.input_ids.device.type
        autocast = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), False)
        with ThreadPoolExecutor(1, "sampling-ahead") as pool:
            sampling = pool.submit(self._in_thread, autocast, policy, batch, generator, step)
            yield
            start = time.perf_counter()
        self.waited = time.perf_counter() - start
        try:
            self._pending = sampling.result()
        except (TrainingError, EngineError) as error:
            self._error = error  # of the next step: this one is whole

    def _copied(self, backbone: Backbone) -> Backbone:
        """A copy of the policy, which shares with it all that is not trained."""
        if self._copy is None:
            kept = [p for p in backbone.parameters() if not p.requires_grad]
            kept += [backbone.processor, backbone.feature_cache]  # type: ignore[list-item]
            self._copy = copy.deepcopy(backbone, {id(one): one for one in kept}).eval()
        with torch.no_grad():
            for old, new in zip(self._copy.parameters(), backbone.parameters(), strict=True):
                if new.requires_grad:
                    old.copy_(new)
        return self._copy

    def _in_thread(
        self, autocast: torch.autocast, policy: Backbone, batch: Batch, generator: torch.Generator, step: int
    ) -> SampledBatch:
        # Entered and never left, in a thread that ends: leaving clears a cache that belongs to all threads, and
        # gradients would depend on when.
        autocast.__enter__()  # type: ignore[no-untyped-call]
        if batch.input_ids.is_cuda:
            torch.cuda.set_device(batch.input_ids.device)
        with torch.no_grad():
            if self.engine.external:
                out = self.engine.sample(policy, batch, self.settings, self.group_size, generator)
                return SampledBatch(batch.input_ids, out, step)
            batch = policy.with_visual_tokens(batch, single_backward=True)
            out = self.engine.sample(policy, batch, self.settings, self.group_size, generator)
            logprobs = None
            if self.settings.truncates:
                scores = policy.completion_logprobs(batch, out.tokens, out.completion_mask, self.settings.temperature)
                logprobs = scores[0]
            return SampledBatch(batch.input_ids, out, step, logprobs, batch.visual if policy.vision_frozen else None)

    # -- checkpoints -----------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """What was sampled and not yet learnt, of all processes; every process must call this method."""
        if not self.overlap:
            return {}
        states = [None if self._pending is None else self._pending.state()]
        if dist.is_available() and dist.is_initialized():
            states *= dist.get_world_size()
            dist.all_gather_object(states, states[0])
        return {"processes": states if all(state is not None for state in states) else []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what ``state_dict`` gave; nothing where the number of processes is another one."""
        own, num = 0, 1
        if dist.is_available() and dist.is_initialized():
            own, num = dist.get_rank(), dist.get_world_size()
        states = state["processes"] if self.overlap else []
        self._pending = SampledBatch.from_state(states[own]) if len(states) == num else None
