"""Boxes of each family through its resize and back: to the pixel, in its own unit, as transformers resizes pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from kvg.backbones.find_family import family_of_type, known_families
from kvg.text.box_codec import ImageSize


@dataclass(frozen=True)
class Convention:
    """What is published of a family.

    Attributes:
        settings: its ``preprocessor_config.json``; for patches with areas between 3,136 or 65,536 and 401,408 pixels.
        shown: the picture that the model sees ``[H, W]``, in 0-1, from what transformers makes of one of a size.
        absolute: whether boxes are in pixels of that picture, and not on a grid of 0-1000.
        config: of its model, as far as it says how pictures are cut.
        options: of the processor's call in transformers.
        blur: pixels of the resized picture by which an edge may move where it is resized twice.
    """

    settings: dict[str, Any]
    shown: Callable[[Any, dict[str, Any], tuple[int, int]], np.ndarray]
    absolute: bool = False
    config: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    blur: float = 0.0

    def seen(self, processor: Any, image: Image.Image) -> np.ndarray:
        """The picture that the model sees."""
        return self.shown(processor(images=image, return_tensors="pt", **self.options), self.settings, image.size)


def patches(out: Any, settings: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Patches of 2 x 2 neighbours behind each other, put together again."""
    (frames, rows, columns), p, m = out["image_grid_thw"][0].tolist(), settings["patch_size"], settings["merge_size"]
    assert frames == 1
    pixels = out["pixel_values"].numpy().reshape(rows // m, columns // m, m, m, 3, -1, p, p)[:, :, :, :, 0, 0]
    grey = pixels * settings["image_std"][0] + settings["image_mean"][0]
    return grey.transpose(0, 2, 4, 1, 3, 5).reshape(rows * p, columns * p)


def tiles(out: Any, settings: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Tiles of a grid, put together again; where there are several, the whole picture follows them."""
    pixels = np.stack(out["pixel_values"])[:, 0] * settings["image_std"][0] + settings["image_mean"][0]
    side, most = settings["size"]["height"], settings["max_patches"]
    columns, rows = get_optimal_tiled_canvas(size[::-1], (side, side), 1, most)
    grid = pixels[: columns * rows]
    assert len(pixels) == len(grid) + (len(grid) > 1)
    return grid.reshape(rows, columns, side, side).transpose(0, 2, 1, 3).reshape(rows * side, columns * side)


def numbered_tiles(out: Any, settings: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Rows and columns of tiles put together again, without the one of the whole picture."""
    rows, columns = max(1, out["rows"][0][0]), max(1, out["cols"][0][0])
    pixels = out["pixel_values"][0].numpy()[: rows * columns, 0]
    grey = pixels * settings["image_std"][0] + settings["image_mean"][0]
    grid = grey.reshape(rows, columns, *grey.shape[1:])
    return grid.transpose(0, 2, 1, 3).reshape(rows * grid.shape[2], columns * grid.shape[3])


QWEN2 = {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 3136, "max_pixels": 401_408,
         "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
         "image_mean": [0.48145466, 0.4578275, 0.40821073],
         "image_std": [0.26862954, 0.26130258, 0.27577711]}  # fmt: skip
QWEN3 = {"image_processor_type": "Qwen2VLImageProcessorFast",
         "size": {"shortest_edge": 65_536, "longest_edge": 401_408},
         "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
         "image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # fmt: skip
GLM = {"image_processor_type": "Glm4vImageProcessor", "size": {"shortest_edge": 12_544, "longest_edge": 802_816},
       "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
       "image_mean": [0.48145466, 0.4578275, 0.40821073],
       "image_std": [0.26862954, 0.26130258, 0.27577711]}  # fmt: skip
INTERNVL = {"image_processor_type": "GotOcr2ImageProcessor", "crop_to_patches": True, "max_patches": 12,
            "size": {"height": 448, "width": 448}, "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225]}  # fmt: skip
SMOLVLM = {"image_processor_type": "SmolVLMImageProcessor", "do_image_splitting": True, "resample": 1,
           "size": {"longest_edge": 768}, "max_image_size": {"longest_edge": 384},
           "image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # fmt: skip
SMOLVLM_CONFIG = SimpleNamespace(vision_config=SimpleNamespace(image_size=384, patch_size=14), scale_factor=3)
CONVENTIONS = {
    "qwen2_vl": Convention(QWEN2, patches),
    "qwen2_5_vl": Convention(QWEN2, patches, absolute=True),
    "qwen3_vl": Convention(QWEN3, patches),
    "qwen3_vl_moe": Convention(QWEN3, patches),
    "glm4v": Convention(GLM, patches),  # whose areas are those of two frames
    "internvl": Convention(INTERNVL, tiles, config=SimpleNamespace(image_seq_length=256)),
    "smolvlm": Convention(
        SMOLVLM, numbered_tiles, config=SMOLVLM_CONFIG, options={"return_row_col_info": True}, blur=1.0
    ),
}

# Width and height. 448 x 896 is 401,408 pixels, and 911 is the first height that is rounded up to the next patch.
SIZES = [(1, 150), (150, 1), (4000, 21), (21, 4000), (641, 479), (479, 641), (1009, 997), (1, 1), (7, 13),
         (448, 896), (448, 911), (448, 895), (56, 56), (41, 56), (256, 256), (239, 256), (2048, 1536)]  # fmt: skip
SEEN = [(641, 479), (479, 641), (4000, 21), (1, 150), (7, 13), (448, 911), (239, 256)]


@pytest.fixture(params=known_families())
def convention(request) -> tuple[Any, Convention]:
    """A family, and what is published of it: a new family has to state its convention here."""
    return family_of_type(request.param), CONVENTIONS[request.param]


@pytest.fixture
def theirs(convention, tmp_path):
    """The image processor of transformers, as it reads the published file."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(convention[1].settings))
    return AutoImageProcessor.from_pretrained(tmp_path, backend="pil")


@pytest.fixture
def ours(convention):
    family, published = convention
    return family.picture_processor(family.picture_settings(published.settings, published.config))


def numbers(text: str) -> tuple[int, ...]:
    found = tuple(int(number) for number in re.findall(r"\d+", text.replace("bbox_2d", "")))
    assert len(found) == 4
    return found


def boxes(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """The whole picture, its first and last pixel, and ten anywhere."""
    generator = np.random.default_rng(width * 10_000 + height)
    found = [(0, 0, width, height), (0, 0, 1, 1), (width - 1, height - 1, width, height)]
    for _ in range(10):
        (x1, x2), (y1, y2) = (sorted(generator.integers(0, side + 1, 2).tolist()) for side in (width, height))
        found.append((min(x1, width - 1), min(y1, height - 1), max(x2, x1 + 1), max(y2, y1 + 1)))
    return [(x1, y1, min(x2, width), min(y2, height)) for x1, y1, x2, y2 in found]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_boxes_come_back_to_the_pixel(convention, theirs, ours, width, height):
    family, published = convention
    seen_height, seen_width = published.seen(theirs, Image.new("RGB", (width, height))).shape
    size = ours.image_size(width, height)
    assert size == ImageSize(width, height, seen_width, seen_height)
    spans = (seen_width, seen_height) * 2 if published.absolute else (1000,) * 4
    for box in boxes(width, height):
        text = family.codec.encode(tuple(map(float, box)), size)
        assert family.codec.is_canonical(text)
        back = family.codec.decode(text, size)
        for axis, (coordinate, side, span) in enumerate(zip(box, (width, height) * 2, spans, strict=True)):
            exact = coordinate * span / side
            # A unit above a pixel may be longer than the box is wide, which has at least one unit nevertheless.
            extent = (box[axis % 2 + 2] - box[axis % 2]) * span / side
            tolerance = 0.5 if extent >= 1 else 1.0
            assert abs(numbers(text)[axis] - exact) <= tolerance
            assert abs(back[axis] - coordinate) <= tolerance * side / span + 1e-9
            if side <= span:
                assert round(back[axis]) == coordinate
        assert back[2] > back[0]
        assert back[3] > back[1]
    whole = (0.0, 0.0, float(width), float(height))
    assert family.codec.decode(family.codec.encode(whole, size), size) == pytest.approx(whole)


@pytest.mark.parametrize(("width", "height"), SEEN)
def test_the_model_sees_an_object_where_its_box_says(convention, theirs, ours, width, height):
    """A white rectangle on black, through the resize of transformers; the box of what is bright there."""
    family, published = convention
    if published.blur and (max(width, height) > 2 * min(width, height) or min(width, height) < 64):
        pytest.skip("few pixels are stretched to a tile: nothing has an edge there")
    x1, y1, x2, y2 = width // 3, height // 4, max(width // 3 + 1, 3 * width // 4), max(height // 4 + 1, 7 * height // 8)
    image = Image.new("RGB", (width, height))
    image.paste((255, 255, 255), (x1, y1, x2, y2))
    seen = published.seen(theirs, image)
    size = ours.image_size(width, height)
    written = numbers(family.codec.encode((x1, y1, x2, y2), size))
    rows, columns = np.flatnonzero((seen > 0.5).any(1)), np.flatnonzero((seen > 0.5).any(0))
    bright = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    for number, edge, side, pixels in zip(written, bright, seen.shape[::-1] * 2, (width, height) * 2, strict=True):
        unit = 1 if published.absolute else side / 1000
        enlarged = side / pixels
        blur = enlarged / 25 if enlarged > 16 else 0  # where a pixel becomes a slope, half of it is not quite its edge
        assert abs(number * unit - edge) <= 0.5 + max(0.5, unit / 2) + blur + published.blur


@pytest.mark.parametrize(("width", "height"), [(1, 400), (9000, 40)])
def test_a_shape_that_transformers_refuses_is_refused(convention, theirs, ours, width, height):
    _, published = convention
    try:
        published.seen(theirs, Image.new("RGB", (width, height)))
    except ValueError:
        with pytest.raises(ValueError, match="ratio"):
            ours.image_size(width, height)
    else:
        ours.image_size(width, height)
