"""A step of stage 1 on a GPU, and the plan of it."""

from __future__ import annotations

import torch

from kvg.backbones.backbone import Backbone
from kvg.planning.known_sizes import size_of
from kvg.planning.parts import Part
from kvg.planning.plan import make_plan
from kvg.planning.training import Training
from tests.planning.batches import full_batch

SETTINGS = {"stage": "sft", "max_tokens": 1024, "batch_size": 8}
FUSED = {"class_path": "torch.optim.AdamW", "init_args": {"fused": True}}


def allocated() -> tuple[float, float]:
    """Bytes of the plan without its reserve, and those of ``torch.cuda.max_memory_allocated``."""
    training = Training("sft", "lab", None, {"dtype": "float32"}, "bf16-mixed", "cuda", 1, "single",
                        batch_size=8, max_tokens=1024, optimizer=FUSED)  # fmt: skip
    phases = make_plan(training, size_of("lab")).phases(80)
    made = max(sum(parts.values()) - parts[Part.RESERVE] for parts in phases.values())
    backbone = Backbone("lab", dtype="float32").to("cuda").train()
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], fused=True)
    batch = full_batch(SETTINGS, backbone.processor).to("cuda")
    for _ in range(3):
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16):
            loss, _ = backbone.label_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(made), float(torch.cuda.max_memory_allocated())
