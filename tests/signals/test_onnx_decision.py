"""Signals by onnxruntime, and the files that are not used for any."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper

from everlearn.checkpoint.errors import CheckpointError, Corrupt, Mismatch, TooLarge, Unsupported, Untrusted
from everlearn.checkpoint.limits import Limits
from everlearn.core.errors import ArgumentError, ConfigError, MissingExtraError, OrderError, StateError
from everlearn.markets.feature_spec import FeatureSpec, Thresholds
from everlearn.markets.windows import FeatureWindows
from everlearn.signals.decision import BLOCK, in_blocks
from everlearn.signals.onnx_decision import OnnxDecision
from everlearn.signals.predictor import LEVELS, SignalPredictor
from tests.signals.exported import bars, export, trained

MOMENT = pl.col("decided_at")


def loaded(name: str = "discrete", **options: Any) -> SignalPredictor:
    return SignalPredictor.load(export(name)[0], **options)


# --- what a file decides ----------------------------------------------------------------------------------------------


def test_everything_comes_from_the_file() -> None:
    for name, levels in {"continuous": LEVELS, "discrete": ()}.items():
        predictor, expected = loaded(name), SignalPredictor.of(trained(name))
        assert predictor.spec == expected.spec
        assert predictor.levels == expected.levels == levels
        assert predictor.model_id == expected.model_id
        assert isinstance(predictor.decide, OnnxDecision)


def test_thresholds_may_be_others() -> None:
    thresholds = Thresholds(buy=0.2, sell=0.1, dead_zone=0.0)
    assert loaded(thresholds=thresholds).spec.thresholds == thresholds
    assert loaded().spec.thresholds == Thresholds()


def test_quantiles_are_part_of_the_file() -> None:
    assert loaded("continuous", quantiles=list(LEVELS)).levels == LEVELS
    assert loaded("discrete", quantiles=()).levels == ()
    for name, levels in {"continuous": (), "discrete": (0.5,)}.items():
        with pytest.raises(ArgumentError, match="which are part of its graph"):
            loaded(name, quantiles=levels)


def test_a_file_can_be_pinned() -> None:
    right = hashlib.sha256(export("discrete")[0].read_bytes()).hexdigest()
    assert loaded(sha256=right).levels == ()
    with pytest.raises(Untrusted, match=f"its SHA-256 is {right}"):
        loaded(sha256="0" * 64)
    with pytest.raises(ArgumentError, match="64 hexadecimal digits"):
        loaded(sha256="abc")


@pytest.mark.parametrize("name", ["continuous", "discrete"])
def test_a_table_in_pieces_has_the_signals_of_the_whole_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, table = loaded(name), bars()
    whole = predictor.predict(table).drop("decided_at")
    monkeypatch.setattr(SignalPredictor, "_piece_rows", lambda self: 37)
    pieces = [*predictor.predictions(table)]
    assert len(pieces) > 10
    assert pl.concat(pieces).drop("decided_at").equals(whole)
    assert predictor.predict(table.head(0)).drop("decided_at").schema == whole.schema


@pytest.mark.parametrize("name", ["continuous", "discrete"])
def test_no_row_depends_on_later_ones_to_the_bit(name: str) -> None:
    assert max(loaded(name).require_causal(bars(), prefixes=5)[:-1]) > 100


def test_the_same_file_decides_the_same_to_the_bit_wherever_a_row_stands() -> None:
    decide, spec = loaded().decide, loaded().spec
    seen = np.random.default_rng(0).standard_normal((3 * BLOCK + 17, spec.size)) * 0.02
    decisions = in_blocks(decide, seen)
    order = np.random.default_rng(1).permutation(len(seen))
    assert np.array_equal(in_blocks(loaded().decide, seen[order]), decisions[order])
    assert np.array_equal(in_blocks(decide, seen[5:6]), decisions[5:6])


def test_observations_of_an_environment_are_refused() -> None:
    with pytest.raises(StateError, match=r"Use predict\(table\)"):
        loaded().act(np.zeros((1, 12), np.float32))


# --- raw windows ------------------------------------------------------------------------------------------------------


def test_what_is_raw_standardises_to_what_is_observed() -> None:
    spec = SignalPredictor.of(trained("discrete")).spec
    values = np.random.default_rng(0).standard_normal((60, 3))
    values[7, 1], values[20, 0], values[21, 2] = np.nan, np.inf, -np.inf
    times = np.arange(60) * 1_000_000
    account = np.ones((60, 2), np.float32)
    whole = FeatureWindows(spec, values, times, raw=True)
    raw = whole.observations(slice(None), account, raw=True)
    assert raw.dtype == np.float64
    standardised = spec.standardised(raw[:, :-2].reshape(60, spec.window, 3)).astype(np.float32).reshape(60, -1)
    seen = whole.observations(slice(None), account)
    late = slice(spec.window - 1, None)  # with no bars before it, an observation has zeros there
    assert np.array_equal(standardised[late], seen[late, :-2])
    assert np.array_equal(raw[:, -2:], account)
    assert np.isfinite(raw[8 + spec.window : 20]).all()
    parts = []
    before = None
    for part in (slice(0, 2), slice(2, 21), slice(21, 60)):
        windows = FeatureWindows(spec, values[part], times[part], before, raw=True)
        parts.append(windows.observations(slice(None), raw=True))
        before = windows.history()
    assert np.array_equal(np.concatenate(parts), raw[:, :-2])


def test_raw_features_are_kept_only_where_they_are_asked_for() -> None:
    spec = SignalPredictor.of(trained("discrete")).spec
    windows = FeatureWindows(spec, np.zeros((9, 3)), np.arange(9))
    assert windows.history().raw is None
    with pytest.raises(OrderError, match="raw=True"):
        windows.observations(slice(None), raw=True)


# --- files that are refused -------------------------------------------------------------------------------------------

Document = dict[str, Any]


def parts(name: str = "discrete") -> tuple[Any, Document]:
    """The model of a file without its metadata, and the document in these."""
    model = onnx.load(export(name)[0])
    document = json.loads(model.metadata_props[0].value)
    del model.metadata_props[:]
    return model, document


def compact(document: Document) -> str:
    return json.dumps(document, separators=(",", ":"))


def without_digest(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != "sha256"}


def written(path: Path, model: Any, document: Document | str, key: str = "everlearn") -> Path:
    """A file with the SHA-256 that its content has."""
    body = model.SerializeToString()
    text = document
    if isinstance(document, dict):
        about = without_digest(document)
        text = compact({**about, "sha256": hashlib.sha256(body + compact(about).encode()).hexdigest()})
    end = onnx.ModelProto(metadata_props=[onnx.StringStringEntryProto(key=key, value=text)])
    path.write_bytes(body + end.SerializeToString())
    return path


def test_these_tests_write_files_as_the_library_does(tmp_path: Path) -> None:
    assert written(tmp_path / "same.onnx", *parts()).read_bytes() == export("discrete")[0].read_bytes()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", Unsupported),
        (b"no ONNX at all\n", CheckpointError),
        (b"\x00" * 100, Corrupt),
        (b"PK\x03\x04" + b"\x00" * 40, CheckpointError),
        (onnx.ModelProto(ir_version=10).SerializeToString(), Unsupported),
    ],
)
def test_what_is_none_of_ours_is_refused(tmp_path: Path, content: bytes, error: type[Exception]) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(error, match=r"model\.onnx: .*(Restore|Name a file)"):
        SignalPredictor.load(tmp_path / "model.onnx")


def test_a_file_that_ends_too_early_or_has_another_bit_is_refused(tmp_path: Path) -> None:
    content, path = export("discrete")[0].read_bytes(), tmp_path / "model.onnx"
    generator = np.random.default_rng(0)
    for length in (*generator.integers(0, len(content), 200).tolist(), len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"model\.onnx"):
            SignalPredictor.load(path)
    for place, bit in generator.integers((0, 0), (len(content), 8), (400, 2)).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model\.onnx"):
            SignalPredictor.load(path)
    path.write_bytes(content + b"\x00")
    with pytest.raises(CheckpointError):
        SignalPredictor.load(path)


def test_a_weight_that_was_changed_is_said_to_be(tmp_path: Path) -> None:
    model, _ = parts()
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights.flat[0] += 1.0
    model.graph.initializer[0].raw_data = weights.tobytes()
    before = onnx.load(export("discrete")[0]).metadata_props[0].value
    with pytest.raises(Corrupt, match="its content differs from what was written"):
        SignalPredictor.load(written(tmp_path / "model.onnx", model, before))


def changed(**changes: Any) -> Callable[[Document], Document | str]:
    return lambda document: {**document, **changes}


def features(**changes: Any) -> Callable[[Document], Document | str]:
    return lambda document: {**document, "features": {**document["features"], **changes}}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (changed(format="other"), Unsupported, "metadata are none of everlearn's"),
        (changed(version=2, more=1), Unsupported, "version 2 of the format; .* Upgrade everlearn"),
        (changed(version="1"), Corrupt, "does not say which version"),
        (changed(version=0), Corrupt, "version: Input should be 1"),
        (changed(more=1), Corrupt, "more: Extra inputs"),
        (changed(kind="other"), Corrupt, "kind: Input should be 'market' or 'policy'"),
        (changed(model_id=3), Corrupt, "model_id: "),
        (changed(levels=["0.5"]), Corrupt, "levels.0: "),
        (changed(levels=[1.5]), Corrupt, "levels.0: "),
        (changed(levels=[0.5]), Mismatch, "the outputs are score: .*; its metadata ask for .* quantiles: float32"),
        (changed(features=None), Unsupported, "holds a market whose observations are not made of bars"),
        (changed(kind="policy"), Unsupported, "holds a policy .*Run it with onnxruntime"),
        (features(window=5), Mismatch, r"the inputs are bars: float64 \(rows, 4, 3\); its metadata ask for .* 5, 3"),
        (features(account=["position"]), Mismatch, "ask for .*account"),
        (features(window="4"), Mismatch, "window"),
        (features(clip=-1), Mismatch, "clip"),
        (features(price=5), Mismatch, "price"),
        (features(more=5), Mismatch, "more than a FeatureSpec has"),
        (features(thresholds={"buy": 2.0}), Mismatch, "thresholds"),
        (lambda document: json.dumps(document), Corrupt, "differs from what was written"),
        (lambda document: compact({**document, "model_id": "other"}), Corrupt, "differs from what was written"),
        (lambda document: compact({**document, "sha256": None}), Corrupt, "differs from what was written"),
        (lambda document: compact(without_digest(document)), Corrupt, "differs from what was written"),
        (lambda _: "[]", Unsupported, "none of everlearn's"),
        (lambda _: '{"format": NaN}', Corrupt, "no strict JSON"),
        (lambda _: '{"format": 1, "format": 1}', Corrupt, "a key stands twice"),
        (lambda _: "[" * 50, TooLarge, "nested deeper"),
    ],
)
def test_metadata_that_say_something_else_are_refused(
    tmp_path: Path, change: Callable[[Document], Document | str], error: type[Exception], message: str
) -> None:
    model, document = parts()
    with pytest.raises(error, match=rf"(?s)model\.onnx(, \w+)?: .*{message}"):
        SignalPredictor.load(written(tmp_path / "model.onnx", model, change(document)))


def test_metadata_of_another_key_or_twice_are_refused(tmp_path: Path) -> None:
    model, document = parts()
    with pytest.raises(Unsupported, match="has no entry of ours"):
        SignalPredictor.load(written(tmp_path / "model.onnx", model, document, "other"))
    model.metadata_props.add(key="everlearn", value="{}")
    with pytest.raises(Unsupported, match="has several entries"):
        SignalPredictor.load(written(tmp_path / "model.onnx", model, document))


def test_files_ask_for_no_more_than_the_limits_allow() -> None:
    with pytest.raises(TooLarge, match="more than the 1000 bytes"):
        loaded(limits=Limits(file_bytes=1000))
    with pytest.raises(TooLarge, match=r", everlearn: it has \d+ bytes, 100 are"):
        loaded(limits=Limits(manifest_bytes=100))


def outside(model: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(os.urandom(4096))
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], str(tmp_path / "secret"))
    model.graph.initializer[0].ClearField("raw_data")


def outside_in_an_attribute(model: Any, tmp_path: Path) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL, name="within")
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))


def outside_in_a_branch(model: Any, tmp_path: Path) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL, name="deep")
    branch = helper.make_graph([], "branch", [], [], [tensor])
    model.graph.node.append(helper.make_node("If", ["score"], ["unused"], then_branch=branch, else_branch=branch))


def custom_operator(model: Any, tmp_path: Path) -> None:
    model.graph.node.append(helper.make_node("Run", ["score"], ["unused"], domain="com.example"))


def custom_domain(model: Any, tmp_path: Path) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def custom_function(model: Any, tmp_path: Path) -> None:
    opset = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("local", "Run", ["x"], ["y"], [], opset))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (outside, "lies in another file"),
        (outside_in_an_attribute, "the tensor 'within' lies in another file"),
        (outside_in_a_branch, "the tensor 'deep' lies in another file"),
        (custom_operator, "operators of 'com.example'"),
        (custom_domain, "operators of 'com.microsoft'"),
        (custom_function, "operators of 'local'"),
    ],
)
def test_files_that_need_others_or_foreign_operators_never_reach_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any, Path], None], message: str
) -> None:
    model, document = parts()
    spoil(model, tmp_path)
    path = written(tmp_path / "model.onnx", model, document)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # whoever asks for it now fails otherwise
    with pytest.raises(Untrusted, match=message):
        SignalPredictor.load(path)


def handmade(output: str, rows: str = "rows") -> Any:
    """A graph that takes bars and, as an operator of ONNX has it, gives something for the score and the position."""
    bars_ = helper.make_tensor_value_info("bars", TensorProto.DOUBLE, [rows, 4, 3])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows]) for name in ("score", "position")]
    nodes = [
        helper.make_node("Cast", ["bars"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node(output, ["numbers", "axes"], ["score"], keepdims=0),
        helper.make_node("Identity", ["score"], ["position"]),
    ]
    axes = numpy_helper.from_array(np.array([1, 2], np.int64), "axes")
    graph = helper.make_graph(nodes, "main", [bars_], ends, [axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_the_format_is_what_counts_and_not_who_made_the_graph(tmp_path: Path) -> None:
    predictor = SignalPredictor.load(written(tmp_path / "own.onnx", handmade("ReduceSum"), parts()[1]))
    raw = np.arange(2 * 12.0).reshape(2, 12)
    assert in_blocks(predictor.decide, raw).tolist() == [[66.0, 66.0], [210.0, 210.0]]


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda graph: graph.node[1].CopyFrom(helper.make_node("Nonsense", ["numbers"], ["score"])), Corrupt, "onnx"),
        (lambda graph: graph.node[1].input.pop(), Mismatch, "decides in the shape|cannot be run"),
        (lambda graph: graph.initializer[0].CopyFrom(long([1])), Mismatch, "decides in the shape|cannot be run"),
        (lambda graph: graph.initializer[0].CopyFrom(long([1, 7])), CheckpointError, "cannot"),
        (lambda graph: graph.output[0].type.tensor_type.ClearField("elem_type"), Mismatch, "does not fit"),
        (lambda graph: graph.input[0].type.Clear(), Mismatch, "does not fit"),
    ],
)
def test_a_graph_that_does_something_else_than_it_says_is_refused(
    tmp_path: Path, spoil: Callable[[Any], object], error: type[Exception], message: str
) -> None:
    model, document = handmade("ReduceSum"), parts()[1]
    spoil(model.graph)
    with pytest.raises(error, match=message):
        SignalPredictor.load(written(tmp_path / "model.onnx", model, document))


def long(axes: list[int]) -> Any:
    return numpy_helper.from_array(np.array(axes, np.int64), "axes")


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such model"):
        SignalPredictor.load(tmp_path / "none.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ConfigError, match="this is a directory"):
        SignalPredictor.load(tmp_path / "folder.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_names_the_pip_command(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    path = export("discrete")[0]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*pip install 'everlearn\[onnx\]'"):
        SignalPredictor.load(path)


def test_a_decision_is_of_raw_bars_and_the_account_in_one_row() -> None:
    class Session:
        def run(self, names: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
            self.names, self.given = names, given
            rows = len(given["bars"])
            return [np.full(rows, 1, np.float32), np.full(rows, 2, np.float32), np.full((rows, 1), 3, np.float32)]

    session = Session()
    spec = FeatureSpec(("a", "b"), (0.0, 0.0), (1.0, 1.0), ("", ""), window=2)
    decide = OnnxDecision(session, replace(spec, account=("position",)), (0.5,))
    assert decide.block(np.arange(10.0).reshape(2, 5)).tolist() == [[1, 2, 3], [1, 2, 3]]
    assert session.names == ["score", "position", "quantiles"]
    assert session.given["bars"].tolist() == [[[0, 1], [2, 3]], [[5, 6], [7, 8]]]
    assert session.given["account"].tolist() == [[4], [9]]
    assert session.given["account"].dtype == np.float32
