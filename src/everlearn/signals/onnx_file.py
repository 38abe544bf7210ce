"""The ONNX files that everlearn writes: a graph with all its weights, and a document that says what it is.

The document stands at the end, with the SHA-256 of all that is before it and in it; a reader makes it anew and
compares, so that every bit of a file matters. Files hold no code of ours; those with operators other than ONNX's own,
or with weights that lie in other files, are refused before onnxruntime sees them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.errors import Corrupt, Unsupported, Untrusted, refused
from everlearn.checkpoint.limits import Limits
from everlearn.core.errors import MissingExtraError
from everlearn.ppo.imported import content_of

SUFFIX = ".onnx"
KEY = "everlearn"
"""Of the document among the model's ``metadata_props``."""
FORMAT: Final = "everlearn_onnx"
VERSION: Final = 1
_SHA256 = "sha256"
"""In the document: of the model and what else the document says."""
_STANDARD = ("", "ai.onnx")
"""Two names of one domain, whose operators every runtime has."""
_RESTORE = "Restore the file from a copy, or export it again."
_EXPORTED = "Name a file that everlearn export has written."

Level = Annotated[float, Field(gt=0, lt=1)]


class About(BaseModel):
    """What a file says of itself.

    Attributes:
        format: Of these files.
        version: Of the format.
        everlearn: The version that has written it.
        kind: ``market`` for a graph from bars to decisions, ``policy`` for one from observations to actions.
        model_id: The ``content_id`` of the file that the model came from.
        features: The ``FeatureSpec`` of a market, as plain data.
        levels: Of the value quantiles.
        action_space: In words.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal["everlearn_onnx"] = FORMAT
    version: Literal[1] = VERSION
    everlearn: str
    kind: Literal["market", "policy"]
    model_id: str
    features: dict[str, Any] | None = None
    levels: tuple[Level, ...] = ()
    action_space: str


@dataclass(frozen=True)
class OnnxFile:
    """A file whose every bit has been verified.

    Attributes:
        file: Its name, for messages.
        about: What it says of itself.
        inputs: Of the graph: numbers and shape by name.
        outputs: The same.
        content: The whole file.
    """

    file: str
    about: About
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    content: bytes


def required(package: str) -> Any:
    """One of the packages that deal with ONNX.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtraError("ONNX", package, "onnx") from error


def packed(model: Any, about: About) -> bytes:
    """The whole file, of an ``onnx.ModelProto`` that has no metadata."""
    body: bytes = model.SerializeToString()
    return body + _end(body, about.model_dump(mode="json"))


def read_onnx(path: Path, limits: Limits, sha256: str | None = None) -> OnnxFile:
    """The file at a path, verified.

    Args:
        path: The file.
        limits: How much it may ask for.
        sha256: What its SHA-256 has to be, in hexadecimal.

    Raises:
        CheckpointError: If it is damaged, too large, none of everlearn's, of a newer version, another one than
            ``sha256`` says, or needs other files or operators than ONNX's own.
        MissingExtraError: Without onnx.
    """
    content, file = content_of(path, limits, sha256)
    model = _parsed(content, file)
    text = _document(model, file)
    document = strict_json.loads(text, file, KEY, max_bytes=limits.manifest_bytes, max_depth=limits.json_depth)
    _require_readable(document, file)
    _require_whole(content, document, file)
    about = _about({name: value for name, value in document.items() if name != _SHA256}, file)
    _require_self_contained(model, file)
    with refused(file, "graph"):
        inputs, outputs = ports(model.graph.input), ports(model.graph.output)
    return OnnxFile(str(file), about, inputs, outputs, content)


def session_of(content: bytes, file: object) -> Any:
    """An ``onnxruntime.InferenceSession`` with one thread on the CPU, which gives the same bits every time.

    Raises:
        Corrupt: If onnxruntime cannot use the graph.
        MissingExtraError: Without onnxruntime.
    """
    onnxruntime = required("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what goes wrong is raised; nothing is printed
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except session_errors() as error:
        raise Corrupt(file, f"onnxruntime cannot use its graph: {first_line(error)}", _RESTORE, "graph") from error


def session_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; its errors have no base of their own."""
    state = required("onnxruntime").capi.onnxruntime_pybind11_state
    kinds = [getattr(state, name) for name in dir(state)]
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))


def ports(values: Sequence[Any]) -> dict[str, str]:
    """Inputs or outputs of a graph: kind of numbers and shape by name, as ``float32 (rows, 3)``."""
    dtype_of = required("onnx").helper.tensor_dtype_to_np_dtype
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        shape = [size.dim_param or size.dim_value for size in tensor.shape.dim]
        found[value.name] = port(dtype_of(tensor.elem_type).name, *shape)
    return found


def port(dtype: str, *shape: int | str) -> str:
    """An input or output in words."""
    return f"{dtype} ({', '.join(map(str, shape))})"


def first_line(error: BaseException) -> str:
    """What libraries say that explain at length."""
    return str(error).strip().split("\n")[0]


def messages(message: Any) -> Iterator[Any]:
    """A protobuf message, and all messages in it."""
    yield message
    for _, value in message.ListFields():
        if hasattr(value, "ListFields"):
            yield from messages(value)
        elif not isinstance(value, str | bytes | int | float):
            for each in value:
                if not hasattr(each, "ListFields"):
                    break  # numbers or texts
                yield from messages(each)


# --- reading ----------------------------------------------------------------------------------------------------------


def _end(body: bytes, document: Mapping[str, Any]) -> bytes:
    """What is written behind the model: for protobuf, to write one message behind another is to join them.

    Args:
        body: The model.
        document: What is said of it; the SHA-256 of the two is added.
    """
    onnx = required("onnx")
    sha256 = hashlib.sha256(body + strict_json.dumps(document)).hexdigest()
    entry = onnx.StringStringEntryProto(key=KEY, value=strict_json.dumps({**document, _SHA256: sha256}).decode("ascii"))
    written: bytes = onnx.ModelProto(metadata_props=[entry]).SerializeToString()
    return written


def _parsed(content: bytes, file: object) -> Any:
    onnx = required("onnx")
    try:
        return onnx.ModelProto.FromString(content)
    except required("google.protobuf.message").DecodeError as error:
        raise Corrupt(file, "it is no ONNX, or a part of it is damaged or missing.", _RESTORE) from error


def _document(model: Any, file: object) -> bytes:
    found = [entry.value for entry in model.metadata_props if entry.key == KEY]
    if len(found) != 1:
        problem = "it does not say what everlearn could use it for: the metadata has no entry of ours."
        raise Unsupported(file, problem if not found else "the metadata has several entries of ours.", _EXPORTED)
    return str(found[0]).encode()


def _require_readable(document: Any, file: object) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise Unsupported(file, "its metadata are none of everlearn's.", _EXPORTED, KEY)
    version = document.get("version")
    if type(version) is not int:
        raise Corrupt(file, "it does not say which version it has.", _RESTORE, KEY)
    if version > VERSION:
        problem = f"it has version {version} of the format; this everlearn reads {VERSION}."
        raise Unsupported(file, problem, "Upgrade everlearn.", KEY)


def _require_whole(content: bytes, document: Mapping[str, Any], file: object) -> None:
    """Make the end anew, which has the SHA-256 of the rest, and compare it."""
    about = {name: value for name, value in document.items() if name != _SHA256}
    size = len(_end(b"", about))  # whatever comes before
    if content[-size:] != _end(content[:-size], about):
        raise Corrupt(file, "its content differs from what was written.", _RESTORE)


def _require_self_contained(model: Any, file: object) -> None:
    onnx = required("onnx")
    domains = {each.domain for each in model.opset_import}
    for message in messages(model):
        if isinstance(message, onnx.TensorProto) and (message.external_data or message.data_location):
            problem = f"the tensor '{message.name:.100}' lies in another file, which would be read."
            raise Untrusted(file, problem, "Use a file that holds all its weights.", "graph")
        if isinstance(message, onnx.NodeProto | onnx.FunctionProto):
            domains.add(message.domain)
    if foreign := sorted(domains.difference(_STANDARD)):
        problem = f"it has operators of {', '.join(map(repr, foreign))}, which are not ONNX's own."
        raise Untrusted(file, problem, _EXPORTED, "graph")


def _about(document: Mapping[str, Any], file: object) -> About:
    try:
        return About.model_validate_json(strict_json.dumps(document))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Corrupt(file, f"{place}: {first['msg']}.", _RESTORE, KEY) from error
