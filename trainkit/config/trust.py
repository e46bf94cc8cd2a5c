"""Hold a config that was read from a run to a list of what it may name.

A config that the user wrote, typed or passed may run any code, as a program may. One that was read
from a run's directory may come from elsewhere, and a ``_target_`` is a call: so each must be a
class of trainkit's parts, of ``torch.nn``, ``torch.optim`` or ``torch.utils.data``, or be in a
package that the user trusts by name. All names are checked before the first is imported.

This is no sandbox: the classes on the list run with the arguments that the config gives, a trusted
package may do anything, and interpolations may be made to take long. Besides ``_target_``, what a
config can have run are resolvers, Hydra's own section and options of ``torch.compile``; they are
held to the same. And no argument may name a place outside the new run to write to.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trainkit.config.build import import_named
from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

# What a stored config may name, or the package that it is in.
_ALLOWED = (
    *("trainkit.data", "trainkit.dataloader", "trainkit.evaluator", "trainkit.hooks"),
    *("trainkit.log_processor", "trainkit.loops", "trainkit.model", "trainkit.optim_wrapper"),
    *("trainkit.param_scheduler", "trainkit.visualizer", "trainkit.env.setup_env"),
    *("torch.nn", "torch.optim", "torch.utils.data"),
    # Of the rest of torchmetrics, some load models by name or path.
    *("torchmetrics.classification", "torchmetrics.regression"),
)
_EXCEPT = ("torch.utils.data.datapipes",)  # they open the files and addresses that they are given
# Of all that, classes; and of functions those that conf/ names.
_FUNCTIONS = frozenset(
    {
        "trainkit.dataloader.collate.default_collate",
        "trainkit.dataloader.collate.pseudo_collate",
        "trainkit.env.setup_env",
    }
)
# What nobody may trust as a whole, for it has functions that load or run anything.
_NEVER = frozenset(
    {"torch", "trainkit", "hydra", "omegaconf", "yaml", "numpy", "pip", "setuptools", "dill"}
    | {"cloudpickle", "joblib", "pkg_resources"}
    | set(sys.stdlib_module_names)
)
# OmegaConf's own. A user's resolver may do anything, and many are called "eval".
_RESOLVERS = frozenset(
    {"oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values", "oc.env"}
    | {"oc.select"}
)
# Arguments of trainkit's classes that say where to write: seen from the working directory, and from
# the run's. The others that do (filename, json_trace_path) take no directory.
_PLACES, _PLACES_INSIDE = ("out_dir",), ("out_file_path", "subdir")
_MAX_DEPTH = 100
_MAX_CREATED = 10_000  # containers that interpolations may create

Keys = tuple[str | int, ...]


def trust_list(value: Any) -> list[str]:
    """Return the entries of ``trust``, which may also be a single name.

    Raises:
        ConfigError: An entry that is no package of the user's, and no resolver such as ``mul:``.
    """
    entries = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(entries, Sequence) or not all(isinstance(entry, str) for entry in entries):
        raise ConfigError(f"trust is {value!r}; expected package names, as in trust=[mypkg].")
    for entry in entries:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:", entry) and not _is_own(entry):
            raise ConfigError(
                f"trust has {entry!r}, which is no package of your own. Name the one whose code "
                "stored configs may run, as in trust=[mypkg]."
            )
    return list(entries)


def check_trust(
    cfg: DictConfig,
    trust: Sequence[str],
    *,
    typed: Collection[str] = (),
    source: str = "The stored config",
) -> None:
    """Raise unless all that a stored config names is on the list, or in a trusted package.

    Nothing is imported before every name has passed. Then all are imported, for what a name leads
    to must pass by its real name as well; what cannot be imported is the error of building it.

    Args:
        cfg: The config, with the user's overrides in it.
        trust: Packages of the user's own, and resolvers, written ``name:``.
        typed: Keys that the user gave; what is at or below them is trusted.
        source: Where the config is from; it begins the message.

    Raises:
        ConfigError: It lists what was refused, where, and why.
    """
    review = _Review(trust_list(trust), typed, source)
    review.read(cfg)
    review.conclude()
    review.follow()
    review.conclude()


@contextmanager
def only_resolvers(trust: Sequence[str]) -> Iterator[None]:
    """Leave OmegaConf its own resolvers only, and those that ``trust`` names.

    A resolver's name may come about while others resolve (``${oc.decode:${a}${b}}``), so that the
    text of a config does not show all that it would call.
    """
    from omegaconf.basecontainer import BaseContainer

    registry = BaseContainer._resolvers  # there is no public way to put a resolver back
    removed = {name: registry.pop(name) for name in set(registry) - _resolvers(trust)}
    try:
        yield
    finally:
        for name, resolver in removed.items():
            registry.setdefault(name, resolver)


class _Review:
    """One reading of a config: what it names, and what of that is refused."""

    def __init__(self, trust: list[str], typed: Collection[str], source: str) -> None:
        self.trust, self.source = trust, source
        self.packages = [entry for entry in trust if not entry.endswith(":")]
        self.resolvers = _resolvers(trust)
        self.typed = {tuple(re.split(r"[.\[]", key.replace("]", ""))) for key in typed}
        self.targets: dict[Keys, str] = {}
        self.refused: dict[Keys, str] = {}
        self.advised: set[str] = set()  # packages that the user may want to trust
        self.written: set[int] = set()  # ids of the containers that interpolations did not create
        self.created = 0

    def read(self, cfg: DictConfig) -> None:
        """Look at every node as it is written, then at those that interpolations create."""
        from omegaconf import OmegaConf

        self._look(OmegaConf.to_container(cfg, resolve=False), ())
        self._remember(cfg)
        with only_resolvers(self.trust):
            self._resolve(cfg, ())

    def follow(self) -> None:
        """Import every target, and refuse those that are not what their names say."""
        for path, name in self.targets.items():
            found = self._import(path, name)
            if path not in self.refused:
                self._look_at_object(path, name, found)

    def conclude(self) -> None:
        """Raise if anything was refused."""
        if not self.refused:
            return
        lines = "\n".join(f"  {_dotted(path)} {why}." for path, why in self.refused.items())
        advice = ""
        if self.advised:
            entries = ",".join([*self.trust, *sorted(self.advised)])
            advice = (
                f"\nIf you know the code of {' and '.join(sorted(self.advised))}, add: "
                f"trust=[{entries}]"
            )
        raise ConfigError(f"{self.source} asks for more than a stored config may:\n{lines}{advice}")

    def _is_typed(self, path: Keys) -> bool:
        parts = tuple(map(str, path))
        return any(parts[:length] in self.typed for length in range(1, len(parts) + 1))

    def _look(self, node: Any, path: Keys) -> None:
        """Check a node in plain containers, as it is written."""
        self._check_depth(path)
        if self._is_typed(path):
            return
        if type(node).__name__ in ("DictConfig", "ListConfig"):  # inside what a resolver returned
            self._look_at_created(node, path)
        elif isinstance(node, Mapping | list | tuple):
            for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
                self._look_at_entry((*path, key), value)
        elif isinstance(node, str | PurePath):  # YAML has a tag for paths
            self._look_at_text(str(node), path)

    def _look_at_text(self, text: str, path: Keys) -> None:
        for name in re.findall(r"\$\{\s*([\w.]+)\s*:", text):
            self._look_at_resolver(path, name)
        # torch.compile runs what the option cpp.cxx names; nothing else of a config runs a text.
        if path[:2] == ("compile", "options") or (path[:1] == ("compile",) and "${" in text):
            self.refused[path] = (
                f"is {text!r}; expected a number or a truth value, as a text may name a program "
                "that torch.compile runs"
            )
        key = path[-1] if path else None
        # By position, any argument may be one of those.
        inside = key in _PLACES_INSIDE or "_args_" in path
        if key in _PLACES or (inside and _leads_out(text)):
            self.refused[path] = (
                f"is {text!r}, a place outside the new run; if you want it, give it on the command "
                "line"
            )

    def _look_at_created(self, value: Any, path: Keys) -> None:
        """Check what an interpolation leads to, unless that is written elsewhere in the config."""
        from omegaconf import OmegaConf

        if id(value) in self.written:
            return
        self.created += 1
        if self.created > _MAX_CREATED:
            raise ConfigError(
                f"{self.source} cannot be resolved: its interpolations create more than "
                f"{_MAX_CREATED:,} nodes."
            )
        if OmegaConf.is_config(value):
            self._look(OmegaConf.to_container(value, resolve=False), path)
            self._resolve(value, path)
        else:
            self._look(value, path)

    def _look_at_entry(self, path: Keys, value: Any) -> None:
        if len(path) == 1 and re.split(r"[./@]", str(path[0]))[0] == "hydra":
            self.refused[path] = "configures Hydra itself, which is for the command line alone"
        elif path[-1] == "_target_" and not self._is_typed(path):
            self._look_at_target(path, value)
        else:
            self._look(value, path)

    def _look_at_target(self, path: Keys, name: Any) -> None:
        if not isinstance(name, str) or "${" in name:
            self.refused[path] = f"is {name!r}; expected the name of a class, written out"
        elif not _is_public(name) or "." not in name:
            self.refused[path] = f"is {name!r}; expected the public dotted name of a class"
        elif not self._is_allowed(name):
            self._refuse_name(path, f"names {name}", name)
        else:
            self.targets[path] = name

    def _look_at_resolver(self, path: Keys, name: str) -> None:
        if name not in self.resolvers:
            self.refused[path] = (
                f"uses the resolver {name}, which is not OmegaConf's own; one that does no harm, "
                f"whatever it is given, is trusted by trust=['{name}:']"
            )

    def _is_allowed(self, name: str) -> bool:
        listed = _is_in(name, _ALLOWED) and not _is_in(name, _EXCEPT)
        return listed or _is_in(name, self.packages)

    def _refuse_name(self, path: Keys, what: str, name: str) -> None:
        package = name.partition(".")[0]
        if _is_own(package):
            self.advised.add(package)
            self.refused[path] = f"{what}, and the package {package} is not trusted"
        else:
            self.refused[path] = f"{what}, which is not on the list of what may be called"

    def _remember(self, node: Any) -> None:
        from omegaconf import OmegaConf

        self.written.add(id(node))
        for key in _keys(node):
            if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
                child = node[key]
                if OmegaConf.is_config(child):
                    self._remember(child)

    def _resolve(self, node: Any, path: Keys) -> None:
        """Look at what the interpolations below ``node`` create."""
        from omegaconf import OmegaConf

        self._check_depth(path)
        for key in _keys(node):
            here = (*path, key)
            child = None if self._is_typed(here) else self._value(node, key, here)
            if child is None:
                continue
            if OmegaConf.is_interpolation(node, key):
                self._look_at_created(child, here)
            elif OmegaConf.is_config(child):
                self._resolve(child, here)

    def _value(self, node: Any, key: Any, path: Keys) -> Any:
        """Return a child, resolved; None where that fails, as it will for the one who builds it."""
        from omegaconf.errors import OmegaConfBaseException

        try:
            return node[key]
        except (OmegaConfBaseException, RecursionError) as error:
            # These two may not fail there: all resolvers are back, and the stack is another.
            unknown = re.match(r"Unsupported interpolation type (\S+)", str(error))
            if unknown and path not in self.refused:
                self._look_at_resolver(path, unknown[1])
            elif "RecursionError" in f"{type(error).__name__} {error}":
                raise ConfigError(
                    f"{self.source} cannot be resolved: the interpolations of {_dotted(path)} lead "
                    "too deep."
                ) from None
        return None

    def _check_depth(self, path: Keys) -> None:
        if len(path) > _MAX_DEPTH:
            raise ConfigError(
                f"{self.source} nests more than {_MAX_DEPTH} deep, in {_dotted(path[:3])}."
            )

    def _import(self, path: Keys, name: str) -> Any:
        """Return what a name leads to, going from left to right as Hydra does."""
        parts = name.split(".")
        found, depth, part = None, 1, parts[0]
        try:
            found = importlib.import_module(part)
            for depth, part in enumerate(parts[1:], start=2):
                here = ".".join(parts[:depth])
                if isinstance(found, ModuleType) and not hasattr(found, part):
                    importlib.import_module(here)
                found = getattr(found, part)
                if isinstance(found, ModuleType) and not self._is_known(found, here):
                    real = found.__name__
                    self._refuse_name(path, f"names {name}, where {here} is {real}", real)
                    return None
        except (ImportError, AttributeError):
            import_named(name, _dotted(path))  # raises what building it would raise
            owner, kind = ".".join(parts[: depth - 1]), type(found).__name__
            self.refused[path] = (
                f"names {name}, which cannot be reached: {owner} is a {kind} without {part!r}"
            )
            return None
        return found

    def _is_known(self, module: ModuleType, name: str) -> bool:
        return module.__name__ == name or self._is_allowed(module.__name__)

    def _look_at_object(self, path: Keys, name: str, found: Any) -> None:
        """Check what a name led to: a class or function that is on the list by its real name."""
        module, within = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
        real = f"{module}.{within}"
        is_class = isinstance(found, type)
        if not (is_class or inspect.isroutine(found)) or module is None or within is None:
            kind = type(found).__name__
            self.refused[path] = f"names {name}, a {kind}; expected a class or a function"
        elif not self._is_allowed(real):
            self._refuse_name(path, f"names {name}, which is {real}", real)
        elif not is_class and real not in _FUNCTIONS and not _is_in(real, self.packages):
            self.refused[path] = f"names {name}, a function; only classes may be named there"


def _resolvers(trust: Sequence[str]) -> frozenset[str]:
    return _RESOLVERS | {entry[:-1] for entry in trust if entry.endswith(":")}


def _leads_out(text: str) -> bool:
    """Whether a path leads out of the directory that it is seen from."""
    path = PurePath(text)
    return path.is_absolute() or ".." in path.parts or text.startswith("~")


def _is_public(name: str) -> bool:
    return all(part.isidentifier() and part[0] != "_" for part in name.split("."))


def _is_own(package: str) -> bool:
    """Whether ``package`` may be one of the user's."""
    return _is_public(package) and package.partition(".")[0] not in _NEVER


def _is_in(name: str, packages: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def _keys(node: Any) -> list[Any]:
    return list(node) if isinstance(node, Mapping) else list(range(len(node)))


def _dotted(path: Keys) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")
