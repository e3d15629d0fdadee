"""The memory that a training needs on each GPU, and what makes it fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from torch._subclasses.fake_tensor import FakeTensorMode

from kvg.backbones.sharding import cast_each_time, fits
from kvg.planning.parts import Part
from kvg.planning.phases import Phases, Trace
from kvg.planning.sharing import size_of
from kvg.planning.skeleton import Size, Skeleton
from kvg.planning.training import Training
from kvg.planning.workload import Lengths

CARDS: Final = (24, 40, 80, 141)  # GB of a GPU
GB: Final = 1e9
CONTEXT, MESSAGES, FRAGMENTS = 1.0, 1.0, 0.05  # GB of CUDA's context, GB of NCCL's channels, share of what changes
_STATIC: Final = (Part.WEIGHTS, Part.REFERENCE, Part.GRADIENTS, Part.OPTIMIZER, Part.SAMPLER)


@dataclass(frozen=True)
class Plan:
    """Peaks of a process.

    Attributes:
        training: that is planned.
        size: of its model.
        parameters: of the model, and those that are trained.
        lengths: tokens of the longest samples.
        ways: peaks by phase and part, with all weights gathered once for sampling (True) and layer by layer (False).
        weights: bytes of all weights.
    """

    training: Training
    size: Size
    parameters: tuple[int, int]
    lengths: Lengths
    ways: dict[bool, Phases]
    weights: int

    def once(self, card: float) -> bool:
        """Whether sampling gathers all weights at once on cards of so many GB."""
        return _gathers_once(self.training, self.weights, card)

    def phases(self, card: float) -> Phases:
        """Peaks by phase and part, on cards of so many GB."""
        return self.ways[self.once(card)]

    def total(self, card: float) -> float:
        """Bytes of the largest phase."""
        return max(float(sum(parts.values())) for parts in self.phases(card).values())

    def advice(self, card: float) -> tuple[str, float] | None:
        """The first change that makes it fit a card, and about how many bytes are left then; None where none does."""
        names: list[str] = []
        phases = self.phases(card)
        for name, changed in _changes(self, phases):
            phases, names = changed, [*names, name]
            total = max(float(sum(parts.values())) for parts in phases.values())
            if total <= card * GB:
                return ", then ".join(names), total
        return None


def make_plan(training: Training, size: Size, tokens: int | None = None, cards: tuple[float, ...] = CARDS) -> Plan:
    """Traces a training.

    Args:
        training: read from its config.
        size: of its model.
        tokens: of the longest sample (stage 1) or prompt (stage 2), where it is known to be below ``max_tokens``.
        cards: GB of the GPUs that are asked about.

    Raises:
        ConfigError: the settings cannot work.
    """
    ways: dict[bool, Phases] = {}
    backbone = Skeleton(size, FakeTensorMode(allow_non_fake_inputs=True), training.precision, **training.backbone)
    if training.strategy == "fsdp2" and training.processes > 1:
        cast_each_time(backbone)
    parameters = list(backbone.parameters())
    weights = size_of(parameters)
    lengths = Lengths(0, 0, 0)
    for once in sorted({_gathers_once(training, weights, card) for card in cards}):
        trace = Trace(training, backbone, once, tokens)
        ways[once] = trace.run(next((known for known in ways.values()), None))
        lengths = trace.lengths or lengths
        for parameter in parameters:
            parameter.grad = None
    if training.device == "cuda":
        for phases in ways.values():
            _reserve(phases, training)
    counts = sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
    return Plan(training, size, counts, lengths, ways, weights)


def _gathers_once(training: Training, weights: int, card: float) -> bool:
    if training.strategy != "fsdp2":
        return False
    if training.gather != "auto":
        return training.gather == "once"
    return fits(weights, training.processes, card * GB)


def _reserve(phases: Phases, training: Training) -> None:
    for parts in phases.values():
        changing = sum(size for part, size in parts.items() if part not in _STATIC)
        messages = MESSAGES if training.processes > 1 else 0
        parts[Part.RESERVE] = round((CONTEXT + messages) * GB + FRAGMENTS * changing)


# -- changes -----------------------------------------------------------------------------------------------------------
def _changes(plan: Plan, phases: Phases) -> Iterator[tuple[str, Phases]]:
    """Changes in the order in which they are worth trying, each on top of those before, by formulas."""
    training = plan.training
    if not training.backbone.get("gradient_checkpointing"):
        config = plan.size.config or plan.size.family.tiny_config
        layers = getattr(getattr(config, "text_config", config), "num_hidden_layers", 4)
        # A layer's own activations remain, and its input for each layer, about a fifteenth of them.
        phases = _scaled(phases, {Part.ACTIVATIONS: min(1.0, 1 / layers + 1 / 15)}, ("learn",))
        yield "backbone.gradient_checkpointing: true", phases
    if training.at_once > 1:
        less = {part: 1 / training.at_once for part in (Part.ACTIVATIONS, Part.LOGITS)}
        phases = _scaled(phases, less, ("learn",))
        number = training.batch_size * training.accumulate
        sft = f"data.batch_size: 1 with trainer.accumulate_grad_batches: {number}"
        yield sft if training.stage == "sft" else "model.microbatch_size: 1", phases
    if any(parts[Part.REFERENCE] for parts in phases.values()):
        phases = _scaled(phases, {Part.REFERENCE: 0.0})
        yield "model.loss.beta: 0 (no reference)", phases
    if training.backbone.get("lora") is None:
        share = 0.5 if training.precision != "bf16-true" and plan.weights > 2.5 * plan.parameters[0] else 1.0
        tiny = 0.02
        less = {Part.GRADIENTS: tiny, Part.OPTIMIZER: tiny, Part.BUFFERS: tiny, Part.CASTS: 0.0}
        phases = _scaled(phases, less | {Part.WEIGHTS: share, Part.GATHERED: share})
        yield "backbone.lora with trainer.precision: bf16-true and backbone.dtype: bfloat16", phases
    for times in (2, 4, 8):
        less = dict.fromkeys((Part.WEIGHTS, Part.REFERENCE, Part.GRADIENTS, Part.OPTIMIZER), 1 / times)
        if training.strategy != "fsdp2":
            less = {part: share / training.processes for part, share in less.items()}
        yield f"{training.processes * times} GPUs with FSDP2", _scaled(phases, less)


def _scaled(phases: Phases, shares: dict[Part, float], names: tuple[str, ...] = ()) -> Phases:
    return {
        name: Counter({part: round(size * (shares.get(part, 1.0) if not names or name in names else 1.0))
                       for part, size in parts.items()})
        for name, parts in phases.items()
    }  # fmt: skip
