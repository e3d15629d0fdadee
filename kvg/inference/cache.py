"""Cache of answers by the content of their calls, in append-only files."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from io import BufferedWriter
from pathlib import Path

from kvg.errors import DataError
from kvg.inference.http_call import Reply
from kvg.work.files import disk_errors

log = logging.getLogger(__name__)


class AnswerCache:
    """Answers by the keys of their calls.

    Each process writes its own file, ``answers-NNNNNN.jsonl``, one answer per line. Each line is flushed at once, so a
    killed process loses no answer; a truncated line is skipped. Memory holds only file positions, about 200 bytes per
    answer.

    Args:
        folder: of the files; created with the first answer.

    Raises:
        DataError: existing files cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[bytes, tuple[Path, int]] = {}
        self._stream: BufferedWriter | None = None
        self._end = 0
        try:
            for path in sorted(folder.glob("answers-*.jsonl")):
                self._load(path)
        except OSError as error:
            raise _unreadable(folder, error) from error

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._places

    def get(self, key: str) -> Reply | None:
        """The cached answer to a call, or None.

        Raises:
            DataError: its file is missing or was changed.
        """
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        path, start = place
        try:
            with path.open("rb") as stream:
                stream.seek(start)
                entry = _parsed(stream.readline())
        except OSError as error:
            raise _unreadable(path, error) from error
        if entry is None or entry[0] != bytes.fromhex(key):
            raise DataError(
                str(path), f"byte {start}", "was changed by another program; leave this folder alone, and run again"
            )
        return entry[1]

    def put(self, key: str, reply: Reply) -> None:
        """Stores an answer.

        Raises:
            DataError: the disk is full or cannot be written to.
        """
        line = json.dumps({"key": key, **dataclasses.asdict(reply)}).encode("ascii") + b"\n"
        with disk_errors(self.folder):
            if self._stream is None:
                self._stream = self._begin()
            self._stream.write(line)
            self._stream.flush()
            self._places[bytes.fromhex(key)] = (Path(self._stream.name), self._end)
            self._end += len(line)

    def close(self) -> None:
        """Flushes all answers to the disk.

        Raises:
            DataError: the file cannot be written.
        """
        stream, self._stream = self._stream, None
        if stream is not None:
            with disk_errors(self.folder), stream:
                os.fsync(stream.fileno())

    def _begin(self) -> BufferedWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        taken = [int(path.stem[8:]) for path in self.folder.glob("answers-*.jsonl") if path.stem[8:].isdigit()]
        number = max(taken, default=0)
        while True:  # another process may take the same number at the same moment
            number += 1
            try:
                return (self.folder / f"answers-{number:06d}.jsonl").open("xb")
            except FileExistsError:
                continue

    def _load(self, path: Path) -> None:
        start, bad = 0, 0
        with path.open("rb") as stream:
            for line in stream:
                entry = _parsed(line)
                if entry:
                    self._places[entry[0]] = (path, start)
                elif line.endswith(b"\n"):
                    bad += 1
                start += len(line)
        if bad:
            log.warning("%s: %d lines are not answers; these requests are sent again", path, bad)


def _parsed(line: bytes) -> tuple[bytes, Reply] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
        key, reply = bytes.fromhex(values.pop("key")), Reply(**values)
        return (key, reply) if isinstance(reply.text, str) and isinstance(reply.cut, bool) else None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(str(path), "answers", f"cannot be read ({error.strerror}); restore or delete it")
