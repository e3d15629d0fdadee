"""The parts that the memory of a process consists of."""

from __future__ import annotations

from enum import Enum


class Part(Enum):
    """What memory is held for. The value is what tables call it.

    A part of your own is a member here and a call of ``Tracer.hold``, or a line of ``Tracer``'s table of origins.
    """

    WEIGHTS = "weights"
    REFERENCE = "reference"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    CASTS = "casts of weights"
    ACTIVATIONS = "activations"
    LOGITS = "logits"
    CACHE = "rollout cache"
    GATHERED = "gathered weights"
    BUFFERS = "messages"
    SAMPLER = "copy that samples"
    RESERVE = "reserve"
