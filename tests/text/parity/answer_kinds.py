"""Answers of many kinds, and what the published evaluations read in them, taken at their word.

    python tests/text/parity/answer_kinds.py --num 600 --seed 0

prints one JSON object a line: ``answer``, ``gt_bbox`` (true boxes on the 0-1000 grid), and for ``v2`` and ``v3`` the
``box``, the ``pattern`` that hit (0 = none), the best ``iou`` and whether that is ``correct``. Nothing here comes from
the package: the reading follows the rules word by word with gaps of any length, so that it takes for ever on long
answers, and the overlap is worked out in plain Python.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator

NUMBER, ANY = r"(\d*?)", r"(.*?)"
CORNERS = rf"\({NUMBER},.*?{NUMBER}\),\({NUMBER},{NUMBER}\)"
TWO_OF_ANYTHING = rf"\({ANY},.*?{ANY}\)"
TWO_NUMBERS = rf"\({NUMBER}, {NUMBER}\)"
LITERAL = [
    re.compile(expression)
    for expression in (
        rf"<answer>.*?{CORNERS}</answer>",
        rf"So the answer is.*?{CORNERS}",
        CORNERS,
        rf"{TWO_OF_ANYTHING}.*?{TWO_OF_ANYTHING}",
        rf"\[{', '.join([NUMBER] * 4)}\]",
        rf"\[{', '.join([ANY] * 4)}\]",
        rf"\({', '.join([NUMBER] * 4)}\)",
        rf"{TWO_NUMBERS}\n?.*?{TWO_NUMBERS}",
        rf"\[\[{','.join([NUMBER] * 4)}\]\]",
    )
]
NAMES = [
    "Sukhoi Su-30", "F-16A/B", "Mk. II (1969), coupé", "Model [3]", "St. Peter’s (Rome)", "寿司", "Épervier d’Europe",
    "Type (2,4)", "XK[120], open", "A380-800 (800, 2nd)", "Clumber Spaniel",
]  # fmt: skip


def slow_reading(text: str, version: int) -> tuple[list[float], int]:
    """Box and pattern of an answer."""
    if version == 3:
        if blocks := re.findall(r"<answer>(.*?)</answer>", text):
            text = blocks[0].strip()
        if "```json" in text and (block := re.search(r"```json(.*?)```", text, re.DOTALL)):
            text = block[1]
    for number, pattern in enumerate(LITERAL[: {2: 8, 3: 9}[version]], 1):
        if found := pattern.findall(text):
            first, *others = found[-1]
            try:
                box = [float(first.replace("[", "").replace("x", "")), *map(float, others)]
            except ValueError:
                box = [0.0] * 4
            return [v * 1000 for v in box] if sum(box) < 4 else box, number
    return [0.0] * 4, 0


def overlap(box: list[float], truth: list[float]) -> float:
    """Intersection over union in double precision; 0 where a box has no area."""
    width = min(box[2], truth[2]) - max(box[0], truth[0])
    height = min(box[3], truth[3]) - max(box[1], truth[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (box, truth)]
    return width * height / (sum(areas) - width * height)


def answers(num: int, seed: int) -> Iterator[tuple[str, list[list[int]]]]:
    """Answers and the true boxes of each."""
    rng = random.Random(seed)
    for _ in range(num):
        truth = _box(rng)
        said = [min(max(v + rng.randint(-40, 40), 0), 1000) for v in truth]
        truths = [truth] if rng.random() < 0.85 else [_box(rng), truth]
        yield _wrapped(rng, _written(rng, said), said), truths


def glued(num: int, seed: int, most: int = 16) -> Iterator[str]:
    """Strings of pieces that patterns are made of, in any order."""
    rng = random.Random(seed)
    single = [*"()[],. x-0123456789\n", ", ", "), (", "),(", "]]", "[[", "\n", "\r", "\u2028"]
    longer = [
        "<answer>", "</answer>", "So the answer is", "```json", "```", "(1,", "2),(3,4)", "2),(3,4)</answer>", "(5, 6)",
        "[1, 2, ", "(1, 2, ", "3, 4]", "3, 4)", "[[1,2,", "3,4]]", "[x", "-1.5, ",
    ]  # fmt: skip
    for _ in range(num):
        pieces = single if rng.random() < 0.3 else single + longer * 2
        yield "".join(rng.choices(pieces, k=rng.randint(1, most)))


def _box(rng: random.Random) -> list[int]:
    x1, x2 = sorted(rng.sample(range(1001), 2))
    y1, y2 = sorted(rng.sample(range(1001), 2))
    return [x1, y1, x2, y2]


def _near(rng: random.Random, box: list[int]) -> list[int]:
    return [min(max(v + rng.randint(-60, 60), 0), 1000) for v in box]


def _corners(box: list[int] | list[str]) -> str:
    return "({},{}),({},{})".format(*box)


def _written(rng: random.Random, box: list[int]) -> str:
    """A box in one of many ways of writing it, or none."""
    a, b, c, d = box
    unit = [f"{v / 1000:.3f}" for v in box]
    real = [f"{v}.0" if rng.random() < 0.5 else f"{v + rng.random():.2f}" for v in box]
    name = rng.choice(NAMES)
    other = _near(rng, box)
    label = f', "label": {json.dumps(name, ensure_ascii=False)}' if rng.random() < 0.5 else ""
    ways = [
        _corners(box), _corners(box), f"({a}, {b}), ({c}, {d})", f"({a}, {b}),({c}, {d})", f"( {a},{b} ),( {c},{d} )",
        f"({a}, {b}) and ({c}, {d})", f"({a}, {b})\n({c}, {d})", f"({a}, {b})\n\n({c}, {d})",
        f"({a}, {b}) \n({c}, {d})",
        f"The answer is ({a},{b}) to ({c},{d}).", f"({a}, {b})\nto ({c}, {d}) or\n({a}, {d})",
        f"({a}, {b}, {c}, {d})", f"({a},{b},{c},{d})", f"({a},{b}),({c},{d}", f"({a},{b}),(", f"({a},{b})",
        f"[{a}, {b}, {c}, {d}]", f"[{a},{b},{c},{d}]", f"[[{a},{b},{c},{d}]]", f"[[{a}, {b}, {c}, {d}]]",
        f"[{a}, {b}, {c}",
        f"[x{a}, {b}, {c}, {d}]", f"(x{a}, y{b}), (x{c}, y{d})", f"(x{a},{b}) ({c},{d})", f"[[{a}], {b}, {c}, {d}]",
        f"x1={a}, y1={b}, x2={c}, y2={d}", f"{a} {b} {c} {d}", f"（{a},{b}）,（{c},{d}）", f"[{a}， {b}， {c}， {d}]",
        _corners(box).translate({ord("0") + n: ord("０") + n for n in range(10)}),
        f"[{a}, {b}, {c}, {d}]".translate({ord("0") + n: 0x660 + n for n in range(10)}),
        f"({a}, {b})\r\n({c}, {d})", f"({a},{b})\u2028and ({c},{d})", f"[[{', '.join(real)}]]",
        f"[[{', '.join(unit)}]]",
        _corners(real), f"[{', '.join(real)}]", f"({real[0]}, {real[1]}) ({real[2]}, {real[3]})", _corners(unit),
        f"[{', '.join(unit)}]", f"({', '.join(unit)})", "(0,0),(1,1)", "[0, 0, 1, 1]", "(1, 0)\n(1, 1)", "(0,0),(2,2)",
        _corners([-5, b, c, d]), f"[-{a}, {b}, {c}, {d}]", _corners([c, d, a, b]), _corners([a, b, a, d]),
        _corners([a, b, c + 900, d + 900]), "(,),(,)", "[, , , ]", "(, ) (, )", f"({a},{b}),({c},)",
        f"({a}e0, 1_0{b}) ({c}, +{d})", f"(nan?, {b}) ({c}, {d})", "I cannot find it.", "", " ", "none (sorry)",
        f"{_corners(box)} or rather {_corners(other)}", f"{_corners(box)},{_corners(other)}",
        f"({a}, {b}) ({c}, {d}) or ({other[0]}, {other[1]}) ({other[2]}, {other[3]})",
        f"[{a}, {b}, {c}, {d}], [{', '.join(map(str, other))}]", f"({name}, {a}, {b}) at ({c}, {d})",
        f"<|box_start|>{_corners(box)}<|box_end|>", f"So the answer is {_corners(box)}",
        f"So the answer is ({a}, {b}), ({c}, {d})",
        f"So the answer is: {_corners(other)}. So the answer is {_corners(box)}",
        f"<|object_ref_start|>{name}<|object_ref_end|><|box_start|>{_corners(box)}<|box_end|>",
        f'```json\n[{{"bbox_2d": [{a}, {b}, {c}, {d}]{label}}}]\n```',
        f'```json\n{{"bbox_2d": [{a},{b},{c},{d}]}}\n```',
        f'```json {{"bbox_2d": [{a}, {b}, {c}, {d}]{label}}} ```',
        f'```json\n[{{"bbox_2d": [{a}, {b}, {c}, {d}]{label}}}]',
        f'```json\n{{"box": [{a}.0, {b}.0,\n {c}.0, {d}.0]}}\n```', f'{{"bbox_2d": [{a}, {b}, {c}, {d}]{label}}}',
        f'```json\nnothing\n``` {_corners(other)} ```json\n[{a}, {b}, {c}, {d}]\n```',
    ]  # fmt: skip
    return rng.choice(ways)


def _wrapped(rng: random.Random, inside: str, box: list[int]) -> str:
    """An answer around what says the box."""
    name, other = rng.choice(NAMES), _corners(_near(rng, box))
    longer = rng.choice(["", f" as {_corners(_box(rng))} shows,", " (well,", "\n\n", f" {name}"])
    return rng.choice(
        [
            inside, inside, f"The bounding box of the {name} is {inside}.", f"{name}: {inside}", f"{inside}\n{inside}",
            f"<answer>{inside}</answer>", f"<answer>\n{inside}\n</answer>", f"<answer> {inside} </answer>",
            f"<answer>{inside}", f"{inside}</answer>", f"<answer>{longer}{inside}</answer>",
            f"<think>The {name} is left of the other.</think>\n<answer>{inside}</answer>",
            f"<think>Planning: {name}. Object 1 at {other} has a longer tail.</think><answer>{inside}</answer>",
            f"<think>two lines\nof thought {other}</think>\n<answer>\n{inside}\n</answer>",
            f"<think>{longer} {other}</think> {inside}",
            f"<think>So the answer is {other}</think> <answer>{inside}</answer>",
            f"<think>cut off before the end, the {name} at {other} seems",
            f"<think>{name} {inside[: len(inside) // 2]}",
            f"<answer>{inside}</answer><answer>{other}</answer>",
            f"<answer>{other}</answer>\n<answer>{inside}</answer>",
            f"<answer><answer>{inside}</answer></answer>", f"<answer>{name} <answer>{inside}</answer>",
            f"<think><answer>{other}</answer></think><answer>{inside}</answer>", f"<answer></answer>{inside}",
            f"<answer>{other}</answer> So the answer is {inside}", f"<ANSWER>{inside}</ANSWER>",
            f"<answer>{inside}</answer>"[: rng.randint(1, 40)],
        ]
    )  # fmt: skip


def main() -> None:
    """Prints new answers with what is read in them."""
    parser = argparse.ArgumentParser(description="Answers of many kinds, and what is read in them.")
    parser.add_argument("--num", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for answer, truths in answers(args.num, args.seed):
        line = {"answer": answer, "gt_bbox": truths}
        for version in (2, 3):
            box, pattern = slow_reading(answer, version)
            iou = max(overlap(box, truth) for truth in truths)
            line[f"v{version}"] = {"box": box, "pattern": pattern, "iou": iou, "correct": iou >= 0.5}
        print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
