import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from everlearn.core.errors import ConfigError
from everlearn.core.private_cache import keep_compiled_code_private, private_directory

posix = pytest.mark.skipif(os.name != "posix", reason="needs modes and owners of files")


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    return tmp_path / "caches"


@posix
def test_only_the_user_may_enter_a_new_directory(caches: Path) -> None:
    before = os.umask(0)
    try:
        directory = private_directory("compiled")
    finally:
        os.umask(before)
    assert directory == caches / "everlearn" / "compiled"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (directory, directory.parent)] == [0o700, 0o700]
    assert private_directory("compiled") == directory


@posix
@pytest.mark.parametrize("name", ["everlearn", "everlearn/compiled"])
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_directory_that_others_may_write_into_is_refused(caches: Path, name: str, mode: int) -> None:
    private_directory("compiled")
    (caches / name).chmod(mode)
    with pytest.raises(ConfigError, match=rf"{name} is writable by others \(its mode is {mode:o}\).*Remove it, or set"):
        private_directory("compiled")


@posix
@pytest.mark.parametrize("name", ["everlearn", "everlearn/compiled"])
def test_a_link_is_refused_even_to_a_private_place(caches: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (caches / name).parent.mkdir(parents=True, mode=0o700)
    (caches / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=f"{name} is a link"):
        private_directory("compiled")


@posix
def test_a_directory_of_somebody_else_is_refused(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private_directory("compiled")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match=rf"everlearn belongs to the user with the number {owner}"):
        private_directory("compiled")


def test_where_none_can_be_made_there_is_one_until_the_process_ends(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    program = "from everlearn.core.private_cache import private_directory as p; d = p('compiled'); print(d, d.is_dir())"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    directory, there = done.stdout.split()
    assert (Path(directory).parent, there) == (tmp_path, "True")
    assert not Path(directory).exists()


@pytest.mark.parametrize(("home", "expected"), [("relative", ".cache"), ("", ".cache")])
def test_without_a_home_of_caches_it_is_under_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, expected: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert private_directory("compiled") == tmp_path / expected / "everlearn" / "compiled"


def test_torch_keeps_compiled_code_there_unless_the_user_says_otherwise(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(caches / "own"))
    keep_compiled_code_private()
    assert cache_dir() == str(caches / "own")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    keep_compiled_code_private()
    assert cache_dir() == str(caches / "everlearn" / "compiled")


def test_importing_everlearn_sets_nothing() -> None:
    program = "import os; before = dict(os.environ); import everlearn.runs; import sys; sys.exit(before != os.environ)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
