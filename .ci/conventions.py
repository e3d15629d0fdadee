"""Checks conventions that no linter knows: words that are no names, imports inside functions, and lengths of files.

    python .ci/conventions.py [FOLDER ...]

Prints one line for each finding and ends with 1 where there is one. `make lint` runs it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("kvg", "data_modules", "callbacks")
MAX_LINES, MAX_LINES_OF_COMMAND = 320, 80

# Names say what a thing is, in the words of docs/reference/glossary.md. On the right, what to write instead.
WORDS = {
    "told": "what it holds: metadata, settings, text",
    "found": "what it holds: matches, boxes, path",
    "asked": "requests, prompts or questions",
    "said": "answer, text or message",
    "shown": "items, samples or cases",
    "drawn": "sampled, or chart",
    "thing": "object, item",
    "things": "objects, items",
    "asker": "client",
    "judge": "validator",
    "tries": "max_attempts",
    "lesson": "teacher_prompt",
    "lessons": "teacher",
    "cast": "entity_sampler",
    "shots": "uniforms",
    "invert": "inverse_cdf",
    "disturb": "corrupt",
    "disturbed": "corrupted",
    "pieces": "units",
    "unread": "unparsed",
    "anyone": "any_rank_active",
    "sees_alike": "vision_frozen",
    "learnt_once": "single_backward",
    "part_prompts": "microbatch_size",
    "refills": "max_resample_batches",
    "door": "command line",
    "write_whole": "atomic_write",
}


def main(folders: list[str]) -> int:
    """Checks all Python files of the folders; returns the exit code."""
    paths = [path for folder in folders or FOLDERS for path in sorted(Path(folder).rglob("*.py"))]
    findings = [text for path in paths for text in check(path)]
    print("\n".join(findings) or "conventions: all right")
    return 1 if findings else 0


def check(path: Path) -> Iterator[str]:
    """The findings of one file."""
    source = path.read_text("utf-8")
    lines = source.splitlines()
    of_command = path.parts[-3:-1] == ("kvg", "cli") or path.parts[-2] == "cli"
    most = MAX_LINES_OF_COMMAND if of_command else MAX_LINES
    if len(lines) > most:
        yield f"{path}: {len(lines)} lines; cut it, {most} are the most"
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in _defined(node):
            if word := _forbidden(name):
                yield f"{path}:{node.lineno}: '{name}' is no name here; write {WORDS[word]}"
        if isinstance(node, ast.Global):
            yield f"{path}:{node.lineno}: global; pass the value, or keep it in an object"
    for line in [] if of_command else _hidden_imports(tree, lines):
        yield f"{path}:{line}: import inside a function; move it up, or say why in a comment"


def _defined(node: ast.AST) -> Iterator[str]:
    """Names that a node gives to something."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr
    elif isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name
    elif isinstance(node, ast.alias) and node.asname:
        yield node.asname


def _hidden_imports(tree: ast.Module, lines: list[str]) -> list[int]:
    """Lines of the imports inside functions that give no reason; each once, also where functions are nested."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inner = [node for function in functions for node in ast.walk(function)]
    imports = [node for node in inner if isinstance(node, ast.Import | ast.ImportFrom)]
    return sorted({node.lineno for node in imports if not _has_reason(lines, node)})


def _forbidden(name: str) -> str:
    """The forbidden word that a name is, or ends with after an underscore; '' for none."""
    plain = name.strip("_").lower()
    return next((word for word in WORDS if plain == word or plain.endswith(f"_{word}")), "")


def _has_reason(lines: list[str], node: ast.Import | ast.ImportFrom) -> bool:
    """Whether a comment stands on one of the lines of an import, or on the line before it."""
    end = node.end_lineno or node.lineno
    return any("#" in line for line in lines[max(0, node.lineno - 2) : end])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
