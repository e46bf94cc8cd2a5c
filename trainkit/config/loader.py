"""Hydra over trainkit's conf/: where the files are, a loader for them, and reading overrides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override

_VERSION_BASE = "1.3"


def conf_dir() -> Path:
    """Return the shipped conf/: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    # The checkout first: an editable install leaves a stale copy inside site-packages that nobody
    # should read.
    for candidate in (package.parent / "conf", package / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise ConfigError(
        f"trainkit's conf/ is neither in {package} nor beside it. Reinstall trainkit."
    )


def version_base() -> dict[str, str]:
    """Return the argument ``version_base`` of Hydra 1.3; 1.4 has one behaviour and warns of it."""
    import hydra

    return {"version_base": _VERSION_BASE} if hydra.__version__.startswith("1.3.") else {}


@contextmanager
def hydra_loader(config_dirs: Sequence[str | Path] = ()) -> Iterator[ConfigLoader]:
    """Hydra set up over trainkit's conf/ and ``config_dirs``; its global state is put back after.

    Hydra's own ``initialize_config_dir`` takes one directory, and what ``hydra.searchpath`` adds
    cannot hold the primary config.

    Raises:
        ConfigError: One of ``config_dirs`` is no directory.
    """
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    path = create_config_search_path(str(conf_dir()))
    for directory in config_dirs:
        if not Path(directory).is_dir():
            raise ConfigError(
                f"--config-dir {str(directory)!r} is no directory. Name one that holds group "
                "folders."
            )
        _check_names(Path(directory))
        path.prepend("command-line", f"file://{Path(directory).resolve()}", anchor="schema")
    _check_store()
    shared = GlobalHydra.instance()
    before, shared.hydra = shared.hydra, None
    if version_base():
        version.setbase(_VERSION_BASE)
    try:
        yield Hydra.create_main_hydra2("trainkit", path).config_loader
    finally:
        shared.hydra = before


def _check_store() -> None:
    """Raise if the ConfigStore has an option that Hydra would take for the schema of a file."""
    from hydra.core.config_store import ConfigStore

    for shipped in sorted(conf_dir().rglob("*.yaml")):
        node: Any = ConfigStore.instance().repo
        for part in shipped.relative_to(conf_dir()).parts:
            node = node.get(part) if isinstance(node, dict) else None
        if node is not None:
            option = shipped.relative_to(conf_dir()).with_suffix("")
            raise ConfigError(
                f"The ConfigStore has {str(option)!r}, the name of a file of trainkit's. Store "
                "yours under another name."
            )


def _check_names(directory: Path) -> None:
    """Raise if a file of the user's would never be read, as trainkit's of the same name is."""
    for shipped in sorted(conf_dir().rglob("*.yaml")):
        own = directory / shipped.relative_to(conf_dir())
        if own.is_file() and own.read_bytes() != shipped.read_bytes():
            raise ConfigError(
                f"{own} would never be read, since trainkit has a file of this name, which comes "
                "first. Give yours another name."
            )


def group_options(
    loader: ConfigLoader, config_name: str = "config", overrides: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return every config group with its options, nested ones as ``parent/child``.

    Hydra's own groups are left out; what ``hydra.searchpath`` adds is not.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.object_type import ObjectType

    assert isinstance(loader, ConfigLoaderImpl), "Hydra has one loader"
    paths = [text for text in overrides if text.lstrip("+").startswith("hydra.searchpath=")]
    _, repository = loader._parse_overrides_and_create_caching_repo(config_name, paths)
    found: dict[str, list[str]] = {}
    todo = [""]
    while todo:
        parent = todo.pop()
        for name in repository.get_group_options(parent, ObjectType.GROUP):
            group = f"{parent}/{name}" if parent else name
            if group != "hydra" and not name.startswith("__"):
                found[group] = list(repository.get_group_options(group, ObjectType.CONFIG))
                todo.append(group)
    return dict(sorted(found.items()))


def parse_override(text: str, loader: ConfigLoader | None = None) -> Override:
    """Return an override of the command line as Hydra reads it.

    Args:
        text: The override.
        loader: Knows the options of groups, which ``glob()`` asks for.

    Raises:
        ConfigError: Hydra cannot read it.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create(loader).parse_overrides([text])[0]
    except HydraException as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"The override {text!r} cannot be read: {reason}. "
            "Expected key=value; put quotes around a value with special characters."
        ) from None
