"""Random transformers of flow matching in miniature, their own classes and file formats, in a second."""

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2TokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from tiny import WORDS, clip_vocabulary, tiny_tokenizer

TEXT, POOLED = 32, 32


def tiny_sd3(seed: int = 0) -> StableDiffusion3Pipeline:
    """Pictures are 32 px, latents 16x16x4, two joint blocks; with T5, as most files have it."""
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=2 * TEXT,
            caption_projection_dim=32,
            pooled_projection_dim=2 * POOLED,
            pos_embed_max_size=16,
        )
        clips = [CLIPTextModelWithProjection(_clip(tokenizer)) for _ in range(2)]
        parts = {"vae": _vae(), "text_encoder_3": T5EncoderModel(_t5(2 * TEXT))}
    pipeline = StableDiffusion3Pipeline(
        transformer=_moving(transformer, seed),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=clips[0].eval(),
        tokenizer=tokenizer,
        text_encoder_2=clips[1].eval(),
        tokenizer_2=tiny_tokenizer(),
        tokenizer_3=tiny_t5_tokenizer(),
        **{name: part.eval() for name, part in parts.items()},
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_flux(seed: int = 0, *, guidance: bool = True) -> FluxPipeline:
    """Latents of 4 channels, packed to 16; one block of each kind."""
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=TEXT,
            pooled_projection_dim=POOLED,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 4, 8),
        )
        text_encoder, vae, t5 = CLIPTextModel(_clip(tokenizer)), _vae(), T5EncoderModel(_t5(TEXT))
    pipeline = FluxPipeline(
        transformer=_moving(transformer, seed),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        text_encoder_2=t5.eval(),
        tokenizer_2=tiny_t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )
    pipeline.default_sample_size = 16
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_klein(seed: int = 0, *, distilled: bool = False) -> Flux2KleinPipeline:
    """Latents of 16 channels, 8x8; a language model of 28 thin layers, of which three are read."""
    tokenizer = tiny_qwen_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * TEXT,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
        text_encoder = Qwen3ForCausalLM(_qwen(tokenizer, layers=28))
        vae = AutoencoderKLFlux2(
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            sample_size=32,
        )
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 2.0)
    pipeline = Flux2KleinPipeline(
        transformer=_moving(transformer, seed),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        is_distilled=distilled,
    )
    pipeline.default_sample_size = 16
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_z_image(seed: int = 0) -> ZImagePipeline:
    """Latents of 4 channels; one layer of each kind."""
    tokenizer = tiny_qwen_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=TEXT,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 32, 32],
        )
        text_encoder, vae = Qwen3Model(_qwen(tokenizer, layers=2)), _vae()
    pipeline = ZImagePipeline(
        transformer=_moving(transformer, seed),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_qwen_tokenizer() -> Qwen2TokenizerFast:
    """The same pieces as CLIP's miniature, with the marks of a chat."""
    ids, merges = clip_vocabulary()
    ids |= {mark: len(ids) + place for place, mark in enumerate(("<|im_start|>", "<|im_end|>"))}
    tokenizer = Qwen2TokenizerFast(vocab=ids, merges=merges, model_max_length=600, pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }} {{ message.content }}<|im_end|>{% endfor %}"
        "<|im_start|>"
    )
    return tokenizer


def _qwen(tokenizer: Qwen2TokenizerFast, layers: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=TEXT,
        intermediate_size=TEXT,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
    )


def tiny_t5_tokenizer() -> T5TokenizerFast:
    """Whole words and single letters, of the unigram kind that T5 has."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0)]
    pieces += [(f"▁{word}", -1.0) for word in WORDS]
    pieces += [(letter, -3.0) for letter in "▁abcdefghijklmnopqrstuvwxyz<>,.-0123456789"]
    return T5TokenizerFast(vocab=list(dict.fromkeys(pieces)), extra_ids=0, model_max_length=77)


def _moving(transformer: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Some layers of these models begin at zero, and then nothing that is told has any effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if not parameter.any():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return transformer.eval()


def _clip(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT,
        projection_dim=POOLED,
        intermediate_size=2 * TEXT,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _t5(width: int) -> T5Config:
    return T5Config(vocab_size=len(tiny_t5_tokenizer()), d_model=width, d_kv=16, d_ff=64, num_layers=2, num_heads=2)


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=32,
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
