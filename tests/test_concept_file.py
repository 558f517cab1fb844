"""Concept files: what comes back is what was saved, and anything else is refused in one line."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from concepts import ATTENTION, delta, make_concept
from spectral_fusion.base.layers import base_layers
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.concept import Concept, LayerTensors, export_embedding, export_lora, read_info
from spectral_fusion.concept.read import rewrite
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Band, Triplets


@pytest.fixture(scope="module")
def concept(shared_base: StableDiffusion) -> Concept:
    return make_concept(shared_base, train_s=True)


@pytest.fixture
def file(concept: Concept, tmp_path: Path) -> Path:
    return concept.save(tmp_path / "rex.safetensors", dtype=torch.float32)


def edit(path: Path, *, tensors: dict | None = None, metadata: dict | None = None, drop: str = "") -> None:
    """Change parts of a saved file: tensors, metadata, or leave out a tensor or metadata key."""
    with safe_open(path, framework="pt") as opened:
        header = dict(opened.metadata())
    all_tensors = load_file(path) | (tensors or {})
    header |= metadata or {}
    all_tensors.pop(drop, None)
    header.pop(drop, None)
    save_file(all_tensors, path, header)


@pytest.mark.parametrize("mode", ["additive", "rotational"])
@pytest.mark.parametrize("train_s", [False, True])
def test_float32_round_trip_is_exact(shared_base: StableDiffusion, tmp_path: Path, mode: str, train_s: bool) -> None:
    saved = make_concept(shared_base, mode=mode, train_s=train_s, alpha=0.7, band=1)
    loaded = Concept.load(saved.save(tmp_path / "rex.safetensors", dtype=torch.float32))
    for field in ("name", "trigger", "class_word", "band", "mode", "alpha", "base", "base_name", "directions"):
        assert getattr(loaded, field) == getattr(saved, field)
    assert (loaded.fingerprints, loaded.training) == (saved.fingerprints, saved.training)
    assert torch.equal(loaded.embeddings["text_encoder"], saved.embeddings["text_encoder"])
    for name in saved.layers:
        assert torch.equal(delta(loaded.factors(name)), delta(saved.factors(name)))


@pytest.mark.parametrize("mode", ["additive", "rotational"])
@pytest.mark.parametrize("size", [1e-2, 1e-7])
def test_float16_costs_a_thousandth_of_the_delta_however_small(
    shared_base: StableDiffusion, tmp_path: Path, mode: str, size: float
) -> None:
    saved = make_concept(shared_base, mode=mode, size=size)
    loaded = Concept.load(saved.save(tmp_path / "rex.safetensors"))
    for name in saved.layers:
        exact = delta(saved.factors(name))
        assert torch.linalg.norm(delta(loaded.factors(name)) - exact) < 1.5e-3 * torch.linalg.norm(exact)


def test_a_file_saved_with_flipped_signs_gives_the_same_delta(concept: Concept, tmp_path: Path) -> None:
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0])
    flipped = {}
    for name, layer in concept.layers.items():
        U, S, V = layer.basis
        trained = layer.trained | {"A": layer.trained["A"] * signs, "B": layer.trained["B"] * signs}
        flipped[name] = LayerTensors(Triplets(U * signs, S, V * signs), trained)
    path = replace(concept, layers=flipped).save(tmp_path / "flipped.safetensors", dtype=torch.float32)
    loaded = Concept.load(path)
    for name in concept.layers:
        torch.testing.assert_close(delta(loaded.factors(name)), delta(concept.factors(name)))


def test_metadata_is_read_without_tensors_and_other_tools_find_the_trigger(concept: Concept, file: Path) -> None:
    info = read_info(file)
    assert (info.name, info.trigger, info.band, info.base) == ("rex", "<rex>", concept.band, concept.base)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["modelspec.trigger_phrase"] == "<rex>"
    assert json.loads(metadata["spectral_fusion.training"]) == {"steps": 10, "seed": 0}


@pytest.mark.parametrize(("width", "architecture"), [(768, "stable-diffusion-v1"), (1024, "stable-diffusion-v2")])
def test_other_tools_find_the_architecture(concept: Concept, tmp_path: Path, width: int, architecture: str) -> None:
    file = replace(concept, embeddings={"text_encoder": torch.zeros(2, width)}).save(tmp_path / "a.safetensors")
    rewrite(file, file, replace(read_info(file), class_word="wolf"))
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["modelspec.architecture"] == f"{architecture}/spectral-adapter"


def test_saving_twice_gives_the_same_bytes(concept: Concept, tmp_path: Path) -> None:
    first = concept.save(tmp_path / "a.safetensors").read_bytes()
    assert concept.save(tmp_path / "b.safetensors").read_bytes() == first


def test_convolutions_keep_their_kernel(shared_base: StableDiffusion, tmp_path: Path) -> None:
    saved = make_concept(shared_base, targets=("conv1", "proj_in"))
    assert set(saved.kernels.values()) == {(3, 3), (1, 1)}
    assert Concept.load(saved.save(tmp_path / "rex.safetensors")).kernels == saved.kernels


def test_loading_needs_no_decomposition_and_no_pickle(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("called while loading")

    for module, name in ((torch.linalg, "svd"), (torch.linalg, "qr"), (torch, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, forbidden)
    Concept.load(file)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    concept: Concept, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        concept.save(file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def broken(kind: str, file: Path) -> Path:
    data = file.read_bytes()
    path = file.with_name("broken.safetensors")
    path.write_bytes(
        {"truncated": data[:-100], "header only": data[:50], "empty": b"", "random": bytes(range(256)) * 40}[kind]
    )
    return path


@pytest.mark.parametrize("kind", ["truncated", "header only", "empty", "random"])
def test_broken_files_are_refused(file: Path, kind: str) -> None:
    with pytest.raises(InputError, match="is empty, cut off or no safetensors file"):
        Concept.load(broken(kind, file))


@pytest.mark.parametrize("name", ["rex.pt", "rex.ckpt", "rex.bin", "disguised.safetensors"])
def test_pickles_are_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="pickle, which can run any program"):
        Concept.load(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="pickle"):
        Concept.load(path)


def test_a_file_that_starts_like_a_pickle_by_chance_is_read(file: Path) -> None:
    """The first bytes are the header's length: 0x10280 looks like a pickle of protocol 2, 0x14B50 like a zip file."""
    for length in (0x10280, 0x14B50):
        edit(file, metadata={"padding": ""})
        size = int.from_bytes(file.read_bytes()[:8], "little")
        edit(file, metadata={"padding": "x" * (length - size)})
        assert file.read_bytes()[:2] in (b"\x80\x02", b"PK")
        Concept.load(file)


def test_convolutions_of_an_impossible_kernel_are_refused(shared_base: StableDiffusion, tmp_path: Path) -> None:
    path = make_concept(shared_base, targets=("conv1",)).save(tmp_path / "rex.safetensors")
    for kernel in ([7, 7], [0, 3], [-3, -3]):
        kernels = dict.fromkeys(read_info(path).kernels, kernel)
        edit(path, metadata={"spectral_fusion.kernels": json.dumps(kernels)})
        with pytest.raises(InputError, match="kernel of"):
            Concept.load(path)


def test_other_kinds_of_file_are_named(concept: Concept, tmp_path: Path) -> None:
    for to in ("diffusers", "kohya"):
        with pytest.raises(InputError, match="is a LoRA"):
            Concept.load(export_lora({concept: 1.0}, tmp_path / f"{to}.safetensors", to))
    with pytest.raises(InputError, match="is a textual-inversion embedding"):
        Concept.load(export_embedding(concept, tmp_path / "embedding.safetensors"))
    base = tmp_path / "base.safetensors"
    save_file({"model.diffusion_model.a": torch.zeros(1), "b": torch.zeros(1)}, base)
    with pytest.raises(InputError, match="is a base model"):
        Concept.load(base)


def test_format_1_is_read_as_bands_from_the_top(file: Path, concept: Concept) -> None:
    """Shipped concepts are of this format: no side, whatever end their index is near."""
    edit(file, metadata={"spectral_fusion.format_version": "1"}, drop="spectral_fusion.side")
    loaded = Concept.load(file)
    assert loaded.band == concept.band == Band(0, 4, "top")
    for name, layer in concept.layers.items():
        for part, tensor in layer.tensors().items():
            assert torch.equal(loaded.layers[name].tensors()[part], tensor)


def test_the_side_of_a_band_is_kept(shared_base: StableDiffusion, tmp_path: Path) -> None:
    saved = make_concept(shared_base, band=1, side="bottom")
    assert saved.span == range(24, 28)
    loaded = Concept.load(saved.save(tmp_path / "rex.safetensors"))
    assert loaded.band == Band(1, 4, "bottom")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(InputError, match="no concept file at"):
            Concept.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metadata": {"spectral_fusion.format_version": "99"}}, "format version 99"),
        ({"metadata": {"spectral_fusion.side": "left"}}, "side 'left'"),
        ({"drop": "spectral_fusion.side"}, "lacks the metadata spectral_fusion.side"),
        ({"drop": "spectral_fusion.trigger"}, "lacks the metadata spectral_fusion.trigger"),
        ({"drop": "spectral_fusion.format_version"}, "not a concept"),
        ({"metadata": {"spectral_fusion.rank": "many"}}, "malformed metadata"),
        ({"metadata": {"spectral_fusion.rank": "0"}}, "rank 0"),
        ({"metadata": {"spectral_fusion.rank": "5"}}, "rank 5 needs"),
        ({"metadata": {"spectral_fusion.band": "-1"}}, "band -1"),
        ({"metadata": {"spectral_fusion.band": "99"}}, "needs 400 directions"),
        ({"metadata": {"spectral_fusion.mode": "sideways"}}, "mode 'sideways'"),
        ({"metadata": {"spectral_fusion.alpha": "nan"}}, "alpha nan"),
        ({"metadata": {"spectral_fusion.directions": "64"}}, "claims 64 directions; its layers have 32"),
        ({"metadata": {"spectral_fusion.directions": str(10**12)}}, "1000000000000"),
        ({"metadata": {"spectral_fusion.class_word": "\x1b[31mdog"}}, "without escapes"),
        ({"metadata": {"spectral_fusion.name": "../../rex"}}, "cannot name a concept"),
        ({"metadata": {"spectral_fusion.trigger": "rex"}}, "angle brackets"),
        ({"metadata": {"spectral_fusion.fingerprints": "[1, 2]"}}, "malformed metadata"),
        ({"metadata": {"spectral_fusion.fingerprints": '{"unet.x": "abc"}'}}, "malformed"),
        ({"metadata": {"spectral_fusion.training": "{"}}, "malformed metadata"),
        ({"metadata": {"spectral_fusion.kernels": '{"unet.x": 3}'}}, "malformed metadata"),
        ({"drop": "embeddings.text_encoder"}, "lacks the tensor 'embeddings.text_encoder'"),
        ({"tensors": {"embeddings.text_encoder": torch.tensor([[float("nan")]])}}, "NaN or infinity"),
        ({"tensors": {"embeddings.text_encoder": torch.zeros(3)}}, "embeddings"),
        ({"tensors": {"embeddings.text_encoder": torch.zeros(2, 64, dtype=torch.int64)}}, "torch.int64"),
        ({"tensors": {"unet.nowhere.A": torch.zeros(3)}}, "belongs to no layer"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(file: Path, change: dict, words: str) -> None:
    edit(file, **change)
    with pytest.raises(InputError, match=words) as caught:
        Concept.load(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("part", ["U", "S", "V", "A", "B", "c"])
def test_every_tensor_is_checked(concept: Concept, file: Path, part: str) -> None:
    key = f"{next(iter(concept.layers))}.{part}"
    edit(file, tensors={key: torch.full_like(load_file(file)[key], float("inf"))})
    with pytest.raises(InputError, match="NaN or infinity"):
        Concept.load(file)
    edit(file, tensors={key: torch.zeros(3, 3)})
    with pytest.raises(InputError, match="has shape"):
        Concept.load(file)


def test_metadata_that_is_not_text_is_refused(file: Path) -> None:
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["spectral_fusion.rank"] = 4
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    with pytest.raises(InputError, match=r"rex\.safetensors"):
        Concept.load(file)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a.b", "con", "x" * 65, "a b", None, "-a"])
def test_names_that_are_no_safe_file_names_are_refused(concept: Concept, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a concept"):
        replace(concept, name=name)


def test_other_types_than_half_and_single_are_refused(concept: Concept, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float16 or float32"):
        concept.save(tmp_path / "rex.safetensors", dtype=torch.bfloat16)


@pytest.mark.parametrize(("mode", "megabytes"), [("additive", 10), ("rotational", 5)])
def test_a_concept_of_stable_diffusion_1_5_takes_at_most_10_megabytes(
    tmp_path: Path, mode: str, megabytes: float
) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)  # else the defaults are those of SD 1.5
        text_encoder = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12))
    base = {f"unet.{name}": layer.weight.shape for name, layer in base_layers(unet)}
    base |= {f"text_encoder.{name}": layer.weight.shape for name, layer in base_layers(text_encoder)}
    shapes = {name: shape for name, shape in base.items() if name.endswith(ATTENTION)}
    assert len(shapes) == 128 + 48
    layers = {}
    for name, (rows, columns) in shapes.items():
        basis = Triplets(torch.randn(rows, 8), torch.rand(8), torch.randn(columns, 8))
        sizes = {"A": rows, "B": columns} if mode == "additive" else {"X_U": 8, "X_V": 8}
        layers[name] = LayerTensors(basis, {part: torch.randn(size, 8) for part, size in sizes.items()})
    concept = Concept(
        name="rex",
        trigger="<rex>",
        class_word="dog",
        band=Band(0, 8),
        mode=mode,
        base="0123456789abcdef",
        directions=320,
        fingerprints=dict.fromkeys(layers, "0123456789abcdef:12.34"),
        layers=layers,
        embeddings={"text_encoder": torch.randn(4, 768)},
    )
    assert concept.save(tmp_path / "rex.safetensors").stat().st_size <= megabytes * 1e6
