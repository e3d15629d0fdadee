"""Fetches the named photographs of ``pictures.csv`` from Debian packages, and lays them out for a project.

    python tests/photographs/prepare.py photographs

makes ``photographs/CATEGORY/ENTITY/PICTURE`` and ``photographs/photographs.csv``, a list for
``kvg.catalogue.tables.Table`` with licences, authors and, where one was drawn by hand, boxes. It needs the commands
``apt-get`` and ``dpkg`` of Debian or Ubuntu, but no rights: nothing is installed. Packages (450 MB) are kept in
``photographs/packages`` and not fetched again; without a network, put the files there that ``apt-get download`` fetches
elsewhere.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kvg.errors import ConfigError, DataError, KVGError
from kvg.work.files import atomic_write, disk_errors

PICTURES = Path(__file__).with_name("pictures.csv")
COLUMNS = ("path", "entity", "category", "licence", "author", "x1", "y1", "x2", "y2")
MAX_BYTES = 64 * 2**20  # of a picture or an archive; the largest has 5 MB
MAX_DEPTH = 32  # folders within folders of an archive
_DIRECTORY, _ZLIB, _ZSTD = 2, 1, 4  # flags of a node


@dataclass(frozen=True)
class Package:
    """Where a package keeps its pictures.

    Attributes:
        name: of the package.
        root: folder of its pictures.
        licence: of all of them, where the package does not tell it one by one.
    """

    name: str
    root: str
    licence: str = ""


PACKAGES = {  # by the first part of a picture's name in pictures.csv
    "stamps": Package("tuxpaint-stamps-default", "usr/share/tuxpaint/stamps", "GPL-2"),
    "gcompris": Package("gcompris-qt-data", "usr/share/gcompris-qt/rcc"),
    "stellarium": Package("stellarium-data", "usr/share/stellarium/nebulae/default", "GPL-2+"),
}
CREDITS = "textures.json"  # who took which picture of stellarium


def main() -> int:
    """Prepares the photographs; see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the photographs; made if it is not there")
    try:
        prepare(parser.parse_args().out)
    except KVGError as error:
        print(f"prepare: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def prepare(out: Path) -> None:
    """Fetches, unpacks, and writes the list last, so that it is there only when everything is.

    Raises:
        ConfigError: a command of Debian is missing.
        DataError: a package cannot be fetched or read, or the disk is full.
    """
    rows = list(csv.DictReader(PICTURES.read_text("utf-8").splitlines()))
    wanted: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        wanted[row["picture"].partition("/")[0]].append(row)
    listed, missing = [], []
    with disk_errors(out):
        for kind, package in PACKAGES.items():
            file = fetch(package.name, out / "packages")
            found = _contents(file, package, kind, [row["picture"] for row in wanted[kind]])
            for row in wanted[kind]:
                if row["picture"] not in found:
                    missing.append(f"{row['picture']} is not in this version of {package.name}")
                    continue
                data, licence, author = found[row["picture"]]
                path = Path(*(_part(row[name], PICTURES.name) for name in ("category", "entity")))
                path /= row["picture"].replace("/", "-")
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                (out / path).write_bytes(data)
                made = {**row, "path": path.as_posix(), "licence": licence, "author": author}
                listed.append({name: made[name] for name in COLUMNS})
            print(f"{package.name}: {len(found)} pictures")
        stream = io.StringIO()
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
        atomic_write(out / "photographs.csv", stream.getvalue())
    for line in missing:
        print(f"left out: {line}", file=sys.stderr)
    print(f"{len(listed)} pictures of {len({row['entity'] for row in listed})} entities in {out / 'photographs.csv'}")


def fetch(name: str, folder: Path) -> Path:
    """The file of a package, fetched if it is not there.

    Raises:
        ConfigError: there is no ``apt-get``.
        DataError: it cannot be fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{name}_*.deb")):
        with tempfile.TemporaryDirectory(dir=folder) as partial:  # what is not whole never gets its name
            _command("apt-get", "download", name, cwd=partial).wait()
            for path in Path(partial).glob("*.deb"):
                path.replace(folder / path.name)
    found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        remedy = "cannot be fetched; run `apt-get update` as root first, or put the package's file here"
        raise DataError(str(folder), name, remedy)
    return found[-1]


def _command(*words: str, **settings: object) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(words, **settings)  # type: ignore[call-overload,no-any-return]
    except OSError as error:
        raise ConfigError(words[0], f"cannot be run ({error.strerror}); use a machine with Debian or Ubuntu") from error


def _contents(file: Path, package: Package, kind: str, names: list[str]) -> dict[str, tuple[bytes, str, str]]:
    """Pictures of a package with their licences and authors, by the names of the list."""
    files = {name.partition("/")[2]: name for name in names}  # {path below the root: name}
    if kind != "gcompris":
        texts = [CREDITS] if kind == "stellarium" else []
        raw = dict(_members(file, package.root, {*files, *texts}))
        authors = _credits(raw.pop(CREDITS, b""))
        return {files[path]: (data, package.licence, authors.get(path, "")) for path, data in raw.items()}
    found = {}
    for path, data in _members(file, package.root, {f"{name.split('/')[0]}.rcc" for name in files}):
        activity = path.removesuffix(".rcc")
        inside = read_rcc(data, f"{file.name}: {path}")
        root = PurePosixPath(f"gcompris/src/activities/{activity}/resource")
        for short, name in files.items():
            where = root / short.partition("/")[2]
            if short.startswith(f"{activity}/") and str(where) in inside:
                found[name] = (inside[str(where)], *_licence(where, inside))
    return found


def _members(file: Path, root: str, names: set[str]) -> Iterator[tuple[str, bytes]]:
    """Files of a package, by their paths below ``root``; read as a stream, so that nothing else touches the disk."""
    process = _command("dpkg", "--fsys-tarfile", str(file), stdout=subprocess.PIPE)
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                path = name.relative_to(root).as_posix() if name.is_relative_to(root) else ""
                content = tar.extractfile(member) if path in names and member.isfile() else None
                if content is None:
                    continue
                if member.size > MAX_BYTES:
                    raise DataError(str(file), path, f"has {member.size} bytes, more than {MAX_BYTES}; leave it out")
                yield path, content.read()
    except (tarfile.TarError, EOFError) as error:
        raise DataError(str(file), "package", f"cannot be read ({error}); delete it and run this again") from error
    finally:
        if process.stdout:
            process.stdout.close()
        process.wait()


def read_rcc(data: bytes, where: str) -> dict[str, bytes]:
    """The files in a Qt resource file, by their paths.

    A header of ``qres``, the version and the offsets of tree, contents and names; nodes of 14 bytes (version 1) or 22;
    names in UTF-16; contents behind their length, deflated where the node says so. All numbers are big-endian.

    Raises:
        DataError: it is something else, or damaged.
    """
    try:
        magic, version, tree, contents, names = struct.unpack_from(">4s4I", data)
        if magic != b"qres" or not 1 <= version <= 3:
            raise DataError(where, "header", "is not that of a Qt resource file of version 1-3")
        size = 14 if version == 1 else 22
        found: dict[str, bytes] = {}
        waiting = [(0, PurePosixPath(), 0)]
        while waiting:
            number, folder, depth = waiting.pop()
            name_at, flags = struct.unpack_from(">IH", data, tree + number * size)
            path = folder / _part(_name(data, names + name_at), where) if number else folder
            if flags & _DIRECTORY:
                num, first = struct.unpack_from(">II", data, tree + number * size + 6)
                if depth == MAX_DEPTH or first <= number or tree + (first + num) * size > len(data):
                    raise DataError(where, str(path), "lists what cannot be in it; the file is damaged")
                waiting += [(first + at, path, depth + 1) for at in range(num)]
            else:
                (at,) = struct.unpack_from(">I", data, tree + number * size + 10)
                found[str(path)] = _content(data, contents + at, flags, f"{where}: {path}")
    except (struct.error, UnicodeDecodeError, zlib.error) as error:
        raise DataError(where, "resource file", f"is damaged ({error}); fetch the package again") from error
    return found


def _name(data: bytes, at: int) -> str:
    (length,) = struct.unpack_from(">H", data, at)
    (text,) = struct.unpack_from(f">{2 * length}s", data, at + 6)  # behind length and hash
    return str(text.decode("utf-16-be"))


def _content(data: bytes, at: int, flags: int, where: str) -> bytes:
    (length,) = struct.unpack_from(">I", data, at)
    packed = data[at + 4 : at + 4 + length]
    if len(packed) != length:
        raise DataError(where, "content", f"has {len(packed)} bytes of {length}; fetch the package again")
    if flags & _ZSTD:
        raise DataError(where, "content", "is packed with zstd, which is not read here; take an older package")
    if not flags & _ZLIB:
        return packed
    unpacker = zlib.decompressobj()
    made = unpacker.decompress(packed[4:], MAX_BYTES)  # behind four bytes with the length
    if not unpacker.eof:
        raise DataError(where, "content", f"is cut off, or has more than {MAX_BYTES} bytes")
    return made


def _part(name: str, where: str) -> str:
    """A name that is a name of one folder or file, and no way out of it."""
    if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise DataError(where, repr(name), "is no name of a file; correct the list, or fetch the package again")
    return name


def _licence(path: PurePosixPath, inside: Mapping[str, bytes]) -> tuple[str, str]:
    """Licence and author by the nearest README above a picture, whose paragraphs name files."""
    for folder in path.parents:
        for block in inside.get(str(folder / "README"), b"").decode("utf-8", "replace").split("\n\n"):
            if str(path.relative_to(folder)) in block.replace("Files:", " ").split():
                licence = re.search(r"^License: *(.+)$", block, re.MULTILINE)
                author = re.search(r"^Copyright:((?: *\S.*)?(?:\n +.*)*)", block, re.MULTILINE)
                people = [line.strip().removeprefix("Copyright ") for line in (author[1] if author else "").split("\n")]
                return _spelt(licence[1] if licence else ""), "; ".join(filter(None, people))
    return "", ""


def _spelt(licence: str) -> str:
    """One spelling of each licence."""
    text = licence.strip().replace(" ", "-").replace("GPLv", "GPL-")
    return "public domain" if text.lower() == "public-domain" else text


def _credits(text: bytes) -> dict[str, str]:
    """Who took which picture of stellarium, whose list has numbers such as -.9 and so is no JSON."""
    pairs = re.findall(
        rb'"imageCredits"\s*:\s*\{\s*"short"\s*:\s*"([^"]*)"[^}]*\}\s*,\s*"imageUrl"\s*:\s*"([^"]+)"', text, re.I
    )
    return {name.decode(): author.decode("utf-8", "replace") for author, name in pairs}


if __name__ == "__main__":
    sys.exit(main())
