"""How fast methods run: what the hardware can do, what is chosen for it, and the algorithms behind it."""
