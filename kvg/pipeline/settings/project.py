"""Project files: the sections of all steps of the data engine, checked when the file is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kvg.catalogue.box_rules import BoxSettings
from kvg.catalogue.project import SOURCE_METHODS, CatalogueProject, read_project
from kvg.config.settings import in_file, named_class
from kvg.inference.request import Client
from kvg.pipeline.settings.classes import TILE_METHODS, check_codec
from kvg.pipeline.settings.compose import ComposeSettings, check_names
from kvg.pipeline.settings.filter import FilterSettings
from kvg.pipeline.settings.probe import ProbeSettings
from kvg.pipeline.settings.rationalize import RationaleSettings
from kvg.pipeline.settings.shard import ProjectShards

T = TypeVar("T")


@dataclass(frozen=True)
class Project(CatalogueProject):
    """A project file. A missing section is None.

    Attributes:
        box: settings of boxes by a grounding model.
        probe: settings of the knowledge probe.
        compose: settings of the sets of composites.
        rationalize: settings of rationales.
        filter: settings of the difficulty filter.
        shard: settings of the final training sets.
    """

    box: BoxSettings | None = None
    probe: ProbeSettings | None = None
    compose: ComposeSettings | None = None
    rationalize: RationaleSettings | None = None
    filter: FilterSettings | None = None
    shard: ProjectShards | None = None

    def settings(self, section: str, kind: type[T]) -> T:
        """Returns the settings of a section; the defaults of ``kind`` if the section is missing.

        Raises:
            ConfigError: the section is missing and has a setting without a default.
        """
        value = getattr(self, section)
        if isinstance(value, kind):
            return value
        with in_file(self.path):
            return kind()

    def check_classes(self) -> None:
        """Imports every class that the file names, and checks its arguments. Builds no object and opens no data.

        Raises:
            ConfigError: a class does not exist, or an argument does not fit it.
        """
        with in_file(self.path):
            for name, source in self.sources.items():
                named_class(source, f"sources.{name}", SOURCE_METHODS)
            if self.compose is not None:
                for setting in self.compose.sets.values():
                    named_class(self.compose.source(setting, self.path), "compose.tiles", TILE_METHODS)
            if self.rationalize is not None:
                self.rationalize.check_classes()
            if self.probe is not None:
                named_class(self.probe.client, "probe.client", Client)
            if self.box is not None:
                _check_box(self.box)


def load_project(path: str | Path) -> Project:
    """Reads a project file and checks the settings of all steps.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or outside its range.
    """
    project = read_project(path, Project)
    sets = project.compose.sets if project.compose else {}
    with in_file(path):
        for section in ("rationalize", "filter", "shard"):
            check_names(getattr(getattr(project, section), "sets", None), sets, f"{section}.sets")
    return project


def _check_box(settings: BoxSettings) -> None:
    for name in ("client", "second"):
        if (client := getattr(settings, name)) is not None:
            named_class(client, f"box.{name}", Client)
    for name in ("codec", "second_codec"):
        if (codec := getattr(settings, name)) is not None:
            check_codec(codec, f"box.{name}")
