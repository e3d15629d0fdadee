"""The model card of an export: how it was trained, on what, with which figures, and how it is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from kvg.backbones.folders import describe
from kvg.backbones.processor import ChatProcessor
from kvg.errors import ConfigError, DataError
from kvg.evaluation.figures.accuracy import figures
from kvg.evaluation.figures.estimate import in_words
from kvg.evaluation.records.prediction import read_predictions
from kvg.shards.manifest import MANIFEST, read_manifest, sha256_of

CARD: Final = "README.md"
_GROUPS: Final = ("all", "split", "set")
_BEGINS: Final = "---\n"


@dataclass(frozen=True)
class CardSources:
    """What a card is made of besides the training.

    Attributes:
        runs: folders with predictions of the model, whose figures it quotes.
        data: sets that it was trained on; none takes those of the training's config.
        licence: of the model, as an SPDX identifier; '' takes that of the base's card.
    """

    runs: Sequence[str] = ()
    data: Sequence[str] = ()
    licence: str = ""


def model_card(
    processor: ChatProcessor,
    mode: str | None,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    sources: CardSources,
) -> str:
    """The text of the card; what is not known is said to be unknown.

    Args:
        processor: of the model.
        mode: prompt mode.
        config: settings of the training; empty where there are none.
        facts: ``checkpoint``, ``base``, ``steps`` and ``apart`` (adapters alone).
        sources: see ``CardSources``.

    Raises:
        ConfigError: a folder of predictions or a set of data cannot be read.
    """
    licence = sources.licence or _licence_of(str(facts["base"]))
    head: dict[str, Any] = {"library_name": "peft" if facts["apart"] else "transformers"}
    head |= {"pipeline_tag": "image-text-to-text", "tags": ["visual-grounding", "kvg"]}
    head |= {"license": licence} if licence else {}
    if not Path(str(facts["base"])).exists() and "/" in str(facts["base"]):
        head["base_model"] = facts["base"]
    lines = [
        *(f"{_BEGINS}{yaml.safe_dump(head, sort_keys=False)}---", ""),
        *("# Visual grounding by the name of an entity", ""),
        "The model finds a named entity on a picture and answers with one box.",
        *("", "## How it is asked", "", *_prompt(processor, mode)),
        *("", "## Training", "", *_training(config, facts)),
        *("", "## Data", "", *_data(config, sources)),
        *("", "## Figures", "", *_figures(sources.runs)),
        *("", "## Licence", "", f"`{licence}`" if licence else "Not known; ask those who trained it."),
        "Licences of the training pictures are listed under Data, as far as the sets name them.",
    ]
    return "\n".join(lines) + "\n"


def _prompt(processor: ChatProcessor, mode: str | None) -> Iterator[str]:
    about = describe(processor, mode)
    yield f"- Prompt mode: `{mode or 'not known'}`"
    yield f"- The user's turn, after the picture: `{about['prompt']}`"
    yield f"- Boxes: {about['box']['unit']}; the middle half of a square picture is `{about['box']['example']}`"
    yield f"- Pictures are resized to {about['min_pixels']} to {about['max_pixels']} pixels; sides follow the patches."
    yield "- `chat_template.jinja` makes the prompt, `preprocessor_config.json` the pixels; `kvg.json` repeats this."


def _training(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"- From: `{facts['base']}`"
    yield f"- Checkpoint: `{facts['checkpoint']}`" + (f", step {facts['steps']}" if facts["steps"] else "")
    if not config:
        yield "- Its settings are not known."
        return
    model = config.get("model") or {}
    init, data = model.get("init_args") or {}, (config.get("data") or {}).get("init_args") or {}
    optimizer = (init.get("optimizer") or {}).get("init_args") or {}
    backbone = (init.get("backbone") or {}).get("init_args") or {}
    yield f"- Stage: `{str(model.get('class_path')).rpartition('.')[2]}`"
    seeds = {"run": config.get("seed_everything"), "data": data.get("seed"), "rollouts": init.get("seed")}
    yield "- Seeds: " + ", ".join(f"{name} {seed}" for name, seed in seeds.items() if seed is not None)
    yield f"- Learning rate {optimizer.get('lr')}, batch {data.get('batch_size')}"
    yield f"- LoRA: {backbone.get('lora') or 'none'}"
    yield "- All settings: `training.yaml`"


def _data(config: Mapping[str, Any], sources: CardSources) -> Iterator[str]:
    data = (config.get("data") or {}).get("init_args") or {}
    places = list(sources.data) or [str(data[name]) for name in ("train", "replay") if data.get(name)]
    if not places:
        yield "Not known."
    for place in places:
        yield from _set(Path(place), given=bool(sources.data))


def _set(path: Path, given: bool) -> Iterator[str]:
    if not path.exists():
        if given:
            raise ConfigError("--data", f"'{path}' does not exist; correct the path")
        yield f"- `{path}`: no longer here"
    elif (path / MANIFEST).is_file():
        try:
            manifest = read_manifest(path)
        except DataError as error:
            raise ConfigError("--data", str(error)) from error
        digest = hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
        yield f"- `{path}`: {manifest.num_samples} samples, seed {manifest.seed}, revision {manifest.revision or '-'}"
        yield f"  - SHA-256 of its manifest: `{digest}`"
        for name in ("category", "split", "licences"):
            counts = manifest.counts.get(name) or {}
            named = ", ".join(f"{'not known' if key == '-' else key} {num}" for key, num in counts.items())
            yield f"  - {name}: {named or 'not known'}"
    elif path.is_file():
        yield f"- `{path}`: SHA-256 `{sha256_of(path)}`; licences not known"
    else:
        yield f"- `{path}`: a folder without a manifest; licences not known"


def _figures(runs: Sequence[str]) -> Iterator[str]:
    if not runs:
        yield "None were given."
        return
    yield "Accuracy is the share of answers with an IoU of at least 0.5, with its 95% interval (pictures resampled)."
    yield ""
    yield "| run | cases | n | accuracy | no box |"
    yield "|--|--|--|--|--|"
    for run in runs:
        try:
            cases = read_predictions(run)
        except DataError as error:
            raise ConfigError("--figures", str(error)) from error
        for row in figures(cases, seed=0):
            if row["by"] in _GROUPS:
                shares = (in_words(row["accuracy"]), in_words(row["unparsed"]))
                yield f"| {run} | {row['name']} | {row['n']} | {shares[0]} | {shares[1]} |"


def _licence_of(base: str) -> str:
    """The licence in the card of a folder; '' where it names none."""
    card = Path(base) / CARD
    if not card.is_file():
        return ""
    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith(_BEGINS):
        return ""
    try:
        head = yaml.safe_load(text[len(_BEGINS) :].partition("\n---")[0])
    except yaml.YAMLError:
        return ""
    return json.dumps(head.get("license")).strip('"') if isinstance(head, dict) and head.get("license") else ""
