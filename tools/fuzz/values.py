"""Changes to values: bytes, JSON documents, members of tensors. Each takes a generator and nothing else by chance."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
from safetensors.torch import load

from everlearn.checkpoint.tensors import packed

NUMBERS: Sequence[Any] = (
    *(0, 1, -1, 2, 3, 255, 256, 65_536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 10**9, 10**18, 10**30),
    *(-(2**63), -(2**31), 0.0, -0.0, 0.5, 1e-300, 5e-324, 1e38, 1.7976931348623157e308, -1e300, 1e-9, 0.999999),
)
OTHERS: Sequence[Any] = (None, True, False, "", "nan", "lin_1e-3", "cpu", [], {}, [0], {"a": 1}, [[[]]], "x" * 5_000)
NAMES = (
    *("predict", "__class__", "__dict__", "env", "policy", "_setup_model", "learn", "device", "kind", "n_steps"),
    *(
        "os:system",
        "optimizer:os.system",
        "builtins:exec",
        "policy:__class__",
        "policy:SB3MlpPolicy",
        "schedule:cosine",
    ),
    *("optimizer:AdaptiveUPGD", "value head:categorical", "optimizer of torch:ASGD", "activation function:relu"),
    *("features extractor:nature_cnn", "rollout buffer:dict_rollout_buffer", "adam", "categorical", "Dict", "Tuple"),
)
DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)
FILLS = (0, 1, 3, 200)
SHAPES = ((), (0,), (1,), (2, 0, 2**40), (0, 2**40, 2**10), (1,) * 70, (3, 5), (4096,))
TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "C64", "F8_E4M3", "U64", "X", "", 3)


def _marked(random: Random) -> Any:
    """An object that has, or claims to have, a meaning of its own in our documents."""
    name, number = random.choice(NAMES), random.choice(NUMBERS)
    return random.choice(
        [
            {"$tensor": name},
            {"$array": "observation_space.low"},
            {"$scalar": "log_std"},
            {"$tuple": [number, name]},
            {"$tuple": name},
            {"$items": [[name, number], [number, name]]},
            {"$items": [[["a"], 1]]},
            {"$float": random.choice(["nan", "inf", "-inf", "1", 3, "infinity"])},
            {"$int": random.choice(["9" * 50, "-1", "9" * 5_000, "x", "٣", 3])},
            {"$class": name},
            {"$object": name, "arguments": {random.choice(NAMES): number}},
            {"$object": name},
            {"$opaque": name},
            {"$opaque": name, "value": number},
            {"opaque": name},
            {"kind": name, "start": number},
            {"$": number},
        ]
    )


def _value(random: Random) -> Any:
    kind = random.random()
    chosen: Any
    if kind < 0.5:
        chosen = random.choice(NUMBERS)
    elif kind < 0.65:
        chosen = random.choice(OTHERS)
    else:
        chosen = random.choice(NAMES) if kind < 0.8 else _marked(random)
    return copy.deepcopy(chosen)  # it may be changed in its turn


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every place in a document that can be written to, as container and key."""
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        container = waiting.pop()
        pairs = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in pairs:
            found.append((container, key))
            if isinstance(value, dict | list):
                waiting.append(value)
    return found


def change_document(document: Any, random: Random) -> Any:
    """A JSON document with one thing changed, in place where it can be."""
    places = _places(document) if isinstance(document, dict | list) else []
    if not places or random.random() < 0.02:
        return _value(random)
    container, key = random.choice(places)
    kind = random.random()
    if kind < 0.15:
        del container[key]
    elif kind < 0.25 and isinstance(container, dict):
        container[random.choice(NAMES)] = container[key] if random.random() < 0.5 else _value(random)
    elif kind < 0.32:
        other, there = random.choice(places)
        container[key] = json.loads(json.dumps(other.get(there) if isinstance(other, dict) else other))
    elif kind < 0.37:
        container[key] = [container[key]]
    elif kind < 0.45 and type(container[key]) in (int, float):
        container[key] *= random.choice([-1, 2, 10, 1e6, 0.5])
    else:
        container[key] = _value(random)
    return document


def change_json(content: bytes, random: Random) -> bytes:
    """The text of a document with a few things changed, now and then beyond what JSON allows."""
    try:
        document = json.loads(content)
    except ValueError:
        return change_bytes(content, random)
    for _ in range(_few(random)):
        document = change_document(document, random)
    text = json.dumps(document)
    kind = random.random()
    if kind < 0.03:
        text = text.replace(":", ":[" * random.choice([2, 40, 5_000]), 1)
    elif kind < 0.06:
        text = text.replace("0", random.choice(["NaN", "Infinity", "1e999", "9" * 6_000, "01"]), 1)
    elif kind < 0.08:
        text = text.replace("{", '{"a":1,"a":2,', 1)
    elif kind < 0.10:
        return text.encode("utf-16" if random.random() < 0.5 else "utf-8") + b"\xff"
    return text.encode("utf-8", "surrogatepass")


def change_tensors(content: bytes, random: Random) -> bytes:
    """A safetensors member with a changed header or changed numbers, or of other tensors in the right form."""
    if random.random() < 0.4:
        return _of_other_tensors(content, random)
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], bytearray(content[8 + length :])
    kind = random.random()
    if kind < 0.3 and data:
        for _ in range(_few(random)):
            start = random.randrange(len(data))
            data[start : start + 4] = random.choice(
                [b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", random.randbytes(4)]
            )[: len(data) - start]
    elif kind < 0.4:
        data = bytearray(change_bytes(bytes(data), random))
    elif kind < 0.9:
        header = _changed_header(header, random)
    claimed = len(header) if random.random() < 0.95 else random.choice([0, 1, 2**31, 2**63, 2**64 - 1, len(header) + 1])
    return claimed.to_bytes(8, "little") + header + bytes(data)


def _of_other_tensors(content: bytes, random: Random) -> bytes:
    """In exactly the form in which members are written, with tensors that do not fit the rest of the file."""
    tensors = dict(sorted(load(content).items()))  # it has an order of its own each time
    for _ in range(_few(random)):
        name = random.choice(list(tensors) or [""])
        tensor = tensors.get(name, torch.zeros(1))
        if random.random() < 0.15:
            tensors.pop(name, None)
        elif random.random() < 0.15:
            tensors[random.choice(NAMES)] = tensor.clone()
        else:
            tensors[name] = _other(tensor, random)
    return packed({name: tensor.contiguous() for name, tensor in tensors.items()})


def _other(tensor: torch.Tensor, random: Random) -> torch.Tensor:
    """A tensor of another shape, type or value."""
    kind = random.randrange(6)
    if kind == 0:
        return tensor.unsqueeze(0)
    if kind == 1:
        return tensor.flatten()[: random.choice([0, 1, 2])]
    if kind == 2:
        return tensor.to(random.choice(DTYPES))
    if kind == 3:
        return torch.full_like(tensor, random.choice(FILLS))
    if kind == 4 and 0 < tensor.numel() < 1_000:
        return tensor.repeat(3, *[1] * max(tensor.dim() - 1, 0))
    return torch.zeros(random.choice(SHAPES))


def _changed_header(header: bytes, random: Random) -> bytes:
    entries = json.loads(header)
    if not entries or random.random() < 0.1:
        return change_json(header, random)
    name = random.choice(list(entries))
    entry, number = entries[name], random.choice([value for value in NUMBERS if type(value) is int])
    changes: list[Callable[[], Any]] = [
        lambda: entry.update(dtype=random.choice(TYPES)),
        lambda: entry.update(shape=[*entry.get("shape", []), number]),
        lambda: entry.update(shape=list(reversed(entry.get("shape", [])))),
        lambda: entry.update(shape=[number] * random.choice([0, 1, 2, 70])),
        lambda: entry.update(data_offsets=[number, random.choice([0, 4, number])]),
        lambda: entries.pop(name),
        lambda: entries.update({random.choice(NAMES): dict(entry)}),
        lambda: entries.update({f"{name}'": entries.pop(name)}),
        lambda: entries.update({"__metadata__": {"a": random.choice(["b", 1])}}),
        lambda: entries.update(
            {str(index): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for index in range(1500)}
        ),
    ]
    random.choice(changes)()
    return json.dumps(entries).encode()


def change_bytes(content: bytes, random: Random) -> bytes:
    """Bytes with some of them flipped, replaced, inserted, deleted, repeated, or without their end."""
    changed = bytearray(content)
    for _ in range(_few(random)):
        start = random.randrange(len(changed) + 1)
        kind = random.random()
        if kind < 0.35 and start < len(changed):
            changed[start] ^= 1 << random.randrange(8)
        elif kind < 0.5:
            changed[start:start] = random.randbytes(random.choice([1, 2, 4, 30]))
        elif kind < 0.65:
            del changed[start : start + random.choice([1, 2, 4, 100])]
        elif kind < 0.8:
            value = random.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff" * 8, b"PK\5\6", b"PK\3\4", b"PK\1\2"])
            changed[start : start + len(value)] = value
        elif kind < 0.9:
            del changed[start:]
        else:
            changed[start:start] = changed[start // 2 : start // 2 + 500]
    return bytes(changed)


def _few(random: Random) -> int:
    """Once mostly, now and then up to five times."""
    return min(1 + int(random.expovariate(1.2)), 5)
