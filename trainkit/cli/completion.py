"""Shell completion over Hydra's plugins: ``eval "$(trainkit -sc install=bash)"``."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.cli.arguments import COMMANDS
from trainkit.config.loader import hydra_loader, parse_override
from trainkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.plugins.completion_plugin import CompletionPlugin

_SHORT = {"-cd": "--config-dir", "-cn": "--config-name", "-c": "--cfg", "-i": "--info"}
# Flags of all commands that take overrides, and of training; a word after one is its value.
_FLAGS = ("--config-dir DIR", "--config-name NAME", "--help")
_TRAIN_FLAGS = ("--multirun", "--cfg WHAT", "--info WHAT")
_PATH_KEYS = ("run", "resume", "load_from", "work_dir")
_RUN_COMMANDS = {"runs": 99, "diff": 2, "rerun": 1}  # how many runs each takes
_LIST = re.compile(r"([\w/]+=)(\[(?:\w+,)*)(\w*)")  # hooks=[ema,ear
# What bash neither splits nor expands when it reads a list of words.
_PLAIN = re.compile(r"[^\s$`'\"\\]+")


def run(command: str, argv: list[str]) -> None:
    """Print the script that installs or removes completion, or what may come next on a line.

    Raises:
        ConfigError: An unknown action or shell, or a program that no shell can complete.
    """
    from hydra.core.plugins import Plugins
    from hydra.plugins.completion_plugin import CompletionPlugin

    found = Plugins.instance().discover(CompletionPlugin)
    plugins = {kind.provides(): kind for kind in found if issubclass(kind, CompletionPlugin)}
    actions: dict[str, Callable[[type[CompletionPlugin]], None]] = {
        "install": _install,
        "uninstall": _uninstall,
        "query": _query,
    }
    action, _, shell = argv[0].partition("=") if len(argv) == 1 else ("", "", "")
    if action not in actions or not shell:
        raise ConfigError(
            f"{command} got {' '.join(argv) or 'nothing'!r}; expected install=SHELL or "
            f"uninstall=SHELL, with one of: {', '.join(sorted(plugins))}."
        )
    if shell not in plugins:
        raise ConfigError(
            f"{command} {action}={shell}: there is no completion for {shell!r}. "
            f"{did_you_mean(shell, plugins)}"
        )
    actions[action](plugins[shell])


def _install(plugin: type[CompletionPlugin]) -> None:
    if Path(sys.argv[0]).name == "__main__.py":
        raise ConfigError(
            "A shell completes programs by name, not python -m trainkit. Write: trainkit -sc "
            f"install={plugin.provides()}"
        )
    with hydra_loader() as loader:
        plugin(loader).install()


def _uninstall(plugin: type[CompletionPlugin]) -> None:
    with hydra_loader() as loader:
        plugin(loader).uninstall()
    if plugin.provides() != "fish":  # Hydra leaves a rule that names its function, now gone
        program = "python" if sys.argv[0].endswith(".py") else Path(sys.argv[0]).name
        rule = f"complete -p {program} 2> /dev/null"
        print(f"if {rule} | grep -q hydra_bash_completion; then complete -r {program}; fi")


def _query(plugin: type[CompletionPlugin]) -> None:
    """Print what fits at the end of the line that is typed; nothing where it has a mistake."""
    line = os.environ.get("COMP_LINE", "")
    line = plugin.strip_python_or_app_name(line[: int(os.environ.get("COMP_POINT") or len(line))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would stand in the middle of what is typed
        found = sorted({match for match in complete(line) if _PLAIN.fullmatch(match)})
    print(("\n" if plugin.provides() == "fish" else " ").join(found))


def complete(line: str) -> list[str]:
    """Return what the last word of a command line may become.

    Args:
        line: What follows the program's name, up to the cursor; it ends with a space before a word
            that is still empty.
    """
    *before, word = line.split() if line[-1:].strip() else [*line.split(), ""]
    matches = [name for name in COMMANDS if name.startswith(word)] if not before else []
    command = before[0] if before and before[0] in COMMANDS else ""
    flags = _flags(command)
    typed = _Typed(before[1:] if command else before, flags)
    key, equals, value = word.partition("=")
    if word.startswith("-"):
        return [flag for flag in flags if flag.startswith(word)]
    if typed.open_flag == "--config-dir" or len(typed.names) < _RUN_COMMANDS.get(command, 0):
        return list(_files(word))
    if equals and key in _PATH_KEYS:
        return [f"{key}={file}" for file in _files(value)]
    if command in ("val", "test") and "run".startswith(word):
        matches.append("run=")
    matches += typed.matches(word)
    if command == "explain" and not typed.names:  # a key comes first
        matches = [match.removesuffix("=") for match in matches]
    return matches


def _flags(command: str) -> dict[str, bool]:
    """Return the flags that a command takes, each with whether a value follows."""
    entry = COMMANDS[command or "train"]
    shown = [*entry.flags, *(_FLAGS if "overrides" in entry.usage else ())]
    shown += _TRAIN_FLAGS if command in ("", "train") else ()
    found = re.findall(r"(--[\w-]+)( [A-Z]+)?", "\n".join(shown))
    return {flag: bool(value) for flag, value in found}


class _Typed:
    """The words before the one that is typed, without the command's name.

    Attributes:
        open_flag: The flag whose value the next word is; empty if there is none.
        names: Words that are no overrides.
    """

    def __init__(self, words: list[str], flags: Mapping[str, bool]) -> None:
        self.open_flag = ""
        self.names: list[str] = []
        self.overrides: list[str] = []
        self.config_dirs: list[str] = []
        self.config_name = "config"
        for word in words:
            flag, equals, value = _SHORT.get(word, word).partition("=")
            if self.open_flag:
                self._take(self.open_flag, word)
                self.open_flag = ""
            elif flags.get(flag) and not equals:
                self.open_flag = flag
            elif word.startswith("-"):
                self._take(flag, value)
            else:
                (self.overrides if equals or word.startswith("~") else self.names).append(word)

    def _take(self, flag: str, value: str) -> None:
        if flag == "--config-dir":
            self.config_dirs.append(value)
        elif flag == "--config-name":
            self.config_name = value

    def matches(self, word: str) -> list[str]:
        """Return the groups, options, keys or values that ``word`` begins."""
        directories = [directory for directory in self.config_dirs if Path(directory).is_dir()]
        with hydra_loader(directories) as loader:
            if self.open_flag:
                names = loader.get_group_options("") if self.open_flag == "--config-name" else []
                return [name for name in names if name.startswith(word) and name[0] != "_"]
            return _of_hydra(loader, self.config_name, self.overrides, word)


def _of_hydra(loader: ConfigLoader, name: str, overrides: list[str], word: str) -> list[str]:
    from hydra.errors import HydraException
    from hydra.plugins.completion_plugin import DefaultCompletionPlugin
    from omegaconf.errors import OmegaConfBaseException

    listed = _LIST.fullmatch(word)
    if listed is not None:
        key, chosen, begun = listed.groups()
        options = _of_hydra(loader, name, overrides, f"{key}{begun}")
        return [f"{key}{chosen}{option.removeprefix(key)}" for option in options]
    plugin = DefaultCompletionPlugin(loader)
    # With a mistake in what was typed before, without that.
    for words in ([word for text in overrides for word in _first_choice(text)], []):
        with contextlib.suppress(HydraException, OmegaConfBaseException, ValueError):
            found: list[str] = plugin._query(name, " ".join([*words, word]))
            if found:
                return found
    return []


def _first_choice(text: str) -> Iterator[str]:
    """Yield an override, of a sweep its first value, or nothing if it cannot be read."""
    with contextlib.suppress(ConfigError):
        override = parse_override(text)
        if not override.is_sweep_override():
            yield text
        elif override.is_discrete_sweep():
            yield f"{override.get_key_element()}={next(override.sweep_string_iterator())}"


def _files(start: str) -> Iterator[str]:
    for path in glob.iglob(f"{glob.escape(start)}*"):
        yield f"{path}/" if os.path.isdir(path) else path
