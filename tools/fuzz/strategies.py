"""How inputs are made of good files: each strategy keeps right what lies before the place that it tries."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from random import Random

from tools.fuzz.archives import HEAD, MANIFEST, laid_out, layout, manifest_of, sealed
from tools.fuzz.seeds import Seed
from tools.fuzz.values import change_bytes, change_document, change_json, change_tensors

JSON, TENSORS = ".json", ".safetensors"
_PROMINENT = {"config.json": 5, "hyperparameters.json": 3, "spaces.json": 3, "spaces.safetensors": 2}
_MAGIC = (
    b"",
    b"PK\3\4",
    b"\x80\4",
    b"\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    b"\x93NUMPY",
    b"{",
    b"\x89HDF\r\n\x1a\n",
)

Members = dict[str, bytes]
Strategy = Callable[[Random, Sequence[Seed], Seed], bytes]
"""Makes an input of a good file, with the others at hand."""


def damaged(random: Random, seeds: Sequence[Seed], seed: Seed) -> bytes:
    """Bytes flipped, inserted, deleted, cut."""
    return change_bytes(seed.content, random)


def restructured(random: Random, seeds: Sequence[Seed], seed: Seed) -> bytes:
    """The archive's structure: names, sizes, order, duplicates, fields of headers; checksums are right."""
    members = [(MANIFEST, manifest_of(seed.content)), *seed.members.items()]
    kind = random.random()
    place = random.randrange(len(members))
    if kind < 0.2:
        members.insert(random.randrange(len(members)), members[place])
    elif kind < 0.35:
        members.pop(place)
    elif kind < 0.5:
        random.shuffle(members)
    elif kind < 0.7:
        names = ("../../x", "/etc/passwd", "C:\\x", "a/b", "", "A.json", ".hidden", "x" * 300, "\0", "policy.pth")
        members[place] = (random.choice(names), members[place][1])
    if kind >= 0.95:
        return _zipped(members, random)
    sizes = [len(content) for _, content in members]
    if kind >= 0.85:
        odd = random.choice([0, 1, 2**31, 2**32 - 1, sizes[place] + 1])
        sizes[place if random.random() < 0.5 else -1] = odd
    headers, directory = layout(members, sizes)
    parts = [part for header, (_, content) in zip(headers, members, strict=True) for part in (header, content)]
    if 0.7 <= kind < 0.85:
        where = random.randrange(0, len(parts), 2)
        parts[where] = change_bytes(parts[where], random)
    return b"".join([*parts, directory if random.random() < 0.7 else change_bytes(directory, random)])


def _zipped(members: Sequence[tuple[str, bytes]], random: Random) -> bytes:
    """As another program would write it."""
    file = io.BytesIO()
    compression = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in {name.replace("\0", "_"): content for name, content in members}.items():
            archive.writestr(name, content)
    return file.getvalue()


def manifest(random: Random, seeds: Sequence[Seed], seed: Seed) -> bytes:
    """The manifest's text, with a right checksum; the hashes in it are part of what changes."""
    members = {MANIFEST: change_json(manifest_of(seed.content), random), **seed.members}
    return laid_out(members.items())


def about(random: Random, seeds: Sequence[Seed], seed: Seed) -> bytes:
    """What the manifest says besides, with right hashes."""
    changed = change_document({**HEAD, **json.loads(json.dumps(seed.about))}, random)
    return sealed(seed.members, changed if isinstance(changed, dict) else seed.about)


def document(random: Random, seeds: Sequence[Seed], seed: Seed) -> bytes:
    """Configuration, spaces, hyper-parameters or another part's JSON, with right hashes."""
    return _with_changed(seed, random, JSON, change_json)


def tensors(random: Random, seeds: Sequence[Seed], seed: Seed) -> bytes:
    """Headers and numbers of tensors, with right hashes."""
    return _with_changed(seed, random, TENSORS, change_tensors)


def _with_changed(seed: Seed, random: Random, suffix: str, change: Callable[[bytes, Random], bytes]) -> bytes:
    members = dict(seed.members)
    names = [name for name in members for _ in range(_PROMINENT.get(name, 1)) if name.endswith(suffix)]
    for name in {random.choice(names) for _ in range(1 if random.random() < 0.8 else 3)}:
        members[name] = change(members[name], random)
    return sealed(members, seed.about)


def spliced(random: Random, seeds: Sequence[Seed], seed: Seed) -> bytes:
    """Members of two good files, with right hashes."""
    other = random.choice([each for each in seeds if not each.foreign and each is not seed])
    members = dict(seed.members)
    for name in random.sample(list(other.members), min(len(other.members), random.choice([1, 1, 2, 6]))):
        members[name if random.random() < 0.9 else random.choice(list(members))] = other.members[name]
    if random.random() < 0.2:
        members.pop(random.choice(list(members)))
    return sealed(members, random.choice([seed, other]).about)


def alien(random: Random, seeds: Sequence[Seed], seed: Seed) -> bytes:
    """A damaged file of another system, or one of random bytes."""
    if random.random() < 0.15:
        return random.choice(_MAGIC) + random.randbytes(random.choice([0, 1, 30, 1000]))
    return change_bytes(seed.content, random)


def repacked(random: Random, seeds: Sequence[Seed], seed: Seed) -> bytes:
    """A file of another system with one member changed and every checksum right."""
    return _repacked(seed.content, random)


def _repacked(content: bytes, random: Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    interesting = [name for name in members if name.endswith((".pth", ".pkl")) or name == "data"]
    name = random.choice(interesting if random.random() < 0.8 else list(members))
    if name == "data":
        members[name] = change_json(members[name], random)
    elif members[name].startswith(b"PK"):
        members[name] = _repacked(members[name], random)
    else:
        members[name] = change_bytes(members[name], random)
    return _zipped(list(members.items()), random) if random.random() < 0.1 else _stored(members)


def _stored(members: Members) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


SHARES: dict[Strategy, float] = {
    damaged: 0.33,
    restructured: 0.19,
    manifest: 0.12,
    alien: 0.15,
    document: 0.09,
    tensors: 0.05,
    about: 0.015,
    spliced: 0.025,
    repacked: 0.03,
}
"""How often each is tried; the last five have right hashes, so that loading goes on into the model."""
_FOREIGN = (alien, repacked)


def made(index: int, seeds: Sequence[Seed]) -> tuple[str, Seed, bytes]:
    """The input of a number: its strategy, the good file it is made of, and its content."""
    random = Random(index)
    strategy = random.choices(list(SHARES), list(SHARES.values()))[0]
    seed = random.choice([each for each in seeds if each.foreign is (strategy in _FOREIGN)])
    return strategy.__name__, seed, strategy(random, seeds, seed)
