"""The conversation format of a checkpoint: a jinja template from outside, tried before it is relied upon."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

from kvg.errors import ConfigError

_SECONDS: Final = 10.0  # of one rendering; a sound template takes milliseconds
_TRIALS: Final = (("question one",), ("question one", "answer two", "question three"))


def render_chat(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], num_images: int) -> str:
    """A conversation in the model's format, with one unexpanded placeholder for each picture.

    Args:
        tokenizer: brings the template.
        texts: turns of the user and the model alternately, the user's first and last.
        num_images: pictures that stand at the start of the first.

    Raises:
        ConfigError: the template, a program from outside, fails.
    """
    # Lists throughout, as processors of transformers give them: some templates read nothing else.
    turns: list[dict[str, Any]] = [
        {"role": "assistant" if number % 2 else "user", "content": [{"type": "text", "text": text}]}
        for number, text in enumerate(texts)
    ]
    turns[0]["content"] = [*[{"type": "image"}] * num_images, *turns[0]["content"]]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        if any(str(turn["content"]) in text for turn in turns):  # a template that prints what the model said as it is
            for turn in turns[1::2]:
                turn["content"] = turn["content"][0]["text"]
            text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        return text
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError("chat_template", f"fails ({type(error).__name__}: {reason})") from error


def check_chat_template(tokenizer: PreTrainedTokenizerBase, image_token: str) -> None:
    """Tries the template: one turn and several, with a picture and without.

    Args:
        tokenizer: brings the template.
        image_token: placeholder of a picture.

    Raises:
        ConfigError: it fails, does not end, or loses the picture or a turn.
    """
    for texts in _TRIALS:
        for image in (True, False):
            with _time_limit(_SECONDS):
                text = render_chat(tokenizer, texts, image)
            lost = [part for part in texts if part not in text]
            if lost:
                raise ConfigError("chat_template", f"leaves out what is said in a turn ('{lost[0]}')")
            if text.count(image_token) != image:
                wanted = "once for a picture" if image else "where there is no picture"
                raise ConfigError("chat_template", f"writes {image_token} {text.count(image_token)} times {wanted}")


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in Python code called within this block that runs for longer, such as a loop without end."""
    end, before = time.monotonic() + seconds, sys.gettrace()

    def look(frame: FrameType, event: str, _: Any) -> Any:
        if time.monotonic() > end:
            raise TimeoutError(f"it runs for more than {seconds:.0f} s")
        return look

    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)
