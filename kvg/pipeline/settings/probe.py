"""Section ``probe`` of a project file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvg.errors import ConfigError


@dataclass(frozen=True)
class ProbeSettings:
    """Section ``probe`` of a project file.

    Attributes:
        client: ``{class_path, init_args}`` of the client.
        uses: uses of the pictures: ``train``, ``val``, ``test``.
        pictures: maximum number of pictures of an entity.
        questions: number of questions about an entity; if it has fewer pictures, they are used repeatedly.
        max_side: maximum side in pixels; larger pictures are shrunk.
    """

    client: Mapping[str, Any] = field(default_factory=dict)
    uses: Sequence[str] = ("train",)
    pictures: int = 50
    questions: int = 50
    max_side: int = 640

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        if not isinstance(self.client, Mapping) or not self.client.get("class_path"):
            raise ConfigError("probe.client", "is missing; add `client: {class_path: ..., init_args: ...}`")
        if isinstance(self.uses, str) or not self.uses or set(self.uses) - {"train", "val", "test"}:
            raise ConfigError("probe.uses", f"{self.uses} are not some of train, val, test")
        for name, low in (("pictures", 1), ("questions", 1), ("max_side", 28)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise ConfigError(f"probe.{name}", f"{value!r} must be a whole number of at least {low}")
