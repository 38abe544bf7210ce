"""Files of ours, good ones and such as are to be refused: with other members, other values, another structure."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from everlearn import DistributionalPPO
from everlearn.checkpoint.archive import pack, read_archive
from tools.fuzz.archives import sealed


@cache
def good() -> tuple[dict[str, bytes], dict[str, Any]]:
    """Members and manifest of a model's file with every part on."""
    model = DistributionalPPO(
        "MlpPolicy",
        "Pendulum-v1",
        n_steps=16,
        batch_size=8,
        n_epochs=1,
        kl_penalty="pid",
        value_head={"kind": "quantile", "n_quantiles": 4},
        policy_kwargs={"net_arch": [4]},
        device="cpu",
        seed=1,
    ).learn(16)
    archive = read_archive(io.BytesIO(b"".join(pack(*model.file_contents()))))
    about = {key: value for key, value in archive.manifest.items() if key not in ("files", "content_id")}
    return {name: bytes(content) for name, content in archive.members.items()}, about


def rebuilt(changes: Mapping[str, bytes], **about: Any) -> bytes:
    """The good file with other members and words, and right hashes."""
    members, said = good()
    return sealed({**members, **changes}, {**said, **about})


def changed(member: str, **changes: Any) -> bytes:
    """The good file with other values at the top of a document."""
    return rebuilt({member: json.dumps({**json.loads(good()[0][member]), **changes}).encode()})
