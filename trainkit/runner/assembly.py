"""The parts of a Runner: taken as objects, or built from configs when they are first used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from trainkit.checkpoint import CheckpointWriter
from trainkit.config.build import build, is_config
from trainkit.config.secrets import Redactor, as_yaml
from trainkit.dataloader import batch_sizes
from trainkit.dist import broadcast_object, get_rank, get_world_size, is_distributed
from trainkit.env import setup_env
from trainkit.errors import ConfigError, did_you_mean
from trainkit.hook import POINTS, HookList
from trainkit.launch import check_launcher, group_options, join, leave_at_exit
from trainkit.log import RunLog
from trainkit.message_hub import MessageHub
from trainkit.model import checkpoint_activations, unwrap
from trainkit.optim_wrapper import OptimWrapper
from trainkit.param_scheduler import ParamScheduler
from trainkit.run_dir import RunRecord, check_directory, timestamp
from trainkit.runner import data, optim, parts, sets
from trainkit.runner.compile_watch import watch_compiled
from trainkit.runner.interrupt import Interrupts
from trainkit.runner.load import build_load_options
from trainkit.runner.settings import check_resume_with
from trainkit.seed import get_rng_state, set_random_seed

if TYPE_CHECKING:
    from trainkit.runner.runner import Runner


class Assembly:
    """Everything a Runner holds; :class:`Runner` describes the arguments."""

    def __init__(  # noqa: PLR0913 - MMEngine's arguments
        self,
        model: Any,
        work_dir: str | Path,
        train_dataloader: Any = None,
        val_dataloader: Any = None,
        test_dataloader: Any = None,
        train_cfg: Any = None,
        val_cfg: Any = None,
        test_cfg: Any = None,
        auto_scale_lr: Any = None,
        optim_wrapper: Any = None,
        param_scheduler: Any = None,
        val_evaluator: Any = None,
        test_evaluator: Any = None,
        default_hooks: Any = None,
        custom_hooks: Any = None,
        data_preprocessor: Any = None,
        load_from: str | Path | None = None,
        resume: bool | str | Path = False,
        launcher: str = "none",
        env_cfg: Any = None,
        log_processor: Any = None,
        log_level: str | int = "INFO",
        visualizer: Any = None,
        randomness: Any = None,
        experiment_name: str | None = None,
        cfg: Any = None,
        compile: Any = False,
        sync_bn: str | None = None,
        find_unused_parameters: bool = False,
        model_wrapper_cfg: Any = None,
        activation_checkpointing: str | Sequence[str] | None = None,
        load_cfg: Any = None,
        resume_with: Literal["config", "checkpoint"] = "config",
        *,
        paths: Mapping[str, str] | None = None,
    ) -> None:
        self._paths = dict(paths or {})
        self._given = {
            "train_dataloader": train_dataloader,
            "train_cfg": train_cfg,
            "optim_wrapper": optim_wrapper,
            "val_dataloader": val_dataloader,
            "val_cfg": val_cfg,
            "val_evaluator": val_evaluator,
            "test_dataloader": test_dataloader,
            "test_cfg": test_cfg,
            "test_evaluator": test_evaluator,
            "param_scheduler": param_scheduler,
            "auto_scale_lr": auto_scale_lr,
        }
        self._check_arguments(launcher, sync_bn)
        if not isinstance(work_dir, str | Path) or not str(work_dir):
            raise ConfigError(f"work_dir is {work_dir!r}; expected the directory of the run.")
        self.work_dir = Path(work_dir).expanduser().absolute()
        check_directory(self.work_dir)
        if join(launcher, **group_options(env_cfg)):
            leave_at_exit()
        self._find_unused = find_unused_parameters
        self.cfg = cfg
        self.load_from, self.resume_wanted = _where_to_start(load_from, resume)
        self.resume_with = check_resume_with(resume_with)
        self.load_options = build_load_options(load_cfg, self._path("load_cfg"))
        self.timestamp: str = broadcast_object(timestamp())  # one for all ranks
        self.experiment_name = experiment_name or self.work_dir.name
        self.device = parts.as_device(
            build(env_cfg or {}, self._path("env_cfg"), default=setup_env)
        )
        if randomness is not None and not is_config(randomness):
            raise ConfigError(f"randomness is {randomness!r}; expected dict(seed=...).")
        self.seed: int = build(
            randomness or {}, self._path("randomness"), default=set_random_seed, seed=None
        )
        self.redactor = Redactor(cfg)  # what is written goes through it
        self.log = RunLog(log_level, self.redactor.text)
        self.logger = self.log.logger
        self.log_processor = parts.build_log_processor(log_processor, self._path("log_processor"))
        self.message_hub = MessageHub(self.log_processor.longest_window)
        self.record = RunRecord(self.work_dir, self.redactor.facts)
        self.record_facts: dict[str, Any] = {}  # what else status.json says of a run
        self.visualizer = parts.build_visualizer(visualizer, self._path("visualizer"))
        self.hooks: HookList = parts.build_hooks(
            default_hooks, custom_hooks, (self._path("default_hooks"), self._path("custom_hooks"))
        )
        self.model = self._prepare_model(
            model, data_preprocessor, sync_bn, model_wrapper_cfg, activation_checkpointing
        )
        parts.compile_model(unwrap(self.model), compile, self._path("compile"))
        self.hooks = watch_compiled(unwrap(self.model), self.hooks)
        self.model_name = type(unwrap(self.model)).__name__
        self.is_training = False  # while train() runs
        self.is_resuming = False  # while a checkpoint is loaded to go on from
        self.is_exact = False  # whether a resume could go on from the present state to the bit
        self.interrupts = Interrupts()
        self.checkpoint_writer = CheckpointWriter(share=broadcast_object)
        self.resumed_rng: dict[str, Any] | None = None
        self._loaded_for: set[str] = set()  # "train", "val" or "test"
        self._has_weights = False  # initialised or loaded, so that neither is done over them
        self._has_trained = False
        self._has_failed = False
        self._rng_state = get_rng_state()  # training begins from here, whoever drew meanwhile

    def _prepare_model(
        self, model: Any, preprocessor: Any, sync_bn: Any, wrapper: Any, checkpointed: Any
    ) -> Any:
        built = parts.build_model(model, self._path("model"), preprocessor).to(self.device)
        built = parts.with_batchnorm(built, sync_bn, self.device)
        if checkpointed:
            checkpoint_activations(built, checkpointed)
        path = self._path("model_wrapper_cfg")
        return parts.wrap_model(built, wrapper, path, self._find_unused)

    @cached_property
    def train_loop(self) -> Any:
        """The train loop, with its data loader."""
        self._need("train")
        loader = data.build_dataloader(
            self._given["train_dataloader"],
            self._path("train_dataloader"),
            seed=self.seed,
            training=True,
        )
        self.visualizer.check_axes(samples_known=batch_sizes(loader) is not None)
        return parts.build_train_loop(
            self._given["train_cfg"], self._path("train_cfg"), self._runner, loader
        )

    @cached_property
    def val_loop(self) -> Any:
        """The val loop, with its data loader and evaluator."""
        return self._evaluate_loop("val", parts.build_val_loop)

    @cached_property
    def test_loop(self) -> Any:
        """The test loop, with its data loader and evaluator."""
        return self._evaluate_loop("test", parts.build_test_loop)

    @cached_property
    def optim_wrapper(self) -> OptimWrapper:
        """The optimizer and how it is used."""
        self._need("train")
        wrapper = optim.build_optim_wrapper(
            self._given["optim_wrapper"], self._path("optim_wrapper"), unwrap(self.model)
        )
        optim.scale_lr(
            self._given["auto_scale_lr"],
            self._path("auto_scale_lr"),
            wrapper,
            self.train_dataloader,
        )
        return wrapper

    @cached_property
    def param_schedulers(self) -> list[ParamScheduler]:
        """The parameter schedulers, in order."""
        schedulers = optim.build_param_schedulers(
            self._given["param_scheduler"],
            self._path("param_scheduler"),
            self.optim_wrapper,
            self.train_loop,
        )
        optim.refuse_scaling(self._given["auto_scale_lr"], self._path("auto_scale_lr"), schedulers)
        return schedulers

    def _evaluate_loop(self, mode: str, build_loop: Any) -> Any:
        self._need(mode)
        loader_name, cfg_name, evaluator_name = (
            f"{mode}_dataloader",
            f"{mode}_cfg",
            f"{mode}_evaluator",
        )
        loader, evaluator = self._evaluated(loader_name, evaluator_name)
        return build_loop(
            self._given[cfg_name], self._path(cfg_name), self._runner, loader, evaluator
        )

    def _evaluated(self, loader_name: str, evaluator_name: str) -> tuple[Any, Any]:
        """Return the loader and the evaluator of a split; of several named sets, by name."""
        node, path = self._given[loader_name], self._path(loader_name)
        metrics, metrics_path = self._given[evaluator_name], self._path(evaluator_name)
        named = sets.named_sets(node)
        if named is None:
            loader = data.build_dataloader(node, path, seed=self.seed, training=False)
            return loader, parts.build_evaluator(metrics, metrics_path)
        loaders = {}
        for name, one in named.items():
            problem = sets.set_problem(one, f"{path}.{name}")
            if problem is not None:
                raise ConfigError(problem)
            loaders[name] = data.build_dataloader(
                one, f"{path}.{name}", seed=self.seed, training=False
            )
        return loaders, sets.build_evaluators(metrics, metrics_path, path, list(loaders))

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a point by its name, as loops for MMEngine do: ``hooks.before_train(runner)``."""
        if fn_name not in POINTS:
            raise ConfigError(f"There is no point {fn_name!r}. {did_you_mean(fn_name, POINTS)}")
        getattr(self.hooks, fn_name)(self, **kwargs)

    @property
    def _runner(self) -> Runner:
        return cast("Runner", self)

    @property
    def train_dataloader(self) -> Any:
        """The loader of the training data."""
        return self.train_loop.dataloader

    @property
    def val_dataloader(self) -> Any:
        """The loader of the validation data; of several named sets, a ``LoaderSets``."""
        return self.val_loop.dataloader

    @property
    def test_dataloader(self) -> Any:
        """The loader of the test data; of several named sets, a ``LoaderSets``."""
        return self.test_loop.dataloader

    def dataloader(self, mode: str) -> Any:
        """Return the loader of ``"train"``, ``"val"`` or ``"test"``."""
        return getattr(self, f"{mode}_dataloader")

    @property
    def epoch(self) -> int:
        """Epochs done; 0 for a runner that does not train."""
        return self.train_loop.epoch if "train_loop" in self.__dict__ else 0

    @property
    def iter(self) -> int:
        """Iterations done; 0 for a runner that does not train."""
        return self.train_loop.iter if "train_loop" in self.__dict__ else 0

    @property
    def max_epochs(self) -> int:
        """Epochs of the whole run; 0 for a runner that does not train."""
        return self.train_loop.max_epochs if "train_loop" in self.__dict__ else 0

    @property
    def max_iters(self) -> int:
        """Iterations of the whole run; 0 for a runner that does not train."""
        return self.train_loop.max_iters if "train_loop" in self.__dict__ else 0

    @property
    def by_epoch(self) -> bool:
        """Whether the train loop counts epochs; hooks and schedulers follow it."""
        return getattr(self.train_loop, "by_epoch", True) if "train_loop" in self.__dict__ else True

    @property
    def has_val(self) -> bool:
        """Whether there is something to validate with."""
        return self._given["val_cfg"] is not None

    @property
    def rank(self) -> int:
        """This process's rank."""
        return get_rank()

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return get_world_size()

    @property
    def distributed(self) -> bool:
        """Whether there is a process group."""
        return is_distributed()

    @property
    def checkpoint_dir(self) -> Path:
        """Where checkpoints are."""
        return self.work_dir / "checkpoints"

    @property
    def config_text(self) -> str:
        """The config as YAML, secrets left out; empty where the runner was made from objects."""
        return as_yaml(self.cfg, self.redactor)

    # ------------------------------------------------------------------ checks

    def _path(self, name: str) -> str:
        """Return where an argument stands in the config, for messages."""
        return self._paths.get(name, name)

    def _check_arguments(self, launcher: str, sync_bn: str | None) -> None:
        problem = parts.together(self._given, self._path)
        if problem is not None:
            raise ConfigError(problem)
        check_launcher(launcher)
        if sync_bn not in (None, "torch"):
            raise ConfigError(
                f"sync_bn is {sync_bn!r}; expected 'torch' or None. "
                f"{did_you_mean(str(sync_bn), ['torch'])}"
            )

    def _need(self, purpose: str) -> None:
        names = next(names for names in parts.SPLIT_ARGUMENTS if names[0].startswith(purpose))
        if self._given[names[0]] is None:
            raise ConfigError(
                f"This runner cannot {purpose}: it got no {', '.join(map(self._path, names))}."
            )

    def _need_step(self, *names: str) -> None:
        for name in names:
            if not callable(getattr(self.model, name, None)):
                raise ConfigError(
                    f"{self.model_name} has no {name}(), which the loop calls. Derive it from "
                    "trainkit.model.BaseModel, "
                    "or write that method."
                )


def _where_to_start(
    load_from: str | Path | None, resume: bool | str | Path
) -> tuple[str | Path | None, bool]:
    """Return ``load_from`` and whether to resume; ``resume`` may itself be a path."""
    if resume in (False, None, "fresh"):
        return load_from, False
    if resume is True:
        return load_from, True
    if not isinstance(resume, str | Path) or load_from is not None:
        raise ConfigError(
            f"resume is {resume!r} and load_from is {load_from!r}; expected resume=True, or a path "
            "in one of them."
        )
    return resume, True
