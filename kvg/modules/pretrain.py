"""Pretraining of the lab's base model: next token over packed rows, with the visual tokens' labels as a training aid.

*Where* is learnt long before *which*: a model this small needs very many scenes before the answer's loss alone tells
its vision tower what to look for. So linear heads, thrown away afterwards, ask every visual token for the traits of
the object under it (at the projector's output) and for the edges of that object's box (inside the language model,
where absolute positions are known). *Which* is learnt last of all; so a
pointer, thrown away as well, asks at the start of every box which visual tokens it means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

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
        aid_weight: weight of the labels of visual tokens.
        edge_layer: number of language-model layers below the heads for box edges.
        pointer_layer: number of layers below the pointer.
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
        pointer_layer: int = 3,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.backbone = backbone
        self.lr, self.lr_adamw, self.warmup, self.weight_decay = lr, lr_adamw, warmup, weight_decay
        self.aid_weight, self.edge_layer, self.pointer_layer = aid_weight, edge_layer, pointer_layer
        width = backbone.hidden_size
        self.trait_heads = nn.ModuleDict({name: nn.Linear(width, num) for name, num in TRAIT_CLASSES.items()})
        self.edge_heads = nn.ModuleDict({name: nn.Linear(width, EDGE_CLASSES) for name in ("x1", "y1", "x2", "y2")})
        self.asking, self.asked = nn.Linear(width, 64), nn.Linear(width, 64)

    def losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor], dict[str, Tensor]]:
        """Next-token loss (None where a batch has no text), and loss and accuracy of the visual tokens' labels."""
        features = self.backbone.image_features(batch["pixel_values"], batch["image_grid_thw"])
        logits = {name: head(features) for name, head in self.trait_heads.items()}
        loss, aids, accuracy = None, {}, {}
        if bool((batch["labels"] != -100).any()):
            loss, visual, deeper = self._language_loss(batch, features)
            logits |= {name: head(visual) for name, head in self.edge_heads.items()}
            if "pointer_at" in batch:
                aids["pointer"], accuracy["pointer"] = self._pointer(batch, deeper)
        for name, scores in logits.items():
            target = batch[f"dense_{name}"]
            covered = target != -100
            aids[name] = F.cross_entropy(scores[covered].float(), target[covered])
            accuracy[name] = (scores[covered].argmax(-1) == target[covered]).float().mean()
        return loss, aids, accuracy

    def _pointer(self, batch: Mapping[str, Tensor], states: Tensor) -> tuple[Tensor, Tensor]:
        """Where the last token of a request for a box looks: loss and accuracy of finding the object it means.

        Args:
            batch: ``pointer_at`` ``[M, 2]`` (row, token) and ``pointer_to`` ``[M, visual tokens]`` bool.
            states: ``[B, L, hidden]`` behind ``pointer_layer`` layers.
        """
        row, position = batch["pointer_at"].T
        states = F.rms_norm(states, states.shape[-1:])  # the residual stream of a trained model is large
        places = (batch["input_ids"] == self.backbone.processor.image_token_id)[row]  # [M, L]
        keys = self.asked(states[row][places].view(len(row), -1, states.shape[-1]))
        scores = (keys @ self.asking(states[row, position])[:, :, None])[..., 0].float() / keys.shape[-1] ** 0.5
        wanted = batch["pointer_to"]
        loss = -(scores.masked_fill(~wanted, -1e4).logsumexp(-1) - scores.logsumexp(-1)).mean()
        return loss, wanted.gather(1, scores.argmax(-1, keepdim=True)).float().mean()

    def _language_loss(self, batch: Mapping[str, Tensor], features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next-token loss; the visual tokens behind ``edge_layer`` layers; all tokens behind ``pointer_layer``."""
        language = self.backbone.model.model.language_model
        caught: dict[int, Tensor] = {}

        def catch(number: int) -> RemovableHandle:
            def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
                caught[number] = output[0] if isinstance(output, tuple) else output

            handle: RemovableHandle = language.layers[number - 1].register_forward_hook(keep)
            return handle

        hooks = [catch(number) for number in {self.edge_layer, self.pointer_layer}]
        hidden = language(
            inputs_embeds=self.backbone.embed(batch["input_ids"], features),
            position_ids=batch["position_ids"],
            attention_mask=packed_mask(batch["segments"]),
            use_cache=False,
        ).last_hidden_state
        for hook in hooks:
            hook.remove()
        learnt = batch["labels"][:, 1:] != -100
        logits = self.backbone.model.lm_head(hidden[:, :-1][learnt])
        loss = F.cross_entropy(logits.float(), batch["labels"][:, 1:][learnt])
        visual = caught[self.edge_layer][batch["input_ids"] == self.backbone.processor.image_token_id]
        return loss, visual, caught[self.pointer_layer]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """One step of both optimizers."""
        loss, aids, accuracy = self.losses(batch)
        share = min(1.0, batch_idx / max(1, int(self.trainer.num_training_batches)))
        aid = torch.stack([value for name, value in aids.items() if name != "pointer"]).mean() + aids.get(
            "pointer", 0.0
        )
        total = self.aid_weight * aid + (0.0 if loss is None else loss)
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
