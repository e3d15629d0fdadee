"""What a family of vision-language models is: everything in which its models differ from those of other families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from kvg.backbones.inputs import LanguageInputs
from kvg.backbones.picture_processor import PictureProcessor
from kvg.backbones.picture_settings import PictureSettings
from kvg.batches import Picture, Pictures, VisualTokens
from kvg.text.box_codec import BoxCodec
from kvg.text.prompts import PUBLISHED, PromptFormat
from kvg.text.special_tokens import REFERENCE_TOKENS


class Family(ABC):
    """One architecture: where the parts of its Hugging Face model are, how it sees pictures, and how it is spoken to.

    A family holds no weights and no training logic. It lies in ``kvg/backbones/families/<model_type>.py``, where it is
    found by the ``model_type`` of a checkpoint; one of your own is named in the config (docs/how-to/add_a_family.md).

    Attributes:
        hf_class: model class of transformers.
        model_type: as ``config.json`` names it.
        image_token: placeholder that stands once for each visual token.
        turn_end: token that ends a turn, and so a completion.
        document_start: token before text that answers no question.
        answer_start: what stands between a prompt and a completion, such as a space; it is learnt with the completion.
        chat_template: conversation format, for checkpoints that bring none (jinja).
        prompt_format: how names are marked in questions.
        position_axes: A: 1 (RoPE) or 3 (M-RoPE).
        plain_layers: decoder layers that ``kvg.backbones.token_pass`` may write out: pre-norm, gated SiLU, RoPE on the
            halves of a head. Others are called as they are.
    """

    hf_class: ClassVar[type[Any]]
    model_type: ClassVar[str]
    image_token: ClassVar[str]
    turn_end: ClassVar[str]
    document_start: ClassVar[str]
    answer_start: ClassVar[str] = ""
    chat_template: ClassVar[str]
    prompt_format: ClassVar[PromptFormat] = PUBLISHED
    position_axes: ClassVar[int] = 1
    plain_layers: ClassVar[tuple[type[nn.Module], ...]] = ()

    @property
    @abstractmethod
    def codec(self) -> BoxCodec:
        """The box convention."""

    def special_tokens(self) -> tuple[str, ...]:
        """Texts that have to be one token each in a checkpoint's tokenizer, or the model would not know them."""
        marks = (mark for mark in self.prompt_format.marks if mark in REFERENCE_TOKENS)
        return (self.image_token, self.turn_end, self.document_start, *marks, *self.codec.marks)

    # -- parts of the model ----------------------------------------------------------------------------------------
    @abstractmethod
    def tower(self, model: Any) -> nn.Module:
        """The vision tower; the projector may lie inside it."""

    @abstractmethod
    def projector(self, model: Any) -> list[nn.Module]:
        """What brings the tower's output to the width of the language model."""

    def language(self, model: Any) -> Any:
        """The text model without its head."""
        return model.get_decoder()

    @abstractmethod
    def fsdp_units(self, model: Any) -> list[nn.Module]:
        """Modules that are sharded each for itself."""

    def prepare(self, model: Any) -> None:  # noqa: B027  # most families need nothing
        """Changes the model in place for speed, without changing its numbers."""

    # -- pictures --------------------------------------------------------------------------------------------------
    @abstractmethod
    def picture_settings(self, content: Mapping[str, Any], config: Any) -> PictureSettings:
        """The picture settings of a checkpoint.

        Args:
            content: of its ``preprocessor_config.json``.
            config: of its model.

        Raises:
            ConfigError: a value cannot work; its field is the name in the file.
        """

    @abstractmethod
    def picture_processor(self, settings: PictureSettings) -> PictureProcessor:
        """Makes tensors of pictures, with the settings of a checkpoint and a config."""

    @abstractmethod
    def check_pictures(self, settings: PictureSettings, config: Any) -> str | None:
        """What is wrong where a checkpoint's picture settings do not fit its model; None where they do."""

    def placeholders(self, picture: Picture) -> Sequence[tuple[str, int]]:
        """What stands for a picture in a prompt: texts, and how often each is repeated.

        It takes the place of the one ``image_token`` that the chat template writes, and holds that token once for each
        visual token. Each text is tokenised for itself, so it begins and ends with special tokens.
        """
        return [(self.image_token, picture.num_tokens)]

    def processor_content(self, settings: PictureSettings) -> Mapping[str, Any]:
        """Content of ``processor_config.json`` in exports, for families whose processor in transformers needs one."""
        return {}

    @abstractmethod
    def see(self, model: Any, pictures: Pictures, processor: PictureProcessor) -> VisualTokens:
        """Runs tower and projector."""

    def token_grids(self, pictures: Pictures, processor: PictureProcessor) -> list[tuple[int, int]] | None:
        """Rows and columns of each picture's visual tokens; None if they do not form one grid over the picture."""
        return None

    # -- the language model's inputs -------------------------------------------------------------------------------
    def positions(self, model: Any, input_ids: Tensor, mask: Tensor, pictures: Pictures | None) -> Tensor:
        """Positions ``[A, B, L]`` of a padded batch; plain counting by default.

        Args:
            model: the Hugging Face model.
            input_ids: ``[B, L]``.
            mask: ``[B, L]``, 1 where a token counts.
            pictures: of the batch.
        """
        return (mask.cumsum(-1) - 1).clamp(min=0)[None]

    def extra_inputs(self, inputs: LanguageInputs) -> Mapping[str, Any]:
        """Further keyword arguments of the text model, such as visual tokens for its first layers."""
        return {}

    # -- random models ---------------------------------------------------------------------------------------------
    def tiny_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """A tokenizer for the toy model: the lab's, with what else the family's own has.

        Args:
            tokenizer: a copy of the lab's, with Qwen's special tokens; it may be changed.
        """
        return tokenizer

    @abstractmethod
    def tiny_config(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Settings of a toy model of the true architecture that fits a tokenizer; for tests (``checkpoint: tiny``)."""

    @abstractmethod
    def tiny_pictures(self) -> PictureSettings:
        """Picture settings of the toy model."""
