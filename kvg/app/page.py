"""The page: a picture and a name on one side, the models' texts and boxes on the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image

from kvg.app.answering import Answering, State
from kvg.app.examples import Example, question_key, true_boxes
from kvg.app.quotes import Quote, answer_box, picture_with_boxes, read_quotes, text_as_html
from kvg.boxes import iou
from kvg.errors import DataError, KVGError
from kvg.pictures import MAX_PIXELS, read_rgb
from kvg.pipeline.ground import in_words
from kvg.pipeline.grounder import Grounder, checked_entity
from kvg.pipeline.grounding import Grounding
from kvg.text.box_codec import ImageSize
from kvg.types import Box

try:
    import gradio as gr
except ImportError:  # it can be imported without the extra, as all modules; `kvg app` names what is missing
    gr = None

MAX_UPLOAD: Final = 20 * 2**20  # bytes
MAX_NAME: Final = 200  # characters
MAX_WAITING: Final = 16  # questions in the queue; more are refused
_CACHE: Final = (300, 3600)  # seconds: how often, and how old files of the page are removed
_HEAD: Final = (
    "<h1>KVG</h1>Finds an entity on a picture by its name. "
    "Boxes that the reasoning quotes are numbered; the red one is the answer."
)
_RIGHT: Final = 0.5  # IoU from which an answer to an example counts as right


class _View:
    """What one model shows of one question; the picture is made anew only where its boxes change."""

    def __init__(self, grounder: Grounder, picture: Image.Image, truth: Box | None) -> None:
        self.picture, self.truth = picture, truth
        self.codec = grounder.backbone.codec
        self.size: ImageSize = grounder.backbone.processor.image_size(*picture.size)
        self.boxes: object = None

    def update(self, state: State) -> tuple[Any, str]:
        """Values of the picture and of the text."""
        final = state.grounding
        answer = final.box_px if final else answer_box(state.text, self.codec, self.size)
        quotes = read_quotes(state.text, self.codec, self.size, answer)
        boxes = ({quote.box_px for quote in quotes}, answer)
        is_new, self.boxes = boxes != self.boxes, boxes
        picture = picture_with_boxes(self.picture, quotes, answer) if is_new else gr.skip()
        return picture, self._html(state, quotes)

    def _html(self, state: State, quotes: Sequence[Quote]) -> str:
        html = f'<div class="kvg-text">{text_as_html(state.text, quotes)}</div>'
        if state.fault:
            html += f'<div class="kvg-fault">{escape(state.fault)}</div>'
        if state.grounding:
            html += f'<div class="kvg-facts">{escape(self._facts(state.grounding))}</div>'
        return html

    def _facts(self, grounding: Grounding) -> str:
        lines = [in_words(grounding)]
        if grounding.box_px is None:
            lines.append("no box")
        if self.truth is not None:
            boxes = torch.tensor([grounding.box_px or (0.0,) * 4]), torch.tensor([self.truth])
            overlap = float(iou(*boxes))
            lines.append(f"{'right' if overlap >= _RIGHT else 'wrong'}: IoU {overlap:.2f} with the true box")
        return "\n".join(lines)


def build_page(answering: Answering, examples: Sequence[Example], folder: Path) -> Any:
    """The page, not yet served.

    Args:
        answering: the models.
        examples: questions to try.
        folder: where the pictures of the examples are written.

    Returns:
        ``gradio.Blocks``.
    """
    truths = true_boxes(examples)

    def ask(path: str | None, name: str, request: gr.Request) -> Iterator[list[Any]]:
        try:
            data, entity = _picture_bytes(path), _entity(name)
            picture = read_rgb(data, "picture", MAX_PIXELS)
        except KVGError as error:
            raise gr.Error(str(error), print_exception=False) from error
        truth = truths.get(question_key(data, entity))
        views = [_View(grounder, picture, truth) for grounder in answering.grounders.values()]
        yield [value for view in views for value in view.update(State())]
        for states in answering.ask(data, entity, request.session_hash):
            yield [value for view, state in zip(views, states, strict=True) for value in view.update(state)]

    def choose(event: gr.SelectData) -> tuple[str, str]:
        return paths[event.index], examples[event.index].entity

    def cancel(request: gr.Request) -> None:
        answering.cancel(request.session_hash)

    paths = [_write(folder, number, one) for number, one in enumerate(examples)]
    with gr.Blocks(title="KVG", analytics_enabled=False, fill_width=True, delete_cache=_CACHE) as page:
        gr.HTML(_HEAD)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                picture = _upload()
                name = gr.Textbox(label="Name", placeholder="Clumber Spaniel", max_lines=1, max_length=MAX_NAME)
                with gr.Row():
                    start = gr.Button("Find", variant="primary", min_width=80)
                    stop = gr.Button("Stop", min_width=80)
            outputs = []
            for title in answering.grounders:
                with gr.Column(scale=1, min_width=300):
                    gr.HTML(f"<h2>{escape(title)}</h2>")
                    outputs += [_boxes(title), gr.HTML(container=True, padding=True)]
        captions = [(path, f"{one.entity} ({one.split})") for path, one in zip(paths, examples, strict=True)]
        gallery = gr.Gallery(
            captions, label="Examples", allow_preview=False, height="auto", buttons=[], elem_classes="kvg-examples"
        )
        gallery.select(choose, None, [picture, name], api_visibility="private", queue=False)
        running = gr.on([start.click, name.submit], ask, [picture, name], outputs, api_name="ground")
        stop.click(cancel, cancels=[running], api_visibility="private", queue=False)
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    return page


def _upload() -> Any:
    """The field for a picture. Gradio hands over an uploaded file as it is: ``kvg.pictures`` decodes it, no other."""
    field = gr.Image(label="Picture", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=320)
    to_cache = field.async_move_resource_to_block_cache

    async def local_only(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("no URL is fetched; upload the picture", print_exception=False)
        cached: str | None = await to_cache(path)
        return cached

    field.async_move_resource_to_block_cache = local_only
    field.preprocess = lambda payload: payload and payload.path
    return field


def _boxes(title: str) -> Any:
    description = f"the picture with the boxes of {title}"
    return gr.Image(interactive=False, format="png", buttons=["fullscreen"], alt_text=description, show_label=False)


def _picture_bytes(path: str | None) -> bytes:
    if not path:
        raise DataError("picture", "upload", "is missing; upload a picture, or choose an example")
    file = Path(path)
    if file.stat().st_size > MAX_UPLOAD:
        raise DataError("picture", "upload", f"has more than {MAX_UPLOAD >> 20} MB; make it smaller")
    return file.read_bytes()


def _entity(name: str | None) -> str:
    if len(name or "") > MAX_NAME:
        raise DataError("name", "length", f"has more than {MAX_NAME} characters; shorten it")
    return checked_entity(name or "")


def _write(folder: Path, number: int, example: Example) -> str:
    suffix = "jpg" if example.picture.startswith(b"\xff\xd8") else "png"
    path = folder / f"{number:02d}.{suffix}"
    path.write_bytes(example.picture)
    return str(path)
