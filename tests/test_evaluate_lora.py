"""The LoRA that concepts are compared with."""

from pathlib import Path

import pytest
import torch

from concepts import make_concept, picture, same_weights, weights_of
from judging import colour_folders
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, Library
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate import Loras, train_loras
from spectral_fusion.evaluate.lora import Lora, lora_adapter, train_lora, training_config
from spectral_fusion.spectral import Band
from spectral_fusion.training import TrainConfig, train_concept
from spectral_fusion.training.model import training_model
from tiny import tiny_base

TRAINING = TrainConfig(
    name="rex",
    class_word="dog",
    steps=2,
    rank=4,
    batch_size=1,
    distillation_prompts=1,
    learning_rate_unet=0.1,
    learning_rate_text_encoder=0.1,
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Concept, Lora, Path]:
    """A concept, the LoRA trained like it, and where that lies."""
    root, base = tmp_path_factory.mktemp("pair"), tiny_base()
    folder = colour_folders(root)[0]
    concept = train_concept(folder, TRAINING, library=Library(root / "library"), base=base)
    before = weights_of(base)
    (lora,) = train_loras([concept], [folder], root / "lora", base=base)
    assert same_weights(before, weights_of(base))
    return concept, lora, root


def test_it_has_the_concepts_layers_and_as_many_parameters(pair: tuple[Concept, Lora, Path]) -> None:
    concept, lora, _ = pair
    assert set(lora.layers) == set(concept.fingerprints)
    trained = sum(t.numel() for layer in concept.layers.values() for t in layer.trained.values())
    assert lora.parameters == trained + concept.embeddings["text_encoder"].numel()
    assert any(lora.factors(name).up.abs().max() > 0 for name in lora.layers)


def test_at_work_its_weighted_delta_is_in_the_weights_and_not_afterwards(
    pair: tuple[Concept, Lora, Path], base: StableDiffusion
) -> None:
    _, lora, _ = pair
    before, plain = weights_of(base), picture(base, "a dog")
    name = next(name for name in lora.layers if name.startswith("unet."))
    layer = base.layers()[name]
    x = torch.randn(2, layer.in_features)
    output, delta = layer(x), x @ (lora.factors(name).up @ lora.factors(name).down).T
    with Loras((lora, lora), "mean").on(base, [0]):
        assert torch.allclose(layer(x), output + delta, atol=1e-5)
    assert same_weights(before, weights_of(base))
    assert torch.equal(picture(base, "a dog"), plain)


def test_the_mean_of_two_has_half_of_each(pair: tuple[Concept, Lora, Path], base: StableDiffusion) -> None:
    _, lora, _ = pair
    other = Lora("tom", "<tom>", "cat", lora.layers, lora.embeddings, lora.facts)
    name = next(name for name in lora.layers if name.startswith("text_encoder."))
    path = name.removeprefix("text_encoder.")
    x = torch.randn(2, base.text_encoder.get_submodule(path).in_features)
    with Loras((lora,)).on(base, [0]):
        alone = base.text_encoder.get_submodule(path)(x)
    with Loras((lora, other), "mean").on(base, [0, 1]):
        both = base.text_encoder.get_submodule(path)(x)
    assert torch.allclose(alone, both, atol=1e-5)
    assert "<tom>" not in base.tokenizer.get_vocab()


def test_a_file_is_read_as_it_was_written_and_by_diffusers(
    pair: tuple[Concept, Lora, Path], base: StableDiffusion
) -> None:
    _, lora, root = pair
    again = Lora.load(root / "lora" / "rex.safetensors")
    assert all(torch.equal(a, b) for n in lora.layers for a, b in zip(lora.layers[n], again.layers[n], strict=True))
    assert torch.equal(lora.embeddings["text_encoder"], again.embeddings["text_encoder"])
    assert again.facts == lora.facts
    base.pipeline.load_lora_weights(lora.state(), adapter_name="rex")
    name = next(name for name in lora.layers if name.startswith("unet."))
    layer = base.unet.get_submodule(name.removeprefix("unet."))
    assert torch.equal(layer.lora_B["rex"].weight, lora.layers[name][1])


def test_it_is_kept_where_nothing_changed_and_trained_again_where_something_did(
    pair: tuple[Concept, Lora, Path], base: StableDiffusion, tmp_path: Path
) -> None:
    concept, lora, root = pair
    path = root / "lora" / "rex.safetensors"
    written = path.stat().st_mtime_ns
    train_lora(concept, colour_folders(root / "same")[0], path.parent, base=base)
    assert path.stat().st_mtime_ns == written
    other = colour_folders(root / "other")[1]
    assert train_lora(concept, other, path.parent, base=base).facts != lora.facts


def test_a_concept_that_does_not_say_how_it_was_trained_is_refused(
    shared_base: StableDiffusion, tmp_path: Path
) -> None:
    concept = make_concept(shared_base, "rex")
    object.__setattr__(concept, "training", {})
    with pytest.raises(InputError, match="does not say how it was trained"):
        train_loras([concept], colour_folders(tmp_path)[:1], tmp_path, base=shared_base)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_trained_in_float32_on_a_base_in_half_precision(
    pair: tuple[Concept, Lora, Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    concept, _, _ = pair
    base = tiny_base(dtype=dtype)
    with training_model(base, training_config(concept, base), Band(0, 4), adapter=lora_adapter) as model:
        seen = {parameter.dtype for parameter in model.parameters.values()}
    assert seen == {torch.float32}
