import torch

from cyclestyle.images import read_image, to_tensor
from cyclestyle.networks import build_generator
from cyclestyle.tasks import CycleGAN


def test_settings_of_files_of_other_programs_can_be_changed(cyclestyle, samples, tmp_path):
    """A generator file and a folder of the original: translated with as they are, and without a checkerboard."""
    torch.manual_seed(0)
    for name in ("G_A", "G_B"):
        torch.save(build_generator("resnet6", ngf=2).state_dict(), tmp_path / f"latest_net_{name}.pth")
    for name in ("D_A", "D_B"):
        torch.save(CycleGAN(ngf=2, ndf=2).D_A.state_dict(), tmp_path / f"latest_net_{name}.pth")
    photo = samples / "testA" / "0000.png"
    found = {}
    for source in ("latest_net_G_A.pth", "."):
        for words in ([], ["--model.comb_filter", "true"]):
            output = tmp_path / "out.png"
            options = ["--ckpt_path", tmp_path / source, "--input", photo, "--output", output, "--overwrite"]
            status, _, error = cyclestyle("predict", *options, *words)
            assert status == 0, error
            found[source, bool(words)] = to_tensor(read_image(output))
    for filtered in (False, True):
        assert torch.equal(found["latest_net_G_A.pth", filtered], found[".", filtered])
    assert not torch.equal(found[".", False], found[".", True])
