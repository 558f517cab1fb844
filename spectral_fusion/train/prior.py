"""Pictures of the class in general, for prior preservation (DreamBooth, Ruiz et al., 2023)."""

from pathlib import Path

from diffusers import StableDiffusionPipeline

from spectral_fusion.atomic import atomic_file
from spectral_fusion.concept.images import ImageFolder
from spectral_fusion.concept.images.picture import ENDINGS
from spectral_fusion.train.captions import TEMPLATES
from spectral_fusion.train.config import TrainConfig
from spectral_fusion.train.randomness import generator
from spectral_fusion.train.watch import sample


def class_folder(pipeline: StableDiffusionPipeline, config: TrainConfig, default: Path) -> ImageFolder:
    """The class pictures of a training, after generating those that are missing.

    Picture k depends on the seed and k alone, and is written whole, so an interrupted start continues where it was.

    Args:
        pipeline: the base, without the concept.
        config: resolved settings.
        default: folder for generated pictures where the settings name none.

    Raises:
        InputError: the folder that the settings name has no usable picture and none are to be generated.
    """
    folder = default if config.class_images is None else Path(config.class_images)
    folder.mkdir(parents=True, exist_ok=True)
    own = [file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and not _is_generated(file)]
    prompt = TEMPLATES[0].format(config.class_word)
    for number in range(config.num_class_images - len(own)):
        path = folder / f"generated-{number:04d}.png"
        if not path.exists():
            seed = generator(config.seed, "class", number).initial_seed()
            (picture,) = sample(pipeline, [prompt], seed, config.resolution)
            with atomic_file(path) as part:
                picture.save(part, format="png")
    return ImageFolder.scan(folder, background=config.background)


def _is_generated(file: Path) -> bool:
    return file.name.startswith("generated-")
