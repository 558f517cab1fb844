"""Single-file checkpoints in the original layout: what a file is, and the diffusers settings that its tensors imply.

Only the file's header is read here. The key names are those of the original latent-diffusion code: the UNet under
`model.diffusion_model.`, the text encoder under `cond_stage_model.`, the autoencoder under `first_stage_model.`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from spectral_fusion.errors import InputError

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
WORDS = "embeddings.token_embedding.weight"

# What a file without the parts of Stable Diffusion is, by a key that gives it away; first match wins.
OTHER_KINDS = (
    (
        r"lora_(unet|te|up|down|A|B)|\.lora\.|hada_w1|lokr_w1",
        "a LoRA file, not a base; pass the base it was trained on",
    ),
    (r"conditioner\.embedders\.", "a Stable Diffusion XL checkpoint; give one of Stable Diffusion 1.x or 2.x"),
    (r"joint_blocks\.", "a Stable Diffusion 3 checkpoint; give one of Stable Diffusion 1.x or 2.x"),
    (r"double_blocks\.|single_transformer_blocks\.", "a Flux checkpoint; give one of Stable Diffusion 1.x or 2.x"),
    (r"^(control_model|controlnet_)", "a ControlNet, not a base; give a Stable Diffusion 1.x or 2.x checkpoint"),
    (r"^(emb_params|string_to_param|<.*>$)", "a textual-inversion embedding, not a base; give the base it belongs to"),
    (r"^(down_blocks|unet\.down_blocks)", "a bare diffusers UNet; give the whole diffusers folder"),
    (r"^(first_stage_model\.)?(encoder|decoder)\.", "an autoencoder (VAE) alone; give a whole checkpoint"),
    (r"^(model\.)?(text_model|transformer)\.", "a text encoder alone; give a whole checkpoint"),
)


@dataclass(frozen=True)
class Checkpoint:
    """The header of a single-file checkpoint.

    Attributes:
        shapes: tensor name -> shape.
        metadata: the file's text metadata.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Raises InputError where the file is no text-to-image checkpoint of 1.x or 2.x, and says what it is."""
        try:
            with safe_open(path, framework="pt") as file:
                shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise InputError(f"base {path} is not a readable safetensors file ({error}); download it again") from error
        checkpoint = cls(path, shapes, metadata)
        checkpoint._check()
        return checkpoint

    @property
    def is_sd2(self) -> bool:
        """Stable Diffusion 2.x: OpenCLIP's text encoder in its own key names."""
        return f"{OPEN_CLIP}token_embedding.weight" in self.shapes

    @property
    def clip_prefix(self) -> str:
        """What stands before the names of CLIP's tensors in 1.x; some merged models left `text_model.` out."""
        return f"{CLIP}text_model." if f"{CLIP}text_model.{WORDS}" in self.shapes else CLIP

    def _check(self) -> None:
        if "spectral_fusion.format_version" in self.metadata:
            raise InputError(f"base {self.path} is a concept, not a base; give the base that it was trained on")
        has = {
            "UNet": f"{UNET}input_blocks.0.0.weight" in self.shapes,
            "autoencoder": any(key.startswith(VAE) for key in self.shapes),
            "text encoder": self.is_sd2 or self.clip_prefix + WORDS in self.shapes,
        }
        # XL has a UNet of these very names, and its text encoders under `conditioner.`.
        telling = [key for key in self.shapes if not has["UNet"] or key.startswith("conditioner.")]
        for pattern, kind in OTHER_KINDS:
            if any(re.search(pattern, key) for key in telling):
                raise InputError(f"base {self.path} is {kind}")
        if not any(has.values()):
            raise InputError(f"base {self.path} is not Stable Diffusion; give a Stable Diffusion 1.x or 2.x checkpoint")
        missing = [part for part, present in has.items() if not present]
        if missing:
            raise InputError(f"base {self.path} has no {' and no '.join(missing)}; give a file that carries all parts")
        self._check_task()

    def _check_task(self) -> None:
        channels = self.shapes.get(f"{UNET}input_blocks.0.0.weight", (0, 4))[1]
        if channels != 4:
            kind = {9: "an inpainting model", 8: "an image-editing model", 5: "a depth model"}.get(channels, "a model")
            raise InputError(
                f"base {self.path} is {kind} of {channels} input channels; give a text-to-image checkpoint"
            )

    def _count(self, pattern: str) -> int:
        """How many different numbers stand at the group of the pattern."""
        return len({match.group(1) for key in self.shapes if (match := re.match(pattern, key))})

    def unet_config(self) -> dict[str, Any]:
        """Settings of `UNet2DConditionModel`. 8 heads at each level in 1.x, heads of 64 in 2.x: tensors do not tell."""
        blocks = self._count(re.escape(UNET) + r"input_blocks\.(\d+)\.")
        per_level = next(i for i in range(1, blocks + 1) if f"{UNET}input_blocks.{i}.0.op.weight" in self.shapes)
        firsts = range(1, blocks, per_level)
        widths = [self.shapes[f"{UNET}input_blocks.{i}.0.out_layers.3.weight"][0] for i in firsts]
        crossed = [f"{UNET}input_blocks.{i}.1.proj_in.weight" in self.shapes for i in firsts]
        to_k = next(key for key in self.shapes if key.startswith(UNET) and key.endswith("attn2.to_k.weight"))
        return {
            "in_channels": 4,
            "out_channels": self.shapes[f"{UNET}out.2.weight"][0],
            "sample_size": 96 if self.is_sd2 else 64,
            "block_out_channels": widths,
            "down_block_types": ["CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in crossed],
            "up_block_types": ["CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(crossed)],
            "layers_per_block": per_level - 1,
            "cross_attention_dim": self.shapes[to_k][1],
            "attention_head_dim": [max(1, width // 64) for width in widths] if self.is_sd2 else 8,
            "use_linear_projection": self.is_sd2,
        }

    def vae_config(self) -> dict[str, Any]:
        """Settings of `AutoencoderKL`."""
        levels = self._count(re.escape(VAE) + r"encoder\.down\.(\d+)\.")
        return {
            "block_out_channels": [
                self.shapes[f"{VAE}encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)
            ],
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "layers_per_block": self._count(re.escape(VAE) + r"encoder\.down\.0\.block\.(\d+)\."),
            "latent_channels": self.shapes[f"{VAE}post_quant_conv.weight"][0],
            "sample_size": 768 if self.is_sd2 else 512,
            "scaling_factor": 0.18215,
        }

    def text_encoder_config(self) -> dict[str, Any]:
        """Settings of `CLIPTextModel`. 2.x leaves the last layer out, as it was trained on the one before."""
        if self.is_sd2:
            prefix, layer, position = OPEN_CLIP, r"transformer\.resblocks\.(\d+)\.", "positional_embedding"
            words, inner = "token_embedding.weight", "transformer.resblocks.0.mlp.c_fc.weight"
        else:
            prefix, layer, position = (
                self.clip_prefix,
                r"encoder\.layers\.(\d+)\.",
                "embeddings.position_embedding.weight",
            )
            words, inner = WORDS, "encoder.layers.0.mlp.fc1.weight"
        vocabulary, width = self.shapes[prefix + words]
        layers = self._count(re.escape(prefix) + layer)
        return {
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": self.shapes[prefix + inner][0],
            "num_hidden_layers": layers - 1 if self.is_sd2 else layers,
            "num_attention_heads": max(1, width // 64),
            "max_position_embeddings": self.shapes[prefix + position][0],
            "hidden_act": "gelu" if self.is_sd2 else "quick_gelu",
            "bos_token_id": 49406,
            "eos_token_id": 49407,
            "pad_token_id": 0 if self.is_sd2 else 49407,
        }

    def scheduler_config(self) -> dict[str, Any]:
        """Settings of the noise schedule; the prediction type by the file's own word, else v for 2.x."""
        said = self.metadata.get("modelspec.prediction_type", "").lower()
        v_prediction = said.startswith("v") if said else (self.is_sd2 or "v_pred" in self.shapes)
        return {
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "skip_prk_steps": True,
            "steps_offset": 1,
            "prediction_type": "v_prediction" if v_prediction else "epsilon",
        }
