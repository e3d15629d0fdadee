"""Section ``probe`` of a project file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvg.errors import ConfigError


@dataclass(frozen=True)
class ProbeSettings:
    """How the model is asked.

    Attributes:
        client: who answers, ``{class_path, init_args}``.
        uses: pictures that it is asked about: ``train``, ``val``, ``test``.
        pictures: of an entity at most.
        questions: about an entity; where there are fewer pictures they are gone round.
        max_side: in pixels; larger pictures are shrunk.
    """

    client: Mapping[str, Any] = field(default_factory=dict)
    uses: Sequence[str] = ("train",)
    pictures: int = 50
    questions: int = 50
    max_side: int = 640

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: one cannot work.
        """
        if not isinstance(self.client, Mapping) or not self.client.get("class_path"):
            raise ConfigError("probe.client", "is missing; add `client: {class_path: ..., init_args: ...}`")
        if isinstance(self.uses, str) or not self.uses or set(self.uses) - {"train", "val", "test"}:
            raise ConfigError("probe.uses", f"{self.uses} are not some of train, val, test")
        for name, low in (("pictures", 1), ("questions", 1), ("max_side", 28)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise ConfigError(f"probe.{name}", f"{value!r} must be a whole number of at least {low}")
