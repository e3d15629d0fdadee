"""Checks texts of users and models for control tokens, which would change the chat format of a model.

A name such as ``use <|image_pad|> here`` would stand for a picture that does not exist, and ``<|im_end|>`` would end
the turn. Names, facts, rationales, questions, options, teachers' answers and replayed texts are checked here.
Processors check again with the tokens of their own tokenizer (``ControlTokens``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from kvg.errors import DataError
from kvg.text.box_refs import PLACEHOLDER

# Marks around names and boxes: normal vocabulary of published questions and answers.
REFERENCE_TOKENS: Final = frozenset(
    f"<|{kind}_{side}|>" for kind in ("object_ref", "box", "quad") for side in ("start", "end")
)
PICTURE_PLACEHOLDERS: Final = ("<image>", "<video>", "<audio>")  # in ShareGPT and verl each stands for a file

_CONTROL = re.compile(r"<\|[^<>|\s]{1,64}\|>")
_STRUCTURE = re.compile(r"</?(?:think|answer)>|<(?:image|video|audio)>", re.IGNORECASE)
_REMEDY: Final = "steers the model or the file's format instead of being read; remove it"


class ControlTokens:
    """The tokens that supplied texts must not contain. Picklable.

    Args:
        tokens: special tokens of a tokenizer; ``REFERENCE_TOKENS`` among them are allowed.
        marks: marks of names and boxes of a family; these are also allowed.
    """

    def __init__(self, tokens: Iterable[str], marks: Iterable[str] = ()) -> None:
        names = sorted({token for token in tokens if token} - REFERENCE_TOKENS - set(marks), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names))) if names else None

    @classmethod
    def of_tokenizer(cls, tokenizer: Any, marks: Iterable[str] = ()) -> ControlTokens:
        """Builds them from a tokenizer of transformers: its special tokens, and added ones of the form ``<|...|>``.

        Args:
            tokenizer: tokenizer of the model.
            marks: see the class.
        """
        added = {str(token): bool(token.special) for token in tokenizer.added_tokens_decoder.values()}
        names = {name for name, special in added.items() if special or control_token_in(name)}
        return cls(names | {str(name) for name in tokenizer.all_special_tokens}, marks)

    def first_in(self, text: str) -> str | None:
        """Returns the first of them in a text; None if there is none.

        >>> ControlTokens(["</s>", "<|box_start|>"]).first_in("a <|box_start|> and a </s>")
        '</s>'
        """
        match = self._pattern.search(text) if self._pattern else None
        return match[0] if match else None

    def check(self, text: str, where: str, field: str) -> None:
        """Checks a text before it is put into the chat format.

        Raises:
            DataError: the text contains a control token.
        """
        if token := self.first_in(text):
            raise DataError(where, field, f"may not hold {token}, which {_REMEDY}")

    def removed(self, text: str) -> str:
        """Removes them from a text, also those that result from removing others.

        >>> ControlTokens(["<|im_end|>"]).removed("a<|im_<|im_end|>end|> b")
        'a b'
        """
        while self._pattern and self._pattern.search(text):
            text = self._pattern.sub("", text)
        return text


def control_token_in(text: str, allowed: Iterable[str] = ()) -> str | None:
    """Returns the first control token of the form ``<|...|>`` in a text, of any model; None if there is none.

    >>> control_token_in("<|object_ref_start|>Merlin<|object_ref_end|><|im_end|>", REFERENCE_TOKENS)
    '<|im_end|>'
    """
    if "<|" not in text:
        return None
    legal = frozenset(allowed)
    return next((match[0] for match in _CONTROL.finditer(text) if match[0] not in legal), None)


def check_plain(text: str, where: str, field: str) -> None:
    """Checks a name, a fact or an option, which must be plain words.

    Raises:
        DataError: the text contains a control token, a mark of names or boxes, a tag such as ``<think>``, or a
            placeholder of a picture or a box.
    """
    if "<" not in text:
        return
    token = control_token_in(text)
    if token is None and (match := _STRUCTURE.search(text) or PLACEHOLDER.search(text)):
        token = match[0]
    if token:
        raise DataError(where, field, f"may not hold {token}, which {_REMEDY}")


def check_rationale(text: str, where: str, field: str) -> None:
    """Checks a rationale. It may contain marks of names and boxes, and placeholders of boxes.

    Raises:
        DataError: the text contains a control token, a tag such as ``<think>``, or a placeholder of a picture.
    """
    if "<" not in text:
        return
    token = control_token_in(text, REFERENCE_TOKENS)
    if token is None and (match := _STRUCTURE.search(text)):
        token = match[0]
    if token:
        raise DataError(where, field, f"may not hold {token}, which {_REMEDY}")


def check_prompt(text: str, where: str, field: str) -> None:
    """Checks a whole prompt or completion, such as a line of replay. It may contain tags and ``<image>``.

    Raises:
        DataError: the text contains a control token other than the marks of names and boxes.
    """
    if token := control_token_in(text, REFERENCE_TOKENS):
        raise DataError(where, field, f"may not hold {token}, which {_REMEDY}")
