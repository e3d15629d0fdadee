"""The one wrapper of a vision-language model: visual tokens, log-probabilities, sampling, freezing, sharding, export.

Stages see a model only through this class. Its ``Family`` holds what its architecture decides; all methods that
run the model are plain calls of its parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from kvg.backbones.adapter_files import adapter_base
from kvg.backbones.adapters import loads_whole, with_adapter
from kvg.backbones.buffers import float32_buffers
from kvg.backbones.builtin import RANDOM, build_builtin, checkpoint_folder, random_tokenizer
from kvg.backbones.checkpoints import Description, describe_checkpoint, load_deferred, load_model
from kvg.backbones.decoding import RepeatedState, decode, prefill, verify
from kvg.backbones.family import Family
from kvg.backbones.feature_cache import FeatureCache
from kvg.backbones.find_family import find_family
from kvg.backbones.folders import end_tokens, is_export, trained_mode, write_folder
from kvg.backbones.freezing import check_parts, recompute_activations, set_trained_parts
from kvg.backbones.group_state import GroupState
from kvg.backbones.inputs import LanguageInputs
from kvg.backbones.language import LanguageModel
from kvg.backbones.lora import LoRASettings, lora_disabled
from kvg.backbones.picture_settings import with_budget
from kvg.backbones.processor import ChatProcessor
from kvg.backbones.scoring import completion_states, labelled_states
from kvg.backbones.sharding import Gather, Shardable, Shards
from kvg.backbones.shared_prefix import install
from kvg.backbones.soundness import check_weights
from kvg.backbones.stored_weights import weights_deferred
from kvg.batches import Batch, Pictures, VisualTokens
from kvg.errors import ConfigError
from kvg.linear import use_linear
from kvg.ranges import check_choice
from kvg.rl.completions import Decoding
from kvg.rl.logprobs import token_logprobs


class Backbone(Shardable):
    """A vision-language model with its processor and its box convention.

    Args:
        checkpoint: a local folder, of a model or of PEFT's LoRA adapters; a hub name; ``lab`` (the base model that
            ships with this project), ``lab-random`` (random, of its size: what pretraining starts from) or ``tiny``
            (random, for tests).
        family: of the model; None finds it by the checkpoint's ``model_type``. Needed for families of your own.
        dtype: ``auto`` = as stored, ``float32``, ``bfloat16``.
        min_pixels: smallest area of a resized picture; None = the checkpoint's.
        max_pixels: largest area; 401408 in the paper. None = the checkpoint's. Either is warned of where it is not what
            the model was trained with.
        freeze_vision: leave the vision tower as it is (stage 1 of the paper).
        freeze_projector: leave the projector as it is (stage 1 of the paper).
        freeze_language: leave the language model as it is.
        freeze_embeddings: leave embeddings and output layer as they are; adapters always do, but for ``lora.tokens``.
        lora: adapters on the language model instead of training it whole; None = whole. Vision tower and projector are
            trained whole beside them if they are not frozen.
        attn: attention implementation of transformers.
        gradient_checkpointing: recompute activations in the backward pass.
        share_prefix: when a group of completions is sampled or scored, compute and keep their prompt once; needs
            ``attn: sdpa``. False repeats it for each completion: slower, and the same numbers.
        decoding: how completions are sampled, see ``kvg.rl.completions.Policy``; the tokens are the same.
        feature_cache_mb: memory for visual tokens, kept between epochs where tower and projector are frozen; 0 = none.

    Attributes:
        model: the Hugging Face model.
        family: of the model.
        processor: the weightless half, for data modules.
        codec: the box convention; the same object as ``processor.codec``.
        stored_pixels: smallest and largest area of a picture that the checkpoint names.
        trained_mode: prompt mode that its weights were trained with; None where that is not known.
    """

    def __init__(
        self,
        checkpoint: str,
        family: Family | None = None,
        dtype: str = "auto",
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        freeze_vision: bool = True,
        freeze_projector: bool = True,
        lora: LoRASettings | None = None,
        attn: str = "sdpa",
        gradient_checkpointing: bool = False,
        share_prefix: bool = True,
        decoding: Decoding = "speculative",
        feature_cache_mb: int = 0,
        freeze_language: bool = False,
        freeze_embeddings: bool = False,
    ) -> None:
        super().__init__()
        check_choice("backbone.dtype", dtype, ("auto", "float32", "bfloat16"))
        check_choice("backbone.decoding", decoding, get_args(Decoding))
        check_parts(freeze_vision, freeze_projector, feature_cache_mb)
        self.checkpoint, self.trained_mode = checkpoint, trained_mode(checkpoint)
        self.family = find_family(checkpoint, family)
        base = adapter_base(checkpoint)
        description = self.describe(base or checkpoint, checkpoint if base else None)
        exported = is_export(checkpoint) or is_export(base or checkpoint)
        self.stored_pixels = (description.picture.min_pixels, description.picture.max_pixels)
        settings = with_budget(description.picture, min_pixels, max_pixels, checkpoint, exported)
        self.processor = ChatProcessor(description.tokenizer, self.family, settings)
        self.codec, self.pad_token_id = self.processor.codec, self.processor.pad_token_id
        merged = checkpoint if base else None
        model = self.load(base or checkpoint, description, dtype, attn, loads_whole(merged, lora))
        self.model, self.stored = with_adapter(model, merged, self.stored)
        (turn_end,) = self.processor.ids(self.family.turn_end)
        self.end_token_ids = end_tokens(model.generation_config.eos_token_id, turn_end)
        self.decoding = decoding
        self.feature_cache = FeatureCache(feature_cache_mb * 2**20) if feature_cache_mb else None
        self.shares_prefix = share_prefix and attn == "sdpa"
        self.family.prepare(self.model)
        if self.shares_prefix:
            install(self.language.text_model)
        own = (freeze_language, freeze_embeddings)
        set_trained_parts(self.family, self.model, freeze_vision, freeze_projector, lora, *own)
        use_linear(self.model)
        self.lora, self.recomputes = lora, gradient_checkpointing
        if gradient_checkpointing:
            recompute_activations(self.model)

    def describe(self, checkpoint: str, adapter: str | None) -> Description:
        """All but the weights, read before anything large is; see ``kvg.backbones.checkpoints.describe_checkpoint``."""
        if checkpoint in RANDOM:
            return Description(random_tokenizer(checkpoint, self.family), self.family.tiny_pictures())
        return describe_checkpoint(self.family, checkpoint_folder(checkpoint), adapter)

    def load(self, checkpoint: str, description: Description, dtype: str, attn: str, whole: bool = True) -> Any:
        """The Hugging Face model; see ``kvg.backbones.checkpoints.load_model`` and ``deferred_weights``."""
        if checkpoint in RANDOM:
            return build_builtin(checkpoint, self.family, dtype, attn)
        settings = (self.family.hf_class, checkpoint_folder(checkpoint), description.config, dtype, attn)
        if whole or not weights_deferred():
            return load_model(*settings)
        model, self.stored = load_deferred(*settings)
        return model

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        with float32_buffers(self.model):
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    @property
    def language(self) -> LanguageModel:
        """The part that reads text and visual tokens."""
        return LanguageModel(self.family, self.model, self.shares_prefix, self.in_step)

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = next(self.model.parameters()).device
        return device

    # -- parts of a forward pass -----------------------------------------------------------------------------------
    def see(self, pictures: Pictures) -> VisualTokens:
        """Visual tokens of pictures, in the order of their placeholders."""
        with torch.no_grad() if self.vision_frozen else nullcontext():
            return self.family.see(self.model, pictures, self.processor.pictures)

    @property
    def vision_frozen(self) -> bool:
        """Whether vision tower and projector are frozen as a whole, so that a picture's tokens never change."""
        parts = [self.family.tower(self.model), *self.family.projector(self.model)]
        return not any(p.requires_grad for part in parts for p in part.parameters())

    def with_visual_tokens(self, batch: Batch, single_backward: bool = False) -> Batch:
        """The batch with its visual tokens where they may be used again.

        Args:
            batch: with or without pictures.
            single_backward: a single backward pass follows, before the weights change: then visual tokens are computed
                once even where the tower is trained, and keep their way back to it.
        """
        pictures, frozen = batch.pictures, self.vision_frozen
        if pictures is None or not (frozen or single_backward):
            return batch
        if self.feature_cache is None or not frozen or not all(pictures.sources):
            return replace(batch, visual=self.see(pictures))
        return replace(batch, visual=self.feature_cache(pictures, self.device, self.see))

    def embed(self, input_ids: Tensor, visual: Tensor | None) -> Tensor:
        """Token embeddings ``[B, L, hidden]`` with visual tokens ``[T, hidden]`` in place of their placeholders."""
        embeds: Tensor = self.model.get_input_embeddings()(input_ids)
        if visual is None:
            return embeds
        places = (input_ids == self.processor.image_token_id)[..., None].expand_as(embeds)
        return embeds.masked_scatter(places, visual.to(embeds.dtype))

    def inputs(self, batch: Batch) -> LanguageInputs:
        """What the language model takes of a padded batch."""
        ids, pictures, visual = batch.input_ids, batch.pictures, batch.visual
        if visual is None and pictures is not None:
            visual = self.see(pictures)
        embeds = self.embed(ids, None if visual is None else visual.tokens)
        positions = self.family.positions(self.model, ids, batch.attention_mask, pictures)
        mask = batch.attention_mask.bool()
        if visual is None or not visual.deep:
            return LanguageInputs(embeds, positions, mask)
        is_image = ids == self.processor.image_token_id
        rows = (is_image.flatten().cumsum(0) - 1).view_as(ids).masked_fill(~is_image, -1)
        return LanguageInputs(embeds, positions, mask, rows, visual.deep)

    def logits(self, batch: Batch) -> Tensor:
        """Logits ``[B, L, V]`` of a padded batch; for tests and small models."""
        language = self.language
        out: Tensor = language.head(language.run(self.inputs(batch)).last_hidden_state)
        return out

    # -- what stages call ------------------------------------------------------------------------------------------
    def label_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean negative log-likelihood of the labelled tokens in nats, and their number."""
        states, labels = labelled_states(self.language, self.inputs(batch), batch.labels)
        logprobs, _ = token_logprobs(self._head_weight, states, labels)
        return -logprobs.sum() / max(1, len(labels)), torch.tensor(len(labels), device=labels.device)

    def completion_logprobs(
        self,
        batch: Batch,
        tokens: Tensor,
        completion_mask: Tensor,
        temperature: float = 1.0,
        entropy_gradient: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Scores completions of a prompt batch; each picture is encoded once for its whole group.

        Args:
            batch: B left-padded prompts.
            tokens: ``[N, T]``, N = B * G, the rows of a group side by side.
            completion_mask: ``[N, T]`` bool.
            temperature: that they were sampled at.
            entropy_gradient: whether a gradient flows through the entropies.

        Returns:
            Log-probabilities and entropies, ``[N, T]``, 0 where the mask is False.
        """
        states = completion_states(self.language, self.inputs(batch), tokens, completion_mask, self.pad_token_id)
        scores, entropies = token_logprobs(
            self._head_weight, states, tokens[completion_mask], temperature, entropy_gradient=entropy_gradient
        )
        empty = torch.zeros(tokens.shape, device=scores.device, dtype=scores.dtype)
        return empty.masked_scatter(completion_mask, scores), empty.masked_scatter(completion_mask, entropies)

    @property
    def _head_weight(self) -> Tensor:
        weight: Tensor = self.language.head.weight  # type: ignore[assignment]
        return weight

    def prefill(self, batch: Batch, repeats: int = 1, room: int | None = None) -> tuple[Tensor, Any]:
        """See ``kvg.rl.completions.Policy.prefill``; each picture and each prompt is computed once for its group."""
        if self.recomputes and self.training:
            # Transformers would drop the cache, and every token would be sampled from a wrong context.
            raise RuntimeError("call eval() before sampling from a backbone with gradient_checkpointing")
        return prefill(self.language, self.inputs(batch), repeats, room)

    def decode(self, tokens: Tensor, state: GroupState | RepeatedState) -> Tensor:
        """See ``kvg.rl.completions.Policy.decode``."""
        return decode(self.language, tokens, state)

    def takes_drafts(self, state: GroupState | RepeatedState) -> bool:
        """See ``kvg.rl.completions.Policy.takes_drafts``: a plain cache has one length for all rows."""
        return isinstance(state, GroupState)

    def verify(self, tokens: Tensor, widths: Sequence[int], state: GroupState) -> Tensor:
        """See ``kvg.rl.completions.Policy.verify``."""
        return verify(self.language, tokens, widths, state)

    def accept(self, counts: Tensor, state: GroupState) -> None:
        """See ``kvg.rl.completions.Policy.accept``."""
        state.accept(counts)

    def select(self, state: GroupState | RepeatedState, rows: Tensor) -> None:
        """See ``kvg.rl.completions.Policy.select``."""
        state.select(rows)

    @property
    def keeps_base(self) -> bool:
        """Whether training leaves the model as it was below its adapters, so that ``base_weights`` gives it back."""
        return self.lora is not None and self.vision_frozen

    def base_weights(self) -> AbstractContextManager[None]:
        """Within this block a LoRA model is the one that its adapters were put on."""
        return lora_disabled(self.model)

    # -- sharding and export ---------------------------------------------------------------------------------------
    def shard(self, mesh: Any, gather: Gather = "layer") -> None:
        """See ``kvg.backbones.sharding.Shards``; what lies below adapters is its ``base``."""
        if self.lora is not None and self.lora.bits == 4:
            raise ConfigError("trainer.strategy", "cannot share weights in four bits (backbone.lora.bits); use ddp")
        base = [p for p in self.model.parameters() if self.lora is not None and not p.requires_grad]
        self.shards = Shards(self, self.family.fsdp_units(self.model), mesh, gather, base)
        self.read_shares(self.model, mesh)

    def export(self, folder: str | Path, mode: str | None = None) -> None:
        """Writes a Hugging Face folder (safetensors, tokenizer, picture settings) with adapters merged.

        Every process has to call it where the model is sharded; the first one writes, a layer at a time. What lies
        there is left as it is where the model is refused.

        Args:
            folder: made where it is missing.
            mode: prompt mode that the model was trained with, stored beside it.

        Raises:
            TrainingError: weights are not finite.
        """
        check_weights(self, "export", f"nothing was written to {folder}")
        write_folder(Path(folder), self.model, self.processor, mode, self.lora)
