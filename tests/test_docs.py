"""The documentation names files, commands and links that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.page import read_page
from trainkit.cli.arguments import COMMANDS, parse

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
OWN_CODE = read_page(ROOT / "docs" / "own_code.md")
COMMAND_LINES = [line for section in OWN_CODE.values() for line in section.commands]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_file_shown_can_be_read() -> None:
    files = {name: text for section in OWN_CODE.values() for name, text in section.files.items()}
    assert len(files) > 15
    for name, text in files.items():
        if name.endswith(".py"):
            compile(text, name, "exec")
        else:
            assert yaml.safe_load(text), name


@pytest.mark.parametrize("line", [line for line in COMMAND_LINES if "eval" not in line])
def test_every_command_shown_is_one(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "python":
        files = {name for section in OWN_CODE.values() for name in section.files}
        assert words.pop(0) in files
    else:
        assert program == "trainkit"
    if words and words[0] in COMMANDS:
        command = words.pop(0)
        words = words[1:] if command == "explain" else words
    parse(words)


MIGRATION = ROOT / "docs" / "migration" / "mmengine.md"
RELIABILITY = ROOT / "docs" / "reliability.md"
FAULTS = 42
MUSTS = 100  # features that a framework needs which claims MMEngine's lifecycle
STATUS = re.compile(r"(same|different on purpose|left out|planned)(;? .+|)")


def _defined() -> set[str]:
    """Return the names of all tests, those of classes too."""
    pattern = re.compile(r"^ *def (test_\w+)\(", re.MULTILINE)
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in pattern.findall(file.read_text(encoding="utf-8"))}


def _numbered(page: Path) -> list[list[str]]:
    """Return the rows of a page's tables that begin with a number."""
    lines = page.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0].isdecimal()]


def test_the_migration_page_names_tests_that_there_are() -> None:
    named = set(re.findall(r"`(test_\w+)`", MIGRATION.read_text(encoding="utf-8")))
    assert len(named) > 300
    assert named - _defined() == set()


def test_the_migration_page_has_every_feature_once() -> None:
    rows = _numbered(MIGRATION)  # number, must, feature, status, tests
    assert [int(row[0]) for row in rows] == list(range(1, 146))
    for number, must, feature, status, tests in rows:
        assert must in ("M", ""), number
        assert feature, number
        assert STATUS.fullmatch(status), f"{number}: {status}"
        kind = status.split()[0].rstrip(";")
        assert kind != "different" or "(" in status, f"{number}: no reason"
        assert kind not in ("same", "different") or "`test_" in tests, f"{number}: no test"
        assert not (must and kind == "left"), f"{number} is a must"
    assert sum(row[1] == "M" for row in rows) == MUSTS


def test_the_reliability_page_names_tests_that_there_are() -> None:
    named = set(re.findall(r"`(test_\w+)`", RELIABILITY.read_text(encoding="utf-8")))
    assert len(named) > 100
    assert named - _defined() == set()


def test_the_reliability_page_has_every_fault_once() -> None:
    rows = _numbered(RELIABILITY)  # number, fault, what happens, tests
    assert [int(row[0]) for row in rows] == list(range(1, FAULTS + 1))
    for number, _, happens, tests in rows:
        assert "`test_" in tests or "not here" in happens, f"{number}: no test, and no reason"
