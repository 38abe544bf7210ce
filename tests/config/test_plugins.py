import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from everlearn.config import plugins
from everlearn.config.plugins import import_plugins, require_imported
from everlearn.core.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    plugins._import_installed.cache_clear()
    yield tmp_path
    plugins._import_installed.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_modules_are_imported_in_their_order_from_the_current_directory(here: Path) -> None:
    for name in ("first_plugin", "second_plugin"):
        (here / f"{name}.py").write_text(f"import sys\nsys.imported = [*getattr(sys, 'imported', []), '{name}']\n")
    import_plugins(["second_plugin", "first_plugin"])
    assert sys.imported == ["second_plugin", "first_plugin"]
    del sys.imported


def test_without_plugins_the_path_is_left_alone() -> None:
    before = list(sys.path)
    import_plugins([])
    assert sys.path == before


def test_a_missing_module_names_where_it_was_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"^--import: there is no module 'nothing'\. Run in its directory"):
        import_plugins(["nothing"], "--import")
    with pytest.raises(ConfigError, match=r"^plugins: there is no module 'nothing\.inside'"):
        import_plugins(["nothing.inside"])


@pytest.mark.parametrize("name", ["corridor.py", "parts/corridor.py"])
def test_a_file_instead_of_a_module_is_told_the_name_of_the_module(here: Path, name: str) -> None:
    (here / "corridor.py").write_text("")
    with pytest.raises(ConfigError, match=r"Name the module and not its file: corridor\.$"):
        import_plugins([name], "--import")


def test_what_a_plugin_itself_misses_is_its_own_error(here: Path) -> None:
    (here / "needy_plugin.py").write_text("import nothing_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="nothing_at_all") as error:
        import_plugins(["needy_plugin"])
    assert error.value.__notes__ == ["This happened while everlearn imported the plug-in 'needy_plugin' (plugins)."]


def test_an_error_in_a_plugin_arises_unchanged_with_the_plugins_name(here: Path) -> None:
    (here / "broken_plugin.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError) as error:
        import_plugins(["broken_plugin"], "--import")
    assert error.value.__notes__ == ["This happened while everlearn imported the plug-in 'broken_plugin' (--import)."]


def announced(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    points = [EntryPoint(name=name, value=name, group="everlearn.plugins") for name in names]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "everlearn.plugins" else [])


def test_installed_packages_announce_plugins_by_entry_points(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "installed_plugin.py").write_text("")
    monkeypatch.syspath_prepend(here)
    announced(monkeypatch, "installed_plugin")
    import_plugins([])
    assert "installed_plugin" in sys.modules


def test_an_error_in_an_installed_plugin_names_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "installed_plugin.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(here)
    announced(monkeypatch, "installed_plugin")
    with pytest.raises(ZeroDivisionError) as error:
        import_plugins([])
    assert "'installed_plugin' = installed_plugin (entry point of an installed package)" in error.value.__notes__[0]


def test_a_saved_run_asks_for_its_plugins_instead_of_importing_them(here: Path) -> None:
    (here / "asked_plugin.py").write_text("")
    with pytest.raises(
        ConfigError, match=r"runs/one was trained with the plug-ins asked_plugin.*--import asked_plugin"
    ):
        require_imported(["asked_plugin", "sys"], "runs/one")
    assert "asked_plugin" not in sys.modules
    import_plugins(["asked_plugin"])
    require_imported(["asked_plugin"], "runs/one")
