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


def experts_apart(rank, mesh):
    from geomoe.moe.parallel import ParallelExperts

    layer, x = whole()
    expected, grads = answer(copy.deepcopy(layer), x)
    here = moe.FeedForwardExperts(C, 8, E // WORLD)
    mine = slice(rank * E // WORLD, (rank + 1) * E // WORLD)
    with torch.no_grad():
        for name, parameter in here.named_parameters():
            parameter.copy_(getattr(layer.bank, name)[mine])
    layer.bank = ParallelExperts(here, mesh)
    rows = x[rank * N : (rank + 1) * N]
    out = layer(rows)
    out.square().sum().backward()
    torch.testing.assert_close(out, expected[rank * N : (rank + 1) * N], atol=1e-5, rtol=1e-5)
    for name, parameter in here.named_parameters():
        torch.testing.assert_close(parameter.grad * WORLD, grads[f"bank.{name}"][mine], atol=1e-4, rtol=1e-4)
    gate = layer.router.score.gate.weight.grad
    dist.all_reduce(gate)
    torch.testing.assert_close(gate, grads["router.score.gate.weight"], atol=1e-4, rtol=1e-4)
    # One process without rows, and experts that nobody wants.
    few = layer(rows[: 3 * rank])
    assert few.shape == (3 * rank, C)
    few.sum().backward()
    with pytest.raises(ValueError, match="grouped"):
        moe.dispatch(layer.bank, rows, layer.router(rows), "dense")


def data_parallel(rank, mesh):
    layer, x = whole()
    _, grads = answer(copy.deepcopy(layer), x)
    model = nn.parallel.DistributedDataParallel(layer)
    model(x[rank * N : (rank + 1) * N]).square().sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad * WORLD, grads[name], atol=1e-4, rtol=1e-4)


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


def process(rank, check, store):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    try:
        check(rank, dist.device_mesh.init_device_mesh("cpu", (WORLD,)))
        dist.barrier()  # a process that leaves while the other still listens makes that one abort
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    "check",
    [
        experts_apart,
        data_parallel,
        fully_sharded,
        fully_sharded_in_half,
        balance,
    ],
)
def test_two_processes(check, tmp_path):
    mp.spawn(process, (check, tmp_path / "store"), nprocs=WORLD)
