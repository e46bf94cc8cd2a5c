"""A page of the documentation: its sections, and in them files to write and commands to run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Section:
    """What a section shows: files by name, and command lines."""

    files: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def read_page(path: Path) -> dict[str, Section]:
    """Return the sections of a page by their headings.

    A block ``yaml NAME`` or ``python NAME`` is the file of that name; ``bash`` holds command lines.
    """
    _, *parts = _HEADING.split(path.read_text(encoding="utf-8"))
    page: dict[str, Section] = {}
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        section = page[title] = Section()
        for language, name, content in _BLOCK.findall(text):
            if name:
                section.files[name] = content
            elif language == "bash":
                section.commands += content.splitlines()
    return page
