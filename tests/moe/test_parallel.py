"""Two processes give the numbers of one."""

import copy
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from geomoe import moe
from tests.moe.routers import CHANNELS, EXPERTS, ROUTERS, router, rows_for

C, E, N, WORLD = 6, 4, 20, 2

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch was built without gloo")


def whole():
    torch.manual_seed(0)
    layer = moe.MoE(
        moe.Router(moe.LinearScore(C, E), moe.TopK(2, "normalised")), moe.FeedForwardExperts(C, 8, E)
    )
    return layer, torch.randn(WORLD * N, C)


def answer(layer, x):
    """Result, and gradients by name, of one process."""
    out = layer(x)
    out.square().sum().backward()
    return out.detach(), {n: p.grad for n, p in layer.named_parameters()}


def apart(layer, rank, group):
    """The layer with this process's part of its experts."""
    from geomoe.moe.experts.parallel import ParallelExperts

    mine = slice(rank * E // WORLD, (rank + 1) * E // WORLD)
    here = moe.FeedForwardExperts(C, 8, E // WORLD)
    with torch.no_grad():
        for name, parameter in here.named_parameters():
            parameter.copy_(getattr(layer.bank, name)[mine])
    return moe.MoE(layer.router, ParallelExperts(here, group))


def experts_apart(rank, mesh):
    layer, x = whole()
    expected, grads = answer(copy.deepcopy(layer), x)
    single, layer = layer, apart(layer, rank, mesh)
    assert layer.bank.row_flops() == single.bank.row_flops()
    assert layer.bank.num_parameters == single.bank.num_parameters
    here = layer.bank.bank
    rows = x[rank * N : (rank + 1) * N]
    out = layer(rows)
    out.square().sum().backward()
    torch.testing.assert_close(out, expected[rank * N : (rank + 1) * N], atol=1e-5, rtol=1e-5)
    for name, parameter in here.named_parameters():
        whole_grad = parameter.grad.full_tensor() * WORLD
        torch.testing.assert_close(whole_grad, grads[f"bank.{name}"], atol=1e-4, rtol=1e-4)
    gate = layer.router.score.gate.weight.grad
    dist.all_reduce(gate)
    torch.testing.assert_close(gate, grads["router.score.gate.weight"], atol=1e-4, rtol=1e-4)
    # One process without rows, and experts that nobody wants.
    few = layer(rows[: 3 * rank])
    assert few.shape == (3 * rank, C)
    few.sum().backward()
    with pytest.raises(ValueError, match="grouped"):
        moe.dispatch(layer.bank, rows, layer.router(rows), "dense")
    learn_alike_whatever_their_parameters_went_through(rank, mesh)
    scalars_are_refused(mesh)


def learn_alike_whatever_their_parameters_went_through(rank, mesh):
    """Meta tensors that are filled later, loaded ones, a process group for a mesh: no gradient is doubled."""
    from geomoe.moe.experts.parallel import ParallelExperts

    layer, x = whole()
    _, grads = answer(copy.deepcopy(layer), x)
    state = apart(layer, rank, mesh).bank.state_dict()
    with torch.device("meta"):
        empty = ParallelExperts(moe.FeedForwardExperts(C, 8, E // WORLD), mesh)
    empty.to_empty(device="cpu").load_state_dict(state)
    assigned = apart(whole()[0], rank, mesh.get_group()).bank
    assigned.load_state_dict({k: v.clone() for k, v in state.items()}, assign=True)
    for bank in (empty, assigned):
        moe.MoE(layer.router, bank)(x[rank * N : (rank + 1) * N]).square().sum().backward()
        for name, parameter in bank.bank.named_parameters():
            grad = parameter.grad.full_tensor() * WORLD
            torch.testing.assert_close(grad, grads[f"bank.{name}"], atol=1e-4, rtol=1e-4)
    with pytest.raises(RuntimeError, match="size mismatch"):  # one process's experts are not all experts
        empty.load_state_dict({k: v.to_local() for k, v in state.items()}, assign=True)
    summed = ParallelExperts(copy.deepcopy(layer.bank), mesh, average=False)
    summed(x[:8], torch.arange(8), (1,) * 8).square().sum().backward()
    meant = ParallelExperts(copy.deepcopy(layer.bank), mesh)
    meant(x[:8], torch.arange(8), (1,) * 8).square().sum().backward()
    for a, b in zip(summed.parameters(), meant.parameters(), strict=True):
        torch.testing.assert_close(a.grad.to_local(), WORLD * b.grad.to_local())


def scalars_are_refused(mesh):
    from geomoe.moe.experts.parallel import ParallelExperts

    expert = nn.Linear(C, C)
    expert.gain = nn.Parameter(torch.ones(()))
    with pytest.raises(ValueError, match="gain is a scalar"):
        ParallelExperts(moe.ModuleExperts([expert, nn.Linear(C, C)]), mesh)


def replicas_stay_alike(rank, mesh):
    """Clipped by one norm, that of the whole model, routers of all processes stay the same to the bit."""
    from geomoe.moe.experts.parallel import clip_grad_norm_

    for kind in (2.0, float("inf")):
        single, x = whole()
        layer = apart(copy.deepcopy(single), rank, mesh)
        ours, theirs = (torch.optim.AdamW(model.parameters(), 0.01) for model in (layer, single))
        for step in range(5):
            torch.manual_seed(step)
            rows = x * torch.rand(WORLD * N, 1)
            layer(rows[rank * N : (rank + 1) * N]).square().sum().backward()
            dist.all_reduce(layer.router.score.gate.weight.grad, dist.ReduceOp.AVG)
            (single(rows).square().sum() / WORLD).backward()
            norm = clip_grad_norm_(layer.parameters(), 0.1, kind)
            expected = nn.utils.clip_grad_norm_(single.parameters(), 0.1, kind)
            torch.testing.assert_close(norm, expected, atol=1e-5, rtol=1e-5)
            for optimiser in (ours, theirs):
                optimiser.step()
                optimiser.zero_grad()
        mine = layer.router.score.gate.weight.detach()
        others = [torch.empty_like(mine) for _ in range(WORLD)]
        dist.all_gather(others, mine)
        assert all(torch.equal(mine, other) for other in others)
        torch.testing.assert_close(mine, single.router.score.gate.weight.detach(), atol=1e-4, rtol=1e-4)
        for name, parameter in layer.bank.bank.named_parameters():
            expected = getattr(single.bank, name).detach()
            torch.testing.assert_close(parameter.full_tensor().detach(), expected, atol=1e-3, rtol=1e-3)


def checkpoints_hold_all_experts(rank, mesh):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        get_state_dict,
        set_model_state_dict,
        set_state_dict,
    )

    single, x = whole()
    layer = apart(copy.deepcopy(single), rank, mesh)
    # One file of the whole model, which a model that is not split reads, and back again.
    everything = StateDictOptions(full_state_dict=True, cpu_offload=True)
    full = get_model_state_dict(layer, options=everything)
    if rank == 0:
        other = whole()[0]
        nn.init.zeros_(other.bank.up)
        other.load_state_dict({k.replace("bank.bank.", "bank."): v for k, v in full.items()})
        assert torch.equal(other.bank.up, single.bank.up)
    fresh = apart(whole()[0], rank, mesh)
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    given = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(fresh, full, options=given)
    torch.testing.assert_close(fresh(x), layer(x), rtol=0, atol=0)
    # A checkpoint of all processes, with the optimiser's state.
    optimiser = torch.optim.AdamW(layer.parameters(), 0.01)
    layer(x).square().sum().backward()
    optimiser.step()
    folder = os.environ["CHECKPOINT"]
    model_state, optimiser_state = get_state_dict(layer, optimiser)
    dcp.save({"model": model_state, "optimiser": optimiser_state}, checkpoint_id=folder)
    later = torch.optim.AdamW(fresh.parameters(), 0.01)
    state = dict(zip(("model", "optimiser"), get_state_dict(fresh, later), strict=True))
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(fresh, later, model_state_dict=state["model"], optim_state_dict=state["optimiser"])
    torch.testing.assert_close(fresh(x), layer(x), rtol=0, atol=0)
    # Of what every process has, the file holds one process's, whose sums may be rounded otherwise than ours.
    for a, b in zip(fresh.parameters(), layer.parameters(), strict=True):
        torch.testing.assert_close(
            later.state[a]["exp_avg"], optimiser.state[b]["exp_avg"], rtol=1e-5, atol=1e-7
        )


def experts_apart_in_data_parallel_models(rank, mesh):
    """The rest replicated by DDP, or sharded by fully_shard over the same processes."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    DDP = nn.parallel.DistributedDataParallel  # noqa: N806
    single, x = whole()
    _, grads = answer(copy.deepcopy(single), x)
    mine = x[rank * N : (rank + 1) * N]
    layer = apart(copy.deepcopy(single), rank, mesh)
    split = [name for name, p in layer.named_parameters() if isinstance(p, DTensor)]
    DDP._set_params_and_buffers_to_ignore_for_model(layer, split)
    model = DDP(layer)
    for _ in range(2):
        model.zero_grad()
        model(mine).square().sum().backward()
    gate = layer.router.score.gate.weight.grad
    torch.testing.assert_close(gate * WORLD, grads["router.score.gate.weight"], atol=1e-4, rtol=1e-4)
    up = layer.bank.bank.up.grad.full_tensor()
    torch.testing.assert_close(up * WORLD, grads["bank.up"], atol=1e-4, rtol=1e-4)

    layer = apart(copy.deepcopy(single), rank, mesh)
    fully_shard(layer, mesh=mesh, ignored_params=set(layer.bank.parameters()))
    layer(mine).square().sum().backward()
    norm = nn.utils.clip_grad_norm_(layer.parameters(), 1e9).full_tensor() * WORLD
    torch.testing.assert_close(norm, nn.utils.get_total_norm(grads.values()), atol=1e-3, rtol=1e-4)


def data_parallel(rank, mesh):
    layer, x = whole()
    _, grads = answer(copy.deepcopy(layer), x)
    model = nn.parallel.DistributedDataParallel(layer)
    model(x[rank * N : (rank + 1) * N]).square().sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad * WORLD, grads[name], atol=1e-4, rtol=1e-4)


def idle_experts_in_data_parallel_models(rank, mesh):
    """Experts without rows on one process or on all, several steps, whether or not DDP looks for them."""
    ids = (torch.arange(N) % 2, torch.zeros(N, dtype=torch.long))[rank]  # experts 2 and 3 have no row at all
    modules = moe.ModuleExperts([nn.Linear(C, C) for _ in range(E)])
    kernels = moe.HeterogeneousBank([moe.ConvExperts(C, C, k, 1) for k in (1, 3, 5, 7)])

    class Fixed(moe.Score):
        takes_ids = True

        def forward(self, rows, context=None):
            return nn.functional.one_hot(rows, E).float()

    for bank, rows in ((modules, torch.randn(N, C)), (kernels, torch.randn(N, C, 9, 9))):
        for search in (False, True):
            layer = moe.MoE(moe.Router(Fixed((E,))), bank)
            model = nn.parallel.DistributedDataParallel(layer, find_unused_parameters=search)
            for _ in range(3):
                model.zero_grad()
                model(rows, ids).square().sum().backward()
            grads = [p.grad.abs().sum() > 0 for p in bank.parameters()]
            assert grads == [True] * 4 + [False] * 4, (type(bank).__name__, search)
    # Nor does a router that was not told the context of its rows keep others waiting.
    layer = moe.MoE(
        moe.Router(moe.ConditionedScore(moe.LinearScore(C, E), 3)), moe.FeedForwardExperts(C, 8, E)
    )
    model = nn.parallel.DistributedDataParallel(layer)
    for _ in range(3):
        model(torch.randn(N, C)).square().sum().backward()
    assert not layer.router.score.condition.weight.grad.any()


def fully_sharded(rank, mesh):
    from torch.distributed.fsdp import fully_shard

    layer, x = whole()
    _, grads = answer(copy.deepcopy(layer), x)
    model = fully_shard(layer, mesh=mesh)
    model(x[rank * N : (rank + 1) * N]).square().sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad.full_tensor() * WORLD, grads[name], atol=1e-4, rtol=1e-4)


def fully_sharded_in_half(rank, mesh):
    """Every router, with its parameters in bfloat16 while it runs."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for name, case in ROUTERS.items():
        layer = moe.MoE(router(name), moe.FeedForwardExperts(CHANNELS, 16, EXPERTS))
        rows, signals, trace = torch.randn(N, CHANNELS), rows_for(case, N), moe.RoutingTrace()
        context = torch.randn(N, 3) if name == "conditioned" else None
        torch.manual_seed(0)
        expected = layer(rows, signals, context=context).detach()
        model = fully_shard(copy.deepcopy(layer), mesh=mesh, mp_policy=policy)
        torch.manual_seed(0)
        done = model(rows, signals, context=context, trace=trace)
        assert done.dtype == torch.bfloat16, name
        assert trace[0].logits.dtype == torch.float32, name
        done.float().square().sum().backward()
        if name not in ("noisy_top_k", "expert_dropout"):  # where rounded weights move a chance or an edge
            off = (done.float() - expected).norm() / expected.norm()
            assert off < 0.2, (name, float(off))
    # A model that was made half keeps its routers single: they are sharded apart.
    layer, x = whole()
    layer.bfloat16()
    fully_shard(layer.router, mesh=mesh)
    fully_shard(layer, mesh=mesh)
    layer(x.bfloat16()).float().square().sum().backward()
    assert layer.router.score.gate.weight.grad.full_tensor().dtype == torch.float32
    assert layer.bank.up.grad.full_tensor().dtype == torch.bfloat16


def balance(rank, mesh):
    """Biases move by the loads of all processes, over all batches since the last step, alike in each."""
    for preference in (moe.LossFreeBias((2, 2)), moe.DualAscent((2, 2)), moe.BestGroup((2, 2))):
        router = moe.Router(moe.LinearScore(C, E), prefer=[preference])
        torch.manual_seed(1)
        nn.init.normal_(router.score.gate.weight)
        alone, rows = copy.deepcopy(router), torch.randn(2 * WORLD, N, C) + 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dist, "is_initialized", lambda: False)
            alone.rebalance(router(rows.flatten(0, 1)), 0.1)
        router.rebalance([router(batch) for batch in rows[rank::WORLD]], 0.1)
        torch.testing.assert_close(router.prefer[0].bias, alone.prefer[0].bias, rtol=0, atol=1e-7)
        assert router.prefer[0].bias.abs().max() > 0.01


def process(rank, checks, store, folder):
    os.environ["CHECKPOINT"] = str(folder)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (WORLD,))
        for check in checks:
            check(rank, mesh)
        dist.barrier()  # a process that leaves while the other still listens makes that one abort
    finally:
        dist.destroy_process_group()


CHECKS = {  # of one pair of processes each, which take longer to start than to check
    "spread": (
        experts_apart,
        replicas_stay_alike,
        checkpoints_hold_all_experts,
        experts_apart_in_data_parallel_models,
    ),
    "replicated": (data_parallel, idle_experts_in_data_parallel_models, balance),
    "sharded": (fully_sharded, fully_sharded_in_half),
}


@pytest.mark.slow
@pytest.mark.parametrize("checks", CHECKS.values(), ids=CHECKS)
def test_two_processes(checks, tmp_path):
    mp.spawn(process, (checks, tmp_path / "store", tmp_path / "checkpoint"), nprocs=WORLD)
