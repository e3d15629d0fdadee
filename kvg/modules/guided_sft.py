"""SFT with supervised attention: a small model learns which object a name means, and not only where objects are.

Next-token loss on boxes teaches a model of a few million parameters to localize; which of the objects is meant stays at
chance for thousands of steps. A model of billions that has seen pictures with names needs no such aid.
"""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.errors import ConfigError
from kvg.modules.cot_sft import CoTSFTModule
from kvg.modules.guidance import attention_share, first_head_scores, guidance_loss, layer_inputs
from kvg.modules.token_objects import token_objects
from kvg.ranges import check_number, check_whole
from kvg.text.box_codec import BOX_START
from kvg.text.prompts import REF_END, REF_START


class GuidedSFTModule(CoTSFTModule):
    """Stage 1 with one more loss: a head attends from the question's name, and from the answer's box, to the object.

    The loss is the mean negative log of the share of attention that lies on the visual tokens of the named object
    (``cell_owners``); the lab's base was pretrained with the same loss (``kvg.modules.pretrain``). It is logged as
    ``train/guide``, and as ``train/pick_acc`` how often the end of the name attends to the named object more than to
    any other place of the picture. Not in the paper.

    Args:
        backbone: its family must have ``token_grids`` and ``plain_layers``.
        optimizer: see ``StageModule``.
        warmup: see ``StageModule``.
        schedule: see ``StageModule``.
        max_new_tokens: see ``StageModule``.
        export: see ``StageModule``.
        guide_weight: weight of the loss of attention.
        guided_layer: index of the language model's layer whose first head is supervised.

    Raises:
        ConfigError: the model has no such layer, the layer is not one of ``plain_layers``, or a weight is negative.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup: float = 0.1,
        schedule: Literal["cosine", "constant"] = "cosine",
        max_new_tokens: int = 512,
        export: bool = True,
        guide_weight: float = 1.0,
        guided_layer: int = 2,
    ) -> None:
        super().__init__(backbone, optimizer, warmup, schedule, max_new_tokens, export)
        layers = backbone.language.text_model.layers
        check_number("model.guide_weight", guide_weight, 0)
        check_whole("model.guided_layer", guided_layer, 0, len(layers) - 1)
        if not isinstance(layers[guided_layer], backbone.family.plain_layers):
            raise ConfigError("model.guided_layer", f"{type(layers[guided_layer]).__name__} cannot be supervised")
        self.guide_weight, self.guided_layer = guide_weight, guided_layer

    def configure_model(self) -> None:
        """Refuses to shard, since the supervised layer is read outside its own pass.

        Raises:
            ConfigError: the strategy shards.
        """
        if self.device_mesh is not None:
            raise ConfigError("trainer.strategy", "supervised attention does not shard; use ddp or one device")

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Adds the loss of attention to the mean negative log-likelihood, and returns the number of labelled tokens."""
        with layer_inputs(self.backbone.language.text_model.layers[self.guided_layer]) as caught:
            loss, num_tokens = super().loss(batch)
        if not batch.samples:  # replayed text only
            return loss, num_tokens
        return loss + self.guide_weight * self._guide(batch, *caught[0]), num_tokens

    def _guide(self, batch: Batch, states: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """The loss of attention.

        Args:
            batch: padded examples; the first rows belong to ``samples``.
            states: input of the layer, ``[B, L, hidden]``, or ``[1, N, hidden]`` of all tokens that are not padding.
            rotary: of the same shape.
        """
        real = batch.attention_mask.bool()
        if states.shape[:2] == real.shape:
            states, rotary = states[real][None], (rotary[0][real][None], rotary[1][real][None])
        rows = torch.arange(len(real), device=real.device)[:, None].expand_as(real)[real]
        is_image = (batch.input_ids == self.backbone.processor.image_token_id)[real]
        wanted = torch.zeros_like(is_image).masked_scatter(is_image, self._targets(batch))
        speaks, ends = (places[real] for places in self._words(batch))
        with_target = torch.zeros(len(real), dtype=torch.bool, device=real.device)
        with_target[rows[wanted]] = True  # an object may cover too little of every visual token
        places = (speaks & with_target[rows]).nonzero()[:, 0]
        layer = self.backbone.language.text_model.layers[self.guided_layer]
        scores = first_head_scores(layer, states, rotary)[0, places]
        order = torch.arange(len(rows), device=rows.device)
        visible = (order <= places[:, None]) & (rows == rows[places][:, None])
        loss = guidance_loss(attention_share(scores, visible, wanted))
        highest = scores.masked_fill(~(visible & is_image), -torch.inf).argmax(1)
        size = len(batch)
        self.log("train/guide", loss.detach(), batch_size=size)
        self.log("train/pick_acc", wanted[highest][ends[places]].float().mean(), batch_size=size)
        return loss

    def _targets(self, batch: Batch) -> Tensor:
        """Whether each visual token of the batch lies on the named object of its picture."""
        owners = token_objects(self.backbone, batch)
        named = [owner == sample.target for owner, sample in zip(owners, batch.samples, strict=True)]
        return torch.cat(named).to(self.device)

    def _words(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tokens that mean the named object, ``[B, L]``: the question's name and the last box; and ends of names."""
        start, end, box = (self.backbone.processor.ids(mark)[0] for mark in (REF_START, REF_END, BOX_START))
        ids, asks = batch.input_ids, batch.labels == -100
        opened, closed = (ids == start).cumsum(1), (ids == end).cumsum(1)
        ends = asks & (ids == end)
        boxes = ((ids == box) & ~asks).cumsum(1)
        answer = ~asks & (boxes > 0) & (boxes == boxes[:, -1:])
        return (asks & (opened > closed)) | ends | answer, ends
