"""One answer for any file: what it is, and whether it can be a base here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spectral_fusion.errors import InputError
from spectral_fusion.identify.adapters import adapter_of, part_of
from spectral_fusion.identify.families import FAMILIES, UNET, Family, input_channels
from spectral_fusion.identify.header import Header, read_header
from spectral_fusion.identify.quantised import plain_float8, quantised_by

PredictionType = Literal["epsilon", "v_prediction", "flow"]
TITLES = {family.name: family.title for family in FAMILIES}
FLOW = {"sd3.5-large", "sd3.5-medium", "sd3", "chroma", "flux2-klein-4b", "flux2-klein-9b", "flux2", "flux3", "flux1"}
FLOW |= {"qwen-image-2.1", "qwen-image", "z-image", "lumina2", "krea2", "anima", "auraflow", "hidream", "sana"}
GIVE = "give a whole checkpoint of Stable Diffusion 1.x, 2.x or XL"
TASKS = {9: "for inpainting", 8: "for editing pictures (InstructPix2Pix)", 5: "with a depth map", 7: "for upscaling"}
PARTS = {
    "UNet": rf"^{UNET}",
    "autoencoder": r"^(first_stage_model|vae)\.",
    "text encoder": r"^(cond_stage_model|conditioner|text_encoders)\.",
}


@dataclass(frozen=True)
class Prediction:
    """What a model was trained to predict, and how that is known.

    Attributes:
        zero_snr: the last timestep is pure noise (zero terminal signal-to-noise ratio).
        source: such as "its key v_pred"; "" where nothing says so and the type is the family's usual one.
    """

    type: PredictionType
    zero_snr: bool = False
    source: str = ""


@dataclass(frozen=True)
class Identity:
    """What a file is.

    Attributes:
        kind: "base", "adapter", "part" (of a model) or "unknown".
        title: in words, with the article: "a Stable Diffusion XL checkpoint".
        family: "sd1", "sdxl", "flux1" ...; of an adapter, the family of its base; None where that is not told.
        prediction: of a base.
        task: "" for text to image, else such as "for inpainting".
        quantised: the tool, or None.
        missing: parts that a base of one file should carry, and this one lacks.
        advice: what to do in place of using this file as a base; "" where it can be one.
    """

    path: Path
    kind: Literal["base", "adapter", "part", "unknown"]
    title: str
    family: str | None = None
    prediction: Prediction | None = None
    task: str = ""
    quantised: str | None = None
    missing: tuple[str, ...] = ()
    advice: str = ""

    def __str__(self) -> str:
        words = [self.title, self.task]
        if self.quantised:
            words.append(f"quantised by {self.quantised}")
        if self.kind == "adapter" and self.family:
            words.append(f"for {TITLES.get(self.family, self.family).removeprefix('a ').replace(' checkpoint', '')}")
        if self.missing:
            words.append(f"with no {' and no '.join(self.missing)}")
        return " ".join(word for word in words if word)

    def check_base(self) -> None:
        """Raises InputError where this cannot be a base, saying what it is and what to give."""
        if self.advice:
            raise InputError(f"base {self.path} is {self}; {self.advice}")


def identify(source: str | Path | Header) -> Identity:
    """Say what a file is, from its header alone.

    Raises:
        InputError: the file is missing, damaged, a pickle or a GGUF file.
    """
    header = source if isinstance(source, Header) else read_header(source)
    if adapter := adapter_of(header):
        advice = "give the base that it was trained on"
        return Identity(header.path, "adapter", adapter.kind, adapter.family, advice=advice)
    family = next((family for family in FAMILIES if family.matches(header)), None)
    part = part_of(header)
    if part and (family is None or "ControlNet" in part):
        return Identity(header.path, "part", part, advice="give a whole checkpoint")
    if family is None:
        return Identity(header.path, "unknown", "not Stable Diffusion, nor another model known here", advice=GIVE)
    return _base(header, family)


def _base(header: Header, family: Family) -> Identity:
    diffusers_unet = family.name in ("sd1", "sd2", "sdxl") and not header.has(f"^{UNET}")
    carried = family.supported and not diffusers_unet
    missing = tuple(part for part, keys in PARTS.items() if carried and not header.has(keys))
    task = TASKS.get(input_channels(header) or 4, "")
    quantised = quantised_by(header) or ("a cast to 8-bit floats" if plain_float8(header) else None)
    return Identity(
        header.path,
        "base",
        f"{family.title} in diffusers' names, its UNet alone" if diffusers_unet else family.title,
        family.name,
        prediction_of(header, family.name),
        task,
        quantised,
        missing,
        _advice(family, diffusers_unet, task, quantised_by(header), missing),
    )


def _advice(family: Family, unet_alone: bool, task: str, quantised: str | None, missing: tuple[str, ...]) -> str:
    """What to give in place of a base that cannot be used; "" where it can."""
    if not family.supported:
        return f"give {family.nearest}"
    if task:
        return "give a text-to-image checkpoint"
    if unet_alone:
        return "give the whole diffusers folder"
    if quantised:
        return "its weights cannot be decomposed; give the file that it was quantised from"
    if missing:
        return "give a file that carries all parts"
    return ""


def prediction_of(header: Header, family: str) -> Prediction:
    """By the file's own keys, then its metadata, then the family's usual type.

    Nothing in a Stable Diffusion 2.x file tells 512-base (epsilon) from 768-v where keys and metadata are silent.
    """
    if family in FLOW:
        return Prediction("flow")
    # Noise cannot be told from pure noise: only v-prediction can begin there.
    zero_snr = "ztsnr" in header.shapes
    if "v_pred" in header.shapes:
        return Prediction("v_prediction", zero_snr, "its key v_pred")
    architecture = header.metadata.get("modelspec.architecture", "").lower()
    if said := header.metadata.get("modelspec.prediction_type", "").lower():
        predicts_v, source = said.startswith("v"), "its metadata modelspec.prediction_type"
    elif architecture.startswith("stable-diffusion-v2"):
        predicts_v, source = "768-v" in architecture, "its metadata modelspec.architecture"
    else:
        predicts_v, source = family == "sd2", ""
    return Prediction("v_prediction", zero_snr, source) if predicts_v else Prediction("epsilon", source=source)
