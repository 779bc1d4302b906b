import pytest
import torch

from cyclestyle.metrics import Probe, build_extractor, embed, held_out_shares, measure_domains


def domains(distance, *, counts=(60, 20), channels=8):
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(count, channels, generator=generator) for count in counts)
    return source, target + distance


def test_the_weights_are_those_of_the_smallest_loss():
    source, target = domains(0.7)
    probe = Probe.fit(source, target)
    weights = probe.weights.clone().requires_grad_()
    both = torch.cat([source, target]).double()
    scores = (both - both.mean(0)) / both.std(0) @ weights[:-1] + weights[-1]
    losses = torch.nn.functional.softplus(torch.cat([scores[:60], -scores[60:]]))
    loss = 0.5 * losses[:60].mean() + 0.5 * losses[60:].mean() + 0.005 * weights[:-1].square().sum()
    (slope,) = torch.autograd.grad(loss, weights)
    assert slope.abs().max() < 1e-8
    assert probe.share(target) == (scores[60:] > 0).double().mean().item()


def test_what_cannot_be_told_apart_has_even_shares_and_what_can_has_none_and_all():
    same, apart = held_out_shares(*domains(0.0, counts=(400, 400))), held_out_shares(*domains(3.0))
    assert all(0.4 < share < 0.6 for share in same)
    assert apart == (0.0, 1.0)


def test_more_channels_than_images_that_are_separable_have_a_solution():
    probe = Probe.fit(*domains(2.0, counts=(9, 4), channels=64))
    assert probe.weights.isfinite().all()
    assert (probe.share(domains(2.0, counts=(9, 4), channels=64)[1])) == 1.0


@torch.inference_mode()  # as in a validation
def test_domains_are_measured_at_both_sizes():
    source, target = domains(1.0)
    halves = [torch.stack([one, other], dim=1) for one, other in ((source, 0 * source), (target, target))]
    near = measure_domains(*halves, halves[1][:10], "x")
    assert (near["probe"], near["probe_half"]) == (1.0, 1.0)
    far = measure_domains(*halves, torch.stack([source, target[:1].expand(60, -1)], dim=1), "x")
    assert far["probe"] < 0.3
    assert far["kid_half"] != far["kid"]
    few = measure_domains(halves[0][:1], halves[1], halves[1], "x")
    assert few["probe"] != few["probe"]  # NaN


def test_half_size_is_without_what_only_shows_at_full_size():
    extractor = build_extractor("statistics")
    plain = torch.zeros(1, 3, 64, 64)
    weave = plain + 0.2 * (-1) ** (torch.arange(64)[:, None] + torch.arange(64))
    full, half = (embed(extractor, weave) - embed(extractor, plain))[0].abs().mean(dim=1)
    assert embed(extractor, plain[..., :1, :1]).isfinite().all()
    assert half < full / 20
    assert full.item() == pytest.approx((extractor(weave) - extractor(plain)).abs().mean().item())
