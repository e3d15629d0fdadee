"""Before stage 1: visual tokens learn to tell names, for a small backbone that has never seen such pictures.

The language model cannot name what the vision tower does not tell apart, and next-token loss teaches the tower slowly:
few tokens of an answer depend on the picture. Here every visual token on an object is an example of its own, and the
language model does not run.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.errors import ConfigError
from kvg.modules.cot_sft import CoTSFTModule
from kvg.modules.precision import with_float32_numbers
from kvg.modules.token_objects import token_objects

_NAMES = "kvg_names"  # key in checkpoints
_NO_NAME = -100


class NameAlignmentModule(CoTSFTModule):
    """Trains vision tower and projector to tell the names of objects apart, by the boxes of composites.

    A linear head reads a code from each visual token that lies on an object (``cell_owners``). The code is compared, by
    a learnt scale times the dot product, with the codes of all names met so far: the root-mean-square normalised mean
    of a name's token embeddings. The loss is the cross-entropy over these names, in nats. The contrast of pictures with
    texts is CLIP's (arXiv 2103.00020, section 2.3), its place before instruction tuning LLaVA's (arXiv 2304.08485,
    section 4.2). The language model, and so the embeddings, are frozen. The paper has no such stage: its backbones have
    seen pictures of everything.

    Args:
        backbone: its family must have ``token_grids``; vision tower and projector are trained as ``freeze_vision`` and
            ``freeze_projector`` say, without LoRA.
        optimizer: see ``StageModule``.
        warmup: see ``StageModule``.
        schedule: see ``StageModule``.
        max_new_tokens: see ``StageModule``.
        export: see ``StageModule``.

    Raises:
        ConfigError: vision tower and projector are frozen, or the backbone has adapters.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup: float = 0.1,
        schedule: Literal["cosine", "constant"] = "cosine",
        max_new_tokens: int = 512,
        export: bool = True,
    ) -> None:
        super().__init__(backbone, optimizer, warmup, schedule, max_new_tokens, export)
        if backbone.vision_frozen:
            raise ConfigError("backbone.freeze_vision", "name alignment trains vision; set it to false")
        if backbone.lora is not None:
            raise ConfigError("backbone.lora", "name alignment trains vision tower and projector; set it to null")
        parts = [backbone.family.tower(backbone.model), *backbone.family.projector(backbone.model)]
        seeing = {id(p) for part in parts for p in part.parameters()}
        for parameter in backbone.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in seeing)
        width = backbone.hidden_size
        self.head = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.head.weight)
        self.scale = nn.Parameter(torch.tensor(width**-0.5))
        self.names: dict[str, int] = {}
        self.accuracy = MeanMetric()
        self._codes: list[Tensor] = []  # in a list, so that it is not part of the module's state

    def configure_model(self) -> None:
        """Refuses to shard: the embeddings of names are needed whole, and models that need sharding need no alignment.

        Raises:
            ConfigError: the strategy shards.
        """
        if self.device_mesh is not None:
            raise ConfigError("trainer.strategy", "name alignment does not shard; use ddp or one device")

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Compares the visual tokens on objects with all names met so far.

        Returns:
            Log-probabilities ``[T, names]``; the true name of each token ``[T]``, -100 for one not met; and the number
            of its object within the batch ``[T]``.

        Raises:
            ConfigError: the backbone's visual tokens form no grid.
        """
        owners, names, first = [], [], 0
        for sample, owner in zip(batch.samples, token_objects(self.backbone, batch), strict=True):
            owners.append(torch.where(owner >= 0, owner + first, -1))
            names += [self.names.get(item.entity, _NO_NAME) for item in sample.objects]
            first += len(sample.objects)
        flat = torch.cat(owners).to(self.device)
        covered = flat >= 0
        assert batch.pictures is not None  # see token_objects
        tokens = self.backbone.see(batch.pictures).tokens[covered]
        read = F.rms_norm(self.head(tokens), tokens.shape[-1:])
        logprobs = (self.scale * read @ self.codes().T).float().log_softmax(-1)
        return logprobs, torch.tensor(names, device=self.device)[flat[covered]], flat[covered]

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the names of visual tokens, in nats, and the number of these tokens."""
        for sample in batch.samples:
            for item in sample.objects:
                self.names.setdefault(item.entity, len(self.names))
        logprobs, target, _ = self.scores(batch)
        self.log("train/name_acc", (logprobs.argmax(-1) == target).float().mean(), batch_size=len(batch))
        return F.nll_loss(logprobs, target), torch.tensor(len(target), device=target.device)

    @with_float32_numbers
    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:  # type: ignore[override]
        """Names each object by the mean log-probabilities of its visual tokens; there is no answer to show."""
        logprobs, target, objects = self.scores(batch)
        numbers, inverse = torch.unique(objects, return_inverse=True)
        sums = torch.zeros(len(numbers), logprobs.shape[1], device=logprobs.device).index_add_(0, inverse, logprobs)
        truth = torch.full_like(numbers, _NO_NAME).scatter_(0, inverse, target)
        self.accuracy.update((sums.argmax(-1) == truth).float())
        return []

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/name_acc``: the share of objects that get their name, among all names met in training."""
        self.log("val/name_acc", self.accuracy)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the names met so far."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[_NAMES] = list(self.names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the names in their order."""
        super().on_load_checkpoint(checkpoint)
        self.names = {name: number for number, name in enumerate(checkpoint.get(_NAMES, ()))}
        self._codes.clear()

    def codes(self) -> Tensor:
        """The codes of the names met so far, ``[names, hidden]``."""
        new = list(self.names)[len(self._codes) :]
        table = self.backbone.model.get_input_embeddings().weight.detach()
        for name in new:
            mean = table[self.backbone.processor.ids(f" {name}")].mean(0)
            self._codes.append(F.rms_norm(mean, mean.shape))
        return torch.stack(self._codes)
