"""Checks a model that is about to be written, tensor by tensor, against the model that its training began with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from kvg.backbones.four_bit import is_four_bit
from kvg.backbones.lora import LoRASettings, is_adapter
from kvg.backbones.saved_weights import LazyTensor, Weight
from kvg.backbones.stored_weights import StoredTensor, plain_name
from kvg.errors import TrainingError

PROBES: Final = 4  # random inputs that each merged layer is compared on
Factors = Callable[[], tuple[Tensor, Tensor, Tensor | None]]


class MergeCheck:
    """Is called with each tensor before it is written.

    All values have to be finite. What was not trained, vision tower and projector among it, has to be what it was, bit
    by bit. A merged layer has to answer random inputs as the layer and its adapters do beside each other.

    Args:
        where: what is written, for errors.
        base: tensors before the training.
        adapters: the two factors (down, up) of each layer that has adapters, and DoRA's norms of its rows, by its name.
        scale: what their product is multiplied by.
        trained: tensors that were trained whole, or are changed in a way that only training knows.

    Attributes:
        num_merged: layers that were merged.
        num_equal: tensors that are those of the base.
        num_trained: tensors that were trained whole.
    """

    def __init__(
        self,
        where: str,
        base: Mapping[str, StoredTensor],
        adapters: Mapping[str, Factors],
        scale: float,
        trained: Collection[str],
    ) -> None:
        self.where, self.base, self.adapters, self.scale, self.trained = where, base, adapters, scale, trained
        self.num_merged = self.num_equal = self.num_trained = 0
        self._written: set[str] = set()

    def __call__(self, name: str, value: Tensor) -> None:
        """Checks one tensor.

        Raises:
            TrainingError: it is not what it should be.
        """
        self._written.add(name)
        # The ends of the range: torch.isfinite makes copies of the tensor, and embeddings are the largest.
        if value.numel() and not all(bool(torch.isfinite(end)) for end in torch.aminmax(value)):
            raise self._fault(f"{name} holds NaN or infinity")
        before = self.base.get(name)
        if before is None or name in self.trained:
            self.num_trained += 1
            return
        if before.shape != tuple(value.shape):
            raise self._fault(f"{name} is {list(value.shape)}, and {list(before.shape)} in its base")
        old, layer = before.read(value.dtype), name.removesuffix(".weight")
        if layer in self.adapters and layer != name:
            self._compare(name, value.float(), old.float(), *self.adapters[layer](), torch.finfo(value.dtype).eps)
            self.num_merged += 1
        elif torch.equal(value, old):
            self.num_equal += 1
        else:
            raise self._fault(f"{name} was not trained, and differs from its base")

    def finish(self, tied: Collection[str] = ()) -> str:
        """Checks that nothing is missing; returns what was checked in words.

        Args:
            tied: names of the base that need not be written, because they share another tensor.

        Raises:
            TrainingError: a tensor or the merging of an adapter is missing.
        """
        missing = sorted(set(self.base) - self._written - set(tied))
        if missing:
            raise self._fault(f"{len(missing)} tensors of its base are missing ({missing[0]}, ...)")
        if self.num_merged != len(self.adapters):
            raise self._fault(f"{len(self.adapters)} layers have adapters, and {self.num_merged} were merged")
        return f"{self.num_merged} layers merged, {self.num_trained} tensors trained, {self.num_equal} as in the base"

    def _compare(
        self, name: str, merged: Tensor, old: Tensor, down: Tensor, up: Tensor, norms: Tensor | None, eps: float
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(merged.shape[1], PROBES, generator=generator)
        down, up = down.float(), up.float()
        expected = old @ inputs + self.scale * (up @ (down @ inputs))
        # Each weight is rounded once, and sums of float32 are off by less than 1e-5 of their terms.
        added = abs(self.scale) * (up.abs() @ (down.abs() @ inputs.abs()))
        if norms is not None:
            share = (norms.float() / (old + self.scale * (up @ down)).norm(dim=1))[:, None]
            expected, added = expected * share, added * share.abs()
        terms = merged.abs() @ inputs.abs() + added
        if not bool(((merged @ inputs - expected).abs() <= (eps + 1e-5) * terms).all()):
            raise self._fault(f"{name} is not its base with its adapters merged")

    def _fault(self, text: str) -> TrainingError:
        return TrainingError(self.where, f"{text}; nothing was written; check that base and checkpoint belong together")


def adapter_factors(state: Mapping[str, Weight], settings: LoRASettings | None) -> dict[str, Factors]:
    """The factors of each layer with adapters, by its name.

    Args:
        state: of a model with adapters.
        settings: of the adapters; None where there are none.
    """
    if settings is None:
        return {}
    end = ".lora_A.default.weight"
    layers = [name.removesuffix(end) for name in state if name.endswith(end)]

    def read(layer: str) -> Factors:
        norms = state.get(f"{layer}.lora_magnitude_vector.default.weight")
        pair = state[f"{layer}{end}"], state[f"{layer}.lora_B.default.weight"]
        return lambda: (_tensor(pair[0]), _tensor(pair[1]), None if norms is None else _tensor(norms))

    return {layer: read(layer) for layer in layers}


def changed_names(model: nn.Module, trained: Collection[str]) -> set[str]:
    """Names, as of a model without adapters, of weights that were trained whole, in some rows, or kept in four bits.

    Args:
        model: with its adapters.
        trained: names of its parameters that were trained.
    """
    whole = {plain_name(name) for name in trained if not is_adapter(name)}
    rows = {f"{name.partition('.token_adapter.')[0]}.weight" for name in trained if ".token_adapter." in name}
    packed = {plain_name(f"{name}.weight") for name, module in model.named_modules() if is_four_bit(module)}
    return whole | rows | packed


def _tensor(weight: Weight) -> Tensor:
    return weight.read() if isinstance(weight, LazyTensor) else weight.detach()
