"""Errors that a user can act on: each names where it happened, which field, and what to do."""

from __future__ import annotations


class KVGError(Exception):
    """Base class of all errors raised on purpose by this project."""


class DataError(KVGError):
    """A file or sample that cannot be used.

    Args:
        where: file, shard or sample the problem was found in.
        field: the field or column at fault.
        remedy: what is wrong with it and what would be right.
    """

    def __init__(self, where: str, field: str, remedy: str) -> None:
        super().__init__(f"{where}: {field}: {remedy}")
        self.where, self.field, self.remedy = where, field, remedy

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str, str]]:
        return type(self), (self.where, self.field, self.remedy)  # an error has to come out of a worker process whole


class ConfigError(KVGError):
    """A setting that cannot work, found before anything expensive is loaded.

    Args:
        field: dotted name of the setting.
        remedy: what is wrong with it and what would be right.
    """

    def __init__(self, field: str, remedy: str) -> None:
        super().__init__(f"{field}: {remedy}")
        self.field, self.remedy = field, remedy

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str]]:
        return type(self), (self.field, self.remedy)


class TrainingError(KVGError):
    """A run that must not go on.

    Args:
        where: the step.
        remedy: what happened and what to do.
    """

    def __init__(self, where: str, remedy: str) -> None:
        super().__init__(f"{where}: {remedy}")
        self.where, self.remedy = where, remedy

    def __reduce__(self) -> tuple[type[TrainingError], tuple[str, str]]:
        return type(self), (self.where, self.remedy)


class EngineError(KVGError):
    """An engine that samples for a run does not do so any more; the weights of the run are sound.

    Args:
        where: address or name of the engine.
        remedy: what happened and what to do.
    """

    def __init__(self, where: str, remedy: str) -> None:
        super().__init__(f"{where}: {remedy}")
        self.where, self.remedy = where, remedy

    def __reduce__(self) -> tuple[type[EngineError], tuple[str, str]]:
        return type(self), (self.where, self.remedy)
