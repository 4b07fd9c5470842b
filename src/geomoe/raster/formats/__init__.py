"""Whatever may be given as a scene: files, products of several files, items, cubes."""
