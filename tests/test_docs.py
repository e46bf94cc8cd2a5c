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


def test_the_migration_page_names_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "migration" / "mmengine.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 40
    assert named - defined == set()
