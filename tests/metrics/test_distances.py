import pytest
import torch
from conftest import SHARED
from torch_fidelity import metric_fid, metric_kid

from cyclestyle.errors import CheckpointError
from cyclestyle.metrics import build_extractor, content_distance, kid_interval, set_distance, structure_distance
from cyclestyle.metrics.features import resized

WEIGHTS = {
    "statistics": None,
    "squeezenet": SHARED / "weights" / "squeezenet_fp16.onnx",
    "vgg": SHARED / "weights" / "vgg_normalised_conv3_1.pth",
    "vgg16": SHARED / "weights" / "vgg16_imagenet.pth",
}


@pytest.fixture(params=WEIGHTS)
def extractor(request):
    path = WEIGHTS[request.param]
    if path is not None and not path.exists():
        pytest.skip(f"the weights are not at {path}")
    return build_extractor(request.param, path)


def gaussian(count, *, mean=0.0, deviation=1.0, size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator, dtype=torch.float64) * deviation + mean


def test_gaussians_in_closed_form():
    """FID: |m|² + d (1 − s)². KID in one dimension: the moments of (x y + 1)³ under N(m, s²)."""
    found = set_distance(gaussian(20_000), gaussian(20_000, mean=0.5, deviation=1.5, seed=1), "none")
    assert found.fid == pytest.approx(4 * 0.25 + 4 * 0.25, rel=0.05)

    def moments(mean, deviation):
        variance = deviation**2
        return 1, mean, mean**2 + variance, mean**3 + 3 * mean * variance

    p, q = moments(0.0, 1.0), moments(0.5, 1.2)
    weights = (1, 3, 3, 1)  # (x y + 1)³
    expected = sum(w * (a - b) ** 2 for w, a, b in zip(weights, p, q, strict=True))
    one = set_distance(gaussian(20_000, size=1), gaussian(20_000, mean=0.5, deviation=1.2, size=1, seed=1), "none")
    assert one.kid == pytest.approx(expected, rel=0.1)


def test_equal_sets_are_close_and_other_sets_are_not():
    same = set_distance(gaussian(500), gaussian(500, seed=1), "none")
    other = set_distance(gaussian(500), gaussian(500, mean=1.0, seed=1), "none")
    assert abs(same.kid) < 0.1 < 0.5 < other.kid
    assert set_distance(gaussian(500), gaussian(500), "none").fid < 1e-6


def test_order_and_the_callers_random_numbers_do_not_matter():
    reals, fakes = gaussian(60), gaussian(41, mean=0.3, seed=1)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = set_distance(reals, fakes, "none")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert set_distance(reals.flip(0), fakes[torch.randperm(41)], "none") == pytest.approx(first)
    assert (first.reals, first.fakes, first.subset_size) == (60, 41, 20)


def test_the_interval_of_kid():
    """It holds the estimate, does not depend on the order, narrows with the images, and 95 % of them hold the truth."""
    reals, fakes = gaussian(80), gaussian(60, mean=0.5, seed=1)
    low, high = kid_interval(reals, fakes)
    assert low < set_distance(reals, fakes, "none").kid < high
    assert kid_interval(reals.flip(0), fakes[torch.randperm(60)]) == pytest.approx((low, high))
    narrow = kid_interval(gaussian(800), gaussian(600, mean=0.5, seed=1))
    assert narrow[1] - narrow[0] < (high - low) / 2
    found = [kid_interval(gaussian(50, seed=2 * n), gaussian(50, seed=2 * n + 1)) for n in range(40)]
    assert sum(low < 0 < high for low, high in found) >= 34


def test_another_package_agrees():
    reals, fakes = gaussian(300, size=8), gaussian(200, mean=0.4, deviation=1.3, size=8, seed=1)
    ours = set_distance(reals, fakes, "none")
    fid = metric_fid.fid_statistics_to_metric(
        metric_fid.fid_features_to_statistics(reals), metric_fid.fid_features_to_statistics(fakes), verbose=False
    )
    assert ours.fid == pytest.approx(fid["frechet_inception_distance"], rel=1e-6)
    options = {"kid_subsets": 400, "kid_subset_size": ours.subset_size, "verbose": False, "rng_seed": 1}
    kid = metric_kid.kid_features_to_metric(fakes, reals, **options)
    error = ours.kid_std / 50**0.5
    assert abs(ours.kid - kid["kernel_inception_distance_mean"]) < 5 * error
    assert ours.kid_std == pytest.approx(kid["kernel_inception_distance_std"], rel=0.4)


def test_too_few_images():
    with pytest.raises(ValueError, match="needs two images in each, got 1 and 5"):
        set_distance(gaussian(1), gaussian(5), "none")


def make_images(count=4, size=64):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(-1, 1)


def test_embeddings_do_not_depend_on_the_batch(extractor):
    images = make_images()
    together = extractor(images)
    assert together.shape == (4, {"statistics": 33, "squeezenet": 512, "vgg": 256, "vgg16": 512}[extractor.name])
    assert torch.allclose(together, torch.cat([extractor(image[None]) for image in images]), rtol=1e-3, atol=1e-4)


def test_kept_maps_are_those_of_the_images():
    extractor = build_extractor("statistics")
    images = make_images()
    first = extractor.maps(images)
    assert extractor.maps(images) is first
    images.mul_(0.5)
    assert not torch.equal(extractor.maps(images), first)
    assert torch.equal(extractor.maps(images), extractor.maps(images.clone()))
    with torch.inference_mode():
        assert torch.equal(extractor(images.clone()), extractor(images))


def test_content_and_structure(extractor):
    images = make_images()
    for distance in (content_distance, structure_distance):
        assert distance(extractor, images, images).abs().max() < 1e-3
        little = distance(extractor, images, (images + 0.02 * torch.randn_like(images)).clamp(-1, 1))
        assert (little < distance(extractor, images, images.roll(1, dims=0))).all()
    assert (
        structure_distance(extractor, images, images * 0.8) < structure_distance(extractor, images, images.flip(3))
    ).all()


def test_squeezenet_is_the_network_of_its_file():
    """The whole network by ONNX Runtime: what it scores, ours scores."""
    path = WEIGHTS["squeezenet"]
    runtime = pytest.importorskip("onnxruntime")
    if not path.exists():
        pytest.skip(f"the weights are not at {path}")
    from torchvision.models import squeezenet1_1

    from cyclestyle.metrics.features import read_onnx

    extractor, whole = build_extractor("squeezenet", path), squeezenet1_1().eval()
    whole.load_state_dict(read_onnx(path))
    whole.features = extractor.features
    levels = (resized(make_images(1), 224) + 1) * 127.5
    batch = (levels[:, extractor.order] - extractor.mean) / extractor.deviation
    (theirs,) = runtime.InferenceSession(path).run(None, {"data_0": batch.half().numpy()})
    with torch.no_grad():
        assert torch.allclose(whole(batch).softmax(1), torch.tensor(theirs).float().flatten(1), atol=2e-3)


def test_resizing_is_antialiased():
    """A pattern finer than the new pixels becomes its mean."""
    stripes = torch.ones(1, 3, 64, 64)
    stripes[..., ::2] = -1
    assert resized(stripes, 16)[..., 2:-2].abs().max() < 0.1


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("vgg", None, "the extractor vgg needs a file"),
        ("vgg", "nowhere.pth", "weights nowhere.pth do not exist"),
        ("vgg16", "README.md", "README.md is not a checkpoint of plain tensors"),
        ("squeezenet", "README.md", "README.md is not a checkpoint of plain tensors"),
    ],
)
def test_missing_and_odd_weights_are_named(name, weights, message):
    with pytest.raises(CheckpointError, match=message):
        build_extractor(name, weights)


def test_unknown_extractors_are_refused():
    with pytest.raises(ValueError, match="one of statistics, squeezenet, vgg, vgg16, inception, got 'clip'"):
        build_extractor("clip")
