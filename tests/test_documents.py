"""The code in README and docs runs as it stands, and what they say of the code is true."""

import importlib.util
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stable_baselines3.common.logger import KVWriter, Logger

from everlearn import PPO, DistributionalPPO
from tests.document_pages import PAGES, ROOT, blocks, pages_with_blocks, run_page

SECONDS = 120
IMPORTED_LATER = ["pytest", "torch._dynamo", "torch.fx.experimental.proxy_tensor"]
"""What torch and pages import on first use, which takes seconds; once is enough."""


@pytest.fixture(scope="module")
def server() -> multiprocessing.context.BaseContext:
    """Processes that start with everlearn imported: each page has one of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["everlearn.cli", "everlearn.runs", "everlearn.ppo.algorithm", *IMPORTED_LATER])
    return context


@pytest.mark.parametrize("page", pages_with_blocks(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_runs_without_warnings(page: Path, server, tmp_path: Path) -> None:
    directory, log = tmp_path / "here", tmp_path / "log"
    directory.mkdir()
    process = server.Process(target=run_page, args=(page, directory, log))
    process.start()
    process.join(SECONDS)
    process.kill()
    process.join()
    assert process.exitcode == 0, log.read_text()[-4000:]


def test_a_block_that_fails_fails_its_page(server, tmp_path: Path) -> None:
    page, directory, log = tmp_path / "page.md", tmp_path / "here", tmp_path / "log"
    directory.mkdir()
    page.write_text("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    process = server.Process(target=run_page, args=(page, directory, log))
    process.start()
    process.join()
    assert process.exitcode == 1
    assert "line 6" in log.read_text()


def links(page: Path) -> Iterator[str]:
    """Targets of a page's links that are paths."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            yield target.split("#")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    named = {line.strip() for line in index.splitlines()}
    docs = ROOT / "docs"
    pages = {str(page.relative_to(docs).with_suffix("")) for page in PAGES if docs in page.parents} - {"index"}
    assert {page for page in pages if page not in named} == set()


# --- the monitoring guide ---------------------------------------------------------------------------------------------


class Keys(KVWriter):
    """Keeps the names of what is logged."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def write(self, key_values, key_excluded, step=0) -> None:
        self.names |= set(key_values)

    def close(self) -> None:
        pass


def logged(model: PPO) -> set[str]:
    """What two iterations log, with the part of the network in a name written as PART."""
    keys = Keys()
    model.set_logger(Logger(None, [keys]))
    model.learn(2 * model.n_steps)
    model.logger.dump()
    return {re.sub(r"/(actor|critics|shared)/", "/PART/", name) for name in keys.names}


def documented() -> set[str]:
    """The keys of the guide's tables."""
    text = (ROOT / "docs" / "monitoring.md").read_text()
    return set(re.findall(r"^\| `([a-z]+/[\w/]+)`", text, re.MULTILINE))


def test_the_guide_documents_every_key_that_is_logged_and_no_other() -> None:
    size = {"n_steps": 200, "batch_size": 100, "n_epochs": 1}
    runs = [
        DistributionalPPO("MlpPolicy", "Pendulum-v1", **size, clip_range_vf=0.2, kl_penalty=kind)
        for kind in ("pid", "adaptive_lr")
    ]
    not_from_learn = {name for name in documented() if name.startswith("eval/")}
    assert set().union(*map(logged, runs)) | {"rollout/success_rate"} == documented() - not_from_learn


# --- the generated reference ------------------------------------------------------------------------------------------


@pytest.fixture
def generators(monkeypatch) -> dict[str, Callable[[], str]]:
    """What the site's generated pages are made by."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "_extensions")
    from command_tables import commands
    from configuration_tables import configuration, defaults

    return {"commands": commands, "configuration": configuration, "defaults": defaults}


@pytest.mark.parametrize("name", ["commands", "configuration"])
def test_every_key_and_option_of_the_reference_has_a_meaning(name: str, generators) -> None:
    rows = [line for line in generators[name]().splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert [row for row in rows if row.endswith("|  |")] == []


def test_the_reference_tells_the_defaults_of_each_class(generators) -> None:
    assert "| `n_critics` | `1` | `2` |" in generators["defaults"]()


# --- the site ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="the extra 'docs' is not installed")
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "docs", str(tmp_path / "html")]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_console_blocks_are_found() -> None:
    assert {block.language for page in PAGES for block in blocks(page)} == {"python", "yaml", "console"}
