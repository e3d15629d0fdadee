"""Section ``rationalize`` of a project file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kvg.backbones.fingerprint import sampled
from kvg.config.settings import named_class
from kvg.errors import ConfigError
from kvg.inference.request import Client
from kvg.pipeline.settings.classes import check_codec
from kvg.rationales.rules import RationaleRules
from kvg.rationales.variants import RIGHT, check_variant
from kvg.runs.folder import PREDICTIONS

WRITERS = ("cards", "teacher")
_CODEC = {"class_path": "kvg.text.box_codec.RelativeCodec"}


@dataclass(frozen=True)
class RationaleSettings:
    """Section ``rationalize`` of a project file, and the file that ``--teacher`` names.

    Attributes:
        sets: names of the sets of the project; None for all.
        writer: ``cards`` (from the traits of the objects) or ``teacher`` (by a large model).
        teacher: client ``{class_path, init_args}``, such as ``kvg.inference.server.Server``.
        codec: box codec of the teacher.
        rules: rules for its rationales, see ``kvg.rationales.teacher.RationaleRules``.
        max_attempts: maximum number of attempts for a usable answer.
        min_facts: minimum number of traits of every object; other samples are set aside. With 0 the card writer only
            names the objects if one of them has no traits. Only for the card writer.
        variant: change of the card writer's rationales, for experiments, see ``kvg.rationales.variants``; ``right``
            for none.
        seed: decides the choices of a variant.
        answers: predictions of a model on the same samples; the rationales are then those of its right answers.
    """

    sets: Sequence[str] | None = None
    writer: str = "cards"
    teacher: Mapping[str, Any] | None = None
    codec: Mapping[str, Any] = field(default_factory=lambda: dict(_CODEC))
    rules: RationaleRules = field(default_factory=RationaleRules)
    max_attempts: int = 3
    min_facts: int = 0
    variant: str = RIGHT
    seed: int = 0
    answers: str | None = None

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        if self.writer not in WRITERS:
            raise ConfigError("rationalize.writer", f"'{self.writer}' is none of {', '.join(WRITERS)}")
        if self.writer == "teacher" and self.teacher is None:
            remedy = (
                "is missing; add `teacher: "
                "{class_path: kvg.inference.server.Server, init_args: {url: ..., model: ...}}`"
            )
            raise ConfigError("rationalize.teacher", remedy)
        if not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise ConfigError("rationalize.max_attempts", f"{self.max_attempts!r} must be at least 1")
        if self.min_facts and self.writer != "cards":
            raise ConfigError("rationalize.min_facts", "is a setting of the writer cards; remove it, or the teacher")
        check_variant(self.variant)
        changed = (self.variant != RIGHT) + (self.answers is not None) + (self.writer != "cards")
        if changed > 1 or (changed and self.min_facts):
            remedy = "a teacher, a variant, answers and min_facts exclude each other; give one"
            raise ConfigError("rationalize.variant", remedy)
        if self.min_facts < 0:
            raise ConfigError("rationalize.min_facts", f"{self.min_facts} must be at least 0")
        if self.min_facts and self.writer != "cards":
            raise ConfigError("rationalize.min_facts", "is a setting of the writer cards; a teacher gets no facts")

    def check_classes(self) -> None:
        """Checks the classes of the settings, and their arguments.

        Raises:
            ConfigError: a class does not exist, or a setting does not fit it.
        """
        check_codec(self.codec, "rationalize.codec")
        if self.teacher is not None:
            named_class(self.teacher, "rationalize.teacher", Client)

    def record(self) -> dict[str, Any]:
        """Returns the settings that the rationales depend on; of the rules only those that differ from the defaults."""
        record: dict[str, Any] = {"writer": self.writer}
        if self.writer == "teacher":
            defaults = asdict(RationaleRules())
            changed = {name: value for name, value in asdict(self.rules).items() if value != defaults[name]}
            record |= {
                "teacher": self.teacher,
                "codec": self.codec,
                "rules": changed,
                "max_attempts": self.max_attempts,
            }
        if self.min_facts:
            record["min_facts"] = self.min_facts
        if self.variant != RIGHT:
            record |= {"variant": self.variant, "seed": self.seed}
        if self.answers is not None:
            path = Path(self.answers)
            record["answers"] = sampled(path / PREDICTIONS if path.is_dir() else path)
        return record
