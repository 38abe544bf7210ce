"""The runner of the neighbours' tests: what it selects, where it puts the class, what it complains about."""

import io
import runpy
import sys
import tarfile
from types import ModuleType, SimpleNamespace

import pytest

import everlearn
from compatibility import page
from compatibility.__main__ import finish
from compatibility.exceptions import EXCUSED, LIMITS, PPO, Excused, excused_tests
from compatibility.source import check_digest, required_version, unpack
from compatibility.substitution import SB3, names_in
from compatibility.suite import ROOT, Baseline, Result, Work, measure_baseline, run_all, run_one
from compatibility.verdict import Verdict, judge

PASSED = {"selected_by": "name", "outcome": "passed"}
FAILED = {"selected_by": "name", "outcome": "failed", "message": "x.py:3: AssertionError: no"}

# --- the verdict ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "excused", "outcomes", "verdict"),
    [
        ({"a", "b"}, set(), {"a": PASSED, "b": PASSED}, Verdict(2, 0, ())),
        ({"a"}, set(), {"a": PASSED, "new": FAILED}, Verdict(1, 0, ())),
        ({"a", "b"}, {"b"}, {"a": PASSED, "b": FAILED}, Verdict(1, 1, ())),
        ({"a"}, set(), {"a": FAILED}, Verdict(0, 0, ("f.py::a failed: x.py:3: AssertionError: no",))),
        ({"a"}, set(), {"a": {"outcome": "skipped"}}, Verdict(0, 0, ("f.py::a skipped: no reason given",))),
        ({"a"}, set(), {}, Verdict(0, 0, ("f.py::a did not run",))),
        ({"a"}, set(), {"a": {"selected_by": "use"}}, Verdict(0, 0, ("f.py::a did not run",))),
        ({"a"}, {"a"}, {"a": PASSED}, Verdict(1, 0, ("f.py::a is listed as an exception and passes",))),
        (set(), {"a"}, {"a": FAILED}, Verdict(0, 0, ("f.py::a is listed, but SB3's PPO does not pass it",))),
    ],
)
def test_what_sb3_passes_must_pass_or_be_listed_and_what_is_listed_must_fail(expected, excused, outcomes, verdict):
    assert judge("f.py", expected, excused, outcomes) == verdict


def test_a_complaint_ends_the_run_with_a_failure():
    finish([])
    with pytest.raises(SystemExit, match=r"f\.py::a did not run"):
        finish(["f.py::a did not run"])


def test_more_exceptions_than_a_class_may_have_end_the_run_with_a_failure(monkeypatch):
    monkeypatch.setitem(EXCUSED, PPO, (Excused("f.py", ("a", "b", "c", "d"), "many"),))
    with pytest.raises(SystemExit, match=r"everlearn\.PPO has 4 exceptions; it may have 3"):
        finish([])


# --- the data ---------------------------------------------------------------------------------------------------------


def test_the_baseline_is_of_the_required_version_and_has_sb3s_122_tests():
    known = Baseline.read()
    assert known.version == required_version()
    assert known.count()[0] == 122


@pytest.mark.parametrize("algorithm", LIMITS)
def test_every_exception_is_a_test_that_sb3_passes_and_has_a_reason(algorithm):
    known = Baseline.read()
    for file, names in excused_tests(algorithm).items():
        assert names <= known.expected(file)
    assert all(excused.reason.endswith(".") for excused in EXCUSED[algorithm])


def test_the_page_is_what_the_data_say():
    assert page.PATH.read_text() == page.written(Baseline.read()), "run `python -m compatibility contents`"


# --- the source -------------------------------------------------------------------------------------------------------


def archive(path, **members):
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                file.addfile(member)
            else:
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return path


def test_only_tests_and_options_are_unpacked_and_only_below_the_target(tmp_path):
    wanted = {"sb3/tests/test_run.py": b"run", "sb3/pyproject.toml": b"options"}
    others = {
        "sb3/stable_baselines3/__init__.py": b"",
        "sb3/setup.py": b"",
        "../tests/test_escape.py": b"",
        "sb3/tests/../../test_escape.py": b"",
        "/tests/test_absolute.py": b"",
        "sb3/tests/test_link.py": None,
    }
    unpack(archive(tmp_path / "sb3.tar.gz", **wanted, **others), tmp_path / "in" / "suite")
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.py")}
    assert files == {"in/suite/tests/test_run.py": b"run"}
    assert (tmp_path / "in/suite/pyproject.toml").read_bytes() == b"options"


def test_an_archive_with_another_digest_is_refused(tmp_path):
    path = tmp_path / "sb3.tar.gz"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of these three letters
    check_digest(path, f"stable-baselines3==2.9.2 --hash=sha256:{digest}\n")
    with pytest.raises(SystemExit, match=f"has the digest {digest}"):
        check_digest(path, f"stable-baselines3==2.9.2 --hash=sha256:{digest[:-1]}e\n")


# --- the run ----------------------------------------------------------------------------------------------------------

SMALL = """
import pytest
from stable_baselines3 import A2C, PPO
from stable_baselines3.ppo import PPO as THE_SAME

def test_ppo():
    assert PPO is THE_SAME and PPO.__module__.startswith("everlearn")

@pytest.mark.parametrize("kind", [A2C, PPO])
def test_kind(kind):
    assert kind is PPO or PPO is None

def test_use():
    def inner():
        return PPO
    assert inner() is None

def test_nothing():
    assert False

def test_support_of_ppo():
    pytest.skip()
"""


@pytest.fixture
def small_suite(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return tmp_path


def test_the_class_stands_in_sb3s_place_and_the_tests_of_ppo_are_run_and_written_down(small_suite):
    (small_suite / "tests" / "test_small.py").write_text(SMALL)
    outcomes = run_one(small_suite, Work(PPO, "test_small.py")).outcomes
    assert {name: (each["selected_by"], each["outcome"]) for name, each in outcomes.items()} == {
        "test_ppo": ("name", "passed"),
        "test_kind[PPO]": ("name", "passed"),
        "test_use": ("use", "failed"),
        "test_support_of_ppo": ("name", "skipped"),
    }
    assert "AssertionError" in outcomes["test_use"]["message"]


def test_the_baseline_is_what_sb3s_own_class_passes_in_the_files_that_mention_it(small_suite, monkeypatch):
    outcomes = {
        "test_ppo": PASSED,
        "test_use": {"selected_by": "use", "outcome": "passed"},
        "test_failing_ppo": FAILED,
        "test_unreached_ppo": {"selected_by": "name"},
    }
    for name, text in {"small": "PPO", "support": "unsupPOrted = PPOs", "empty": "# PPO"}.items():
        (small_suite / "tests" / f"test_{name}.py").write_text(text)
    results = {"test_small.py": Result(outcomes, 2.04, ""), "test_empty.py": Result({}, 1.0, "")}
    monkeypatch.setattr("compatibility.suite.run_one", lambda suite, work: results[work.file])
    known = measure_baseline(small_suite, "2.9.2", jobs=1)
    assert (known.by_name, known.by_use) == ({"test_small.py": ["test_ppo"]}, {"test_small.py": ["test_use"]})
    assert known.files == ["test_small.py"]
    assert known.seconds == {"test_small.py": 2.0}


def test_a_file_that_cannot_be_imported_ends_the_run(small_suite):
    (small_suite / "tests" / "test_broken.py").write_text("import no_such_module  # PPO\n")
    with pytest.raises(SystemExit, match=r"(?s)could not run test_broken\.py.*no_such_module"):
        run_one(small_suite, Work(SB3, "test_broken.py"))


def test_the_longest_file_comes_first(monkeypatch, tmp_path):
    began = []
    monkeypatch.setattr("compatibility.suite.run_one", lambda suite, work: began.append(work.file))
    run_all(tmp_path, [Work(PPO, "short", 1.0), Work(PPO, "long", 9.0), Work(PPO, "middle", 2.0)], jobs=1)
    assert began == ["long", "middle", "short"]


def test_names_are_found_in_functions_inside_functions():
    def outer():
        return lambda: SimpleNamespace

    assert "SimpleNamespace" in set(names_in(outer.__code__))
    assert "Namespace" not in set(names_in(outer.__code__))


# --- rl_zoo3's commands -----------------------------------------------------------------------------------------------


@pytest.fixture
def zoo(monkeypatch):
    """A stand-in for rl_zoo3: its modules have tables of their own, as some versions do."""
    calls = []
    modules = {name: ModuleType(f"rl_zoo3.{name}") for name in ("enjoy", "exp_manager", "hyperparams_opt", "train")}
    top = ModuleType("rl_zoo3")
    top.__path__ = []
    for module in (top, *modules.values()):
        module.ALGOS = {"ppo": None}
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name, module in modules.items():
        setattr(top, name, module)
    top.train.train, top.enjoy.enjoy = (lambda: calls.append(sys.argv)), (lambda: calls.append("enjoy"))
    top.hyperparams_opt.HYPERPARAMS_SAMPLER = {"ppo": "sampler"}
    top.hyperparams_opt.HYPERPARAMS_CONVERTER = {"ppo": "converter"}
    return top, calls


def zoo_command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["zoo_commands.py", *arguments])
    runpy.run_path(str(ROOT / "examples" / "zoo_commands.py"), run_name="__main__")


def test_the_zoo_finds_everlearns_classes_in_every_table(zoo, monkeypatch):
    top, calls = zoo
    zoo_command(monkeypatch, "train", "--algo", "everlearn_ppo")
    assert calls == [["zoo_commands.py", "--algo", "everlearn_ppo"]]
    for module in (top, top.train, top.enjoy, top.exp_manager):
        assert module.ALGOS["everlearn_ppo"] is everlearn.PPO
        assert module.ALGOS["distributional_ppo"] is everlearn.DistributionalPPO
    assert top.hyperparams_opt.HYPERPARAMS_SAMPLER["distributional_ppo"] == "sampler"
    assert top.hyperparams_opt.HYPERPARAMS_CONVERTER["everlearn_ppo"] == "converter"


@pytest.mark.parametrize("arguments", [(), ("play",)])
def test_a_command_that_the_zoo_lacks_is_refused_with_those_it_has(zoo, monkeypatch, arguments):
    with pytest.raises(SystemExit, match=r"train\|enjoy"):
        zoo_command(monkeypatch, *arguments)
    assert zoo[1] == []


@pytest.mark.parametrize("file", ["zoo_commands.py", "zoo.yml"])
def test_the_recipe_shows_the_files_that_are_tried(file):
    recipe = (ROOT / "docs" / "how-to" / "rl_zoo3.md").read_text()
    assert f"\n{(ROOT / 'examples' / file).read_text()}```" in recipe
