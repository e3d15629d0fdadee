"""What a process holds of a model's weights, and what FSDP2 gathers of the others while they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kvg.planning.parts import Part
from kvg.planning.tracer import Tracer


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each counted once."""
    return sum({id(t): t.numel() * t.element_size() for t in tensors}.values())


@dataclass(frozen=True)
class Sharing:
    """How weights are spread.

    Attributes:
        processes: that share them; 1 where each has its own.
        kept: parameters that each process has whole nevertheless.
    """

    processes: int = 1
    kept: frozenset[int] = frozenset()

    def shape(self, parameter: Tensor) -> tuple[int, ...]:
        """Of the largest share of a parameter: FSDP2 cuts the first dimension."""
        if self.processes == 1 or id(parameter) in self.kept or not parameter.dim():
            return tuple(parameter.shape)
        return -(-parameter.shape[0] // self.processes), *parameter.shape[1:]

    def bytes_of(self, parameters: Iterable[Tensor]) -> int:
        """Bytes of the largest shares."""
        unique = {id(p): p for p in parameters}.values()
        total = 0
        for parameter in unique:
            count = parameter.element_size()
            for side in self.shape(parameter):
                count *= side
            total += count
        return total

    def gathered(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """Those that have to be gathered before use."""
        return [p for p in parameters if self.processes > 1 and id(p) not in self.kept]


class _Unit:
    """A module that FSDP2 shards for itself."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.trained = [p for p in parameters if p.requires_grad]
        self.bytes = size_of(parameters)
        self.gradients = 0  # bytes of whole gradients that are there
        self.waiting = len(self.trained)


class Gathering:
    """Counts what FSDP2 gathers and sends, in the order in which it does, while a whole model is traced.

    In a forward pass the weights of a unit exist twice: as the message, which is kept until the next unit's has come,
    and copied out of it. In a backward pass the next unit's message is there already, and gradients are whole until
    the unit is done; their message is kept until the next unit's. The root (embeddings, head, norms) stays gathered
    from the first pass to the end of the backward pass. Seen in ``torch.distributed.fsdp``, 2.13.

    Args:
        tracer: that counts.
        root: the backbone.
        units: see ``Family.fsdp_units``.
        sharing: of its weights.
    """

    def __init__(self, tracer: Tracer, root: nn.Module, units: Sequence[nn.Module], sharing: Sharing) -> None:
        self.tracer, self.sharing = tracer, sharing
        own = {id(p) for unit in units for p in unit.parameters()}
        self.root = _Unit(sharing.gathered(p for p in root.parameters() if id(p) not in own))  # type: ignore[arg-type]
        self.units = [_Unit(sharing.gathered(unit.parameters())) for unit in units]  # type: ignore[arg-type]
        self.active = True
        self.fresh = True  # the next backward pass makes gradients, and does not add to them
        self._whole = self._backward = False
        self._message = self._sent = 0  # bytes of the last message of weights, and of gradients
        self._order: list[_Unit] = []
        self._current: _Unit | None = None
        self._ahead: _Unit | None = None
        self._hooks: list[Any] = []
        for module, unit in zip(units, self.units, strict=True):
            self._hooks.append(module.register_forward_pre_hook(self._before(unit)))
            self._hooks.append(module.register_forward_hook(self._after(unit)))
        for unit in (self.root, *self.units):
            for parameter in unit.trained:
                hook = parameter.register_post_accumulate_grad_hook(self._accumulated(unit))  # type: ignore[no-untyped-call]
                self._hooks.append(hook)

    def remove(self) -> None:
        """Removes all hooks."""
        for hook in self._hooks:
            hook.remove()

    def _hold(self, num_bytes: int, part: Part = Part.GATHERED) -> None:
        self.tracer.hold(part, num_bytes)

    # -- forward ---------------------------------------------------------------------------------------------------
    def enter(self) -> None:
        """A pass begins: the root is gathered, unless it still is."""
        if not self._whole:
            self._gather(self.root)
            self._whole = True

    def leave(self) -> None:
        """Nothing is gathered any longer."""
        self._hold(-self._message - (self.root.bytes if self._whole else 0))
        self._message, self._whole = 0, False
        self._order.clear()

    @contextmanager
    def frozen_copy(self) -> Iterator[None]:
        """Within this block a copy runs that is never trained: its root is gathered besides, and freed at the end."""
        before = self._whole, self._message
        self._whole, self._message = False, 0
        yield
        self.leave()
        self._whole, self._message = before

    def _gather(self, unit: _Unit) -> None:
        self._hold(unit.bytes)
        self._hold(-self._message)
        self._hold(unit.bytes)
        self._message = unit.bytes

    def _before(self, unit: _Unit) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if self.active and not self._backward:
                self._gather(unit)

        return hook

    def _after(self, unit: _Unit) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            if not self.active or self._backward:
                return
            self._hold(-unit.bytes)
            states = out[0] if isinstance(out, tuple) else out
            if isinstance(states, Tensor) and states.requires_grad:
                self._order.append(unit)
                states.register_hook(lambda gradient: self._arrive(unit))  # type: ignore[no-untyped-call]

        return hook

    # -- backward --------------------------------------------------------------------------------------------------
    def backward(self, loss: Tensor) -> None:
        """Runs a backward pass."""
        self._backward = True
        for unit in (self.root, *self.units):
            unit.waiting, unit.gradients = len(unit.trained), 0
        loss.backward()  # type: ignore[no-untyped-call]
        if self._current is not None:
            self._finish(self._current)
        if self._ahead is not None:
            self._hold(-self._ahead.bytes)
        self._send(self.root)
        self._hold(-self._sent, Part.BUFFERS)
        self._current, self._ahead, self._backward, self._sent = None, None, False, 0
        self.leave()

    def _arrive(self, unit: _Unit) -> None:
        if not self.active:
            return
        if self._current is not None:
            self._finish(self._current)
        if self._ahead is not unit:
            self._hold(unit.bytes)  # its message
        self._hold(unit.bytes)
        self._hold(-unit.bytes)
        self._hold(-self._message)
        self._message, self._current, self._ahead = 0, unit, None
        place = self._order.index(unit) if unit in self._order else 0
        if place:
            self._ahead = self._order[place - 1]
            self._hold(self._ahead.bytes)

    def _accumulated(self, unit: _Unit) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            assert parameter.grad is not None
            size = self.tracer.forget(parameter.grad)
            parameter.grad = None
            self._hold(size, Part.BUFFERS)
            unit.gradients += size
            unit.waiting -= 1
            if not unit.waiting and unit is self._current:
                self._finish(unit)

        return hook

    def _finish(self, unit: _Unit) -> None:
        if unit is self._current:
            self._hold(-unit.bytes)
            self._current = None
        self._send(unit)

    def _send(self, unit: _Unit) -> None:
        """Gradients become a message, and the message a share."""
        if not unit.gradients:
            return
        self._hold(-self._sent, Part.BUFFERS)
        self._hold(unit.gradients, Part.BUFFERS)
        share = unit.gradients // self.sharing.processes
        self._hold(share, Part.GRADIENTS)
        self._hold(-unit.gradients, Part.BUFFERS)
        if not self.fresh:  # it has been added to the share that was there
            self._hold(-share, Part.GRADIENTS)
        self._sent, unit.gradients = unit.gradients, 0
