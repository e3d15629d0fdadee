"""Pretraining of the lab's base model: next token over packed rows, with the visual tokens' labels as a training aid.

*Where* is learnt long before *which*: a model this small needs very many scenes before the answer's loss alone tells
its vision tower what to look for. So linear heads, thrown away afterwards, ask every visual token for the traits of
the object under it (at the projector's output) and for the edges of that object's box (inside the language model,
where absolute positions are known).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kvg.backbones.base import Backbone
from kvg.lab.pretraining import EDGE_CLASSES, TRAIT_CLASSES
from kvg.packing import packed_mask


class LabPretrainModule(L.LightningModule):
    """Trains all parts of a tiny backbone.

    Args:
        backbone: a random one of lab size (``checkpoint: tiny``).
        lr: of Muon, for the matrices inside the layers.
        lr_adamw: of AdamW, for embeddings, norms, biases and heads.
        warmup: share of all steps.
        aid_weight: weight of the labels of visual tokens at the start; it falls linearly to a tenth.
        edge_layer: number of language-model layers below the heads for box edges.
        weight_decay: of both optimizers.
    """

    def __init__(
        self,
        backbone: Backbone,
        lr: float = 6e-3,
        lr_adamw: float = 3e-3,
        warmup: float = 0.02,
        aid_weight: float = 1.0,
        edge_layer: int = 2,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.backbone = backbone
        self.lr, self.lr_adamw, self.warmup, self.weight_decay = lr, lr_adamw, warmup, weight_decay
        self.aid_weight, self.edge_layer = aid_weight, edge_layer
        width = backbone.hidden_size
        self.trait_heads = nn.ModuleDict({name: nn.Linear(width, num) for name, num in TRAIT_CLASSES.items()})
        self.edge_heads = nn.ModuleDict({name: nn.Linear(width, EDGE_CLASSES) for name in ("x1", "y1", "x2", "y2")})

    def losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor], dict[str, Tensor]]:
        """Next-token loss (None where a batch has no text), and loss and accuracy of the visual tokens' labels."""
        features = self.backbone.image_features(batch["pixel_values"], batch["image_grid_thw"])
        logits = {name: head(features) for name, head in self.trait_heads.items()}
        loss = None
        if bool((batch["labels"] != -100).any()):
            loss, visual = self._language_loss(batch, features)
            logits |= {name: head(visual) for name, head in self.edge_heads.items()}
        aids, accuracy = {}, {}
        for name, scores in logits.items():
            target = batch[f"dense_{name}"]
            covered = target != -100
            aids[name] = F.cross_entropy(scores[covered].float(), target[covered])
            accuracy[name] = (scores[covered].argmax(-1) == target[covered]).float().mean()
        return loss, aids, accuracy

    def _language_loss(self, batch: Mapping[str, Tensor], features: Tensor) -> tuple[Tensor, Tensor]:
        """The next-token loss, and the hidden states of the visual tokens behind ``edge_layer`` layers."""
        language = self.backbone.model.model.language_model
        middle: list[Tensor] = []
        hook = language.layers[self.edge_layer - 1].register_forward_hook(
            lambda _module, _inputs, output: middle.append(output[0] if isinstance(output, tuple) else output)
        )
        hidden = language(
            inputs_embeds=self.backbone.embed(batch["input_ids"], features),
            position_ids=batch["position_ids"],
            attention_mask=packed_mask(batch["segments"]),
            use_cache=False,
        ).last_hidden_state
        hook.remove()
        learnt = batch["labels"][:, 1:] != -100
        logits = self.backbone.model.lm_head(hidden[:, :-1][learnt])
        loss = F.cross_entropy(logits.float(), batch["labels"][:, 1:][learnt])
        return loss, middle[0][batch["input_ids"] == self.backbone.processor.image_token_id]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """One step of both optimizers."""
        loss, aids, accuracy = self.losses(batch)
        share = min(1.0, batch_idx / max(1, int(self.trainer.num_training_batches)))
        aid = torch.stack(list(aids.values())).mean()
        total = (1 - 0.9 * share) * self.aid_weight * aid + (0.0 if loss is None else loss)
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(total)
        norm = nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        factor = schedule(share, self.warmup)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            optimizer.step()
        if loss is not None:
            self.log("train/loss", loss, prog_bar=True)
        self.log("train/aid", aid, prog_bar=True)
        self.log("train/grad_norm", norm)
        self.log_dict({f"train/seen/{name}": value for name, value in accuracy.items()})

    def on_fit_end(self) -> None:
        """Writes the base model, without the heads, into the run's folder."""
        self.backbone.export(Path(self.trainer.default_root_dir) / "export")

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices inside layers, AdamW for all else."""
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            inside = ".layers." in name or ".blocks." in name
            (matrices if parameter.ndim == 2 and inside else others).append(parameter)
        muon = torch.optim.Muon(matrices, lr=self.lr, weight_decay=self.weight_decay, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW(others, lr=self.lr_adamw, betas=(0.9, 0.95), weight_decay=self.weight_decay)
        for optimizer in (muon, adamw):
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        return [muon, adamw]


def schedule(share: float, warmup: float) -> float:
    """Linear warm-up, constant, then linear decay to 2% over the last 40% of the run.

    >>> schedule(0.0, 0.1), schedule(0.5, 0.1), round(schedule(1.0, 0.1), 3)
    (0.01, 1.0, 0.02)
    """
    if share < warmup:
        return max(0.01, share / warmup)
    return 1.0 if share < 0.6 else 0.02 + 0.98 * math.fabs(1.0 - share) / 0.4
