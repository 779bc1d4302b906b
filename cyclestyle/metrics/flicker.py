"""How strongly the colours of a point change from one frame of a video to the next."""

from torch import Tensor

from cyclestyle.functional.motion import warp


def flicker(frames: Tensor, flow: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean absolute change of colour along the motion, in levels of 0 to 255, for each pair of frames.

    It is the warping error of video stylisation (Ruder et al. 2016, section 5.1; Lai et al. 2018, section 4.2), with
    absolute instead of squared differences. The motion is that of the input, also for its translation.

    Args:
        frames: consecutive frames, `(T, C, H, W)` in [-1, 1].
        flow: for each pixel of a frame but the first, how many pixels to the right and down its content lies in the
            frame before, `(T - 1, 2, H, W)`.
        mask: 1 where this is known and 0 elsewhere, such as at what has just been uncovered, `(T - 1, 1, H, W)`. Pixels
            whose content comes from outside of the frame are left out in any case.

    Returns:
        `(T - 1,)`; NaN where no pixel is left.
    """
    before, inside = warp(frames[:-1], flow)
    known = inside if mask is None else inside * mask
    change = (frames[1:] - before).abs().mean(dim=1, keepdim=True)
    return 127.5 * (change * known).sum(dim=(1, 2, 3)) / known.sum(dim=(1, 2, 3))
