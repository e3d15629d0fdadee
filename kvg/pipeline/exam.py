"""Measures the skills of the lab's model separately: seeing, picking, recalling, choosing, describing."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch

from kvg.backbones.backbone import Backbone
from kvg.boxes import iou
from kvg.composites.compositor import Compositor
from kvg.lab.skills import named_by_card
from kvg.lab.traits import load_cards
from kvg.lab.world import TraitSource, lab_canvas
from kvg.pipeline.exam_choices import DESCRIBE, choose_card, choose_drawing, compare, described
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from kvg.text.prompts import prompt
from kvg.types import Sample, traits_of

_SLOTS = ("colour", "marking", "part", "build")


def examine(backbone: Backbone, num: int, seed: int) -> dict[str, float]:
    """Returns the share of correct answers for each skill, on scenes with drawings that pretraining has not used.

    Args:
        backbone: a model of the lab.
        num: number of scenes per skill.
        seed: seed of the scenes.
    """
    figures: dict[str, float] = {}
    for k in (1, 2, 3, 4):
        scenes = _scenes(k, num, seed + k)
        prompts = _questions(scenes, seed)
        for skill in ("ground", "reason", "told") if k > 1 else ("ground",):
            shares = _ground(backbone, scenes, prompts[skill], 40 if skill == "ground" else 70 * k)
            figures |= {f"{skill} k={k} {name}": value for name, value in shares.items()}
        if k == 2:
            figures["compare"] = compare(backbone, scenes, seed)
        if k == 3:
            figures |= _naming(backbone, scenes)
            texts = _texts(backbone, [DESCRIBE] * len(scenes), scenes, 40 * k)
            figures["describe"] = described(backbone, scenes, texts)
    picks = [figures[f"ground k={k} acc"] for k in (2, 3, 4)]
    figures["ground k=2-4 acc"] = sum(picks) / 3
    figures |= choose_card(backbone, seed) | choose_drawing(backbone, num, seed)
    return figures | _recall(backbone)


def _scenes(k: int, num: int, seed: int) -> list[Sample]:

    compositor = Compositor(TraitSource(families=20, variants=1, seed=seed), lab_canvas(seed, {k: 1.0}, 0.5))
    return [compositor.sample(i) for i in range(num)]


def _texts(backbone: Backbone, questions: list[str], scenes: list[Sample] | None, max_new_tokens: int) -> list[str]:
    """Generates greedy answers to one question per scene, or to questions without a picture."""
    p, out = backbone.processor, []
    for start in range(0, len(questions), 100):
        rows = []
        for n in range(start, min(start + 100, len(questions))):
            if scenes is None:
                row = p.encode_text(None, questions[n])  # the model continues the text, so its end token is removed
                rows.append(replace(row, input_ids=row.input_ids[:-1], labels=row.labels[:-1]))
            else:
                rows.append(p.encode_turns(scenes[n], [questions[n]]))
        batch = p.collate(rows, (scenes or [])[start : start + 100], pad_left=True)
        result = rollout(backbone, batch, SamplingSettings(max_new_tokens, 0.0))
        for tokens, mask in zip(result.tokens, result.completion_mask, strict=True):
            kept = [t for t in tokens[mask].tolist() if t not in backbone.end_token_ids]
            out.append(p.tokenizer.decode(kept))
    return out


def _questions(scenes: list[Sample], seed: int) -> dict[str, list[str]]:
    """Returns for each skill a question about the target of each scene; ``told`` has a made-up name and a card."""
    rng, looks = random.Random(seed), [s.objects[s.target].description for s in scenes]
    return {
        "ground": [prompt(words, "direct") for words in looks],
        "reason": [prompt(words, "cot") for words in looks],
        "told": [named_by_card(s, rng)[0] for s in scenes],
    }


def _ground(backbone: Backbone, scenes: list[Sample], prompts: list[str], max_new_tokens: int) -> dict[str, float]:
    """Returns Acc@0.5, and the share of answered boxes whose nearest object, by centres, is the target."""
    texts = _texts(backbone, prompts, scenes, max_new_tokens)
    right = near = 0
    for sample, text in zip(scenes, texts, strict=True):
        box = backbone.codec.decode(text, backbone.processor.image_size(sample.width, sample.height))
        if box is None:
            continue
        boxes = torch.tensor([o.box_px for o in sample.objects])
        right += float(iou(torch.tensor([box]), boxes[sample.target][None])[0]) >= 0.5
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        middle = torch.tensor([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        near += int((centres - middle).norm(dim=1).argmin()) == sample.target
    return {"acc": right / len(scenes), "picked": near / len(scenes)}


def _naming(backbone: Backbone, scenes: list[Sample]) -> dict[str, float]:
    questions = [f"What is at {backbone.processor.box_texts(s)[s.target]}?" for s in scenes]
    texts = _texts(backbone, questions, scenes, 24)
    figures: dict[str, Any] = dict.fromkeys([*(f"naming {slot}" for slot in _SLOTS), "naming all"], 0.0)
    for sample, text in zip(scenes, texts, strict=True):
        wanted, named = sample.objects[sample.target].traits, traits_of(text)
        for n, slot in enumerate(_SLOTS):
            figures[f"naming {slot}"] += (len(named) > n and named[n] == wanted[n]) / len(scenes)
        figures["naming all"] += (named == wanted) / len(scenes)
    return figures


def _recall(backbone: Backbone) -> dict[str, float]:
    """Returns the share of cards that the model completes exactly from the name, also by split.

    Stage 1 must not lose the cards of unseen categories.
    """
    cards = [c for c in load_cards() if c.known]
    texts = _texts(backbone, [f"<think>Plan: the {c.name} is" for c in cards], None, 16)
    right = {c.name: t.strip().startswith(c.traits.text + ".") for c, t in zip(cards, texts, strict=True)}
    shares = {"recall cards": [right[c.name] for c in cards]}
    for split in ("seen", "unseen"):
        shares[f"recall cards {split}"] = [right[c.name] for c in cards if c.split == split]
    return {name: sum(hits) / len(hits) for name, hits in shares.items()}
