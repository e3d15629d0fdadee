"""The one wrapper of a Qwen-VL model: features, log-probabilities, sampling, freezing, sharding and export.

Stages see a model only through this class; a family is a subclass that names its Hugging Face class and its box
convention. All methods that run the model are plain calls of its parts with explicit M-RoPE positions: the positions
that the model remembers between calls belong to the last call, which need not be the same batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kvg.backbones import decoding, patch_embedding
from kvg.backbones.adapter_files import adapter_base
from kvg.backbones.adapters import with_adapter
from kvg.backbones.buffers import float32_buffers
from kvg.backbones.chat_template import TURN_END
from kvg.backbones.checkpoints import Description, describe_checkpoint, load_model
from kvg.backbones.features import FeatureCache
from kvg.backbones.folders import end_tokens, full_state, is_export, trained_mode, write_folder
from kvg.backbones.freezing import check_parts, recompute_activations, set_trained_parts
from kvg.backbones.lora import LoRASettings, lora_disabled, merged_state
from kvg.backbones.picture_settings import with_budget
from kvg.backbones.processor import QwenVLProcessor
from kvg.backbones.scoring import completion_logprobs, labelled_states
from kvg.backbones.sharding import shard
from kvg.backbones.shared_prefix import install
from kvg.backbones.soundness import check_weights
from kvg.errors import ConfigError
from kvg.rl.logprobs import token_logprobs
from kvg.text.box_codec import BoxCodec


class Backbone(nn.Module, ABC):
    """A vision-language model with its processor and its box convention.

    Args:
        checkpoint: a local folder, of a model or of PEFT's LoRA adapters; a hub name, or one that the family knows.
        dtype: ``auto`` = as stored, ``float32``, ``bfloat16``.
        min_pixels: smallest area of a resized picture; None = the checkpoint's.
        max_pixels: largest area; 401408 in the paper. None = the checkpoint's. Either is warned of where it is not what
            the model was trained with.
        freeze_vision: leave the vision tower as it is (stage 1 of the paper).
        freeze_projector: leave the projector as it is (stage 1 of the paper).
        lora: adapters on the language model instead of training it whole; None = whole. Vision tower and projector are
            trained whole beside them where they are not frozen.
        attn: attention implementation of transformers.
        gradient_checkpointing: recompute activations in the backward pass.
        share_prefix: when a group of completions is sampled or scored, compute and keep their prompt once; needs
            ``attn: sdpa``. False repeats it for each completion: slower, and the same numbers.
        feature_cache_mb: memory for visual tokens, kept between epochs where tower and projector are frozen; 0 = none.

    Attributes:
        model: the Hugging Face model.
        processor: the weightless half, for data modules.
        codec: the box convention; the same object as ``processor.codec``.
        stored_pixels: smallest and largest area of a picture that the checkpoint names.
        trained_mode: prompt mode that its weights were trained with; None where that is not known.
    """

    hf_class: type[Any]
    model_type: str

    def __init__(
        self,
        checkpoint: str,
        dtype: str = "auto",
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        freeze_vision: bool = True,
        freeze_projector: bool = True,
        lora: LoRASettings | None = None,
        attn: str = "sdpa",
        gradient_checkpointing: bool = False,
        share_prefix: bool = True,
        feature_cache_mb: int = 0,
    ) -> None:
        super().__init__()
        if dtype not in ("auto", "float32", "bfloat16"):
            raise ConfigError("backbone.dtype", f"'{dtype}' is not one of auto, float32, bfloat16")
        check_parts(freeze_vision, freeze_projector, feature_cache_mb)
        self.checkpoint, self.codec = checkpoint, self.make_codec()
        self.trained_mode = trained_mode(checkpoint)
        base = adapter_base(checkpoint)
        description = self.describe(base or checkpoint, checkpoint if base else None)
        exported = is_export(checkpoint) or bool(base and is_export(base))
        self.stored_pixels = (description.picture.min_pixels, description.picture.max_pixels)
        picture = with_budget(description.picture, min_pixels, max_pixels, checkpoint, exported)
        self.processor = QwenVLProcessor(description.tokenizer, self.codec, **asdict(picture))
        model = self.load(base or checkpoint, description, dtype, attn)
        self.model = with_adapter(model, checkpoint) if base else model
        self.end_token_ids = end_tokens(self.model.generation_config.eos_token_id, self.processor.ids(TURN_END)[0])
        self.pad_token_id = self.processor.pad_token_id
        self.sharded = False
        self.feature_cache = FeatureCache(feature_cache_mb * 2**20) if feature_cache_mb else None
        self.shares_prefix = share_prefix and attn == "sdpa"
        patch_embedding.install(self.model.model.visual)
        if self.shares_prefix:
            install(self.model.model.language_model)
        set_trained_parts(self.model, freeze_vision, freeze_projector, lora)
        self.lora, self.recomputes = lora, gradient_checkpointing
        if gradient_checkpointing:
            recompute_activations(self.model)

    # -- made by the family ----------------------------------------------------------------------------------------
    @abstractmethod
    def make_codec(self) -> BoxCodec:
        """The family's box convention."""

    def describe(self, checkpoint: str, adapter: str | None = None) -> Description:
        """All but the weights of a folder or a hub name, read before anything large is. Runs no code of it.

        Args:
            checkpoint: see the class.
            adapter: folder of adapters for it.

        Raises:
            ConfigError: it is not there, not whole, or of another architecture.
        """
        return describe_checkpoint(self.model_type, checkpoint, adapter)

    def load(self, checkpoint: str, description: Description, dtype: str, attn: str) -> Any:
        """The model of a folder or a hub name.

        Raises:
            ConfigError: its weights are missing, damaged, or do not fit its settings.
        """
        return load_model(self.hf_class, checkpoint, description.config, dtype, attn)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        with float32_buffers(self.model):
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return int(self.model.config.text_config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = next(self.model.parameters()).device
        return device

    # -- parts of a forward pass -----------------------------------------------------------------------------------
    def image_features(self, patches: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Projected visual tokens of all pictures, ``[tokens, hidden]``, in the order of the placeholders."""
        visual = self.model.model.visual
        with torch.no_grad() if self.sees_alike else nullcontext():
            out = visual(self.processor.pixel_values(patches).to(visual.dtype), grid_thw=image_grid_thw)
        features: Tensor = getattr(out, "pooler_output", out)
        return features

    @property
    def sees_alike(self) -> bool:
        """Whether vision tower and projector are frozen as a whole, so that a picture's tokens never change."""
        return not any(p.requires_grad for p in self.model.model.visual.parameters())

    def with_features(self, batch: Mapping[str, Any], learnt_once: bool = False) -> dict[str, Any]:
        """The batch with its visual tokens as ``image_features`` where they may be used again.

        Args:
            batch: with or without pictures.
            learnt_once: a single backward pass follows, before the weights change: then visual tokens are computed once
                even where the tower is trained, and keep their way back to it.
        """
        patches, grid = batch.get("patches"), batch.get("image_grid_thw")
        if patches is None or grid is None or not (self.sees_alike or learnt_once):
            return dict(batch)
        if not self.sees_alike or self.feature_cache is None or len(grid) != len(batch["samples"]):
            return {**batch, "image_features": self.image_features(patches, grid)}
        return {**batch, "image_features": self.feature_cache(batch["samples"], patches, grid, self.image_features)}

    def _features(self, batch: Mapping[str, Any]) -> Tensor | None:
        known: Tensor | None = batch.get("image_features")
        patches, grid = batch.get("patches"), batch.get("image_grid_thw")
        return known if known is not None or patches is None or grid is None else self.image_features(patches, grid)

    def embed(self, input_ids: Tensor, features: Tensor | None) -> Tensor:
        """Token embeddings ``[B, L, hidden]`` with the visual tokens put in place of their placeholders."""
        embeds: Tensor = self.model.get_input_embeddings()(input_ids)
        if features is None:
            return embeds
        places = (input_ids == self.processor.image_token_id)[..., None].expand_as(embeds)
        return embeds.masked_scatter(places, features.to(embeds.dtype))

    def positions(self, input_ids: Tensor, attention_mask: Tensor, image_grid_thw: Tensor | None) -> Tensor:
        """M-RoPE positions ``[3, B, L]``; rows without a picture count plainly."""
        plain = (attention_mask.cumsum(-1) - 1).clamp(min=0).expand(3, *input_ids.shape)
        pictured = (input_ids == self.processor.image_token_id).any(-1)
        if image_grid_thw is None or not bool(pictured.any()):
            return plain
        kinds = (input_ids[pictured] == self.processor.image_token_id).int()
        found, _ = self.model.model.get_rope_index(
            input_ids[pictured], kinds, image_grid_thw=image_grid_thw, attention_mask=attention_mask[pictured]
        )
        out = plain.clone()
        out[:, pictured] = found.to(out.dtype)
        return out

    def hidden(self, batch: Mapping[str, Any]) -> Tensor:
        """Last hidden states ``[B, L, hidden]`` of a padded batch."""
        out = self.model.model.language_model(
            inputs_embeds=self.embed(batch["input_ids"], self._features(batch)),
            position_ids=self.positions(batch["input_ids"], batch["attention_mask"], batch.get("image_grid_thw")),
            attention_mask=batch["attention_mask"],
            use_cache=False,
        )
        states: Tensor = out.last_hidden_state
        return states

    def logits(self, batch: Mapping[str, Any]) -> Tensor:
        """Logits ``[B, L, V]`` of a padded batch; for tests and small models."""
        out: Tensor = self.model.lm_head(self.hidden(batch))
        return out

    # -- what stages call ------------------------------------------------------------------------------------------
    def label_loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Mean negative log-likelihood of the labelled tokens in nats, and their number."""
        states, labels = labelled_states(self, batch)
        logprobs, _ = token_logprobs(self.model.lm_head.weight, states, labels)
        return -logprobs.sum() / max(1, len(labels)), torch.tensor(len(labels), device=labels.device)

    def completion_logprobs(
        self,
        batch: Mapping[str, Any],
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
        return completion_logprobs(self, batch, tokens, completion_mask, temperature, entropy_gradient)

    def prompt_inputs(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings ``[B, L, hidden]``, positions ``[3, B, L]`` and mask ``[B, L]`` of padded prompts."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        return self.embed(ids, self._features(batch)), self.positions(ids, mask, batch.get("image_grid_thw")), mask

    def prefill(self, batch: Mapping[str, Any], repeats: int = 1) -> tuple[Tensor, Any]:
        """See ``kvg.rl.rollout.Policy.prefill``: one vision pass and one pass over each prompt, whatever the group."""
        if self.recomputes and self.training:
            # Transformers would drop the cache without a word, and every token would be drawn from a wrong context.
            raise RuntimeError("call eval() before sampling from a backbone with gradient_checkpointing")
        return decoding.prefill(self, batch, repeats)

    def decode(self, tokens: Tensor, state: decoding.GroupState | decoding.RepeatedState) -> Tensor:
        """See ``kvg.rl.rollout.Policy.decode``."""
        return decoding.decode(self, tokens, state)

    def select(self, state: decoding.GroupState | decoding.RepeatedState, rows: Tensor) -> None:
        """See ``kvg.rl.rollout.Policy.select``."""
        state.select(rows)

    def anyone(self, active: bool) -> bool:
        """See ``kvg.rl.rollout.Policy.anyone``: with a sharded model every process must take part in every step."""
        if not self.sharded:
            return active
        flag = torch.tensor(int(active), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    @property
    def keeps_base(self) -> bool:
        """Whether training leaves the model as it was below its adapters, so that ``base_weights`` gives it back."""
        return self.lora is not None and self.sees_alike

    def base_weights(self) -> AbstractContextManager[None]:
        """Within this block a LoRA model is the one that its adapters were put on."""
        return lora_disabled(self.model)

    # -- sharding and export ---------------------------------------------------------------------------------------
    def shard(self, mesh: Any) -> None:
        """See ``kvg.backbones.sharding.shard``."""
        shard(self, self.model, mesh)
        self.sharded = True

    def export(self, folder: str | Path, mode: str | None = None) -> None:
        """Writes a Hugging Face folder (safetensors, tokenizer, picture settings) with adapters merged.

        Every process has to call it where the model is sharded; the first one writes. What lies there is left as it is
        where the model is refused.

        Args:
            folder: made where it is missing.
            mode: prompt mode that the model was trained with, for whoever asks it.

        Raises:
            TrainingError: weights are not finite.
        """
        check_weights(self, "export", f"nothing was written to {folder}")
        state = full_state(self.model, self.sharded)
        if dist.is_available() and dist.is_initialized() and dist.get_rank() != 0:
            return
        write_folder(Path(folder), self.model, merged_state(state, self.lora), self.processor, mode)
