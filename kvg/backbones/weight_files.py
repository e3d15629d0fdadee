"""Checks files of weights before they are loaded: whether all are there, and whether their tensors fit the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from kvg.backbones.checkpoint_files import fault, read_object
from kvg.records import excerpt

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
# Names of parts before transformers 4.52, which hub checkpoints and many adapters still use, and current names.
RENAMED: Final = (
    ("model.layers.", "model.language_model.layers."),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.norm.", "model.language_model.norm."),
    ("visual.", "model.visual."),
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
)
_LAYER: Final = re.compile(r"model\.(?:language|text)_model\.layers\.(\d+)\.")

Shapes = Mapping[str, tuple[int, ...]]


def current_name(name: str) -> str:
    """The name of a weight in current transformers.

    >>> current_name("visual.merger.ln_q.weight"), current_name("lm_head.weight")
    ('model.visual.merger.ln_q.weight', 'lm_head.weight')
    """
    for old, new in RENAMED:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def former_name(name: str) -> str:
    """The name of a part of the model before transformers 4.52, where the output layer was no part of another.

    >>> former_name("model.language_model.layers.0.mlp"), former_name("lm_head.weight")
    ('model.layers.0.mlp', 'lm_head.weight')
    """
    for old, new in RENAMED:
        if name.startswith(new) and new != "lm_head.":
            return old + name[len(new) :]
    return name


def weight_files(checkpoint: str) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights in a folder by their names of today, from the heads of its files.

    Raises:
        ConfigError: there are none, one is cut off, or the index names files that are not in the folder.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    names = file_names(checkpoint)
    for name in names:
        shapes.update(tensor_shapes(checkpoint, name))
    if len(names) > 1 and (lost := sorted(read_object(checkpoint, INDEX)["weight_map"].keys() - shapes.keys())):
        remedy = f"its {INDEX} names {len(lost)} weights that are in none of its files ({lost[0]}, ...)"
        raise fault(checkpoint, f"{remedy}; copy index and files from the same place")
    return {current_name(name): shape for name, shape in shapes.items()}


def file_names(checkpoint: str) -> Sequence[str]:
    """Names of the files of weights in a folder.

    Raises:
        ConfigError: there are none, or the index names files that are not in the folder.
    """
    folder = Path(checkpoint)
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if (folder / INDEX).is_file():
        return _indexed(checkpoint)
    raise fault(checkpoint, f"has no {WEIGHTS}; {_remedy(folder)}")


def tensor_shapes(checkpoint: str, name: str) -> dict[str, tuple[int, ...]]:
    """Shapes in one file of safetensors by name; reads its head alone.

    Raises:
        ConfigError: it is damaged or cut off.
    """
    try:
        with safe_open(Path(checkpoint) / name, framework="pt") as tensors:
            return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        if _is_pickle(Path(checkpoint) / name):
            remedy = f"its {name} is a pickle whatever its name says, which could run code as it is read"
            raise fault(checkpoint, f"{remedy}; save the weights as safetensors") from error
        reason = " ".join(str(error).split())[:200]
        raise fault(checkpoint, f"its {name} is damaged or cut off ({reason}); copy it anew") from error


def check_layers(checkpoint: str, stored: Shapes, config: Any) -> None:
    """Refuses settings with another number of layers than the weights have, before so many are built.

    Raises:
        ConfigError: see above.
    """
    layers = {int(match[1]) for name in stored if (match := _LAYER.match(name))}
    num_layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if type(num_layers) is not int or num_layers != len(layers):
        remedy = (
            f"its config.json says {excerpt(num_layers)} layers (num_hidden_layers), and its weights hold {len(layers)}"
        )
        raise fault(checkpoint, f"{remedy}; give a folder whose files belong together")


def check_names(checkpoint: str, stored: Shapes, expected: Iterable[str], tied: Mapping[str, str]) -> None:
    """Refuses a folder that lacks weights of the model that its settings describe.

    Args:
        checkpoint: its folder.
        stored: of its files.
        expected: names of the model's weights.
        tied: pairs of names that stand for one tensor, of which one is stored.

    Raises:
        ConfigError: see above.
    """
    shared = {a for pair in tied.items() if set(pair) & stored.keys() for a in pair}
    missing = sorted(set(expected) - stored.keys() - shared)
    if missing:
        others = sorted(stored.keys() - set(expected))
        instead = f", and there is {others[0]} instead" if others else ""
        remedy = f"lacks {len(missing)} weights of the model in its config.json ({missing[0]}, ...{instead})"
        raise fault(checkpoint, f"{remedy}; give a folder whose files belong together")


def check_shapes(checkpoint: str, stored: Shapes, expected: Shapes) -> None:
    """Refuses weights of other shapes than the settings ask for.

    Args:
        checkpoint: its folder.
        stored: of its files.
        expected: of the model that its settings describe.

    Raises:
        ConfigError: see above.
    """
    # Transformers turns the matrices of experts as it loads them.
    turned = {name: (num, *sides[::-1]) for name, (num, *sides) in expected.items() if ".experts." in name}
    misfits = sorted(
        name
        for name, shape in stored.items()
        if name in expected and shape not in (expected[name], turned.get(name, expected[name]))
    )
    if misfits:
        name = misfits[0]
        shapes = f"{name} is {list(stored[name])} and should be {list(expected[name])}"
        remedy = f"{len(misfits)} weights do not fit its config.json ({shapes})"
        raise fault(checkpoint, f"{remedy}; give a folder whose files belong together")


def _remedy(folder: Path) -> str:
    """What to do about a folder in which there are no weights by the usual names."""
    pickled = next((file.name for file in sorted(folder.glob("*.bin"))), None)
    if pickled:
        return f"{pickled} could run code as it is read: save it as safetensors"
    part = next((file.name for file in sorted(folder.glob("*.safetensors"))), None)
    if part:
        return f"{part} is a part of the weights, and their {INDEX} is missing: copy it, too"
    return "give a folder with its weights"


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as pickles of PyTorch do: an archive (since 1.6), or the pickle itself."""
    try:
        with path.open("rb") as stream:
            head = stream.read(4)
    except OSError:
        return False
    return head == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def _indexed(checkpoint: str) -> list[str]:
    weight_map = read_object(checkpoint, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise fault(checkpoint, f"its {INDEX} holds no weight_map; copy it anew")
    names = list(dict.fromkeys(excerpt(name) if not isinstance(name, str) else name for name in weight_map.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise fault(
                checkpoint, f"its {INDEX} names {excerpt(name)}, which is no safetensors file of its own folder"
            )
        if not (Path(checkpoint) / name).is_file():
            raise fault(checkpoint, f"has no {name}, which its {INDEX} names; copy it, too")
    return names
