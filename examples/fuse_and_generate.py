"""Fuse two concepts and generate a picture of both: python examples/fuse_and_generate.py [--quick]"""

import sys
from pathlib import Path

from spectral_fusion import GenerateConfig, Library, Region, fuse, generate, open_base
from spectral_fusion.picture import save_picture

LIBRARY = Path(__file__).parents[1] / "concepts"
OUT = Path("out/examples/rex-and-tom.png")


def main(quick: bool) -> Path:
    base = open_base()
    library = Library(LIBRARY)
    rex, tom = library.get("rex"), library.get("tom")

    # The sum of both deltas is added to the weights. Nothing is trained, and `undo` takes it out again, bit for bit.
    fusion = fuse(base, {rex: 1.0, tom: 0.8})
    config = GenerateConfig(
        prompt="a dog and a cat on grass",
        regions=(
            Region(f"a {rex.trigger} dog and a cat on grass", (0.0, 0.0, 0.5, 1.0)),
            Region(f"a dog and a {tom.trigger} cat on grass", (0.5, 0.0, 1.0, 1.0)),
        ),
        num_inference_steps=2 if quick else 25,
        seed=1,
        notes=fusion.notes,
    )
    (picture,) = generate(base, config, on_step=lambda step: print(f"step {step.step} of {step.steps}"))
    fusion.undo()

    path = save_picture(picture.image, OUT, picture.parameters)  # the file carries its settings
    print(path)
    return path


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
