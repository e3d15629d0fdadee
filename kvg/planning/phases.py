"""The phases of a training step, run in the order of the stages with the largest batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from kvg.batches import Batch
from kvg.devices import planned_for
from kvg.planning.parts import Part
from kvg.planning.sharing import Gathering, Sharing, size_of
from kvg.planning.skeleton import Skeleton
from kvg.planning.tracer import Tracer
from kvg.planning.training import Training
from kvg.planning.update import optimizer_memory
from kvg.planning.workload import Lengths, largest_batch
from kvg.rl.drafter import NGramDrafter
from kvg.rl.sampling import SamplingSettings, sample_tokens

Phases = dict[str, Counter[Part]]


class Trace:
    """A training without memory.

    Args:
        training: what is planned.
        backbone: its model.
        once: whether FSDP2 gathers all weights for sampling.
        tokens: see ``largest_batch``.
    """

    def __init__(self, training: Training, backbone: Skeleton, once: bool, tokens: int | None = None) -> None:
        self.training, self.backbone, self.once, self.tokens = training, backbone, once, tokens
        self.tracer = Tracer(backbone.fakes)
        self.parameters = list(backbone.parameters())
        self.trained = [p for p in self.parameters if p.requires_grad]
        self.tracer.know([*self.parameters, *backbone.buffers()])
        self.sharded = training.strategy == "fsdp2" and training.processes > 1
        frozen = {id(p) for p in self.parameters if backbone.lora is not None and not p.requires_grad}
        processes = training.processes if self.sharded else 1
        self.sharing = Sharing(processes, frozenset(frozen) if once else frozenset())
        self.lengths: Lengths | None = None
        self.gathering: Gathering | None = None
        self.phases: Phases = {}
        self._known: Phases | None = None

    def run(self, known: Phases | None = None) -> Phases:
        """Each phase's peak by part.

        Args:
            known: those of the other way to gather, which differ in sampling alone where there are no adapters.
        """
        self._known = known if self.backbone.lora is None else None
        training, tracer = self.training, self.tracer
        with planned_for(training.device):
            state, extra = optimizer_memory(tracer, training.optimizer, self.trained, self.sharing, training.device)
            tracer.live.clear()
            self._hold_constant(state)
            if self.sharded:
                units = self.backbone.family.fsdp_units(self.backbone.model)
                self.gathering = Gathering(tracer, self.backbone, units, self.sharing)
            try:
                with tracer:
                    self._stage_1() if training.stage == "sft" else self._stage_2()
                    if self._known is None:
                        with self._phase("step"), tracer.held(Part.OPTIMIZER, extra):
                            pass
            finally:
                if self.gathering is not None:
                    self.gathering.remove()
        return {**{name: parts.copy() for name, parts in (self._known or {}).items()}, **self.phases}

    def _hold_constant(self, state: int) -> None:
        """What is there all the time, from the second step on."""
        training, sharing = self.training, self.sharing
        buffers = size_of(self.backbone.buffers())
        self.tracer.hold(Part.WEIGHTS, sharing.bytes_of(self.parameters) + buffers)
        self.tracer.hold(Part.OPTIMIZER, state)
        if self._copies_reference:
            whole = Sharing(self.sharing.processes)
            self.tracer.hold(Part.REFERENCE, whole.bytes_of(self.parameters) + buffers)
        if training.overlap and not training.external:
            self.tracer.hold(Part.SAMPLER, size_of(self.trained))
        if training.strategy == "ddp" and training.processes > 1:
            self.tracer.hold(Part.GRADIENTS if training.bucket_views else Part.BUFFERS, size_of(self.trained))

    @property
    def _copies_reference(self) -> bool:
        return self.training.stage == "grpo" and self.training.reference and not self.backbone.keeps_base

    # -- the stages ------------------------------------------------------------------------------------------------
    def _stage_1(self) -> None:
        training, backbone = self.training, self.backbone
        batch, self.lengths = largest_batch(backbone, training, training.batch_size, self.tokens)
        backbone.train()
        if self._known is None:
            with self._phase("learn"):
                self._add_to_earlier_gradients()
                # Lightning sets gradients to None between the forward and the backward pass of the next step.
                old = sum(map(self._gradient_share, self.trained)) if self._keeps_gradients else 0
                with self.tracer.held(Part.GRADIENTS, old), self._autocast():
                    loss = self._pass(lambda: backbone.label_loss(batch)[0])
                self._backward(loss)
                del loss
        if training.validates:
            self._sample("validate", batch, 1, 0.0)

    def _stage_2(self) -> None:
        training, backbone = self.training, self.backbone
        batch, self.lengths = largest_batch(backbone, training, training.batch_size, self.tokens)
        single = training.minibatches * training.passes == 1
        in_parts = training.microbatch_size or training.resamples or self.sharded
        with self._autocast():
            with self._phase("sample"):
                batch = self._pass(lambda: backbone.with_visual_tokens(batch, single and not in_parts))
                if not training.external:
                    self._sample_batch(batch, training.group_size, 1.0)
            if self._known is not None:
                return
            if training.reference or training.truncates or training.external:
                with self._phase("score"), torch.no_grad(), self._frozen():
                    base = backbone.base_weights() if backbone.keeps_base else nullcontext()
                    with base:
                        self._score(batch, training.batch_size)
            backbone.train()
            with self._phase("learn"):
                self._add_to_earlier_gradients()
                part = batch if training.at_once == len(batch) else batch.take(range(training.at_once))
                loss = self._score(part, training.at_once)
                self._backward(loss)
                del loss, part

    def _score(self, batch: Batch, num: int) -> Tensor:
        """The sum of the log-probabilities of the longest completions."""
        assert self.lengths is not None
        shape = (num * self.training.group_size, self.lengths.completion)
        tokens, mask = torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.bool)
        entropy = self.training.entropy
        total: Tensor = self._pass(
            lambda: self.backbone.completion_logprobs(batch, tokens, mask, entropy_gradient=entropy)[0].sum()
        )
        return total

    # -- sampling --------------------------------------------------------------------------------------------------
    def _sample(self, name: str, batch: Batch, repeats: int, temperature: float) -> None:
        with self._autocast(), self._phase(name):
            self._sample_batch(batch, repeats, temperature)

    @torch.no_grad()
    def _sample_batch(self, batch: Batch, repeats: int, temperature: float) -> None:
        """The prompts' pass, and the last pass of completions that are all as long as they may be."""
        backbone, limit = self.backbone, self.training.max_new_tokens
        backbone.eval()
        with self._gathered_once():
            fixed = backbone.decoding == "fixed_shape"
            logits, state = self._pass(lambda: backbone.prefill(batch, repeats, limit if fixed else None))
            rows = len(logits)
            settings = SamplingSettings(limit, temperature)
            uniforms = torch.zeros(rows, dtype=torch.float64) if temperature else None
            sample_tokens(logits, settings, uniforms)
            if hasattr(state, "prompts"):
                self.tracer.assign((x for pair in state.prompts for x in pair), Part.CACHE)
            drafts = 0
            if backbone.decoding == "speculative" and backbone.takes_drafts(state):
                drafts = min(NGramDrafter().max_draft, max(0, limit - 2))
            self._skip(state, max(0, limit - 1 - drafts))
            width = drafts + 1
            tokens = torch.zeros(rows * width, dtype=torch.long)
            if drafts:
                logits = self._pass(lambda: backbone.verify(tokens, [width] * rows, state))
            else:
                logits = self._pass(lambda: backbone.decode(tokens, state))
            uniforms = None if uniforms is None else torch.zeros(rows * width, dtype=torch.float64)
            sample_tokens(logits, settings, uniforms)
        if self.sharded:  # as Shards.gathered
            torch.clear_autocast_cache()

    def _skip(self, state: Any, num: int) -> None:
        """Lets a state pretend that it holds so many tokens of each completion."""
        if hasattr(state, "longest"):
            state.longest = num
            state.position = state.position + num
            return
        cache = state.cache
        for layer in cache.layers:
            for name in ("keys", "values"):
                held = getattr(layer, name)
                more = held.new_empty(*held.shape[:2], num, held.shape[3])
                setattr(layer, name, torch.cat([held, more], 2))
        state.mask = torch.cat([state.mask, state.mask.new_ones(len(state.mask), num)], 1)

    @contextmanager
    def _gathered_once(self) -> Iterator[None]:
        gathering = self.gathering
        if gathering is None or not self.once:
            yield
            return
        gathering.leave()
        gathering.active = False
        whole = gathering.root.bytes + sum(unit.bytes for unit in gathering.units)
        largest = max(unit.bytes for unit in (gathering.root, *gathering.units))
        with self.tracer.held(Part.GATHERED, whole):
            with self.tracer.held(Part.GATHERED, largest):  # the message of the last unit
                pass
            yield
        gathering.active = True

    # -- parts of a phase ------------------------------------------------------------------------------------------
    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.tracer.phase()
        yield
        self.phases[name] = self.tracer.peak.copy()

    def _pass(self, call: Any) -> Any:
        if self.gathering is not None and self.gathering.active:
            self.gathering.enter()
        return call()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.training.precision == "bf16-mixed")

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """Within this block the model stands for its frozen copy, whose weights have no casts that are kept."""
        if not self._copies_reference:
            yield
            return
        for parameter in self.trained:
            parameter.requires_grad_(False)
        with nullcontext() if self.gathering is None else self.gathering.frozen_copy():
            yield
        for parameter in self.trained:
            parameter.requires_grad_(True)

    @property
    def _keeps_gradients(self) -> bool:
        return self.training.accumulate == 1 and not (self._in_buckets and self.training.bucket_views)

    @property
    def _in_buckets(self) -> bool:
        return self.training.strategy == "ddp" and self.training.processes > 1

    def _gradient_share(self, parameter: Tensor) -> int:
        return self.sharing.bytes_of([parameter])

    def _add_to_earlier_gradients(self) -> None:
        """Of several passes of an update the second is planned, which adds to the gradients of the first."""
        if self.training.parts == 1:
            return
        if self.gathering is not None:
            self.gathering.fresh = False
            self.tracer.hold(Part.GRADIENTS, sum(map(self._gradient_share, self.trained)))
        elif not (self._in_buckets and self.training.bucket_views):
            for parameter in self.trained:
                parameter.grad = torch.zeros_like(parameter)
                self.tracer.assign([parameter.grad], Part.GRADIENTS)

    def _backward(self, loss: Tensor) -> None:
        if self.gathering is not None:
            self.gathering.backward(loss)
            return
        views = self._in_buckets and self.training.bucket_views

        def keep(parameter: Tensor) -> None:
            assert parameter.grad is not None
            if views:  # copied into its bucket
                parameter.grad = None
            else:
                self.tracer.assign([parameter.grad], Part.GRADIENTS)

        hooks = [p.register_post_accumulate_grad_hook(keep) for p in self.trained]  # type: ignore[no-untyped-call]
        loss.backward()  # type: ignore[no-untyped-call]
        for hook in hooks:
            hook.remove()
