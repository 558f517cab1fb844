"""A new family is one file: everything else takes a `Base` and asks no further."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from concepts import make_concept
from spectral_fusion.base.attach import attach
from spectral_fusion.base.regions import Region
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Library
from spectral_fusion.errors import InputError
from spectral_fusion.fusion import fuse
from spectral_fusion.generation import GenerateConfig, generate
from spectral_fusion.training import TrainConfig, train_concept
from toy_family import toy_base
from training import draw_photos

CONFIG = GenerateConfig("a rex dog", num_inference_steps=3, seed=1)


def test_it_trains_fuses_and_generates(tmp_path: Path) -> None:
    base, library = toy_base(), Library(tmp_path / "library")
    plain = np.asarray(generate(base, CONFIG)[0].image)
    for name in ("rex", "tom"):
        settings = TrainConfig(
            name=name, class_word="dog", target=("conv_in", "conv_out", "text"), rank=1, steps=4, distillation_prompts=2
        )
        train_concept(draw_photos(tmp_path / name), settings, library=library, base=base)
    concepts = {library.get(name): 1.0 for name in ("rex", "tom")}
    assert {concept.family for concept in concepts} == {"toy"}
    assert all(concept.embeddings == {} for concept in concepts)
    fusion = fuse(base, concepts)
    fused = np.asarray(generate(base, CONFIG)[0].image)
    assert not np.array_equal(fused, plain)
    fusion.undo()
    assert np.array_equal(np.asarray(generate(base, CONFIG)[0].image), plain)


def test_a_concept_of_another_family_is_refused(base: StableDiffusion) -> None:
    with pytest.raises(InputError, match="family sd, this is toy"):
        attach(toy_base(), make_concept(base))


def test_what_a_family_cannot_do_with_places_is_refused_by_name() -> None:
    base, (first, second) = toy_base(), ((0, 0, 0.5, 1), (0.5, 0, 1, 1))
    regions = (Region("a dog", first), Region("a cat", second))
    with pytest.raises(InputError, match="family toy is not split into regions here; name all subjects"):
        generate(base, replace(CONFIG, regions=regions))
    with pytest.raises(InputError, match="cannot be bound to places on a base of family toy; fuse them"):
        base.layer_kind("unet.conv_in")
    with pytest.raises(InputError, match="places cannot be found on a base of family toy; give boxes or masks"):
        base.watch_words([[0]], (8, 8))
