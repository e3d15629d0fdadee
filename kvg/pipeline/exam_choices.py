"""Tasks that no stage trains, in the exam of the lab's model: choices by probability, and descriptions of a scene."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from kvg.backbones.backbone import Backbone
from kvg.batches import Example
from kvg.composites.compositor import Compositor
from kvg.lab.traits import Card, load_cards, neighbours
from kvg.lab.world import LabSource, lab_canvas
from kvg.rewards.process import SeenTraitsReward
from kvg.text.answer import read_answer
from kvg.text.prompts import prompt
from kvg.types import Completion, Records, Sample

CHOICES = 4
DESCRIBE = "Describe the objects."
_ROWS = 32  # examples whose logits are in memory at once


@torch.no_grad()
def most_probable(backbone: Backbone, questions: Sequence[Sequence[Example]]) -> list[int]:
    """Returns the number of the most probable answer to each question.

    Args:
        backbone: a small model.
        questions: for each, an example of every answer. The sum of the log-probabilities of its labels counts.
    """
    flat = [example for answers in questions for example in answers]
    scores: list[float] = []
    for start in range(0, len(flat), _ROWS):
        batch = backbone.processor.collate(flat[start : start + _ROWS], Records[Sample]())
        logprobs = backbone.logits(batch)[:, :-1].float().log_softmax(-1)
        labels = batch.labels[:, 1:]
        own = logprobs.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        scores += torch.where(labels >= 0, own, torch.zeros_like(own)).sum(1).tolist()
    best, at = [], 0
    for answers in questions:
        best.append(max(range(len(answers)), key=lambda n, at=at: scores[at + n]))  # type: ignore[misc]
        at += len(answers)
    return best


def choose_card(backbone: Backbone, seed: int) -> dict[str, float]:
    """Returns the share of known cards that are more probable behind the name than those of three others, by split.

    The others are look-alikes where there are enough, and of the same category; a guess is right in a quarter.
    """
    rng, encode = random.Random(seed), backbone.processor.encode_text
    cards = [card for card in load_cards() if card.known]
    choices = [[card, *_others(card, rng)] for card in cards]
    questions = [[encode(None, f"<think>Plan: the {own[0].name} is {c.traits.text}.") for c in own] for own in choices]
    return _by_split(
        "choose card", [card.split for card in cards], most_probable(backbone, questions), [0] * len(cards)
    )


def choose_drawing(backbone: Backbone, num: int, seed: int) -> dict[str, float]:
    """Returns the share of names of known entities whose box is the most probable of four, by split.

    Args:
        backbone: a model of the lab.
        num: number of composites of four entities, with look-alikes.
        seed: seed of the composites.
    """
    source = LabSource(knowledge="known", variants=4, pool="exam")
    compositor = Compositor(source, lab_canvas(seed, {CHOICES: 1.0}, 0.8))
    scenes = [compositor.sample(number) for number in range(num)]
    best = most_probable(backbone, [_boxes(backbone, scene, scene.entity) for scene in scenes])
    return _by_split("choose drawing", [s.split for s in scenes], best, [s.target for s in scenes])


def compare(backbone: Backbone, scenes: Sequence[Sample], seed: int) -> float:
    """Returns how often the one of two objects that has a trait has the more probable box; a guess is right in half.

    Args:
        backbone: a model of the lab.
        scenes: of two objects each.
        seed: chooses the trait among those in which they differ.
    """
    rng, questions = random.Random(seed), []
    for scene in scenes:
        first, second = (item.traits for item in scene.objects)
        slot = rng.choice([n for n, (a, b) in enumerate(zip(first, second, strict=True)) if a != b])
        questions.append(_boxes(backbone, scene, scene.objects[scene.target].traits[slot]))
    best = most_probable(backbone, questions)
    return sum(n == scene.target for n, scene in zip(best, scenes, strict=True)) / len(scenes)


def described(backbone: Backbone, scenes: Sequence[Sample], texts: Sequence[str]) -> float:
    """Returns the share of the traits of all objects that stand behind their boxes in descriptions.

    Args:
        backbone: wrote them.
        scenes: what was described.
        texts: answers to ``DESCRIBE``.
    """
    sizes = [backbone.processor.image_size(scene.width, scene.height) for scene in scenes]
    answers = [
        read_answer(Completion(f"<think>- {text}</think>", None, ""), backbone.codec, size)
        for text, size in zip(texts, sizes, strict=True)
    ]
    return float(SeenTraitsReward()(answers, scenes).mean())


def _others(card: Card, rng: random.Random) -> list[Card]:
    """Returns three further cards of the category, look-alikes first."""
    near = list(neighbours(card))
    rest = [c for c in load_cards() if c.category == card.category and c not in [card, *near]]
    rest = [c for c in rest if c.traits != card.traits]
    rng.shuffle(near)
    rng.shuffle(rest)
    return [*near, *rest][: CHOICES - 1]


def _boxes(backbone: Backbone, scene: Sample, wanted: str) -> list[Example]:
    p, text = backbone.processor, prompt(wanted, "direct", backbone.processor.prompt_format)
    return [p.encode_question(scene.key, scene.image, text, box) for box in p.box_texts(scene)]


def _by_split(name: str, splits: Sequence[str], best: Sequence[int], right: Sequence[int]) -> dict[str, float]:
    figures = {}
    for split in ("seen", "unseen"):
        hits = [a == b for own, a, b in zip(splits, best, right, strict=True) if own == split]
        figures[f"{name} {split}"] = sum(hits) / max(1, len(hits))
    return figures
