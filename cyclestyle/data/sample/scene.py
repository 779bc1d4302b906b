"""Procedural outdoor scenes, the common source of both sample domains.

A scene has the colour, the distance and the surface direction of each pixel. `photo.py` renders it as a photo and
`painting.py` as a painting.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RGB = tuple[float, float, float]
CROWN_GRAIN = 0.07


@dataclass(frozen=True)
class Scene:
    """One scene of `(H, W)` pixels."""

    colour: Array
    """Lit colour without texture or haze, `(H, W, 3)` in [0, 1]."""
    grain: Array
    """Amplitude of the fine texture of the surface, `(H, W)`; 0 is smooth."""
    distance: Array
    """Distance, which sets the amount of haze, `(H, W)` in [0, 1]; low for the sky, whose colour includes haze."""
    flow: Array
    """Direction of the surface, `(H, W)` in radians: vertical for grass, horizontal for water."""
    haze: RGB
    """Colour of the haze."""

    @property
    def trees(self) -> NDArray[np.bool_]:
        """Where the crowns of trees are, `(H, W)`."""
        return np.asarray(self.grain == CROWN_GRAIN)


@dataclass(frozen=True)
class _Light:
    zenith: RGB
    horizon: RGB
    sun: RGB


_LIGHTS = (
    _Light(zenith=(0.30, 0.50, 0.78), horizon=(0.72, 0.82, 0.90), sun=(1.00, 0.97, 0.90)),  # noon
    _Light(zenith=(0.38, 0.52, 0.72), horizon=(0.93, 0.80, 0.62), sun=(1.00, 0.86, 0.66)),  # late afternoon
    _Light(zenith=(0.48, 0.57, 0.68), horizon=(0.80, 0.82, 0.83), sun=(0.84, 0.86, 0.88)),  # overcast
    _Light(zenith=(0.22, 0.36, 0.66), horizon=(0.95, 0.86, 0.62), sun=(1.00, 0.90, 0.70)),  # clear evening
)
_MEADOWS: tuple[RGB, ...] = ((0.36, 0.48, 0.20), (0.50, 0.52, 0.24), (0.62, 0.54, 0.28), (0.30, 0.42, 0.22))
_CROWNS: tuple[RGB, ...] = ((0.16, 0.30, 0.13), (0.22, 0.36, 0.14), (0.44, 0.34, 0.12), (0.50, 0.24, 0.12))
_WALLS: tuple[RGB, ...] = ((0.82, 0.78, 0.70), (0.72, 0.62, 0.50), (0.86, 0.84, 0.82))
_ROOFS: tuple[RGB, ...] = ((0.52, 0.24, 0.18), (0.34, 0.30, 0.30), (0.44, 0.30, 0.20))


class _Canvas:
    """A scene under construction, drawn from back to front."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.y, self.x = np.mgrid[0:size, 0:size] / size
        self.colour = np.zeros((size, size, 3))
        self.grain = np.zeros((size, size))
        self.distance = np.ones((size, size))
        self.flow = np.zeros((size, size))

    def put(self, mask: Array, colour: Array, *, grain: float, distance: float | Array, flow: float | Array) -> None:
        """Draw a surface over the existing ones; `mask` is its coverage `(H, W)` in [0, 1]."""
        solid = mask > 0.5
        self.colour += mask[..., None] * (colour - self.colour)
        self.grain = np.where(solid, grain, self.grain)
        self.distance = np.where(solid, distance, self.distance)
        self.flow = np.where(solid, flow, self.flow)


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """Generate a scene of `size` × `size` pixels: sky, ridges, then meadow or water, a house and trees."""
    canvas = _Canvas(size)
    light = _LIGHTS[rng.integers(len(_LIGHTS))]
    horizon = rng.uniform(0.38, 0.62)
    _put_sky(canvas, rng, light, horizon)
    for layer in range(rng.integers(1, 4)):
        _put_ridge(canvas, rng, light, horizon, layer)
    if rng.random() < 0.4:
        _put_water(canvas, rng, light, horizon)
    else:
        _put_meadow(canvas, rng, light, horizon)
    if rng.random() < 0.5:
        _put_house(canvas, rng, light, horizon)
    feet = np.sort(rng.uniform(horizon + 0.03, 0.97, size=rng.integers(2, 8)))  # far trees first
    for foot in feet:
        _put_tree(canvas, rng, light, horizon, foot)
    return Scene(np.clip(canvas.colour, 0, 1), canvas.grain, canvas.distance, canvas.flow, light.horizon)


def fractal_noise(rng: np.random.Generator, size: int, *, slope: float, stretch: float = 1.0) -> Array:
    """Generate noise `(size, size)` with mean 0, standard deviation 1 and amplitude spectrum frequency ** -slope."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None] / stretch, np.fft.rfftfreq(size)[None, :] * stretch)
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * frequency**-slope, (size, size))
    return np.asarray(noise / noise.std())


def _ridge_line(rng: np.random.Generator, size: int, slope: float) -> Array:
    frequency = np.fft.rfftfreq(2 * size)
    frequency[0] = np.inf
    line = np.fft.irfft(np.fft.rfft(rng.standard_normal(2 * size)) * frequency**-slope)[:size]  # not periodic
    return np.asarray((line - line.mean()) / np.ptp(line))


def _edge(inside: Array, size: int) -> Array:
    """Return the antialiased coverage in [0, 1] of the region where `inside` (in image heights) is positive."""
    return np.clip(inside * size + 0.5, 0.0, 1.0)


def _lit(albedo: RGB, light: _Light, shade: Array | float) -> Array:
    """Compute the colour of a surface under `light`; `shade` is 0 in shadow (lit only by the sky) and 1 in the sun."""
    shade = np.asarray(shade)[..., None]
    ambient = 0.5 * np.asarray(light.zenith) + 0.15
    return np.asarray(albedo) * (ambient + shade * (1.1 * np.asarray(light.sun) - 0.6 * ambient))


def _put_sky(canvas: _Canvas, rng: np.random.Generator, light: _Light, horizon: float) -> None:
    height = np.clip(canvas.y / horizon, 0, 1)[..., None] ** 0.8
    sky = (1 - height) * np.asarray(light.zenith) + height * np.asarray(light.horizon)
    clouds = fractal_noise(rng, canvas.size, slope=1.7, stretch=1.8) + rng.uniform(-0.9, 0.5)
    cover = np.clip(clouds, 0, 1)[..., None]
    cloud = 0.35 * sky + 0.65 * np.asarray(light.sun) * (1.02 - 0.25 * np.clip(clouds - 0.6, 0, 1)[..., None])
    canvas.put(np.ones_like(canvas.y), sky + 0.85 * cover * (cloud - sky), grain=0.0, distance=0.15, flow=0.15)


def _put_ridge(canvas: _Canvas, rng: np.random.Generator, light: _Light, horizon: float, layer: int) -> None:
    line = horizon - (0.20 - 0.06 * layer) * rng.uniform(0.4, 1.2) * (1 + _ridge_line(rng, canvas.size, 1.3))
    relief = fractal_noise(rng, canvas.size, slope=1.8)
    slope = np.gradient(relief, axis=1) * canvas.size / 10
    shade = np.clip(0.5 + 0.5 * slope, 0, 1)
    albedo: RGB = ((0.42, 0.42, 0.44), (0.38, 0.42, 0.34), (0.26, 0.36, 0.22))[layer]
    mask = _edge(canvas.y - line[None, :], canvas.size)
    distance = 0.85 - 0.2 * layer
    canvas.put(mask, _lit(albedo, light, shade), grain=0.03, distance=distance, flow=0.6 * np.sign(slope))


def _ground(canvas: _Canvas, horizon: float) -> tuple[Array, Array]:
    """Return the coverage and the distance of the plain below the horizon."""
    nearness = np.clip((canvas.y - horizon) / (1 - horizon), 0, 1)
    return _edge(canvas.y - horizon, canvas.size), 0.5 * (1 - nearness) ** 2


def _put_meadow(canvas: _Canvas, rng: np.random.Generator, light: _Light, horizon: float) -> None:
    mask, distance = _ground(canvas, horizon)
    first, second = rng.choice(len(_MEADOWS), 2, replace=False)
    patches = np.clip(0.5 + fractal_noise(rng, canvas.size, slope=1.6, stretch=2.5), 0, 1)
    shade = np.clip(0.75 + 0.25 * fractal_noise(rng, canvas.size, slope=1.4, stretch=2.0), 0, 1)
    near, far = _lit(_MEADOWS[first], light, shade), _lit(_MEADOWS[second], light, shade)
    canvas.put(mask, near + patches[..., None] * (far - near), grain=0.06, distance=distance, flow=np.pi / 2)


def _put_water(canvas: _Canvas, rng: np.random.Generator, light: _Light, horizon: float) -> None:
    mask, distance = _ground(canvas, horizon)
    mirrored = np.clip(2 * horizon - canvas.y + 0.008 * fractal_noise(rng, canvas.size, slope=0.8), 0, 1)
    rows = np.minimum((mirrored * canvas.size).astype(int), canvas.size - 1)
    columns = np.broadcast_to(np.arange(canvas.size), rows.shape)
    reflection = canvas.colour[rows, columns]
    ripples = fractal_noise(rng, canvas.size, slope=1.0, stretch=3.0) * (0.02 + 0.03 * (1 - distance))
    water = 0.72 * reflection + np.asarray((0.02, 0.06, 0.09)) + ripples[..., None]
    canvas.put(mask, water, grain=0.015, distance=distance, flow=0.0)


def _put_tree(canvas: _Canvas, rng: np.random.Generator, light: _Light, horizon: float, foot: float) -> None:
    height = (0.10 + 0.75 * (foot - horizon)) * rng.uniform(0.8, 1.3)
    centre = rng.uniform(0, 1)
    distance = 0.5 * (1 - (foot - horizon) / (1 - horizon)) ** 2
    trunk = np.minimum(0.05 * height - np.abs(canvas.x - centre), np.minimum(foot - canvas.y, canvas.y - foot + height))
    bark = _lit((0.26, 0.19, 0.13), light, np.clip(0.5 + (centre - canvas.x) / (0.1 * height), 0, 1))
    canvas.put(_edge(trunk, canvas.size), bark, grain=0.05, distance=distance, flow=np.pi / 2)
    leaves = fractal_noise(rng, canvas.size, slope=1.0)
    albedo = _CROWNS[rng.integers(len(_CROWNS))]
    for _ in range(rng.integers(3, 7)):
        radius = height * rng.uniform(0.18, 0.34)
        cx = centre + height * rng.uniform(-0.25, 0.25)
        cy = foot - height * rng.uniform(0.55, 1.0)
        offset = np.hypot(canvas.x - cx, canvas.y - cy)
        shade = np.clip(0.45 + 0.5 * (cx - canvas.x + cy - canvas.y) / radius + 0.12 * leaves, 0, 1)
        mask = _edge(radius * (1 + 0.10 * leaves) - offset, canvas.size)
        angle = np.arctan2(canvas.y - cy, canvas.x - cx) + np.pi / 2  # tangential to the crown
        canvas.put(mask, _lit(albedo, light, shade), grain=CROWN_GRAIN, distance=distance, flow=angle)


def _put_house(canvas: _Canvas, rng: np.random.Generator, light: _Light, horizon: float) -> None:
    foot = rng.uniform(horizon + 0.02, horizon + 0.18)
    height = (0.06 + 0.5 * (foot - horizon)) * rng.uniform(0.9, 1.3)
    width = height * rng.uniform(0.7, 1.3)
    centre = rng.uniform(0.15, 0.85)
    distance = 0.5 * (1 - (foot - horizon) / (1 - horizon)) ** 2
    across = np.abs(canvas.x - centre)
    wall = np.minimum(width - across, np.minimum(foot - canvas.y, canvas.y - (foot - height)))
    shade = np.where(canvas.x < centre + 0.3 * width, 0.95, 0.25)
    albedo = _WALLS[rng.integers(len(_WALLS))]
    canvas.put(_edge(wall, canvas.size), _lit(albedo, light, shade), grain=0.02, distance=distance, flow=np.pi / 2)
    ridge = foot - height - 0.7 * height
    roof = np.minimum(foot - height - canvas.y, (canvas.y - ridge) * 1.2 - (across - 0.45 * width))
    roof = np.minimum(roof, canvas.y - ridge)
    albedo = _ROOFS[rng.integers(len(_ROOFS))]
    canvas.put(_edge(roof, canvas.size), _lit(albedo, light, 0.8), grain=0.04, distance=distance, flow=0.5)
