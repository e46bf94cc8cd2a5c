"""``trainkit train``: once, as a sweep, or only shown, as the flags say."""

from __future__ import annotations

from trainkit.cli.arguments import parse


def run(command: str, argv: list[str]) -> None:
    """Train once, sweep over what is given several values, or let Hydra show the config."""
    given = parse(argv)
    if given.inspect:
        from trainkit.cli.hydra_app import show

        show(given)
    elif given.multirun:
        from trainkit.cli.sweep import sweep

        sweep(given)
    else:
        from trainkit.cli.train import train

        train(
            overrides=given.overrides,
            config_name=given.config_name,
            config_dirs=given.config_dirs,
        )
