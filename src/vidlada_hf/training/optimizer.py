"""The optimizer: Muon for the layers' matrices, AdamW for the rest, a rate of its own for each part of the model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

PARTS = ("tower", "projector", "text")


@dataclass(frozen=True)
class OptimizerOptions:
    """Rates of the optimizer. A rate of 0 freezes: no gradient and no optimizer state.

    Args:
        tower, projector, text: AdamW's rate for each part of the model.
        muon: Muon's rate for the matrices of the text model's layers; None: AdamW's, as for the rest.
        muon_momentum, betas, weight_decay: of Muon; of AdamW; of both.
    """

    tower: float = 2e-6
    projector: float = 1e-5
    text: float = 1e-5
    muon: float | None = None
    muon_momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in (*PARTS, "muon", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"`{name}` must be a rate of at least 0, got {value!r}.")


def part_of(name: str) -> str:
    """The part of the model that a parameter belongs to, by its name: "tower", "projector" or "text"."""
    if ".vision_tower." in name:
        return "tower"
    return "projector" if ".multi_modal_projector." in name or ".image_newline." in name else "text"


def build_optimizer(model: nn.Module, options: OptimizerOptions) -> "MuonAdamW":
    """Groups the parameters by part and by optimizer; freezes the parts whose rate is 0."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if getattr(options, part) == 0:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        by_muon = options.muon is not None and part == "text" and ".layers." in name and parameter.dim() == 2
        groups.setdefault((part, by_muon), []).append(parameter)
    return MuonAdamW(
        [
            {
                "params": parameters,
                "lr": options.muon if by_muon else getattr(options, part),
                "weight_decay": options.weight_decay,
                "muon": by_muon,
            }
            | ({"momentum": options.muon_momentum} if by_muon else {"betas": options.betas})
            for (part, by_muon), parameters in groups.items()
        ]
    )


class MuonAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` behind one interface: schedulers and `Trainer` see one optimizer.

    Args:
        groups: parameter groups as of any optimizer, each with "muon", which says which of the two steps it.

    The two share this object's groups and state, so that both are saved and restored as one.

    Raises:
        ValueError: no parameter, or torch is too old to have Muon (2.9) where a group asks for it.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        groups = list(groups)
        if not any(group["params"] for group in groups):
            raise ValueError("Nothing is left to train: every rate is 0.")
        super().__init__(groups, {})
        self._link()

    def _link(self) -> None:
        """Makes the two optimizers over this object's own groups and state."""
        self.steppers: list[torch.optim.Optimizer] = []
        for by_muon in (True, False):
            mine = [group for group in self.param_groups if group["muon"] == by_muon]
            if not mine:
                continue
            if by_muon and not hasattr(torch.optim, "Muon"):
                raise ValueError(f"Muon needs torch 2.9 or newer, this is {torch.__version__}: set `muon` to null.")
            stepper = torch.optim.Muon(mine) if by_muon else torch.optim.AdamW(mine)
            for group, filled in zip(mine, stepper.param_groups, strict=True):
                group.update({name: value for name, value in filled.items() if name not in group})
            stepper.param_groups, stepper.state = mine, self.state
            self.steppers.append(stepper)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for stepper in self.steppers:
            stepper.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As of any optimizer."""
        super().load_state_dict(state_dict)
        self._link()


__all__ = ["MuonAdamW", "OptimizerOptions", "build_optimizer"]
