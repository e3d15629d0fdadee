"""Templates of the commands of experiments, and the steps that they become.

A step is known by its identity: its command with all that it is made of. Two questions that need the same model
therefore share it, and a result that was measured on another machine is recognised.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Final

import yaml

from kvg.config.overlay_files import SHIPPED
from kvg.config.settings import in_file, read_yaml, settings_of
from kvg.errors import ConfigError
from kvg.workflow.dag import MODULES, Step
from kvg.workflow.demo import config_path
from kvg.workflow.sweep_plan import last_checkpoint

LIBRARY: Final = "configs/lab/experiments.yaml"
BASE: Final = "base"  # in the place of a step: the shipped base model
MODEL, WEIGHTS = "model", "weights"  # the model that is measured, and the placeholder of its weights
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_SEED: Final = re.compile(r"seed(?:_(\d))?")
SETS_A_SEED: Final = 10  # each set of a seed has a seed of its own, as in the demo
_DEPTH: Final = 30  # steps in a chain


@dataclass(frozen=True)
class Template:
    """A step of the library.

    Attributes:
        run: command. ``{out}`` is its own folder, ``{seed}`` the seed, ``{seed_N}`` that of its Nth set, ``{NAME}`` the
            folder of another step, a value of ``values``, or ``{weights}``: those of the step ``model``.
        like: name of the template whose command and other fields it takes over; None if it has its own.
        add: words that are added to that command.
        use: other steps in the place of those that this step, and all that it is made of, would use. Where both a step
            and what needs it replace one, the step's own holds.
        proof: file below its folder that exists when it is complete; ``.`` if it makes a single file.
        cores: number of cores that it uses.
    """

    run: str = ""
    like: str | None = None
    add: str = ""
    use: Mapping[str, str] = field(default_factory=dict)
    proof: str = "manifest.json"
    cores: int = 1


@dataclass(frozen=True)
class Library:
    """All templates, and the values in them.

    Attributes:
        values: texts by placeholder.
        fast: values of a quick check, which override these.
        steps: templates by name.
    """

    values: Mapping[str, str | int] = field(default_factory=dict)
    fast: Mapping[str, str | int] = field(default_factory=dict)
    steps: Mapping[str, Template] = field(default_factory=dict)

    def with_steps(self, steps: Mapping[str, Template], where: str) -> Library:
        """Returns the library with the steps of a question.

        Raises:
            ConfigError: a name is in the library already.
        """
        twice = sorted(set(steps) & set(self.steps))
        if twice:
            raise ConfigError(f"steps.{twice[0]}", f"is already in {LIBRARY}; rename it (in {where})")
        return replace(self, steps={**self.steps, **steps})

    def quick(self) -> Library:
        """Returns the library with the values of a quick check."""
        return replace(self, values={**self.values, **self.fast})

    def template(self, name: str) -> Template:
        """Returns a template with all that it takes over from others.

        Raises:
            ConfigError: it does not exist, or has no command.
        """
        chain: list[Template] = []
        following: str | None = name
        while following is not None:
            if following not in self.steps or len(chain) > _DEPTH:
                raise ConfigError(f"steps.{following}", f"is needed by '{name}', and is no step; correct the name")
            chain.append(self.steps[following])
            following = chain[-1].like
        root = chain[-1]
        if not root.run:
            raise ConfigError(f"steps.{name}.run", "is missing; give a command, or `like: STEP`")
        words = " ".join([root.run, *(one.add for one in reversed(chain) if one.add)])
        use: dict[str, str] = {}
        for one in reversed(chain):
            use |= one.use
        return replace(root, run=words, use=use)

    def root(self, name: str) -> str:
        """Returns the name of the template with the command."""
        template = self.steps[name]
        return name if template.like is None else self.root(template.like)


def load_library() -> Library:
    """Reads the library.

    Raises:
        ConfigError: it cannot be read, or a setting is wrong.
    """
    path = config_path(LIBRARY)
    with in_file(path):
        return settings_of(Library, read_yaml(path))


@dataclass(frozen=True)
class Made:
    """A resolved step.

    Attributes:
        name: root of its template and identity; name of its folder, log and stamp.
        title: name of its template.
        identity: digest of the command and of all that it is made of.
        settings: digest of the contents of the configs that it and all before it read.
        step: the step to run.
        needs: what it is made of.
    """

    name: str
    title: str
    identity: str
    settings: str
    step: Step
    needs: tuple[Made, ...]

    @property
    def folder(self) -> Path:
        """Returns its folder."""
        return self.step.out

    def chain(self) -> list[Made]:
        """Returns all that it is made of and itself, each once, in an order in which they can run."""
        ordered: dict[str, Made] = {}
        for need in self.needs:
            ordered |= {one.name: one for one in need.chain()}
        return list({**ordered, self.name: self}.values())


class StepMaker:
    """Resolves templates.

    Args:
        library: the templates.
        out: folder for all steps.
    """

    def __init__(self, library: Library, out: Path) -> None:
        self.library, self.out = library, out
        self._made: dict[tuple[str, str, int | None, str], Made] = {}

    def made(self, name: str, seed: int, use: Mapping[str, str] | None = None, extra: str = "") -> Made:
        """Returns a step and all that it is made of.

        Args:
            name: name of the template.
            seed: value of ``{seed}``.
            use: replaced steps, see ``Template.use``.
            extra: words that are added to the command.

        Raises:
            ConfigError: a template or a placeholder does not exist, or steps need each other.
        """
        return self._resolve(name, seed, dict(use or {}), extra, 0)

    def _resolve(self, name: str, seed: int, use: dict[str, str], extra: str, depth: int) -> Made:
        if depth > _DEPTH:
            raise ConfigError(f"steps.{name}", "needs itself; correct `run` or `use`")
        template = self.library.template(name)
        use = {**use, **template.use}
        key = (name, json.dumps(use, sort_keys=True), seed, extra)
        if key not in self._made:
            self._made[key] = self._build(name, template, seed, use, extra, depth)
        return self._made[key]

    def _build(self, name: str, template: Template, seed: int, use: dict[str, str], extra: str, depth: int) -> Made:
        needs: dict[str, Made] = {}
        texts, marks = dict[str, str](), dict[str, str]()  # what a placeholder means in the command and the identity

        def fill(match: re.Match[str]) -> str:
            word = match[1]
            if word == "out":
                return match[0]
            if own := _SEED.fullmatch(word):
                return str(seed if own[1] is None else SETS_A_SEED * seed + int(own[1]))
            if word in self.library.values:
                return _PLACEHOLDER.sub(fill, str(self.library.values[word]))
            if word == WEIGHTS and use.get(MODEL) == BASE:
                return "lab"
            if word == WEIGHTS:
                return f"{fill_step(use.get(MODEL, MODEL))}/export"
            return "lab" if word == BASE else fill_step(use.get(word, word))

        def fill_step(actual: str) -> str:
            needs[actual] = self._resolve(actual, seed, use, "", depth + 1)
            texts[actual], marks[actual] = str(needs[actual].folder), needs[actual].identity
            return f"{{{actual}}}"

        words = [_config(word) for word in shlex.split(_PLACEHOLDER.sub(fill, f"{template.run} {extra}".strip()))]
        if not words or words[0] not in MODULES:
            raise ConfigError(f"steps.{name}.run", f"must begin with one of {', '.join(MODULES)}")
        parts = [_filled([_relative(word) for word in words], marks), _base_marks()]
        identity = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        own = f"{self.library.root(name)}-{identity[:10]}"
        folder = self.out / "steps" / own
        command = tuple(_filled(words, {**texts, "out": str(folder)}))
        configs = tuple(Path(word) for word in words if word.endswith(".yaml") and Path(word).is_file())
        contents = [_content(path) for path in configs] + [need.settings for need in needs.values()]
        step = Step(
            own, name, command, folder, folder / template.proof,
            tuple(need.name for need in needs.values()), configs, template.cores, "".join(_base_marks()),
            partial(last_checkpoint, folder) if words[:2] == ["kvg", "fit"] else tuple if words[0] == "kvg" else None,
        )  # fmt: skip
        settings = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
        return Made(own, name, identity, settings, step, tuple(needs.values()))


def _filled(words: list[str], texts: Mapping[str, str]) -> list[str]:
    return [_PLACEHOLDER.sub(lambda match: texts.get(match[1], match[0]), word) for word in words]


def _config(word: str) -> str:
    return config_path(word) if word.startswith("configs/") else word


def _relative(word: str) -> str:
    """Returns a shipped config by its name in the package, so that an identity is the same everywhere."""
    return word.removeprefix(f"{SHIPPED}/") if word.startswith(f"{SHIPPED}/configs/") else word


@cache
def _base_marks() -> tuple[str, ...]:
    """Returns the checksums of the shipped base model: with another one all results are others."""
    return tuple((SHIPPED / "kvg/lab/base/SHA256SUMS").read_text("utf-8").splitlines())


@cache
def _content(path: Path) -> str:
    """Returns the settings of a config without its comments."""
    return json.dumps(yaml.safe_load(path.read_text("utf-8")), sort_keys=True)
