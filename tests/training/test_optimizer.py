import copy

import pytest
import torch

from tests.tiny_models import example, tiny_model
from vidlada_hf.training.optimizer import Muon, MuonAdamW, OptimizerOptions, build_optimizer

OPTIONS = OptimizerOptions(tower=1e-3, projector=2e-3, text=3e-3, muon=1e-2)


def train(model, optimizer, steps: int, first: int = 0) -> list[float]:
    """Some steps on a fixed task; the losses."""
    inputs, losses = example(model, 1), []
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -4:] = inputs["input_ids"][:, -4:]
    for step in range(first, first + steps):
        loss = model(**inputs, labels=labels, generator=torch.Generator().manual_seed(step)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_every_parameter_is_in_one_group_with_the_rate_of_its_part():
    model = tiny_model()
    optimizer = build_optimizer(model, OPTIONS)
    rates = {id(p): (g["lr"], g["muon"]) for g in optimizer.param_groups for p in g["params"]}
    trained = {name: rates[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    assert len(rates) == len(trained)
    assert trained["model.vision_tower.encoder.layers.0.mlp.fc1.weight"] == (1e-3, False)
    assert trained["model.multi_modal_projector.linear_1.weight"] == (2e-3, False)
    assert trained["model.image_newline.weight"] == (2e-3, False)
    assert trained["model.language_model.layers.0.mlp.up_proj.weight"] == (1e-2, True)
    assert trained["model.language_model.layers.0.input_layernorm.weight"] == (3e-3, False)
    assert trained["model.language_model.embed_tokens.weight"] == trained["lm_head.weight"] == (3e-3, False)


def test_each_group_moves_as_its_own_optimizer_moves_it():
    together, apart = tiny_model(), tiny_model()
    optimizer = build_optimizer(together, OPTIONS)
    groups = build_optimizer(apart, OPTIONS).param_groups
    muon = Muon([{"params": [p for g in groups if g["muon"] for p in g["params"]], "lr": 1e-2}])
    adamw = torch.optim.AdamW(
        [{"params": g["params"], "lr": g["lr"]} for g in groups if not g["muon"]], betas=(0.9, 0.98), weight_decay=0.0
    )

    class Both:
        def step(self):
            muon.step()
            adamw.step()

        def zero_grad(self):
            muon.zero_grad()
            adamw.zero_grad()

    assert train(together, optimizer, 3) == train(apart, Both(), 3)
    for one, other in zip(together.parameters(), apart.parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_learns():
    losses = train(model := tiny_model(), build_optimizer(model, OPTIONS), 60)
    assert sum(losses[-10:]) < sum(losses[:10]) / 4


def test_a_restored_optimizer_goes_on_as_if_never_stopped():
    straight = tiny_model()
    train(straight, build_optimizer(straight, OPTIONS), 6)

    stopped = tiny_model()
    optimizer = build_optimizer(stopped, OPTIONS)
    train(stopped, optimizer, 3)
    state = copy.deepcopy(optimizer.state_dict())
    resumed = tiny_model(seed=1)
    resumed.load_state_dict(stopped.state_dict())
    optimizer = build_optimizer(resumed, OPTIONS)
    optimizer.load_state_dict(state)
    train(resumed, optimizer, 3, first=3)
    for one, other in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_scheduler_reaches_both():
    model = tiny_model()
    optimizer = build_optimizer(model, OPTIONS)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    before = [g["lr"] for g in optimizer.param_groups]
    train(model, optimizer, 1)
    scheduler.step()
    assert [g["lr"] for s in optimizer.optimizers for g in s.param_groups] != before
    assert sorted(g["lr"] for s in optimizer.optimizers for g in s.param_groups) == sorted(lr / 2 for lr in before)


def test_a_rate_of_zero_freezes_without_gradient_or_state():
    model = tiny_model()
    optimizer = build_optimizer(model, OptimizerOptions(tower=0, projector=1e-3, text=0))
    train(model, optimizer, 1)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name in trained if "projector" in name or "newline" in name} and trained
    assert len(optimizer.state) == len(trained)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": -1.0}, "`text` must be a rate of at least 0, got -1.0"),
        ({"muon": float("nan")}, "`muon` must be a rate"),
    ],
)
def test_impossible_rates_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerOptions(**options)


def test_a_loaded_model_has_the_same_parameters_to_train_as_a_built_one(tmp_path):
    built, names = tiny_model(), []
    built.save_pretrained(tmp_path)
    for model in (built, type(built).from_pretrained(tmp_path)):
        build_optimizer(model, OPTIONS)
        names.append([name for name, p in model.named_parameters() if p.requires_grad])
    assert names[0] == names[1] and not [name for name in names[0] if "post_layernorm" in name]


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="every rate is 0"):
        build_optimizer(tiny_model(), OptimizerOptions(tower=0, projector=0, text=0))
    with pytest.raises(ValueError, match="every rate is 0"):
        MuonAdamW([])


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 24, 8), (2, 8, 24)])
def test_directions_are_those_of_torchs_muon(shape):
    """Up to bfloat16, in which torch computes."""
    reference = pytest.importorskip("torch.optim._muon")._zeropower_via_newtonschulz  # torch 2.9
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for direction, matrix in zip(Muon.orthogonalize(matrices), matrices, strict=True):
        expected = reference(matrix, Muon.COEFFICIENTS, Muon.ITERATIONS, 1e-7).float()
        assert (direction - expected).norm() < 0.05 * expected.norm()
