"""Reads shards and tolerates damage: bad samples are counted, logged and skipped."""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from kvg.errors import DataError
from kvg.shards.manifest import file_faults, load_manifest
from kvg.shards.schema import IMAGES, decode_record
from kvg.types import Sample

log = logging.getLogger(__name__)

Place = tuple[tuple[int, int], tuple[int, int]]  # (offset, length) of the record and of the image in the tar
_BUFFER: Final = 1 << 20


@dataclass
class Tally:
    """Counts of a reader.

    Attributes:
        num_read: number of good samples.
        num_bad: number of samples that cannot be used.
        num_cut: number of files that end too early.
        problems: the first messages.
        max_problems: maximum number of messages that are kept and logged.
        log_problems: whether messages are logged.
    """

    num_read: int = 0
    num_bad: int = 0
    num_cut: int = 0
    problems: list[str] = field(default_factory=list)
    max_problems: int = 20
    log_problems: bool = True

    def note(self, error: DataError, *, cut: bool = False) -> None:
        """Counts a problem, and logs it if it is one of the first ``max_problems``."""
        self.num_cut += cut
        self.num_bad += not cut
        if len(self.problems) < self.max_problems:
            self.problems.append(str(error))
        elif self.num_bad + self.num_cut > self.max_problems + 1:
            return
        if self.log_problems:
            more = len(self.problems) < self.num_bad + self.num_cut
            log.warning("skipped: %s", "more follow; `kvg-data verify` lists them all" if more else error)


class SamplePart(Protocol):
    """Part of a set that is read from its start: a tar, or a part of a published file."""

    @property
    def num_samples(self) -> int:
        """Number of samples that it should have."""

    def read(self, tally: Tally | None = None) -> Iterator[tuple[int, Sample]]:
        """Yields good samples with their positions in the part; counts bad ones in ``tally``."""


class SampleStore(Protocol):
    """A set of samples in parts. It must be picklable, since each worker opens it."""

    def parts(self) -> Sequence[SamplePart]:
        """Returns the parts, always in the same order."""


def read_shard(path: str | Path, tally: Tally | None = None) -> Iterator[Sample]:
    """Reads one tar.

    Args:
        path: a WebDataset tar of this schema.
        tally: counts of the reader; a new one by default.

    Yields:
        The good samples. Bad samples, and a tar that ends early, are counted in ``tally``.
    """
    for _, sample in Shard(Path(path)).read(tally):
        yield sample


@dataclass(frozen=True)
class Shard:
    """A tar as a ``SamplePart``."""

    path: Path
    num_samples: int = 0

    def read(self, tally: Tally | None = None) -> Iterator[tuple[int, Sample]]:
        """See ``SamplePart``."""
        for position, sample, _ in self.read_places(tally):
            yield position, sample

    def read_places(self, tally: Tally | None = None) -> Iterator[tuple[int, Sample, Place]]:
        """Like ``read``, with the place of each sample in the file."""
        tally = Tally() if tally is None else tally
        position = -1
        for position, (key, members) in enumerate(self._groups(tally)):
            try:
                sample = decode_record(str(self.path), key, {name: data for name, (data, _) in members.items()})
            except DataError as error:
                tally.note(error)
                continue
            tally.num_read += 1
            spans = {name: (at, len(data)) for name, (data, at) in members.items()}
            yield position, sample, (spans["json"], next(spans[name] for name in IMAGES if name in spans))
        if position + 1 < self.num_samples and not tally.num_cut:
            remedy = f"holds {position + 1} of {self.num_samples} samples; copy it again"
            tally.note(DataError(str(self.path), "tar", remedy), cut=True)

    def _groups(self, tally: Tally) -> Iterator[tuple[str, dict[str, tuple[bytes, int]]]]:
        key = ""
        members: dict[str, tuple[bytes, int]] = {}
        try:
            with self.path.open("rb") as stream:
                for name, data, at in _members(stream):
                    stem, _, extension = name.rpartition("/")[2].partition(".")
                    if stem != key:
                        if members:
                            yield key, members
                        key, members = stem, {}
                    members[extension.lower()] = data, at
        except (tarfile.TarError, EOFError, OSError) as error:
            where = f"{self.path} after sample {key}" if key else str(self.path)
            tally.note(DataError(where, "tar", f"is cut off or damaged ({error}); copy it again"), cut=True)
            if len(members) < 2:  # the last sample is incomplete
                return
        if members:
            yield key, members


def _members(stream: BinaryIO) -> Iterator[tuple[str, bytes, int]]:
    """Yields name, content and offset of each file in a tar."""
    # Stream mode raises an error if a file ends too early; other modes take it for the end of the tar.
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, content.read(), member.offset_data
            tar.members.clear()  # type: ignore[attr-defined] # else tarfile keeps all headers in memory
        if tar.offset + tarfile.BLOCKSIZE > os.fstat(stream.fileno()).st_size:
            raise tarfile.ReadError("the end mark is missing")  # tarfile accepts an incomplete header as the end


class ShardFolder:
    """A folder of shards with its manifest, as a ``SampleStore``.

    Args:
        folder: folder that ``ShardWriter`` has written.

    Raises:
        DataError: the folder is missing, unfinished or incomplete.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = load_manifest(self.folder)

    def parts(self) -> Sequence[Shard]:
        """See ``SampleStore``."""
        return [Shard(self.folder / entry.file, entry.num_samples) for entry in self.manifest.shards]

    def check_files(self) -> None:
        """Checks that the files match the manifest, before a model is trained or evaluated on them.

        Raises:
            DataError: see ``kvg.shards.manifest.file_faults``.
        """
        for fault in file_faults(self.folder, self.manifest):
            raise fault
