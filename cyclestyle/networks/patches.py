"""The heads that embed patches of feature maps for contrastive losses."""

from collections.abc import Sequence

from torch import Tensor, nn


class PatchMLP(nn.Module):
    """A perceptron with one hidden layer for each feature map (H_l in Park et al. 2020, section 3; F in CUT's code).

    It is built from the widths of the maps and needs no first batch. Its keys are those of CUT's files,
    `mlp_<n>.<0|2>.<weight|bias>`.

    Shape: one `(..., channels[n])` for each map → `(..., width)`.

    Args:
        channels: channels of each feature map.
        width: channels of the embeddings.
    """

    def __init__(self, channels: Sequence[int], width: int = 256) -> None:
        super().__init__()
        for number, inputs in enumerate(channels):
            layers = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width))
            self.add_module(f"mlp_{number}", layers)

    def forward(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """Embed the patches of each map."""
        return [mlp(vectors) for mlp, vectors in zip(self.children(), patches, strict=True)]
