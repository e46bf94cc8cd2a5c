"""Mistakes and their messages, word for word: error texts are part of the interface.

Each table holds a mistake as a user makes it and the whole message that answers it. ``TOP`` stands
for the keys of the primary config, ``HERE`` for the working directory, and ``:N`` for a line of
trainkit's own conf/; lines of the user's files are told exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from trainkit import ConfigError, Runner, TrainConfig, compose, conf_dir, train
from trainkit.__main__ import main
from trainkit.config import (
    CosineAnnealingLRConfig,
    EarlyStoppingHookConfig,
    EpochBasedTrainLoopConfig,
    MultiStepLRConfig,
    OptimWrapperConfig,
)
from trainkit.runner.from_config import KNOWN_KEYS

TOP = ", ".join(str(key) for key in compose() if key in KNOWN_KEYS)
GLOBAL = "# @package _global_\n"
EXPERIMENT = ("--config-dir", "my", "experiment=mine")
ROOT = ("--config-dir", "my", "--config-name", "mine")
MODEL = ("--config-dir", "my", "model=mine")
OWN_DATA = """
from torch.utils.data import Dataset


class Folder(Dataset):
    def __init__(self, root: str, split: str = "train") -> None: ...
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


def plain(message: str) -> str:
    """A message without what differs between machines, and between versions of conf/."""
    message = message.replace(str(Path.cwd()), "HERE").replace(str(conf_dir()), "conf")
    return re.sub(r"(\bconf/[\w/]+\.yaml):\d+", r"\1:N", message).replace(TOP, "TOP")


def answer(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says to a mistake; it leaves nothing behind."""
    before = {path for path in Path().rglob("*") if "__pycache__" not in path.parts}
    code = main(argv)
    message = capsys.readouterr().err.rstrip("\n")
    assert code == (3 if message.startswith("CheckpointError") else 2)
    assert {path for path in Path().rglob("*") if "__pycache__" not in path.parts} == before
    return plain(message)


COMMAND_LINES: list[tuple[list[str], str]] = [
    (
        ["sede=1"],
        "ConfigError: The config has no 'sede'. Did you mean 'seed'?",
    ),
    (
        ["train_cfg.max_epoch=2"],
        "ConfigError: The config has no 'train_cfg.max_epoch'. Did you mean "
        "'train_cfg.max_epochs'?",
    ),
    (
        ["optim_wraper=amp"],
        "ConfigError: The config has no 'optim_wraper'. Did you mean 'optim_wrapper'?",
    ),
    (
        ["SEED=1"],
        "ConfigError: The config has no 'SEED'. Did you mean 'seed'?",
    ),
    (
        ["lr=0.1"],
        "ConfigError: The config has no 'lr' at its top. It stands at optim_wrapper.optimizer.lr.",
    ),
    (
        ["optim_wrapper.lr=0.1"],
        "ConfigError: The config has no 'optim_wrapper.lr'. It stands at "
        "optim_wrapper.optimizer.lr.",
    ),
    (
        ["model.width=3"],
        "ConfigError: The config has no 'model.width'. model has: _target_, in_channels, "
        "num_classes, channels, dropout, data_preprocessor.",
    ),
    (
        ["dataloader.train.drop_last=true"],
        "ConfigError: The config has no 'dataloader.train.drop_last'. Its target takes it, "
        "but the config does not list it: +dataloader.train.drop_last=true",
    ),
    (
        ["dataloader.train.drop_lst=true"],
        "ConfigError: The config has no 'dataloader.train.drop_lst'. Did you mean "
        "'dataloader.train.drop_last'? The config does not list it: "
        "+dataloader.train.drop_last=...",
    ),
    (
        ["optim_wrapper.clip_grad.max_norm=1"],
        "ConfigError: The config has no 'optim_wrapper.clip_grad.max_norm'. "
        "optim_wrapper.clip_grad is null; to put something there: "
        "+optim_wrapper.clip_grad.max_norm=1",
    ),
    (
        ["compile.options.shape_padding=true"],
        "ConfigError: The config has no 'compile.options.shape_padding'. compile is false, with "
        "nothing inside. If it takes a mapping: 'compile={options: {shape_padding: true}}'",
    ),
    (
        ["hooks.ema.momentum=0.1"],
        "ConfigError: The config has no 'hooks.ema.momentum'. It is an option that is not "
        "chosen: add hooks=ema.",
    ),
    (
        ["+typo=1"],
        "ConfigError: typo: nothing reads a key of this name. The config has: TOP.\n"
        "   Set by the override +typo=1.",
    ),
    (
        ["+model.typo=1"],
        "ConfigError: model.typo: ConvNet has no argument 'typo'. It takes: channels, "
        "data_preprocessor, dropout, in_channels, init_cfg, num_classes.\n"
        "   Set by the override +model.typo=1.",
    ),
    (
        ["+seed=3"],
        "ConfigError: +seed=3: seed is there already. Write seed=3",
    ),
    (
        ["seed=1", "seed=2"],
        "ConfigError: seed is given more than once: seed=1 and seed=2. Drop one.",
    ),
    (
        ["seed=1", "++seed=2"],
        "ConfigError: seed is given more than once: seed=1 and ++seed=2. Drop one.",
    ),
    (
        ["~hooks.logger"],
        "ConfigError: ~hooks.logger: a hook is removed by hooks.logger=null.",
    ),
    (
        ["~nothing"],
        "ConfigError: The config has no 'nothing'. The top has: TOP.",
    ),
    (
        ["model/channels=[3]"],
        "ConfigError: model/channels is no config group. A value is set with dots: "
        "model.channels=[3]",
    ),
    (
        ["hydra.foo=1"],
        "ConfigError: hydra.foo=1: Hydra has no such setting, or takes no such value. --cfg "
        "hydra shows all.",
    ),
    (
        ["hydra.run.dir=x"],
        "ConfigError: hydra.run.dir=x: a run's directory is trainkit's. Name it by work_dir=...",
    ),
    (
        ["optim_wrapper=ampp"],
        "ConfigError: optim_wrapper=ampp: there is no option 'ampp'. Did you mean 'amp'?",
    ),
    (
        ["optim_wrapper/optimiser=adam"],
        "ConfigError: There is no config group 'optim_wrapper/optimiser'. Did you mean "
        "'optim_wrapper/optimizer'?",
    ),
    (
        ["optim_wrapper/optimizer=adm"],
        "ConfigError: optim_wrapper/optimizer=adm: there is no option 'adm'. Did you mean 'adam'?",
    ),
    (
        ["optim_wrapper=adam"],
        "ConfigError: optim_wrapper=adam: there is no option 'adam'. It is one of "
        "optim_wrapper/optimizer: optim_wrapper/optimizer=adam.",
    ),
    (
        ["train_cfg=none"],
        "ConfigError: train_cfg=none: there is no option 'none'. Choose from: epoch, iter.",
    ),
    (
        ["val_cfg=null"],
        "ConfigError: val_cfg=null is not an option. val_cfg=none switches it off.",
    ),
    (
        ["hooks=null"],
        "ConfigError: hooks=null is not an option. hooks=[] adds none.",
    ),
    (
        ["model=true"],
        "ConfigError: model=true: there is no option 'true'. Choose from: convnet.",
    ),
    (
        ["optim_wrapper.optimizer=adam"],
        "ConfigError: optim_wrapper.optimizer is 'adam', a text where a part of the run "
        "belongs. To choose an option of optim_wrapper/optimizer: "
        "optim_wrapper/optimizer=adam on the command line, 'override "
        "/optim_wrapper/optimizer: adam' in the defaults of a file.\n"
        "   Set by the override optim_wrapper.optimizer=adam.",
    ),
    (
        ["optim_wrapper.optimizer=adamm"],
        "ConfigError: optim_wrapper.optimizer is 'adamm', a text where a part of the run "
        "belongs. Options of optim_wrapper/optimizer are chosen by "
        "optim_wrapper/optimizer=<option>. Did you mean 'adam'?\n"
        "   Set by the override optim_wrapper.optimizer=adamm.",
    ),
    (
        ["optim_wrapper.optimizer=3"],
        "ConfigError: optim_wrapper.optimizer is 3, where a part of the run belongs; expected"
        " a mapping. Options are chosen by optim_wrapper/optimizer=<option>: adam, adamw, "
        "sgd.\n"
        "   Set by the override optim_wrapper.optimizer=3.",
    ),
    (
        ["optim_wrapper.optimizer=adam", "optim_wrapper.optimizer.lr=0.1"],
        "ConfigError: optim_wrapper.optimizer.lr=0.1: optim_wrapper.optimizer=adam leaves "
        "nothing inside of it. To choose an option, write optim_wrapper/optimizer=adam",
    ),
    (
        ["optim_wrapper={lr:1}"],
        "ConfigError: optim_wrapper is {lr: 1}; expected the name of an option: amp, default.",
    ),
    (
        ["hooks.logger=off"],
        "ConfigError: hooks.logger is 'off'; expected a config with _target_, or null.\n"
        "   Set by the override hooks.logger=off.",
    ),
    (
        ["hooks.logger=null", "hooks.logger.interval=1"],
        "ConfigError: hooks.logger.interval=1: hooks.logger=null leaves nothing inside of it."
        " Drop one.",
    ),
    (
        ["~optim_wrapper=default"],
        "ConfigError: ~optim_wrapper=default: this option is not chosen, so there is none to "
        "remove.",
    ),
    (
        ["hooks=ema,early_stopping"],
        "ConfigError: hooks=ema,early_stopping is a sweep. Write hooks=[ema,early_stopping] "
        "for all, or -m to sweep over them.",
    ),
    (
        ["optim_wrapper=amp,default"],
        "ConfigError: optim_wrapper=amp,default is a sweep. Write -m to sweep over them.",
    ),
    (
        ["seed=1,2"],
        "ConfigError: seed=1,2 gives several values; write -m to sweep over them.",
    ),
    (
        ["~optim_wrapper.optimizer"],
        "ConfigError: optim_wrapper: AmpOptimWrapper needs 'optimizer'. Give it: "
        "+optim_wrapper.optimizer=... It takes an Optimizer.\n"
        "   Set by conf/optim_wrapper/amp.yaml:N.",
    ),
    (
        ["~train_cfg.max_epochs"],
        "ConfigError: train_cfg: EpochBasedTrainLoop needs 'max_epochs'. Give it: "
        "+train_cfg.max_epochs=... It takes a number.\n"
        "   Set by conf/train_cfg/epoch.yaml:N.",
    ),
    (
        ["chek"],
        "ConfigError: There is no command 'chek'. Did you mean 'check'? An override is key=value.",
    ),
    (
        ["--multirn"],
        "ConfigError: The command line cannot be read: unrecognized arguments: --multirn. See"
        " trainkit --help.",
    ),
    (
        ["seed=1", "foo"],
        "ConfigError: The argument 'foo' is no override; expected key=value, +key=value or ~key.",
    ),
    (
        ["seed=[1"],
        "ConfigError: The override 'seed=[1' cannot be read. Expected key=value, with "
        "brackets that are closed, and quotes around a value with special characters: "
        "'seed=\"...\"'",
    ),
    (
        ["optim_wrapper/optimizer.lr=0.1"],
        "ConfigError: The override 'optim_wrapper/optimizer.lr=0.1' cannot be read. A value "
        "is set with dots: optim_wrapper.optimizer.lr=0.1",
    ),
    (
        ["--config-dir", "nowhere"],
        "ConfigError: --config-dir 'nowhere' is no directory. Name one that holds group folders.",
    ),
    (
        ["optim_wrapper.optimizer._target_=torch.optm.SGD"],
        "ConfigError: optim_wrapper.optimizer._target_: 'torch.optm.SGD' cannot be imported: "
        "torch has no 'optm'. Did you mean 'optim'?\n"
        "   Set by the override optim_wrapper.optimizer._target_=torch.optm.SGD.",
    ),
    (
        ["optim_wrapper.optimizer._target_=torch.optim.SDG"],
        "ConfigError: optim_wrapper.optimizer._target_: 'torch.optim.SDG' cannot be imported:"
        " torch.optim has no 'SDG'. Did you mean 'SGD'?\n"
        "   Set by the override optim_wrapper.optimizer._target_=torch.optim.SDG.",
    ),
    (
        ["optim_wrapper.optimizer._target_=trch.optim.SGD"],
        "ConfigError: optim_wrapper.optimizer._target_: 'trch.optim.SGD' cannot be imported: "
        "no module 'trch'. Install it, or mend the name.\n"
        "   Set by the override optim_wrapper.optimizer._target_=trch.optim.SGD.",
    ),
    (
        ["model._target_=ConvNet"],
        "ConfigError: model._target_ is 'ConvNet'; expected a full import path such as "
        "'torch.optim.SGD'.\n"
        "   Set by the override model._target_=ConvNet.",
    ),
    (
        ["model._target_=null"],
        "ConfigError: model._target_ is null; expected the import path of a class or "
        "function.\n"
        "   Set by the override model._target_=null.",
    ),
    (
        ["model._target_=3"],
        "ConfigError: model._target_ is 3; expected the import path of a class or function.\n"
        "   Set by the override model._target_=3.",
    ),
    (
        ["model._target_=trainkit.model"],
        "ConfigError: model._target_: 'trainkit.model' is a module; expected a class or "
        "function.\n"
        "   Set by the override model._target_=trainkit.model.",
    ),
    (
        ["~model._target_", "+model.type=ConvNet"],
        "ConfigError: model has no _target_, so nothing says what to build (MMEngine's 'type:"
        " ConvNet' is '_target_: <full import path>' here). It has: in_channels, num_classes,"
        " channels, dropout, data_preprocessor, type.\n"
        "   Set by the override +model.type=ConvNet.",
    ),
    (
        ["optim_wrapper.optimizer._target_=torch.optim.AdamW"],
        "ConfigError: optim_wrapper.optimizer.momentum, "
        "optim_wrapper.optimizer.nesterov are left over from torch.optim.SGD, which "
        "the override optim_wrapper.optimizer._target_=torch.optim.AdamW replaced "
        "by torch.optim.AdamW, which takes no such argument. Choose an option of the group "
        "instead of a _target_, or remove them: ~optim_wrapper.optimizer.momentum "
        "~optim_wrapper.optimizer.nesterov\n"
        "   Set by conf/optim_wrapper/optimizer/sgd.yaml:N; "
        "conf/optim_wrapper/optimizer/sgd.yaml:N.",
    ),
    (
        ["+hooks.mine._target_=torch.nn.Linear"],
        "ConfigError: hooks.mine is a config of Linear; expected a hook, a subclass of "
        "trainkit.Hook.\n"
        "   Set by the override +hooks.mine._target_=torch.nn.Linear.",
    ),
    (
        ["param_scheduler.cosine._target_=torch.optim.lr_scheduler.CosineAnnealingLR"],
        "ConfigError: param_scheduler.cosine is a config of CosineAnnealingLR; expected a "
        "parameter scheduler, a subclass of trainkit.param_scheduler.ParamScheduler.\n"
        "   Set by the override "
        "param_scheduler.cosine._target_=torch.optim.lr_scheduler.CosineAnnealingLR.",
    ),
    (
        ["model._target_=torch.optim.SGD"],
        "ConfigError: model is a config of SGD; expected a model, a subclass of "
        "torch.nn.Module.\n"
        "   Set by the override model._target_=torch.optim.SGD.",
    ),
    (
        ["train_cfg._target_=trainkit.loops.ValLoop"],
        "ConfigError: train_cfg is a config of ValLoop; expected a train loop, such as "
        "trainkit.loops.EpochBasedTrainLoop.\n"
        "   Set by the override train_cfg._target_=trainkit.loops.ValLoop.",
    ),
    (
        ["train_cfg.max_epochs=two"],
        "ConfigError: train_cfg.max_epochs is 'two'; EpochBasedTrainLoop takes a number.\n"
        "   Set by the override train_cfg.max_epochs=two.",
    ),
    (
        ["train_cfg.max_epochs=1.5"],
        "ConfigError: train_cfg.max_epochs is 1.5; expected a whole number of at least 1.\n"
        "   Set by the override train_cfg.max_epochs=1.5.",
    ),
    (
        ["train_cfg.max_epochs=null"],
        "ConfigError: train_cfg.max_epochs is null; EpochBasedTrainLoop takes a number.\n"
        "   Set by the override train_cfg.max_epochs=null.",
    ),
    (
        ["model.num_classes=10.5"],
        "ConfigError: model.num_classes is 10.5; ConvNet takes a whole number.\n"
        "   Set by the override model.num_classes=10.5.",
    ),
    (
        ["optim_wrapper.optimizer.lr=1e-3x"],
        "ConfigError: optim_wrapper.optimizer.lr is '1e-3x'; SGD takes a number.\n"
        "   Set by the override optim_wrapper.optimizer.lr=1e-3x.",
    ),
    (
        ["optim_wrapper.optimizer.nesterov=yes"],
        "ConfigError: optim_wrapper.optimizer.nesterov is 'yes'; SGD takes true or false.\n"
        "   Set by the override optim_wrapper.optimizer.nesterov=yes.",
    ),
    (
        ["experiment_name=3"],
        "ConfigError: experiment_name is 3; expected a text.\n"
        "   Set by the override experiment_name=3.",
    ),
    (
        ["tags=one"],
        "ConfigError: tags is 'one'; expected a list of texts.\n   Set by the override tags=one.",
    ),
    (
        ["tags={a:1}"],
        "ConfigError: tags is {a: 1}; the config has a list there.",
    ),
    (
        ["model.channels=32"],
        "ConfigError: model.channels is 32; ConvNet takes a list of whole numbers.\n"
        "   Set by the override model.channels=32.",
    ),
    (
        ["model.channels=[a,b]"],
        "ConfigError: model.channels is ['a', 'b']; ConvNet takes a list of whole numbers.\n"
        "   Set by the override model.channels=[a,b].",
    ),
    (
        ["optim_wrapper/optimizer=adam", "optim_wrapper.optimizer.betas=[0.9]"],
        "ConfigError: optim_wrapper.optimizer.betas is [0.9]; Adam takes a list of 2: a "
        "number, a number.\n"
        "   Set by the override optim_wrapper.optimizer.betas=[0.9].",
    ),
    (
        ["model.num_classes={a:1}"],
        "ConfigError: model.num_classes is {a: 1}; ConvNet takes a whole number.\n"
        "   Set by the override model.num_classes={a:1}.",
    ),
    (
        ["seed=1.5"],
        "ConfigError: seed is 1.5; expected a whole number or null.\n"
        "   Set by the override seed=1.5.",
    ),
    (
        ["seed=-1"],
        "ConfigError: seed is -1; expected a whole number of at least 0.\n"
        "   Set by the override seed=-1.",
    ),
    (
        ["resume=3"],
        "ConfigError: resume is 3; expected true, false or a text.\n"
        "   Set by the override resume=3.",
    ),
    (
        ["log_level=LOUD"],
        "ConfigError: log_level is 'LOUD'. Choose from: CRITICAL, DEBUG, ERROR, INFO, "
        "WARNING.\n"
        "   Set by the override log_level=LOUD.",
    ),
    (
        ["optim_wrapper.clip_grad=1.0"],
        "ConfigError: optim_wrapper.clip_grad is 1.0; AmpOptimWrapper takes a mapping or "
        "null.\n"
        "   Set by the override optim_wrapper.clip_grad=1.0.",
    ),
    (
        ["optim_wrapper.clip_grad={max_nrm:1}"],
        "ConfigError: optim_wrapper.clip_grad is {'max_nrm': 1}, which does not know max_nrm."
        " Clipping by norm needs max_norm; it takes error_if_nonfinite, foreach, max_norm, "
        "norm_type.\n"
        "   Set by the override optim_wrapper.clip_grad={max_nrm:1}.",
    ),
    (
        ["optim_wrapper.dtype=bf16"],
        "ConfigError: optim_wrapper.dtype is 'bf16'. Did you mean 'bfloat16'?\n"
        "   Set by the override optim_wrapper.dtype=bf16.",
    ),
    (
        ["hooks.logger.interval=0"],
        "ConfigError: hooks.logger.interval is 0; expected a whole number of at least 1.\n"
        "   Set by the override hooks.logger.interval=0.",
    ),
    (
        ["+hooks.logger.priority=HIHG"],
        "ConfigError: hooks.logger.priority is 'HIHG'; expected 0 to 100, or a level. Did you"
        " mean 'HIGH'?\n"
        "   Set by the override +hooks.logger.priority=HIHG.",
    ),
    (
        ["seed=???"],
        "ConfigError: seed has no value yet. Give it one: seed=...\n"
        "   Set by the override seed=???.",
    ),
    (
        ["seed=${sead}"],
        "ConfigError: seed is '${sead}', but the config has no 'sead'. Did you mean 'seed'?\n"
        "   Set by the override seed=${sead}.",
    ),
    (
        ["seed=${seed}"],
        "ConfigError: seed is '${seed}', which leads back to itself. Give one of the keys a "
        "value.\n"
        "   Set by the override seed=${seed}.",
    ),
    (
        ["experiment_name=${oc.env:TRAINKIT_NO_SUCH}"],
        "ConfigError: experiment_name is '${oc.env:TRAINKIT_NO_SUCH}', but the environment "
        "has no TRAINKIT_NO_SUCH. Set it, or write ${oc.env:TRAINKIT_NO_SUCH,<default>}.\n"
        "   Set by the override experiment_name=${oc.env:TRAINKIT_NO_SUCH}.",
    ),
    (
        ["experiment_name=${foo:1}"],
        "ConfigError: experiment_name is '${foo:1}', but there is no resolver 'foo'. Mend the"
        " interpolation.\n"
        "   Set by the override experiment_name=${foo:1}.",
    ),
    (
        ["train_cfg=iter", "param_scheduler.cosine.by_epoch=true"],
        "ConfigError: param_scheduler.cosine.by_epoch is true, but the train loop counts "
        "iterations, so it would never step. Set convert_to_iter_based: true beside it, or "
        "by_epoch: false and give all numbers in iterations.\n"
        "   Set by the override param_scheduler.cosine.by_epoch=true.",
    ),
    (
        ["param_scheduler=multistep", "train_cfg.max_epochs=12"],
        "ConfigError: param_scheduler.multistep.milestones has 13, but the run ends after 12 "
        "epochs: never reached. Lower them, train longer, or choose a schedule that ends with"
        " the run, such as param_scheduler=cosine.\n"
        "   Set by conf/param_scheduler/multistep.yaml:N, chosen by "
        "param_scheduler=multistep.",
    ),
    (
        ["+param_scheduler.cosine.begin=400"],
        "ConfigError: param_scheduler.cosine.begin is 400, but the run ends after 300 "
        "iterations, so it would do nothing. Begin earlier, or drop it.\n"
        "   Set by the override +param_scheduler.cosine.begin=400.",
    ),
    (
        ["+param_scheduler.cosine.end=0"],
        "ConfigError: param_scheduler.cosine has begin=0 and end=0; expected begin < end.\n"
        "   Set by the override +param_scheduler.cosine.end=0.",
    ),
    (
        ["train_cfg.val_begin=20"],
        "ConfigError: train_cfg.val_begin is 20, but the run ends after 15 epochs: it would "
        "never validate. Lower it.\n"
        "   Set by the override train_cfg.val_begin=20.",
    ),
    (
        ["hooks=ema", "hooks.ema.begin_epoch=30"],
        "ConfigError: hooks.ema.begin_epoch is 30, but the run ends after 15 epochs: it would"
        " never begin. Lower it.\n"
        "   Set by the override hooks.ema.begin_epoch=30.",
    ),
    (
        ["hooks=early_stopping", "hooks.early_stopping.monitor=acuracy"],
        "ConfigError: hooks.early_stopping.monitor is 'acuracy', which no metric of the "
        "evaluator gives. Did you mean 'accuracy'?\n"
        "   Set by the override hooks.early_stopping.monitor=acuracy.",
    ),
    (
        ["hooks=early_stopping", "hooks.early_stopping.monitor=val/accuracy"],
        "ConfigError: hooks.early_stopping.monitor is 'val/accuracy', which no metric of the "
        "evaluator gives. Did you mean 'accuracy'?\n"
        "   Set by the override hooks.early_stopping.monitor=val/accuracy.",
    ),
    (
        ["hooks.checkpoint.save_best=[accuracy,acc]"],
        "ConfigError: hooks.checkpoint.save_best is 'acc', which no metric of the evaluator "
        "gives. Did you mean 'accuracy'?\n"
        "   Set by the override hooks.checkpoint.save_best=[accuracy,acc].",
    ),
    (
        ["hooks=early_stopping", "val_cfg=none"],
        "ConfigError: hooks.early_stopping.monitor is 'accuracy', but there is no validation "
        "(val_cfg is null). Set hooks.early_stopping to null, or validate.\n"
        "   Set by conf/hooks/early_stopping.yaml:N, chosen by hooks=early_stopping.",
    ),
    (
        ["hooks.checkpoint.save_best=accuracy", "val_cfg=none"],
        "ConfigError: hooks.checkpoint.save_best is 'accuracy', but there is no validation "
        "(val_cfg is null). Set hooks.checkpoint.save_best to null, or validate.\n"
        "   Set by the override hooks.checkpoint.save_best=accuracy.",
    ),
    (
        ["dataloader.train.batch_size=2000", "+dataloader.train.drop_last=true"],
        "ConfigError: dataloader.train gives no batch: 1,259 samples, batch_size=2000, "
        "drop_last=True. Lower batch_size, or set drop_last=false.\n"
        "   Set by the override dataloader.train.batch_size=2000.",
    ),
    (
        ["dataloader.train.batch_size=0"],
        "ConfigError: dataloader.train.batch_size is 0; expected a whole number of at least "
        "1.\n"
        "   Set by the override dataloader.train.batch_size=0.",
    ),
    (
        ["load_from=nowhere.pt"],
        "CheckpointError: There is no checkpoint 'nowhere.pt'. Expected a run, a checkpoint "
        "directory or a file. Nearby: none.\n"
        "   Set by the override load_from=nowhere.pt.",
    ),
    (
        ["auto_scale_lr.enable=true"],
        "ConfigError: auto_scale_lr.base_batch_size is null; expected the batch size that the"
        " learning rate is for, as auto_scale_lr.enable is true.\n"
        "   Set by conf/config.yaml:N.",
    ),
    (
        ["auto_scale_lr.enable=maybe"],
        "ConfigError: auto_scale_lr.enable is 'maybe'; expected true or false.\n"
        "   Set by the override auto_scale_lr.enable=maybe.",
    ),
    (
        [
            "+dataloader.train.dataset.root=nowhere",
            "dataloader.train.dataset._target_=own_data.Folder",
        ],
        "ConfigError: dataloader.train.dataset.root is 'nowhere', which does not exist in "
        "HERE. Give the path of the data.\n"
        "   Set by the override +dataloader.train.dataset.root=nowhere.",
    ),
    (
        [
            "sede=1",
            "train_cfg=epochs",
            "model.in_channels=x",
            "lr=3",
            "+typo=2",
            "hooks.checkpoint.save_best=acc",
        ],
        "ConfigError: The config has 6 mistakes.\n"
        "1. The config has no 'sede'. Did you mean 'seed'?\n"
        "2. train_cfg=epochs: there is no option 'epochs'. Did you mean 'epoch'?\n"
        "3. The config has no 'lr' at its top. It stands at optim_wrapper.optimizer.lr.\n"
        "4. typo: nothing reads a key of this name. The config has: TOP.\n"
        "   Set by the override +typo=2.\n"
        "5. model.in_channels is 'x'; ConvNet takes a whole number.\n"
        "   Set by the override model.in_channels=x.\n"
        "6. hooks.checkpoint.save_best is 'acc', which no metric of the evaluator gives. Did "
        "you mean 'accuracy'?\n"
        "   Set by the override hooks.checkpoint.save_best=acc.",
    ),
    (
        ["-m", "seed=1,2,x"],
        "ConfigError: seed is 'x'; expected a whole number or null.\n"
        "   Set by the override seed=x.",
    ),
    (
        ["-m", "optim_wrapper=amp,apm"],
        "ConfigError: optim_wrapper=apm: there is no option 'apm'. Did you mean 'amp'?",
    ),
    (
        ["-m", "optim_wrapper.optimizer.lr=0.1,abc", "model.chanels=[3]"],
        "ConfigError: The config has 2 mistakes.\n"
        "1. The config has no 'model.chanels'. Did you mean 'model.channels'?\n"
        "2. optim_wrapper.optimizer.lr is 'abc'; SGD takes a number.\n"
        "   Set by the override optim_wrapper.optimizer.lr=abc.",
    ),
    (
        ["-m", "seed=choice(1,2)", "train_cfg.max_epochs=1,two"],
        "ConfigError: train_cfg.max_epochs is 'two'; EpochBasedTrainLoop takes a number.\n"
        "   Set by the override train_cfg.max_epochs=two.",
    ),
]


@pytest.mark.parametrize(("argv", "message"), COMMAND_LINES, ids=lambda value: str(value)[:60])
def test_a_wrong_command_line_is_answered(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_data.py").write_text(OWN_DATA)
    assert answer(argv, capsys) == message


# (file, what it holds, the command line, the message)
FILES: list[tuple[str, str, tuple[str, ...], str]] = [
    (
        "my/experiment/mine.yaml",
        "seed: 3\n",
        EXPERIMENT,
        "ConfigError: A file in experiment/ begins with the line '# @package _global_', and "
        "this one not.\n"
        "   Set by my/experiment/mine.yaml:1, chosen by experiment=mine.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "model:\n\tchannels: [8]\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:3 is no YAML: found character '\\t' that cannot "
        "start any token. Expected lines of 'key: value', each key once, indented by spaces.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "seed: 1\nseed: 2\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:3 is no YAML: found duplicate key seed. "
        "Expected lines of 'key: value', each key once, indented by spaces.",
    ),
    (
        "my/experiment/mine.yaml",
        "",
        EXPERIMENT,
        "ConfigError: A file in experiment/ begins with the line '# @package _global_', and "
        "this one not.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "- seed\n- model\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml holds a list; expected 'key: value' lines.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "3\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml holds a single value; expected 'key: value' lines.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "seed: {1\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:3 is no YAML: expected ',' or '}', but got "
        "'<stream end>'. Expected lines of 'key: value', each key once, indented by spaces.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "defaults:\n  - override /optim_wrapper: ampp\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:3 chooses optim_wrapper: ampp, but there is no "
        "such option. Did you mean 'amp'?",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "defaults:\n  - override /optim_wraper: amp\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:3 overrides 'optim_wraper', which is no group "
        "there. Did you mean 'optim_wrapper'?",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "defaults:\n  - override optim_wrapper: amp\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:3 overrides 'optim_wrapper', which is no group "
        "there. Write it with a slash: 'override /optim_wrapper'.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "defaults:\n  - optim_wrapper: default\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:3 chooses optim_wrapper: default, which is "
        "looked for in experiment/optim_wrapper/. Write 'override /optim_wrapper: default'.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "defaults:\n  - /optim_wrapper: default\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:3 chooses an option of optim_wrapper, and so "
        "does another defaults list. Write 'override /optim_wrapper: ...' instead of "
        "'optim_wrapper: ...'.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "defaults:\n  - /optim_wraper: default\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:3 chooses 'default' of 'optim_wraper', but "
        "there is no such group. Did you mean 'optim_wrapper'?",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "defaults:\n  - nothing\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:3 names the config 'nothing', which is not "
        "there. There is: digits_cosine, mine.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "defaults: amp\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:2: defaults is a text; expected a list, each "
        "line of which begins with '- '.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "default:\n  - override /optim_wrapper: default\n",
        EXPERIMENT,
        "ConfigError: default: nothing reads a key of this name. Did you mean 'defaults'?\n"
        "   Set by my/experiment/mine.yaml:2, chosen by experiment=mine.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "modle:\n  channels: [8]\n",
        EXPERIMENT,
        "ConfigError: modle: nothing reads a key of this name. Did you mean 'model'?\n"
        "   Set by my/experiment/mine.yaml:3, chosen by experiment=mine.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "model:\n  chanels: [8]\n",
        EXPERIMENT,
        "ConfigError: model.chanels: ConvNet has no argument 'chanels'. Did you mean "
        "'channels'?\n"
        "   Set by my/experiment/mine.yaml:3, chosen by experiment=mine.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "lr: 0.1\n",
        EXPERIMENT,
        "ConfigError: lr: nothing reads a key of this name. It stands at "
        "optim_wrapper.optimizer.lr.\n"
        "   Set by my/experiment/mine.yaml:2, chosen by experiment=mine.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "optim_wrapper: default\n",
        EXPERIMENT,
        "ConfigError: optim_wrapper is 'default', a text where a part of the run belongs. To "
        "choose an option of optim_wrapper: optim_wrapper=default on the command line, "
        "'override /optim_wrapper: default' in the defaults of a file.\n"
        "   Set by my/experiment/mine.yaml:2, chosen by experiment=mine.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "optim_wrapper:\n  optimizer:\n    _target_: torch.optim.AdamW\n",
        EXPERIMENT,
        "ConfigError: optim_wrapper.optimizer.momentum, "
        "optim_wrapper.optimizer.nesterov are left over from torch.optim.SGD, which "
        "my/experiment/mine.yaml:4 replaced "
        "by torch.optim.AdamW, which takes no such argument. Choose an option of the group "
        "instead of a _target_, or remove them: ~optim_wrapper.optimizer.momentum "
        "~optim_wrapper.optimizer.nesterov\n"
        "   Set by conf/optim_wrapper/optimizer/sgd.yaml:N; "
        "conf/optim_wrapper/optimizer/sgd.yaml:N.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "hooks:\n  - _target_: trainkit.hooks.EMAHook\n",
        EXPERIMENT,
        "ConfigError: my/experiment/mine.yaml:2: hooks is a list; the config has a mapping "
        "there. Give each entry a name, as 'name: {...}'.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "hooks:\n  mine: {type: EMAHook}\n",
        EXPERIMENT,
        "ConfigError: hooks.mine has no _target_, so nothing says what to build (MMEngine's "
        "'type: EMAHook' is '_target_: <full import path>' here). It has: type.\n"
        "   Set by my/experiment/mine.yaml:3, chosen by experiment=mine.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "model:\n  num_classes: ${n_classes}\n",
        EXPERIMENT,
        "ConfigError: model.num_classes is '${n_classes}', but the config has no 'n_classes'."
        " Did you mean 'model.num_classes'?\n"
        "   Set by my/experiment/mine.yaml:3, chosen by experiment=mine.",
    ),
    (
        "my/experiment/mine.yaml",
        GLOBAL + "model:\n",
        EXPERIMENT,
        "ConfigError: The config has no model, which every run needs. Set model=...\n"
        "   Set by my/experiment/mine.yaml:2, chosen by experiment=mine.",
    ),
    (
        "my/experiment/mine.yaml",
        (
            GLOBAL + "train_cfg:\n"
            "  max_epochs: ten\n"
            "model:\n"
            "  num_class: 3\n"
            "hooks:\n"
            "  checkpoint:\n"
            "    save_best: acc\n"
            "sede: 3\n"
            "optim_wrapper:\n"
            "  optimizer:\n"
            "    _target_: torch.optim.SDG\n"
        ),
        EXPERIMENT,
        "ConfigError: The config has 5 mistakes.\n"
        "1. sede: nothing reads a key of this name. Did you mean 'seed'?\n"
        "   Set by my/experiment/mine.yaml:9, chosen by experiment=mine.\n"
        "2. optim_wrapper.optimizer._target_: 'torch.optim.SDG' cannot be imported: "
        "torch.optim has no 'SDG'. Did you mean 'SGD'?\n"
        "   Set by my/experiment/mine.yaml:12, chosen by experiment=mine.\n"
        "3. model.num_class: ConvNet has no argument 'num_class'. Did you mean 'num_classes'?\n"
        "   Set by my/experiment/mine.yaml:5, chosen by experiment=mine.\n"
        "4. train_cfg.max_epochs is 'ten'; EpochBasedTrainLoop takes a number.\n"
        "   Set by my/experiment/mine.yaml:3, chosen by experiment=mine.\n"
        "5. hooks.checkpoint.save_best is 'acc', which no metric of the evaluator gives. Did "
        "you mean 'accuracy'?\n"
        "   Set by my/experiment/mine.yaml:8, chosen by experiment=mine.",
    ),
    (
        "my/mine.yaml",
        "defaults:\n  - config\n  - optim_wrapper: default\n  - _self_\n",
        ROOT,
        "ConfigError: my/mine.yaml:3 chooses an option of optim_wrapper, and so does another "
        "defaults list. Write 'override /optim_wrapper: ...' instead of 'optim_wrapper: ...'.",
    ),
    (
        "my/mine.yaml",
        "defaults:\n  - confg\n  - _self_\n",
        ROOT,
        "ConfigError: my/mine.yaml:2 names the config 'confg', which is not there. Did you "
        "mean 'config'?",
    ),
    (
        "my/mine.yaml",
        "defaults:\n  - config\n  - _self_\nsede: 1\n",
        ROOT,
        "ConfigError: sede: nothing reads a key of this name. Did you mean 'seed'?\n"
        "   Set by my/mine.yaml:4.",
    ),
    (
        "my/model/mine.yaml",
        GLOBAL + "_target_: trainkit.model.ConvNet\n",
        MODEL,
        "ConfigError: A file puts _target_ at the top of the config, where nothing is built. "
        "If it is an option of a group, it begins without the line '# @package _global_'.\n"
        "   Set by my/model/mine.yaml:2, chosen by model=mine.",
    ),
    (
        "my/model/mine.yaml",
        "model:\n  _target_: trainkit.model.ConvNet\n",
        MODEL,
        "ConfigError: model.model: what stands here is put under 'model' already. Drop the "
        "line 'model:'.\n"
        "   Set by my/model/mine.yaml:2, chosen by model=mine.",
    ),
    (
        "my/optim_wrapper/mine.yaml",
        (
            "_target_: trainkit.optim_wrapper.OptimWrapper\n"
            "optimiser:\n"
            "  _target_: torch.optim.SGD\n"
            "  lr: 0.1\n"
        ),
        ("--config-dir", "my", "optim_wrapper=mine"),
        "ConfigError: optim_wrapper.optimiser: OptimWrapper has no argument 'optimiser'. Did "
        "you mean 'optimizer'?\n"
        "   Set by my/optim_wrapper/mine.yaml:4, chosen by optim_wrapper=mine.",
    ),
]


@pytest.mark.parametrize(
    ("file", "text", "argv", "message"), FILES, ids=lambda value: str(value)[-60:]
)
def test_a_mistake_in_a_file_of_ones_own_is_answered(
    file: str,
    text: str,
    argv: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path(file).parent.mkdir(parents=True)
    Path(file).write_text(text)
    assert answer([*argv], capsys) == message


@dataclass
class MySGD:
    """A user's own dataclass."""

    lr: float = 0.1
    momentum: float = 0.9
    _target_: str = "torch.optim.SGD"


@dataclass
class MyWrapper:
    """A user's own dataclass with one inside of it."""

    optimizer: MySGD = field(default_factory=MySGD)
    accumulative_counts: int = 1
    _target_: str = "trainkit.optim_wrapper.OptimWrapper"


@pytest.fixture
def _stored() -> Iterator[None]:
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(group="optim_wrapper", name="mine", node=MyWrapper)
    yield
    del store.repo["optim_wrapper"]["mine.yaml"]


def _three_epochs() -> TrainConfig:
    return TrainConfig(train_cfg=EpochBasedTrainLoopConfig(max_epochs=3))


PYTHON: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: train(TrainConfig(train_cfg=EpochBasedTrainLoopConfig(max_epochs="3 or 4"))),  # type: ignore[arg-type] # the mistake
        "TrainConfig.train_cfg.max_epochs is '3 or 4'; EpochBasedTrainLoopConfig takes a "
        "whole number.",
    ),
    (
        lambda: train(TrainConfig(seed="one")),  # type: ignore[arg-type] # the mistake
        "seed is 'one'; expected a whole number or null.\n   Set by what is given in Python.",
    ),
    (
        lambda: train(TrainConfig(optim_wrapper="amp")),
        "TrainConfig.optim_wrapper is 'amp'; expected a dataclass or a mapping. An option is "
        "chosen by overrides=['optim_wrapper=amp'].",
    ),
    (
        lambda: train(TrainConfig(dataloader=3)),
        "TrainConfig.dataloader is 3; expected a dataclass or a mapping.",
    ),
    (
        lambda: train(TrainConfig(model=torch.nn.Linear(1, 1))),
        "TrainConfig.model is a Linear, a live object; a config holds dataclasses, mappings, "
        "lists and plain values. Give it to Runner(...) instead.",
    ),
    (
        lambda: train(
            TrainConfig(
                optim_wrapper=OptimWrapperConfig(
                    optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)])
                )
            )
        ),
        "TrainConfig.optim_wrapper.optimizer is an SGD, a live object; a config holds "
        "dataclasses, mappings, lists and plain values. Give it to Runner(...) instead.",
    ),
    (
        lambda: train(TrainConfig(model=None)),
        "The config has no model, which every run needs. Set model=...",
    ),
    (
        lambda: train(TrainConfig(optim_wrapper=None)),
        "dataloader.train, train_cfg given, but not optim_wrapper. Give all of "
        "dataloader.train, train_cfg, optim_wrapper, or none of them.",
    ),
    (
        lambda: train(TrainConfig(hooks=[EarlyStoppingHookConfig(monitor="acc")])),
        "hooks.early_stopping.monitor is 'acc', which no metric of the evaluator gives. Did "
        "you mean 'accuracy'?\n"
        "   Set by what is given in Python.",
    ),
    (
        lambda: train(TrainConfig(param_scheduler=MultiStepLRConfig(milestones=[10, 20]))),
        "param_scheduler.milestones has 20, but the run ends after 15 epochs: never reached. "
        "Lower them, train longer, or choose a schedule that ends with the run, such as "
        "param_scheduler=cosine.\n"
        "   Set by MultiStepLRConfig given in Python.",
    ),
    (
        lambda: train(TrainConfig(param_scheduler=[CosineAnnealingLRConfig(begin=400)])),
        "param_scheduler.CosineAnnealingLR.begin is 400, but the run ends after 15 epochs, so"
        " it would do nothing. Begin earlier, or drop it.\n"
        "   Set by what is given in Python.",
    ),
    (
        lambda: train(_three_epochs(), ["train_cfg.max_epochs=many"]),
        "train_cfg.max_epochs is 'many'; EpochBasedTrainLoopConfig takes a whole number.",
    ),
    (
        lambda: train(_three_epochs(), ["train_cfg.max_epoch=4"]),
        "The config has no 'train_cfg.max_epoch'. Did you mean 'train_cfg.max_epochs'?",
    ),
    (
        lambda: train(_three_epochs(), ["+train_cfg.epochs=4"]),
        "train_cfg.epochs: EpochBasedTrainLoop has no argument 'epochs'. Did you mean "
        "'max_epochs'?\n"
        "   Set by the override +train_cfg.epochs=4.",
    ),
    (
        lambda: train(TrainConfig(optim_wrapper=MyWrapper()), ["optim_wrapper.optimizer.lr=fast"]),
        "optim_wrapper.optimizer.lr is 'fast'; MySGD takes a number.",
    ),
    (
        lambda: train(overrides=["optim_wrapper=mine", "optim_wrapper.optimizer.lr=null"]),
        "optim_wrapper.optimizer.lr is null; MySGD takes a number.",
    ),
    (
        lambda: train(overrides=["optim_wrapper=mine", "optim_wrapper.accumulative_count=2"]),
        "The config has no 'optim_wrapper.accumulative_count'. Did you mean "
        "'optim_wrapper.accumulative_counts'?",
    ),
    (
        lambda: train(overrides=["optim_wrapper=mine", "optim_wrapper.optimizer=adam"]),
        "optim_wrapper.optimizer is 'adam'; MyWrapper takes a mapping.",
    ),
    (
        lambda: train(overrides=["optim_wrapper=mine", "optim_wrapper/optimizer=adam"]),
        "optim_wrapper/optimizer=adam: the option of optim_wrapper that is chosen sets "
        "optim_wrapper.optimizer itself. Change its values, or choose another option of "
        "optim_wrapper: amp, default.",
    ),
    (
        lambda: train(overrides=["optim_wrapper=mine", "+optim_wrapper.optimizer.nesterovv=true"]),
        "optim_wrapper.optimizer.nesterovv: SGD has no argument 'nesterovv'. Did you mean "
        "'nesterov'?\n"
        "   Set by the override +optim_wrapper.optimizer.nesterovv=true.",
    ),
    (
        lambda: train({"seed": 1}),  # type: ignore[arg-type] # a mapping is taken as a config
        "The config has 2 mistakes.\n"
        "1. The config has no model, which every run needs. Set model=...\n"
        "2. The config has no experiment_name, under which its runs are kept. Set "
        "experiment_name=..., or a work_dir.",
    ),
    (
        lambda: train(3),  # type: ignore[arg-type] # the mistake
        "train() got an int; expected a TrainConfig, or a composed config.",
    ),
    (
        lambda: train(compose(), ["seed=1"]),
        "train() got a composed config and overrides; give the overrides where it is composed.",
    ),
    (
        lambda: compose("seed=1"),
        "overrides is the text 'seed=1'; expected a list: ['seed=1'].",
    ),
    (
        lambda: compose(config={"seed": 1}),  # type: ignore[arg-type] # the mistake
        "config is a dict; expected a TrainConfig, whose fields are the groups.",
    ),
    (
        lambda: Runner.from_cfg("conf/config.yaml"),
        "from_cfg got a str; expected a config, as compose() returns.",
    ),
    (
        lambda: Runner.from_cfg({"modle": {}, "work_dir": "x"}),
        "The config has 2 mistakes.\n"
        "1. modle: nothing reads a key of this name. Did you mean 'model'?\n"
        "2. The config has no model, which every run needs. Set model=...",
    ),
    (
        lambda: Runner.from_cfg(
            {"model": {"_target_": torch.nn.Linear, "in_feature": 1, "out_features": 2}}
        ),
        "The config has 2 mistakes.\n"
        "1. The config has no experiment_name, under which its runs are kept. Set "
        "experiment_name=..., or a work_dir.\n"
        "2. model.in_feature: Linear has no argument 'in_feature'. Did you mean "
        "'in_features'?",
    ),
]


@pytest.mark.usefixtures("_stored")
@pytest.mark.parametrize(("mistake", "message"), PYTHON, ids=range(len(PYTHON)))
def test_a_mistake_in_python_is_answered(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mistake()
    assert plain(str(caught.value)) == message
    assert list(Path().iterdir()) == []
