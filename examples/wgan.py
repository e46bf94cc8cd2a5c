"""Alternating updates: a Wasserstein GAN on the digits: ``python examples/wgan.py``.

Two optimizers from config alone, each of the submodule of its name, with a schedule of its own. The
critic learns from every batch, the generator from every ``n_critic``-th (Arjovsky, Chintala and
Bottou, "Wasserstein GAN", arXiv:1701.07875, algorithm 1). The run is in a new directory below
``outputs/wgan``.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import nn

from trainkit import BaseModel, Runner
from trainkit.data import Digits
from trainkit.optim_wrapper import OptimWrapperDict
from trainkit.run_dir import new_run_directory


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


class WGAN(BaseModel):
    """A generator and a critic, which says how real an image looks.

    Args:
        n_critic: Updates of the critic for each of the generator.
        clip: Limit of the critic's weights, which keeps it Lipschitz.
        noise: Numbers that an image is made of.
    """

    def __init__(self, n_critic: int = 5, clip: float = 0.05, noise: int = 16) -> None:
        super().__init__()
        self.n_critic, self.clip, self.noise = n_critic, clip, noise
        self.generator = mlp(noise, 64, 64)
        self.critic = mlp(64, 64, 1)

    def train_step(self, data: Any, optim_wrapper: OptimWrapperDict) -> dict[str, torch.Tensor]:
        real = self.data_preprocessor(data, True)["inputs"].flatten(1)
        critic, generator = optim_wrapper["critic"], optim_wrapper["generator"]
        with critic.optim_context(self.critic):
            fake = self.sample(len(real)).detach()
            loss = self.critic(fake).mean() - self.critic(real).mean()
        critic.update_params(loss)
        for parameter in self.critic.parameters():
            parameter.data.clamp_(-self.clip, self.clip)
        logged = {"critic_loss": loss.detach()}
        # The wrapper's count is in the checkpoint: a resumed run keeps the rhythm.
        if critic.update_count % self.n_critic == 0:
            self.critic.requires_grad_(False)  # the generator's loss leaves no gradients there
            with generator.optim_context(self.generator):
                loss = -self.critic(self.sample(len(real))).mean()
            generator.update_params(loss)
            self.critic.requires_grad_(True)
            logged["generator_loss"] = loss.detach()
        return logged

    def sample(self, count: int) -> torch.Tensor:
        """Return ``(count, 64)``: images from noise."""
        device = next(self.parameters()).device
        made: torch.Tensor = self.generator(torch.randn(count, self.noise, device=device))
        return made


def arguments(work_dir: Any, max_iters: int = 200) -> dict[str, Any]:
    collate = {"_target_": "trainkit.dataloader.default_collate"}
    rmsprop = {"_target_": "torch.optim.RMSprop", "lr": 0.001}
    linear = {"_target_": "trainkit.param_scheduler.LinearLR", "start_factor": 1.0, "end_factor": 0}
    return {
        "model": {"_target_": WGAN},
        "work_dir": work_dir,
        "train_dataloader": {"dataset": Digits("train"), "batch_size": 64, "collate_fn": collate},
        "train_cfg": {"by_epoch": False, "max_iters": max_iters},
        "optim_wrapper": {
            "generator": {"optimizer": rmsprop, "clip_grad": {"max_norm": 10.0}},
            "critic": {"optimizer": rmsprop},
        },
        "param_scheduler": {"generator": linear},
        "default_hooks": {"logger": {"interval": 50}, "checkpoint": {"interval": max_iters}},
        "randomness": {"seed": 0},
    }


def main() -> None:
    runner = Runner(**arguments(new_run_directory("wgan")))
    model = runner.train()
    updates = {name: wrapper.update_count for name, wrapper in runner.optim_wrapper.items()}
    print(f"updates: {updates}")
    print(f"mean of the images: {model.sample(100).mean():.2f}")


if __name__ == "__main__":
    main()
