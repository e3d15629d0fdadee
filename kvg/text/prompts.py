"""Questions about a picture, and the prompt templates.

The texts are the published ones. v2 and v3 train and evaluate with ``think``; the others are prompts of the baselines.
``think`` keeps the published two spaces between question and request, because any change is a different model input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvg.errors import ConfigError, DataError
from kvg.text.box_refs import PLACEHOLDER

REF_START: Final = "<|object_ref_start|>"
REF_END: Final = "<|object_ref_end|>"


@dataclass(frozen=True)
class PromptFormat:
    """The marks around names in the questions of a family of models.

    Attributes:
        name_start: mark before a name.
        name_end: mark after a name.
    """

    name_start: str = ""
    name_end: str = ""

    @property
    def marks(self) -> tuple[str, str]:
        """Returns both marks."""
        return self.name_start, self.name_end

    def mark(self, name: str) -> str:
        """Returns the name between its marks.

        >>> PUBLISHED.mark("Merlin"), PromptFormat().mark("Merlin")
        ('<|object_ref_start|>Merlin<|object_ref_end|>', 'Merlin')
        """
        return f"{self.name_start}{name}{self.name_end}"


PUBLISHED: Final = PromptFormat(REF_START, REF_END)  # format of the paper's questions, and of its model families

THINK_REQUEST: Final = (
    "Output the thinking process in <think> </think> and final answer (bounding box) in <answer> </answer> tags."
)

PROMPTS: Final[dict[str, str]] = {
    "think": "{question}  " + THINK_REQUEST,
    "direct": "{question}",
    "cot": "{question}. Let's think step by step",
    "json": "{question}, output its bbox coordinates using JSON format.",
    # Qwen's own prompt for RefCOCO, see docs/explanation/box_units.md. The name stands in it without marks.
    "qwen": 'Locate every object that matches the description "{name}" in the image. '
    "Report bbox coordinates in JSON format.",
}
_PLACE = re.compile(r"\{(question|name)\}")
# Two turns, only for evaluation (v2's ``cot-kvg``): a description, and then the box.
DESCRIBE: Final = "describe"
DESCRIPTION: Final = (
    "Which object in this image is {name}? Give a detailed and discriminative description of the appearance of it"
)
AFTER_DESCRIPTION: Final = "Based on the description, find and give the bounding box of {reference}"
CHOICE_REQUEST: Final = "Output the thinking process in <think> </think> and the letter in <answer> </answer> tags."
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def question(name: str, form: PromptFormat = PUBLISHED) -> str:
    """Returns the question about an entity.

    Args:
        name: name of the entity.
        form: marks around names.

    >>> question("Boeing 737")
    'Find and give the bounding box of <|object_ref_start|>Boeing 737<|object_ref_end|>'
    """
    return f"Find and give the bounding box of {form.mark(name)}"


def prompt(name: str, mode: str, form: PromptFormat = PUBLISHED) -> str:
    """Returns the text of the user's turn, without the image.

    Args:
        name: name of the entity.
        mode: a key of ``PROMPTS``.
        form: marks around names.

    Raises:
        ConfigError: ``mode`` is unknown.

    >>> prompt("Merlin", "cot")
    "Find and give the bounding box of <|object_ref_start|>Merlin<|object_ref_end|>. Let's think step by step"
    >>> prompt("{name}", "qwen")
    'Locate every object that matches the description "{name}" in the image. Report bbox coordinates in JSON format.'
    """
    if mode not in PROMPTS:
        raise ConfigError("mode", f"'{mode}' is not a prompt mode; choose one of {', '.join(PROMPTS)}")
    # Not str.format, because an entity's name may contain braces.
    texts = {"question": question(name, form), "name": name}
    return _PLACE.sub(lambda match: texts[match[1]], PROMPTS[mode])


def with_card(name: str, traits: str, text: str) -> str:
    """Returns a user's turn with the traits of the entity before it, as one knows them who has looked them up.

    Args:
        name: name of the entity.
        traits: its traits as one text.
        text: the turn.

    >>> with_card("Merlin", "grey, streaked breast", "Where is it?")
    'The Merlin is grey, streaked breast. Where is it?'
    """
    return f"The {name} is {traits}. {text}"


def describe_prompts(name: str, form: PromptFormat = PUBLISHED) -> tuple[str, str]:
    """Returns both user turns of the mode ``describe``; the model's description comes between them.

    Args:
        name: name of the entity.
        form: marks around names.

    >>> describe_prompts("Merlin")[1]
    'Based on the description, find and give the bounding box of <|object_ref_start|>Merlin<|object_ref_end|>'
    """
    return DESCRIPTION.replace("{name}", name), AFTER_DESCRIPTION.replace("{reference}", form.mark(name))


def choice_prompt(category: str, options: Sequence[str], mode: str = "direct") -> str:
    r"""Returns a multiple-choice question.

    Args:
        category: category of the object on the picture.
        options: names to choose from.
        mode: ``think`` requests a rationale; any other mode only the letter.

    >>> choice_prompt("bird", ["Merlin", "Hobby"])
    'Which bird is shown in the picture?\nA. Merlin\nB. Hobby\nAnswer with the letter only.'
    """
    lines = [f"{letter}. {name}" for letter, name in zip(LETTERS, options, strict=False)]
    request = CHOICE_REQUEST if mode == "think" else "Answer with the letter only."
    return "\n".join([f"Which {category} is shown in the picture?", *lines, request])


def fill_boxes(rationale: str, box_texts: Sequence[str]) -> str:
    """Writes the boxes of the objects into a rationale.

    Args:
        rationale: text with ``<box:N>`` for the box of object N, counted from 0.
        box_texts: the objects' boxes, encoded by the backbone's codec.

    Raises:
        DataError: the rationale refers to an object that does not exist.

    >>> fill_boxes("1 <box:0> red; 2 <box:1> blue.", ["(0,0),(500,1000)", "(500,0),(1000,1000)"])
    '1 (0,0),(500,1000) red; 2 (500,0),(1000,1000) blue.'
    """

    def box_of(match: re.Match[str]) -> str:
        index = int(match[1]) if len(match[1]) < 10 else len(box_texts)
        if index >= len(box_texts):
            raise DataError(
                "rationale", match[0], f"there are {len(box_texts)} objects, counted from 0; correct the number"
            )
        return box_texts[index]

    return PLACEHOLDER.sub(box_of, rationale)
