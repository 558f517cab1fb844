"""A random Stable Diffusion 1.x in miniature: real classes, key names and file formats, in a fraction of a second."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from spectral_fusion.base.sd import StableDiffusion

START, END = "<|startoftext|>", "<|endoftext|>"
OBJECTS = ("dog", "cat", "car", "house", "tree", "ball", "grass", "sand", "snow")
WORDS = (*OBJECTS, "a", "and", "the", "of", "on", "in", "photo", "picture", "red", "green", "blue", "ugly", "blurry")
IMAGE_SIZE = 32
TEXT_WIDTH = 64
TOKENIZER_CONFIG = {
    "tokenizer_class": "CLIPTokenizer",
    "bos_token": START,
    "eos_token": END,
    "unk_token": END,
    "pad_token": END,
}


def clip_vocabulary(words: tuple[str, ...] = WORDS) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges in CLIP's BPE format: each of `words` becomes one token, other text falls into bytes."""
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    merges: list[tuple[str, str]] = []
    for word in words:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair, parts = (parts[0], parts[1]), [parts[0] + parts[1], *parts[2:]]
            if pair not in merges:
                merges.append(pair)
                vocabulary.append(parts[0])
    ids = {token: i for i, token in enumerate(dict.fromkeys([*vocabulary, START, END]))}
    return ids, merges


def write_tokenizer(folder: Path, max_length: int = 77) -> Path:
    """Write the files of a CLIP tokenizer as hub repositories of SD 1.x carry them."""
    folder.mkdir(parents=True, exist_ok=True)
    ids, merges = clip_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = TOKENIZER_CONFIG | {"model_max_length": max_length}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def tiny_tokenizer(max_length: int = 77) -> CLIPTokenizer:
    ids, merges = clip_vocabulary()
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=max_length)


def tiny_text_encoder(tokenizer: CLIPTokenizer, heads: int = 4, hidden_act: str = "quick_gelu") -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=heads,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act=hidden_act,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def tiny_unet() -> UNet2DConditionModel:
    """Cross-attention at two of three levels, 32 and 64 wide: 4 and 8 bands of rank 8."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 2,
        block_out_channels=(32, 64, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=TEXT_WIDTH,
    )


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=IMAGE_SIZE,
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=32,
    )


def sd1_scheduler(prediction_type: str = "epsilon") -> PNDMScheduler:
    return PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        skip_prk_steps=True,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def tiny_pipeline(
    seed: int = 0, prediction_type: str = "epsilon", max_length: int = 77, dtype: torch.dtype = torch.float32
) -> StableDiffusionPipeline:
    """A random pipeline on the CPU, in eval mode; the same arguments give the same weights.

    Pictures are 32 px, latents 16x16x4. `max_length` is the tokenizer's (77 for Stable Diffusion).
    """
    tokenizer = tiny_tokenizer(max_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet, vae, text_encoder = tiny_unet(), tiny_vae(), tiny_text_encoder(tokenizer)
    pipeline = assemble(unet, vae, text_encoder, tokenizer, sd1_scheduler(prediction_type))
    return pipeline if dtype == torch.float32 else pipeline.to(dtype)


def assemble(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scheduler: PNDMScheduler,
) -> StableDiffusionPipeline:
    """The parts as a pipeline in eval mode, without a safety checker or a progress bar."""
    for module in (unet, vae, text_encoder):
        module.eval()
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_base(
    seed: int = 0, prediction_type: str = "epsilon", max_length: int = 77, dtype: torch.dtype = torch.float32
) -> StableDiffusion:
    """`tiny_pipeline` as a base."""
    return StableDiffusion(tiny_pipeline(seed, prediction_type, max_length, dtype))


def tiny_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """One for a tiny UNet, of two pixels a latent. No layer of it is zero, as they are before training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32))
        for layer in [*net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out]:
            torch.nn.init.normal_(layer.weight, std=0.1)
    return net.eval()
