"""Layers of published programs with our configuration of them: the same results from the same weights."""

import pytest
import torch
import torch.nn.functional as F

from geomoe import moe

CHANNELS, HIDDEN, EXPERTS = 16, 12, 8


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="transformers (of the extra 'bench') is not installed")


def randomised(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 3)
    return module.eval()


@torch.no_grad()
def ours(router, theirs, shared=None):
    """Our layer with the weights of theirs, which holds gate and value in one matrix, as ours does."""
    bank = moe.FeedForwardExperts(CHANNELS, HIDDEN, EXPERTS, "silu", gated=True, bias=False)
    bank.up.copy_(theirs.experts.gate_up_proj.transpose(1, 2))
    bank.down.copy_(theirs.experts.down_proj.transpose(1, 2))
    router.score.gate.weight.copy_(theirs.gate.weight)
    return moe.MoE(router, bank, shared=shared).eval()


def compare(layer, theirs):
    x = torch.randn(2, 15, CHANNELS, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = theirs(x)
        out = out[0] if isinstance(out, tuple) else out
        torch.testing.assert_close(layer(x.flatten(0, 1)), out.reshape(-1, CHANNELS), atol=1e-5, rtol=1e-5)


def test_deepseek_v3(transformers):
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

    config = transformers.DeepseekV3Config(
        hidden_size=CHANNELS, moe_intermediate_size=HIDDEN, n_routed_experts=EXPERTS, n_group=4, topk_group=2,
        num_experts_per_tok=3, routed_scaling_factor=2.5, norm_topk_prob=True, n_shared_experts=1,
    )  # fmt: skip
    theirs = randomised(DeepseekV3MoE(config))
    router = moe.deepseek_router(CHANNELS, EXPERTS, top_k=3, groups=4, top_groups=2, scale=2.5)
    router.prefer[0].bias.copy_(theirs.gate.e_score_correction_bias)
    assert router.prefer[0].bias.abs().min() > 1e-3
    compare(ours(router, theirs, shared=theirs.shared_experts), theirs)


def test_olmoe(transformers):
    from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock

    config = transformers.OlmoeConfig(
        hidden_size=CHANNELS, intermediate_size=HIDDEN, num_experts=EXPERTS, num_experts_per_tok=3
    )
    theirs = randomised(OlmoeSparseMoeBlock(config))
    router = moe.Router(moe.LinearScore(CHANNELS, EXPERTS), moe.TopK(3, "soft"))
    compare(ours(router, theirs), theirs)


def test_mixtral(transformers):
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    config = transformers.MixtralConfig(
        hidden_size=CHANNELS, intermediate_size=HIDDEN, num_local_experts=EXPERTS, num_experts_per_tok=2
    )
    theirs = randomised(MixtralSparseMoeBlock(config))
    router = moe.Router(moe.LinearScore(CHANNELS, EXPERTS), moe.TopK(2, "normalised"))
    compare(ours(router, theirs), theirs)


def test_soft_moe():
    """The peer normalises its tokens, and scales both sides of a logit by the root of the width."""
    peer = pytest.importorskip(
        "soft_moe_pytorch", reason="soft-moe-pytorch (of the extra 'bench') is not installed"
    )
    theirs = peer.SoftMoE(dim=CHANNELS, num_experts=4, num_slots=2, expert_mult=2)
    theirs.eval()
    bank = moe.FeedForwardExperts(CHANNELS, 2 * CHANNELS, 4)
    layer = moe.SoftMoE(bank, CHANNELS, slots_per_expert=2)
    with torch.no_grad():
        layer.slots.copy_(theirs.slot_embeds.flatten(0, 1))
        layer.scale.fill_(CHANNELS)
        for e, expert in enumerate(theirs.experts.experts):
            up, down = expert[0], expert[3]
            bank.up[e], bank.up_bias[e] = up.weight.T, up.bias
            bank.down[e], bank.down_bias[e] = down.weight.T, down.bias
        x = torch.randn(2, 15, CHANNELS)
        normalised = F.normalize(x, dim=-1) * CHANNELS**0.5
        torch.testing.assert_close(layer(normalised), theirs(x), atol=1e-5, rtol=1e-5)
