"""The keys of the published configurations of language models."""

from typing import Final

from refiners_core.models.config_reader import Format

_IDLE: Final = (
    "architectures attention_dropout bos_token_id eos_token_id pad_token_id initializer_range "
    "model_type torch_dtype dtype transformers_version use_cache pretraining_tp output_attentions "
    "output_hidden_states return_dict chunk_size_feed_forward id2label label2id problem_type "
    "name_or_path task_specific_params attn_implementation cache_implementation auto_map "
    "unsloth_version unsloth_fixed gradient_checkpointing tokenizer_class"
)
_SIZES: Final = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads head_dim max_position_embeddings rms_norm_eps rope_theta rope_scaling "
    "rope_parameters tie_word_embeddings "
)
_FIXED: Final = {
    "hidden_act": ("silu",),
    "is_encoder_decoder": (False,),
    "partial_rotary_factor": (1.0,),
}
_WINDOWS: Final = "sliding_window use_sliding_window max_window_layers layer_types "

FORMATS: Final = {
    "llama": Format.of(
        followed=f"{_SIZES} attention_bias mlp_bias",
        fixed={**_FIXED, "rope_interleaved": (False,)},
        idle=_IDLE,
    ),
    "qwen2": Format.of(followed=_SIZES + _WINDOWS, fixed=_FIXED, idle=f"{_IDLE} use_mrope"),
    "qwen3": Format.of(followed=f"{_SIZES} {_WINDOWS} attention_bias", fixed=_FIXED, idle=_IDLE),
    "mistral": Format.of(followed=f"{_SIZES} sliding_window layer_types", fixed=_FIXED, idle=_IDLE),
    "gemma2": Format.of(
        followed=(
            f"{_SIZES} attention_bias sliding_window layer_types query_pre_attn_scalar "
            "attn_logit_softcapping final_logit_softcapping"
        ),
        fixed={
            "is_encoder_decoder": (False,),
            "partial_rotary_factor": (1.0,),
            "hidden_activation": ("gelu_pytorch_tanh",),
            "use_bidirectional_attention": (None, False),
        },
        idle=f"{_IDLE} hidden_act",  # the key of Gemma 1
    ),
    "gpt2": Format.of(
        followed=(
            "vocab_size n_embd n_head n_layer n_inner n_positions layer_norm_epsilon "
            "scale_attn_weights scale_attn_by_inverse_layer_idx tie_word_embeddings"
        ),
        fixed={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "reorder_and_upcast_attn": (False,),
            "add_cross_attention": (False,),
            "is_encoder_decoder": (False,),
            "use_bfloat16": (False,),
        },
        idle=(
            f"{_IDLE} attn_pdrop embd_pdrop resid_pdrop summary_activation summary_first_dropout "
            "summary_proj_to_labels summary_type summary_use_proj n_ctx n_special "
            "predict_special_tokens finetuning_task"
        ),
    ),
}
"""The keys of each kind of model, by its `model_type`."""
