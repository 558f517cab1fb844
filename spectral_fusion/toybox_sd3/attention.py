"""Joint attention for training: written out, and with one token in the place of many alike."""

from __future__ import annotations

import math

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor


class WrittenOut:
    """SD3's joint attention, whose last text token stands for `copies` of it.

    Where no T5 is loaded, SD3's pipeline appends 256 tokens of zeros to the text. Tokens alike stay alike in every
    layer, so one of them, whose keys weigh log(256) more, is the same as all. PyTorch's fused attention has a slow
    backward pass on a CPU.
    """

    copies: float = 256.0

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: None = None
    ) -> tuple[Tensor, Tensor]:
        n, cells, _ = hidden_states.shape

        def heads(x: Tensor) -> Tensor:
            return x.view(n, -1, attn.heads, x.shape[-1] // attn.heads).transpose(1, 2)

        query = attn.norm_q(heads(attn.to_q(hidden_states)))
        key = attn.norm_k(heads(attn.to_k(hidden_states)))
        value = heads(attn.to_v(hidden_states))
        text_query = attn.norm_added_q(heads(attn.add_q_proj(encoder_hidden_states)))
        text_key = attn.norm_added_k(heads(attn.add_k_proj(encoder_hidden_states)))
        text_value = heads(attn.add_v_proj(encoder_hidden_states))
        q, k, v = (torch.cat(pair, dim=2) for pair in ((query, text_query), (key, text_key), (value, text_value)))
        logits = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        more = torch.zeros(k.shape[2], dtype=logits.dtype, device=logits.device)
        more[-1] = math.log(self.copies)
        mixed = (logits + more).softmax(-1).to(v.dtype) @ v
        mixed = mixed.transpose(1, 2).reshape(n, -1, attn.inner_dim)
        picture, text = mixed[:, :cells], mixed[:, cells:]
        if not attn.context_pre_only:
            text = attn.to_add_out(text)
        return attn.to_out[0](picture), text
