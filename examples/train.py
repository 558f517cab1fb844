"""Train a concept from photos of one subject, on the bundled base: python examples/train.py [--quick]

`train` is the training alone. `train_concept`, which the command line calls, also keeps a library of concepts, gives
each a band of its own, and resumes what was stopped.
"""

import sys
from pathlib import Path

from spectral_fusion import Band, Concept, ImageFolder, TrainConfig, open_base, resolve, train

PHOTOS = Path(__file__).parents[1] / "concepts" / "rex" / "images"
OUT = Path("out/examples/rex.safetensors")


def main(quick: bool) -> Concept:
    base = open_base()
    photos = ImageFolder.scan(PHOTOS)

    # Settings that are not given are those that suit the base; `resolve` fills them in.
    asked = TrainConfig(name="rex", class_word="dog", seed=1)
    if quick:
        asked = TrainConfig(name="rex", class_word="dog", seed=1, steps=2, batch_size=1, distillation_prompts=2)
    config = resolve(asked, base)

    # Which singular directions of each layer the concept is anchored in: no two concepts should share any.
    band = Band(0, config.rank, config.band_side)

    concept = train(
        base,
        photos,
        config,
        band,
        on_step=lambda loop, progress: print(f"step {progress.step} of {progress.steps}: loss {progress.loss:.4f}"),
    )
    print(f"{concept.save(OUT)}: write {concept.trigger} in a prompt")
    return concept


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
