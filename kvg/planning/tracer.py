"""Counts the bytes that code would hold, while it runs with tensors that have shapes and no memory."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kvg.planning.parts import Part

# What a tensor is part of, by the innermost function on the stack that stands here; all else is activations.
_ORIGINS: Final = {
    ("kvg/rl/logprobs.py", None): Part.LOGITS,
    ("kvg/rl/sampling.py", None): Part.LOGITS,
    ("kvg/backbones/decoding.py", "_head"): Part.LOGITS,
    ("kvg/backbones/group_state.py", "keep_prompts"): Part.CACHE,
    ("kvg/backbones/group_state.py", "_store"): Part.CACHE,
    ("kvg/backbones/group_state.py", "_widened"): Part.CACHE,
    ("kvg/backbones/token_pass.py", "copy"): Part.GATHERED,
    ("kvg/backbones/token_pass.py", "_merged"): Part.GATHERED,
}
_FILES: Final = {file for file, _ in _ORIGINS}
_BOOLEAN_INDEX: Final = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this mode every new tensor is counted until its memory would be free.

    Weights and what is computed from them are fake tensors. Token ids, masks and positions are real, because lengths
    and shapes follow from their values.

    Args:
        fakes: the mode that the fake tensors belong to.

    Attributes:
        live: bytes by part.
        peak: the same at the moment of the largest sum since ``phase`` began.
    """

    def __init__(self, fakes: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fakes = fakes
        self.live: Counter[Part] = Counter()
        self.peak: Counter[Part] = Counter()
        self._total = self._highest = 0
        self._parts: dict[int, tuple[Part, int]] = {}  # of each storage that is alive
        self._weights: set[int] = set()

    # -- counting --------------------------------------------------------------------------------------------------
    def hold(self, part: Part, num_bytes: int) -> None:
        """Counts bytes that no tensor of the trace has; negative ones are given back."""
        self.live[part] += num_bytes
        self._total += num_bytes
        if self._total > self._highest:
            self._highest, self.peak = self._total, self.live.copy()

    @contextmanager
    def held(self, part: Part, num_bytes: int) -> Iterator[None]:
        """Counts bytes within this block."""
        self.hold(part, num_bytes)
        try:
            yield
        finally:
            self.hold(part, -num_bytes)

    def phase(self) -> None:
        """Starts to look for the peak anew."""
        self._highest, self.peak = self._total, self.live.copy()

    def know(self, tensors: Iterable[Tensor]) -> None:
        """Never counts these: weights, whose bytes follow from how they are shared by processes."""
        for tensor in tensors:
            self._ignore(_storage(tensor))

    def assign(self, tensors: Iterable[Tensor], part: Part) -> None:
        """Moves the memory of tensors to another part."""
        for tensor in tensors:
            key = _storage(tensor)._cdata
            if key in self._parts:
                before, size = self._parts[key]
                self._parts[key] = (part, size)
                self.live[before] -= size
                self.live[part] += size

    def forget(self, tensor: Tensor) -> int:
        """Counts the memory of a tensor no longer; returns its bytes."""
        key = _storage(tensor)._cdata
        part, size = self._parts.pop(key, (Part.ACTIVATIONS, 0))
        self.hold(part, -size)
        self._ignore(_storage(tensor))
        return size

    def _ignore(self, storage: Any) -> None:
        self._weights.add(storage._cdata)
        weakref.finalize(storage, self._weights.discard, storage._cdata)  # another one may get its place

    def _see(self, tensor: Tensor, origin: Callable[[], Part]) -> None:
        if tensor.is_sparse:
            return
        storage = _storage(tensor)
        key, size = storage._cdata, storage.nbytes()
        if not size or key in self._parts or key in self._weights:
            return
        part = origin()
        self._parts[key] = (part, size)
        self.hold(part, size)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        part, size = self._parts.pop(key, (Part.ACTIVATIONS, 0))
        self.live[part] -= size
        self._total -= size

    # -- operators -------------------------------------------------------------------------------------------------
    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Runs an operator and counts what it makes."""
        kwargs = kwargs or {}
        if func in _BOOLEAN_INDEX and isinstance(args[0], FakeTensor):
            args = (args[0], _as_places(args[1]), *args[2:])
        out = _of_known_shape(func, args)
        if out is None:
            out = func(*args, **kwargs)
        origin = lambda: self._origin(func, args)  # noqa: E731  # looked up for new memory alone
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf, origin)
        return out

    def _origin(self, func: Any, args: Sequence[Any]) -> Part:
        if func is torch.ops.aten._to_copy.default and _storage(args[0])._cdata in self._weights:
            return Part.CASTS
        frame = sys._getframe(1)
        while frame is not None:
            name = frame.f_code.co_filename
            file = name[name.rfind("kvg/") :]
            if file in _FILES:
                for function in (frame.f_code.co_name, None):
                    if (file, function) in _ORIGINS:
                        return _ORIGINS[file, function]
            frame = frame.f_back  # type: ignore[assignment]
        return Part.ACTIVATIONS


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()


def _as_places(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Real boolean masks as the places that they name: how many these are is not known to fake tensors."""
    places: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor):
            places += index.nonzero().unbind(1)
        else:
            places.append(index)
    return places


def _of_known_shape(func: Any, args: Sequence[Any]) -> Any:
    """The results of operators that have none for fake tensors although their shapes are known; None for all others."""
    name = str(func)
    if name.startswith("aten.masked_scatter_backward"):
        return args[0].new_empty(args[2])
    if name.startswith("mkldnn._reorder_linear_weight"):
        return torch.empty_like(args[0])
    return None
