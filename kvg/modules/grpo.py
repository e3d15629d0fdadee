"""Stage 2: GRPO. A group of completions per prompt, IoU rewards, group-relative advantages, one or several updates."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from kvg.backbones.answers import completions, read_answers
from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.inference.rollout_engine import BuiltInEngine, RolloutEngine
from kvg.inference.shared_fault import SharedFault
from kvg.losses.policy import Counts, PolicyLoss
from kvg.masking import masked_mean
from kvg.modules.base import StageModule
from kvg.modules.card_teacher import CardTeacher
from kvg.modules.gradients import clip_gradients, without_sync
from kvg.modules.guard import check_step
from kvg.modules.precision import with_float32_numbers
from kvg.modules.rollout_experience import experience_of
from kvg.modules.rollout_figures import ScoredRollouts, box_overlaps
from kvg.modules.run_summary import reward_lines, start_of
from kvg.modules.sampling_ahead import BatchSampler
from kvg.modules.text_replay import TextReplay
from kvg.ranges import check_number, check_whole
from kvg.rewards.combine import WeightedReward
from kvg.rewards.diagnosis import Start, nothing_learnt
from kvg.rl.advantage import group_advantage
from kvg.rl.completions import Rollouts
from kvg.rl.difficulty import DifficultyWeight
from kvg.rl.experience import Experience, in_minibatches
from kvg.rl.mismatch import MismatchCorrection
from kvg.rl.resampling import Resampling
from kvg.rl.sampled import SampledBatch
from kvg.rl.sampling import SamplingSettings
from kvg.text.answer import Answer
from kvg.types import Sample

ALIKE = 0.95  # share of groups with equal rewards above which the run ends with a warning


class GRPOModule(StageModule):
    """The paper's stage 2 (section 4.2): group-relative policy optimization from the stage-1 model.

    It uses manual optimization: instead of the Trainer's ``gradient_clip_val`` and ``accumulate_grad_batches``, set
    ``max_grad_norm`` and ``microbatch_size``.

    Args:
        backbone: the stage-1 model.
        reward: weighted parts; each is logged on its own.
        loss: of the family in ``kvg.losses.family``.
        optimizer: see ``StageModule``.
        warmup: see ``StageModule``.
        schedule: see ``StageModule``.
        group_size: G, rollouts per prompt.
        temperature: of the rollouts.
        top_p: of the rollouts.
        top_k: of the rollouts; 0 for all tokens.
        max_new_tokens: longest completion, in rollouts and in evaluation.
        advantage: ``group_std`` (published), ``batch_std`` or ``none``.
        num_iterations: passes over each batch of rollouts.
        num_minibatches: optimizer steps in each pass; the prompts of a batch are divided between them.
        microbatch_size: prompts whose activations are held in memory at once; 0 for all of an update.
        max_resample_batches: largest number of further batches that are sampled to replace prompts whose rewards are
            all equal (dynamic sampling, DAPO, arXiv 2503.14476, section 3.2); 0 uses all prompts.
        learn_truncated: whether truncated completions contribute to the loss.
        max_grad_norm: gradients are scaled down to this norm; None for no limit.
        seed: of the rollouts.
        overlap: while a batch is learnt, the next one is sampled in a thread, from the weights before this update;
            see docs/explanation/sampling.md.
        engine: samples the rollouts; None for ``BuiltInEngine``, the policy itself.
        mismatch: correction of the gap between an external engine and the policy; None for that of
            ``MismatchCorrection``. The built-in engine has no gap.
        replay: texts whose loss is added to each update; None for none.
        difficulty: factors of the advantages of hard and easy groups; None for 1.
        teacher: weights of tokens by the policy with the entity's card in its prompt; None for 1.
        export: see ``StageModule``.
    """

    def __init__(
        self,
        backbone: Backbone,
        reward: WeightedReward,
        loss: PolicyLoss,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup: float = 0.0,
        schedule: Literal["cosine", "constant"] = "constant",
        group_size: int = 4,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        max_new_tokens: int = 512,
        advantage: Literal["group_std", "batch_std", "none"] = "group_std",
        num_iterations: int = 1,
        num_minibatches: int = 1,
        microbatch_size: int = 0,
        max_resample_batches: int = 0,
        learn_truncated: bool = True,
        max_grad_norm: float | None = 1.0,
        seed: int = 0,
        overlap: bool = False,
        engine: RolloutEngine | None = None,
        mismatch: MismatchCorrection | None = None,
        replay: TextReplay | None = None,
        difficulty: DifficultyWeight | None = None,
        teacher: CardTeacher | None = None,
        export: bool = True,
    ) -> None:
        super().__init__(backbone, optimizer, warmup, schedule, max_new_tokens, export)
        check_number("model.temperature", temperature, 0, above=True)  # greedy rollouts are all alike
        check_number("model.top_p", top_p, 0, 1, above=True)
        for field, value, low in (
            ("group_size", group_size, 1), ("num_iterations", num_iterations, 1),
            ("num_minibatches", num_minibatches, 1), ("microbatch_size", microbatch_size, 0),
            ("max_resample_batches", max_resample_batches, 0), ("top_k", top_k, 0), ("seed", seed, 0),
        ):  # fmt: skip
            check_whole(f"model.{field}", value, low)
        if max_grad_norm is not None:
            check_number("model.max_grad_norm", max_grad_norm, 0)
        reward.check_limit(max_new_tokens)
        self.automatic_optimization = False
        self.reward, self.loss, self.group_size = reward, loss, group_size
        self.advantage: Literal["group_std", "batch_std", "none"] = advantage
        self.num_iterations, self.num_minibatches = num_iterations, num_minibatches
        self.microbatch_size, self.max_resample_batches = microbatch_size, max_resample_batches
        self.learn_truncated, self.max_grad_norm = learn_truncated, max_grad_norm
        self.rollout_sampling = SamplingSettings(max_new_tokens, temperature, top_p, top_k)
        self.engine: RolloutEngine = engine or BuiltInEngine()
        self._sampler = BatchSampler(self.engine, self.rollout_sampling, group_size, seed, overlap)
        self.mismatch, self.replay = mismatch or MismatchCorrection(), replay
        self.difficulty, self.teacher = difficulty, teacher
        self._reference: list[Backbone] = []  # in a list, so that it is not part of the module's state
        self._resampling = Resampling(max_resample_batches, group_size)
        self.scored: ScoredRollouts | None = None  # the newest batch of rollouts, for callbacks

    def configure_callbacks(self) -> Sequence[Callback]:
        """See ``StageModule.configure_callbacks``; and the sampler, whose state is in checkpoints."""
        return [*super().configure_callbacks(), self._sampler]

    def check_command(self, trainer: L.Trainer, command: str, ckpt_path: str | None) -> None:
        """Checks the strategy before a model is loaded; see ``BatchSampler.check``."""
        if command == "fit":
            self._sampler.check(trainer)

    # -- the reference ---------------------------------------------------------------------------------------------
    def configure_model(self) -> None:
        """Copies the stage-1 model as the reference, before sharding and before a checkpoint is loaded."""
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if fitting and self.loss.beta and not self.backbone.keeps_base and not self._reference:
            reference = copy.deepcopy(self.backbone).requires_grad_(False).eval()
            if self.device_mesh is not None:
                reference.shard(self.device_mesh["data_parallel"])
            self._reference.append(reference)
        super().configure_model()

    def on_fit_start(self) -> None:
        """Moves the reference to the policy's device and casts it like the policy."""
        if self.backbone.trained_mode is None and not self.trainer.ckpt_path:
            rank_zero_warn(
                f"stage 2 starts from {self.backbone.checkpoint}, which is not a stage-1 export of this project; to"
                " start from one, set backbone.checkpoint to its export (RUN/export)"
            )
        for reference in self._reference:
            self.trainer.precision_plugin.convert_module(reference).to(self.device)

    # -- what was learnt -------------------------------------------------------------------------------------------
    def start(self) -> Start:
        """Initial checkpoint and sampling settings, for warnings about rewards."""
        return start_of(self.backbone, self.mode, self.rollout_sampling, self.group_size)

    def summary(self, means: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
        """See ``StageModule.summary``; warns if nearly all groups had equal rewards."""
        if means["all"]["equal_groups"] > ALIKE:
            rank_zero_warn(nothing_learnt(means["all"], "in the whole run", self.start()))
        num_tokens = means["all"]["tokens"] * self.history.num_batches * self.trainer.world_size
        return reward_lines(means, self.history.edge, num_tokens, self.global_step)

    # -- a step ----------------------------------------------------------------------------------------------------
    def updates_per_batch(self) -> int:
        """Number of optimizer steps per batch of rollouts."""
        return self.num_iterations * self.num_minibatches

    @with_float32_numbers
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Samples and scores one batch of prompts, and updates the policy if there are enough groups."""
        start, size = time.perf_counter(), len(batch.samples)
        following = self._sampler.next_batch(self.trainer, batch, self.updates_per_batch())
        step, rank = self.global_step, self.global_rank
        batch, sampled, scored = self._sample(dataclasses.replace(batch, following=None), batch_idx)
        with self._sampler.ahead(self.backbone, following, step, batch_idx + 1, rank):
            experience = experience_of(self, self._reference, batch, sampled, scored.advantages)
            experiences = self._enough(experience, scored.rewards)
            loss = None if experiences is None else self._learn(experiences)
        if following is not None:
            self.log("train/wait_s", self._sampler.waited, batch_size=size)
        if loss is None:
            return None
        num_tokens = float(sampled.rollouts.completion_mask.sum())
        self.log("train/tokens_per_s", num_tokens / (time.perf_counter() - start), batch_size=size)
        return {"loss": loss}

    def _sample(self, batch: Batch, batch_idx: int) -> tuple[Batch, SampledBatch, ScoredRollouts]:
        """The batch with its visual tokens, its completions, and their rewards and advantages."""
        start, size = time.perf_counter(), len(batch.samples)
        in_parts = self.microbatch_size or self.max_resample_batches or self.backbone.sharded
        single = self.updates_per_batch() == 1 and not in_parts
        batch = self._sampler.with_visual_tokens(self.backbone, batch, single)
        self.backbone.eval()
        with self.stopping():
            seconds = self._sampler.sync(self.backbone, self.global_step, self.trainer.world_size)
        if seconds is not None:
            self.log("train/sync_s", seconds, batch_size=size)
        fault = SharedFault()
        with fault.kept(alone=False):
            sampled = self._sampler.sample(self.backbone, batch, self.global_step, batch_idx, self.global_rank)
            out = sampled.rollouts
            rewards, breakdown, answers = self._rewards(batch, out)
        with self.stopping():
            fault.end(self.trainer.world_size)
        self.engine.learn(out)
        self.backbone.train()
        self.log("train/sample_s", time.perf_counter() - start, batch_size=size)
        if self._sampler.overlap:
            self.log("train/policy_lag", float(self.global_step - sampled.step), batch_size=size)
        rows = self.group_size * batch.prompts_per_group
        advantages = group_advantage(rewards, rows, self.advantage)
        if self.difficulty is not None:
            overlaps = box_overlaps(answers, list(batch.samples), self.group_size)
            advantages = advantages * self.difficulty.factors(overlaps, rows).to(advantages)
        numbers = (answers, rewards, breakdown, advantages, self.group_size, sampled.step, batch.prompts_per_group)
        self.scored = ScoredRollouts(list(batch.samples), out, *numbers)
        figures = self.scored.figures()
        self.history.add({**figures, "tokens": out.completion_mask.sum()})
        for name, value in figures.items():
            self.log(f"train/{name}", value, batch_size=size, prog_bar=name == "reward/total")
        self.log("train/advantage_std", advantages.std(), batch_size=size)
        return batch, sampled, self.scored

    def _enough(self, experience: Experience, rewards: Tensor) -> list[Experience] | None:
        """The experiences for the update; None if more must be sampled first."""
        if self.max_resample_batches:
            resampled = float(self._resampling.sampled)
            self.log("train/resampled_batches", resampled, batch_size=experience.num_prompts)
        return self._resampling.add(
            experience, rewards, lambda here: self.trainer.strategy.reduce_boolean_decision(here, all=True)
        )

    def _learn(self, experiences: Sequence[Experience]) -> Tensor:
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        size = sum(piece.num_prompts for piece in experiences)
        # All processes of a sharded model must run it equally often, and resampled groups have varying sizes.
        microbatch_size = 1 if self.max_resample_batches and self.backbone.sharded else self.microbatch_size
        losses: list[Tensor] = []
        log: list[dict[str, Tensor]] = []
        for _ in range(self.num_iterations):
            for parts in in_minibatches(experiences, min(self.num_minibatches, size), microbatch_size):
                loss = self._backward(parts, log)
                norm = clip_gradients(self.backbone.parameters(), self.max_grad_norm)
                with self.stopping():
                    check_step(self.trainer, {"loss": loss, "gradient norm": norm}, parts)
                optimizer.step()  # type: ignore[union-attr]
                optimizer.zero_grad()  # type: ignore[union-attr]
                scheduler.step()  # type: ignore[union-attr, call-arg]
                losses.append(loss)
                log[-1]["grad_norm"] = norm.detach()
        for name in log[-1]:
            values = [entry[name] for entry in log if name in entry]
            self.log(f"train/{name}", torch.stack([v.float().to(self.device) for v in values]).mean(), batch_size=size)
        mean = torch.stack(losses).mean()
        self.log("train/loss", mean, batch_size=size)
        return mean

    def _backward(self, parts: Sequence[Experience], log: list[dict[str, Tensor]]) -> Tensor:
        """Computes the gradients of one update; returns its loss."""
        rows, tokens = (sum(n) for n in zip(*((len(p.mask), float(p.mask.sum())) for p in parts), strict=True))
        mean = self.trainer.strategy.reduce(torch.tensor(tokens, device=self.device), reduce_op="mean")
        counts, total = Counts(rows, tokens, float(mean)), torch.zeros((), device=self.device)
        if self.replay is not None:
            self.log("train/replay_loss", self.replay.backward(self), batch_size=rows)
        for number, part in enumerate(parts):
            with without_sync(self.trainer.model, number + 1 < len(parts)):
                logprobs, entropies = self.backbone.completion_logprobs(
                    part.batch, part.tokens, part.mask, self.rollout_sampling.temperature, self.loss.entropy > 0
                )
                old = logprobs.detach() if part.old_logprobs is None else part.old_logprobs
                loss, stats = self.loss(
                    logprobs, old, part.ref_logprobs, part.advantages, part.mask, entropies, counts, part.weights
                )
                self.manual_backward(loss)
            total = total + loss.detach()
            log.append({**stats, "entropy": masked_mean(entropies.detach(), part.mask)})
        return total

    # -- rewards -------------------------------------------------------------------------------------------------
    def _rewards(self, batch: Batch, out: Rollouts) -> tuple[Tensor, dict[str, Tensor], list[Answer]]:
        samples: list[Sample] = [s for s in batch.samples for _ in range(self.group_size)]
        generated = completions(self.backbone, out, self.rollout_sampling.max_new_tokens)
        answers = read_answers(self.backbone, generated, samples)
        return *self.reward(answers, samples), answers
