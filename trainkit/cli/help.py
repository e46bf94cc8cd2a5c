"""``--help``: commands, config groups with their options, flags; without importing torch."""

from __future__ import annotations

import textwrap
from pathlib import Path

from trainkit.cli.arguments import COMMANDS, parse
from trainkit.config import compose
from trainkit.config.loader import conf_dir, group_options, hydra_loader

_WIDTH = 100
_INDENT = 32
_FLAGS = {
    "-m, --multirun": "sweep over comma-separated values, a run for each combination",
    "--cfg job --resolve": "print the composed config instead of running it",
    "--config-dir DIR": "add the groups and options in DIR",
    "--config-name NAME": "use another primary config",
    "--info defaults": "show which files the config comes from",
}
_EXIT_CODES = """\
  0 done  1 your code failed  2 wrong config  3 no usable checkpoint, or a locked run
  75 asked to end and saved: again with resume=true  130 ended at once by Ctrl-C"""
_EXAMPLES = """\
  python -m trainkit train_cfg=epoch optim_wrapper=amp
  python -m trainkit optim_wrapper/optimizer=adamw param_scheduler=cosine hooks=[ema]
  python -m trainkit -m optim_wrapper.optimizer.lr=0.1,0.01 seed=1,2
  trainkit test run=outputs/digits/<run>"""


def print_command_help(name: str) -> None:
    """Print what one command does and takes."""
    command = COMMANDS[name]
    print(f"Usage: trainkit {name} {command.usage}\n\n{command.text}\n")
    for flag, text in command.flags.items():
        _print_entry(flag, text, _INDENT)
    if "overrides" in command.usage:
        for flag in ("--config-dir DIR", "--config-name NAME"):
            _print_entry(flag, _FLAGS[flag], _INDENT)
        print("\ntrainkit --help lists the groups, options and keys that overrides may name.")


def print_help(argv: list[str]) -> None:
    """Print the help; groups of ``--config-dir`` are listed as well."""
    given = parse(argv)
    chosen, options = _groups(given.config_name, given.config_dirs)
    print(
        "Usage: python -m trainkit [command] [group=option ...] [key=value ...]   (or: trainkit "
        "...)\n"
    )
    print("Commands:")
    for name, command in COMMANDS.items():
        _print_entry(f"{name} {command.usage}", command.text, _INDENT)
    print("\nConfig groups, * marks the default:")
    for group, names in options.items():
        marked = [f"*{name}" if name in chosen.get(group, ()) else name for name in names]
        _print_entry(group, "  ".join(marked), _INDENT)
    print("\nhooks takes several: hooks=[ema,early_stopping]. none switches its group off.")
    print("\nTop-level keys:")
    for key, text in _scalars(given.config_name):
        _print_entry(key, text, _INDENT)
    print("\nFlags:")
    for flag, text in _FLAGS.items():
        _print_entry(flag, text, _INDENT)
    print(f"\nExit codes:\n{_EXIT_CODES}")
    print(f"\nExamples:\n{_EXAMPLES}")


def _print_entry(name: str, text: str, indent: int) -> None:
    body = textwrap.wrap(text, _WIDTH - indent, break_on_hyphens=False) or [""]
    lines = f"\n{' ' * indent}".join(body)
    print(f"  {name:<{indent - 3}} {lines}".rstrip())


def _groups(
    config_name: str, config_dirs: list[str]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return, by group, the options chosen by default, and all options."""
    from hydra import compose as hydra_compose

    compose(config_name=config_name, config_dirs=config_dirs)  # whose errors are readable
    with hydra_loader(config_dirs) as loader:
        composed = hydra_compose(config_name, return_hydra_config=True)
        options = group_options(loader, config_name)
    chosen: dict[str, list[str]] = {}
    for group, option in composed.hydra.runtime.choices.items():
        listed = option if isinstance(option, list) else [option]
        chosen[str(group)] = [str(name) for name in listed]
    return chosen, {group: names for group, names in sorted(options.items()) if names}


def _scalars(config_name: str) -> list[tuple[str, str]]:
    """Return each scalar of the shipped primary config with the comment above it."""
    file: Path = conf_dir() / f"{config_name}.yaml"
    entries, comment = [], ""
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        if line.startswith("#"):
            comment = f"{comment} {line[1:].strip()}".strip()
        elif line and not line[0].isspace() and not line.startswith("-"):
            key, _, value = line.partition(":")
            if value.strip():
                entries.append((f"{key}={value.strip()}", comment))
            comment = ""
        elif not line:
            comment = ""
    return entries
