"""The painting-like domain: a stroke-based renderer with a fixed palette.

Strokes are drawn in layers from coarse to fine along the surfaces of the scene (after Hertzmann 1998, "Painterly
rendering with curved brush strokes of multiple sizes"). Then the relief of the paint is shaded.
"""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from cyclestyle.data.sample.scene import Array, Scene

SUPERSAMPLING = 2

_PIGMENTS = np.array(
    [
        (0.10, 0.12, 0.30),  # ultramarine
        (0.16, 0.34, 0.58),  # cobalt blue
        (0.45, 0.68, 0.80),  # cerulean and white
        (0.96, 0.93, 0.78),  # warm white
        (0.97, 0.80, 0.36),  # chrome yellow
        (0.88, 0.52, 0.22),  # orange
        (0.66, 0.24, 0.18),  # vermilion
        (0.36, 0.16, 0.26),  # madder
        (0.08, 0.30, 0.28),  # viridian
        (0.34, 0.56, 0.26),  # emerald green
        (0.72, 0.74, 0.32),  # yellow green
        (0.72, 0.62, 0.72),  # lilac
    ]
)


def paint(scene: Scene, rng: np.random.Generator) -> Array:
    """Render a painting of the scene, `(H, W, 3)` in [0, 1]."""
    size = scene.grain.shape[0]
    pigment = palette(scene.colour)
    scale = size * SUPERSAMPLING
    canvas = Image.new("RGB", (scale, scale), (196, 170, 128))  # colour of the ground
    relief = Image.new("L", (scale, scale), 128)
    pens = ImageDraw.Draw(canvas), ImageDraw.Draw(relief)
    detail = _detail(scene.colour)
    for brush, spacing, threshold in ((size / 16, 0.5, 0.0), (size / 28, 0.5, 0.25), (size / 48, 0.6, 0.6)):
        for y, x in _stroke_positions(rng, size, brush * spacing, detail, threshold):
            _stroke(pens, rng, pigment[y, x], x, y, scene.flow[y, x], brush)
    colours = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), dtype=np.float64) / 255
    ridges = np.asarray(relief.filter(ImageFilter.GaussianBlur(1)).resize((size, size)), dtype=np.float64) / 255
    shine = np.gradient(ridges, axis=0) + np.gradient(ridges, axis=1)  # light from the upper left
    return np.asarray(np.clip(colours + 0.38 * shine[..., None], 0, 1))


def palette(colour: Array) -> Array:
    """Increase the contrast of colours `(..., 3)` and move them towards the nearest pigments."""
    grey = colour.mean(axis=-1, keepdims=True)
    vivid = grey + 1.5 * (colour - grey)
    vivid = vivid + 0.10 * np.sin(2 * np.pi * np.clip(grey, 0, 1) - np.pi)  # an S-shaped tone curve
    squared = ((vivid[..., None, :] - _PIGMENTS) ** 2).sum(axis=-1)  # (..., pigments)
    weights = np.exp(-squared / 0.025 + squared.min(axis=-1, keepdims=True) / 0.025)
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.asarray(np.clip(0.3 * vivid + 0.7 * (weights @ _PIGMENTS), 0, 1))


def _detail(colour: Array) -> Array:
    """Compute the local edge strength, `(H, W)` in [0, 1], which selects where fine brushes are used."""
    grey = colour.mean(axis=-1)
    edges = np.hypot(np.gradient(grey, axis=0), np.gradient(grey, axis=1))
    blurred = Image.fromarray((255 * np.clip(12 * edges, 0, 1)).astype(np.uint8)).filter(ImageFilter.BoxBlur(2))
    return np.asarray(blurred, dtype=np.float64) / 255


def _stroke_positions(
    rng: np.random.Generator, size: int, spacing: float, detail: Array, threshold: float
) -> list[tuple[int, int]]:
    """Return jittered grid points `(y, x)` in random order, where there is enough detail for a brush."""
    count = int(np.ceil(size / spacing))
    grid = np.stack(np.meshgrid(np.arange(count), np.arange(count)), axis=-1).reshape(-1, 2)
    points = np.clip((grid + rng.uniform(0, 1, grid.shape)) * spacing, 0, size - 1).astype(int)
    points = points[detail[points[:, 0], points[:, 1]] >= threshold * rng.uniform(0.3, 1, len(points))]
    return [(int(y), int(x)) for y, x in rng.permutation(points)]


def _stroke(
    pens: tuple[ImageDraw.ImageDraw, ImageDraw.ImageDraw],
    rng: np.random.Generator,
    pigment: Array,
    x: int,
    y: int,
    flow: float,
    brush: float,
) -> None:
    """Draw one curved stroke on the canvas, and its thickness on the relief.

    A painting has thousands of strokes, and Python's own numbers are several times as fast as arrays of two or three.
    """
    angle = flow + 0.25 * rng.standard_normal()
    length = brush * (1.0 + 1.2 * rng.random())
    bend = length * 0.15 * rng.standard_normal()
    cosine, sine = math.cos(angle), math.sin(angle)
    middle = x - bend * sine, y + bend * cosine
    ends = (x - length * cosine, y - length * sine), (x + length * cosine, y + length * sine)
    points = [(SUPERSAMPLING * px, SUPERSAMPLING * py) for px, py in (ends[0], middle, ends[1])]
    width = max(2, round(SUPERSAMPLING * brush * (0.55 + 0.3 * rng.random())))
    lighter, *tint = rng.standard_normal(4).tolist()
    colour = (value + 0.02 * lighter + 0.01 * shift for value, shift in zip(pigment.tolist(), tint, strict=True))
    fill = tuple(round(255 * min(max(value, 0.0), 1.0)) for value in colour)
    pens[0].line(points, fill=fill, width=width, joint="curve")
    pens[1].line(points, fill=int(rng.integers(60, 196)), width=width, joint="curve")
