"""Settings of the difficulty filter (paper section 4.2), and the client that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kvg.config.settings import in_file, instantiate, read_yaml
from kvg.errors import ConfigError
from kvg.inference.local import LocalClient
from kvg.inference.request import Client
from kvg.ranges import check_choice
from kvg.text.prompts import PROMPTS
from kvg.training.resolved import answering_settings

CODECS = ("relative", "json", "absolute")
_LOCAL = {"temperature": 1.0, "max_new_tokens": 256, "batch_size": 64}  # defaults of a model in this process
_NOTED = (
    "checkpoint", "client", "codec", "samples", "temperature", "iou", "keep_min", "mode", "max_new_tokens", "limit",
    "seed",
)  # fmt: skip


@dataclass(frozen=True)
class FilterSettings:
    """Section ``filter`` of a project file; the options of ``kvg-data filter`` by the same names.

    Attributes:
        sets: names of the sets of the project; None for all.
        checkpoint: the stage-1 model: a Hugging Face folder, or lab.
        config: overlays with a stage, a backbone or a strategy, merged as by ``kvg -c``.
        client: YAML with ``{class_path, init_args}`` of another client, such as a server.
        codec: box codec of the answers; None for the model's own.
        min_pixels: minimum area to which the client's model enlarges pictures, for absolute boxes.
        max_pixels: maximum area to which it shrinks them.
        samples: number of answers to each sample.
        temperature: sampling temperature of a model in this process; None for 1.
        iou: minimum IoU of a correct answer.
        keep_min: minimum number of correct answers of a kept sample; of a pair (``compositor.paired``), whose two are
            kept or dropped together, the mean of both numbers.
        keep_max: maximum number of them; None for ``samples`` - 1.
        batch_size: prompts per batch of a model in this process; None for 64.
        mode: prompt template.
        max_new_tokens: maximum length of an answer of a model in this process; None for 256.
        limit: number of samples, the first ones; None for all.
        seed: seed of the answers of a model in this process; None for that of the project, or 0.
        samples_per_shard: size of every shard but the last.
    """

    sets: Sequence[str] | None = None
    checkpoint: str | None = None
    config: str | Sequence[str] = field(default_factory=list)
    client: str | None = None
    codec: str | None = None
    min_pixels: int = 56 * 56
    max_pixels: int | None = None
    samples: int = 4
    temperature: float | None = None
    iou: float = 0.5
    keep_min: int = 1
    keep_max: int | None = None
    batch_size: int | None = None
    mode: str = "think"
    max_new_tokens: int | None = None
    limit: int | None = None
    seed: int | None = None
    samples_per_shard: int = 500

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        if self.samples < 1:
            raise ConfigError("filter.samples", f"{self.samples} must be at least 1")
        if not 0 <= self.keep_min <= self.most <= self.samples:
            text = f"{self.keep_min} to {self.most} is not a range within 0 to {self.samples} right answers"
            raise ConfigError("filter.keep_min, filter.keep_max", text)
        if not 0 <= self.iou <= 1:
            raise ConfigError("filter.iou", f"{self.iou} is not within 0 to 1")
        check_choice("filter.mode", self.mode, PROMPTS)
        if self.codec not in (None, *CODECS):
            raise ConfigError("filter.codec", f"'{self.codec}' is not one of {', '.join(CODECS)}")
        if self.client:
            for name in (*_LOCAL, "seed", "checkpoint", "config"):
                if getattr(self, name) not in (None, [], ""):
                    raise ConfigError(f"filter.{name}", "cannot be combined with filter.client; set it in that file")
            return
        for name in ("batch_size", "max_new_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"filter.{name}", f"{getattr(self, name)} must be at least 1")
        if self.samples > 1 and self.temperature is not None and self.temperature <= 0:
            raise ConfigError("filter.temperature", "must be above 0, since greedy answers are all the same")

    def with_seed(self, seed: int) -> FilterSettings:
        """Returns the settings with the project's seed, if a model in this process has no seed of its own."""
        return self if self.client or self.seed is not None else replace(self, seed=seed)

    @property
    def most(self) -> int:
        """Returns the maximum number of correct answers of a kept sample."""
        return self.samples - 1 if self.keep_max is None else self.keep_max

    @property
    def overlays(self) -> list[str]:
        """Returns the paths of the overlays."""
        return [self.config] if isinstance(self.config, str) else list(self.config)

    def of_model(self, name: str) -> Any:
        """Returns a setting of the model in this process, or its default; None if a client answers."""
        value = getattr(self, name)
        return value if value is not None or self.client else {**_LOCAL, "seed": 0}[name]

    def record(self, source: str) -> dict[str, Any]:
        """Returns the settings that the result depends on, for the record and the manifest."""
        values = {**asdict(self), **{name: self.of_model(name) for name in (*_LOCAL, "seed")}}
        return {"source": source, "keep_max": self.most, **{name: values[name] for name in _NOTED}}

    def build_client(self) -> Client:
        """Builds the client: a model in this process, or the one that ``client`` names. Does not load weights.

        Raises:
            ConfigError: a file cannot be read, or a setting is wrong.
        """
        if self.client:
            values = read_yaml(self.client)
            with in_file(self.client):
                client: Client = instantiate(values.get("client", values), "client", Client)
            return client
        backbone: Mapping[str, Any] | str
        if self.overlays:
            backbone, trainer = answering_settings(self.overlays, checkpoint=self.checkpoint)
        elif self.checkpoint:
            backbone, trainer = self.checkpoint, {}
        else:
            raise ConfigError("filter.checkpoint", "is missing; name the stage-1 model, or give filter.client")
        return LocalClient(
            backbone,
            temperature=self.of_model("temperature"),
            max_tokens=self.of_model("max_new_tokens"),
            seed=self.of_model("seed"),
            batch_size=self.of_model("batch_size"),
            trainer=trainer,
        )
