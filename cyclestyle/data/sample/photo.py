"""The photo-like domain: a scene with the effects of atmosphere, lens and sensor."""

import numpy as np

from cyclestyle.data.sample.scene import Array, Scene, fractal_noise


def take_photo(scene: Scene, rng: np.random.Generator) -> Array:
    """Render a photo of the scene, `(H, W, 3)` in [0, 1].

    It adds fine surface texture, haze, a vignette, random exposure and white balance, and sensor noise.
    """
    size = scene.grain.shape[0]
    texture = fractal_noise(rng, size, slope=0.35)
    light = scene.colour * (1 + (4.0 * scene.grain * texture)[..., None])
    haze = rng.uniform(0.15, 0.55) * (1 - np.exp(-2.0 * scene.distance))[..., None]
    light = light + haze * (np.asarray(scene.haze) - light)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    light = light * (1 - 0.16 * (x**2 + y**2))[..., None]
    light = light * rng.lognormal(0.0, 0.3) * rng.normal(1.0, 0.04, 3)  # exposure, white balance
    light = light + rng.normal(0, 0.025, light.shape)
    grey = light.mean(axis=-1, keepdims=True)
    return np.asarray(np.clip(0.08 + 0.82 * (grey + 0.9 * (light - grey)), 0, 1))
