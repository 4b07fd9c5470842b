import pytest
import torch

from geomoe import moe

C, E = 4, 4


def test_cells_of_a_partition_sum_to_one_are_continuous_and_one_hot_inside():
    score = moe.PartitionScore([[0.0, 10.0], [5.0]], [2.0, 0.0])  # 3 x 2 cells, the second axis cut hard
    router = moe.Router(score, moe.AllExperts())
    x = torch.linspace(-5, 15, 2001)
    rows = torch.stack([x, torch.full_like(x, 4.0)], 1)
    gates = router(rows).gates
    torch.testing.assert_close(gates.sum(1), torch.ones(len(x)))
    assert (gates[1:] - gates[:-1]).abs().max() <= 0.01 / 2 + 1e-5  # a straight line over the overlap of 2
    assert gates[0].tolist() == [1, 0, 0, 0, 0, 0]
    at = {-0.5: [0.75, 0.25, 0.0], 0.0: [0.5, 0.5, 0.0], 5.0: [0.0, 1.0, 0.0], 10.5: [0.0, 0.25, 0.75]}
    for value, cells in at.items():
        for second, member in ((4.9, 0), (5.0, 1)):
            gate = router(torch.tensor([[value, second]])).gates.view(3, 2)
            assert gate[:, member].tolist() == pytest.approx(cells, abs=1e-6)
            assert gate[:, 1 - member].abs().max() == 0
    assert not list(router.parameters())
    with pytest.raises(ValueError, match="ascend by the overlap"):
        moe.PartitionScore([[0.0, 1.0]], [2.0])
    with pytest.raises(ValueError, match=r"expected \[N, 2\]"):
        router(torch.zeros(3, 1))


def test_a_table_fixes_the_expert_of_every_id():
    router = moe.Router(moe.TableScore([2, 0, 2], 4), moe.TopK(1, "hard"))
    plan = router(torch.tensor([0, 1, 2, 1]))
    assert plan.experts.flatten().tolist() == [2, 0, 2, 0]
    assert plan.num_experts == 4
    with pytest.raises(ValueError, match="expected 0 to 1"):
        moe.TableScore([0, 2], 2)
    for unknown in (-1, 3):
        with pytest.raises(ValueError, match=f"an id of 0 to 2, found {unknown}"):
            router(torch.tensor([0, unknown]))
    with pytest.raises(ValueError, match="whole ids"):
        router(torch.tensor([0.0]))


def test_a_row_is_scored_by_the_gate_of_its_domain_and_teaches_that_gate_alone():
    gates = [moe.LinearScore(C, E) for _ in range(3)]
    router = moe.Router(moe.DomainScore(gates))
    rows, domain = torch.randn(9, C), torch.tensor([2, 0, 0, 2, 0, 2, 2, 0, 0])
    plan = router(rows, context=domain[:, None])
    for i, d in enumerate(domain.tolist()):
        torch.testing.assert_close(plan.logits[i], gates[d](rows[i : i + 1])[0])
    plan.weights[domain == 2].sum().backward()
    assert gates[2].gate.weight.grad.abs().sum() > 0
    assert gates[0].gate.weight.grad.abs().sum() == 0
    with pytest.raises(ValueError, match="each row's domain"):
        router(rows)
    with pytest.raises(ValueError, match="a domain of 0 to 2, found 3"):
        router(rows, context=domain[:, None] + 1)


def test_experts_that_a_sensor_may_not_use_are_out_of_its_reach():
    score = moe.AllowedExperts(moe.LinearScore(C, E), [[0, 1], [3]])
    router = moe.Router(score, moe.TopK(2))
    sensor = torch.tensor([0, 1]).repeat(20)
    plan = router(torch.randn(40, C), context=sensor[:, None])
    gates = plan.gates
    assert (gates[sensor == 0][:, 2:] == 0).all()
    assert (gates[sensor == 1][:, :3] == 0).all()
    torch.testing.assert_close(gates[sensor == 1][:, 3], torch.ones(20))
    by_id = moe.Router(moe.AllowedExperts(moe.TableScore([0, 3], E), [[0, 1], [3]]))
    assert by_id(torch.tensor([0, 1]), context=torch.tensor([[0], [1]])).experts.flatten().tolist() == [0, 3]
    knowing = moe.AllowedExperts(moe.ConditionedScore(moe.LinearScore(C, E), 2), [[0, 1], [3]])
    torch.nn.init.normal_(knowing.content.condition.weight)
    rows, phi = torch.randn(6, C), torch.randn(6, 2)
    logits = knowing(rows, torch.cat([torch.zeros(6, 1), phi], 1))
    torch.testing.assert_close(logits[:, :2], knowing.content(rows, phi)[:, :2])
    with pytest.raises(ValueError, match="sensor 1 may use"):
        moe.AllowedExperts(moe.LinearScore(C, E), [[0], []])


def test_noise_and_load_leave_out_what_is_out_of_reach():
    """The second sensor has one expert, which is sure to come in: its noise has nothing to learn."""
    score = moe.AllowedExperts(moe.LinearScore(C, E), [[0, 1, 2], [3]])
    router = moe.Router(score, moe.TopK(1), noise=moe.Noise(C, E))
    plan = router(torch.randn(40, C), context=torch.tensor([0, 1]).repeat(20)[:, None])
    moe.load_loss(plan).backward()
    for parameter in router.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad[:3].abs().sum() > 0
        assert parameter.grad[3].abs().sum() == 0
    alone = router(torch.randn(20, C), context=torch.ones(20, 1))
    assert float(moe.load_loss(alone)) == pytest.approx(E - 1)
