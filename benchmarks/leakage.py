"""How many images that were saved again as JPEG, turned, `geomoe data --leakage` takes for what they are.

python benchmarks/leakage.py FOLDER_OF_THE_DATA
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from PIL import Image

from geomoe.data.leakage import Item, find_leaks, parts_of


def main() -> None:
    """Print how many of each quality are found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=150)
    given = parser.parse_args()
    items = random.Random(0).sample(parts_of(given.data), given.images)
    train = [Item(item.path, item.name, "train") for item in items]
    for quality in (85, 50, 25):
        with tempfile.TemporaryDirectory() as folder:
            test = []
            for number, item in enumerate(items):
                path = Path(folder) / f"{number}.jpg"
                with Image.open(item.path) as image:
                    turned = image.convert("RGB").transpose(Image.Transpose.ROTATE_90)
                turned.save(path, quality=quality)
                test.append(Item(path, item.name, "test"))
            leaks = find_leaks([*train, *test]).leaks
        found = {leak.names[0] for leak in leaks if leak.names[0] == leak.names[1]}
        false = [leak.names for leak in leaks if leak.names[0] != leak.names[1]]
        print(f"quality {quality}: {len(found)} of {len(items)} found, {len(false)} other pairs {false[:3]}")


if __name__ == "__main__":
    main()
