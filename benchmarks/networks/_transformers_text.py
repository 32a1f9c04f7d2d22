"""Language architectures of `transformers`, tiny."""

from functools import partial
from typing import Any

from benchmarks.networks._transformers_inputs import (
    VOCABULARY,
    Row,
    causal,
    laid_out,
    plain,
    text,
    text_and_entities,
    two_texts,
)


def encoder(**more: Any) -> dict[str, Any]:
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 80, "max_position_embeddings": 64, "num_labels": 3, "pad_token_id": 0,
    }  # fmt: skip
    return {**sizes, **more}


def decoder(**more: Any) -> dict[str, Any]:
    """Four query heads of 16 over two key/value heads."""
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 112, "max_position_embeddings": 64, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return {**sizes, **more}


def gpt(**more: Any) -> dict[str, Any]:
    sizes = {
        "vocab_size": VOCABULARY, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 80,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return {**sizes, **more}


def t5(**more: Any) -> dict[str, Any]:
    sizes = {
        "vocab_size": VOCABULARY, "d_model": 48, "d_kv": 12, "d_ff": 80, "num_layers": 2, "num_heads": 4,
        "relative_attention_num_buckets": 8, "pad_token_id": 0, "decoder_start_token_id": 0,
    }  # fmt: skip
    return {**sizes, **more}


def bart(**more: Any) -> dict[str, Any]:
    sizes = {
        "vocab_size": VOCABULARY, "d_model": 48, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 72,
        "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 2, "forced_eos_token_id": 2,
    }  # fmt: skip
    return {**sizes, **more}


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
MULTI_LATENT = {
    "q_lora_rank": 24, "kv_lora_rank": 20, "qk_rope_head_dim": 8, "qk_nope_head_dim": 12, "v_head_dim": 10,
    "head_dim": 8, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 40, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip

ENCODERS = {
    "bert": Row("BertForSequenceClassification", text, encoder()),
    "bert_eager": Row("BertForTokenClassification", text, encoder(), "eager"),
    "bert_masked_lm": Row("BertForMaskedLM", text, encoder()),
    "roberta": Row("RobertaForSequenceClassification", text, encoder(pad_token_id=1)),
    "xlm_roberta": Row("XLMRobertaForTokenClassification", text, encoder(pad_token_id=1)),
    "camembert": Row("CamembertForMaskedLM", text, encoder(pad_token_id=1)),
    "roberta_prelayernorm": Row("RobertaPreLayerNormForSequenceClassification", text, encoder(pad_token_id=1)),
    "distilbert": Row("DistilBertForSequenceClassification", text, {
        "vocab_size": VOCABULARY, "dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 80, "num_labels": 3,
        "max_position_embeddings": 64, "pad_token_id": 0}),
    "albert": Row("AlbertForSequenceClassification", text, encoder(embedding_size=24)),
    "electra": Row("ElectraForSequenceClassification", text, encoder(embedding_size=24)),
    "deberta": Row("DebertaForSequenceClassification", text, encoder(
        relative_attention=True, pos_att_type=["c2p", "p2c"], position_biased_input=False)),
    "deberta_v2": Row("DebertaV2ForSequenceClassification", text, encoder(
        relative_attention=True, pos_att_type=["c2p", "p2c"], position_biased_input=False, position_buckets=8,
        norm_rel_ebd="layer_norm", share_att_key=True)),
    "mpnet": Row("MPNetForSequenceClassification", text, encoder(pad_token_id=1)),
    "funnel": Row("FunnelForSequenceClassification", text, {
        "vocab_size": VOCABULARY, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 48, "n_head": 4,
        "d_head": 12, "d_inner": 80, "num_labels": 3}),
    "xlnet": Row("XLNetForSequenceClassification", text, {
        "vocab_size": VOCABULARY, "d_model": 48, "n_layer": 2, "n_head": 4, "d_inner": 80, "num_labels": 3}),
    "xlm": Row("XLMForSequenceClassification", text, {
        "vocab_size": VOCABULARY, "emb_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64,
        "num_labels": 3}),
    "roformer": Row("RoFormerForSequenceClassification", text, encoder(embedding_size=48)),
    "squeezebert": Row("SqueezeBertForSequenceClassification", text, encoder(embedding_size=48)),
    "mobilebert": Row("MobileBertForSequenceClassification", text, encoder(
        embedding_size=24, true_hidden_size=32, intra_bottleneck_size=32, num_feedforward_networks=2)),
    "convbert": Row("ConvBertForSequenceClassification", text, encoder(embedding_size=24, conv_kernel_size=3)),
    "fnet": Row("FNetForSequenceClassification", plain, encoder()),
    "nystromformer": Row("NystromformerForSequenceClassification", partial(text, 16), encoder(
        num_landmarks=16, segment_means_seq_len=16, conv_kernel_size=3)),
    "longformer": Row("LongformerForSequenceClassification", partial(text, 16), encoder(
        attention_window=4, pad_token_id=1)),
    "big_bird": Row("BigBirdForSequenceClassification", text, encoder(attention_type="original_full")),
    "reformer": Row("ReformerForSequenceClassification", partial(text, 16), {
        "vocab_size": VOCABULARY, "hidden_size": 48, "attention_head_size": 12, "num_attention_heads": 4,
        "feed_forward_size": 80, "attn_layers": ["local", "local"], "local_attn_chunk_length": 4, "is_decoder": False,
        "axial_pos_shape": [4, 4], "axial_pos_embds_dim": [16, 32], "num_labels": 3, "pad_token_id": 0}),
    "esm": Row("EsmForSequenceClassification", text, encoder(position_embedding_type="rotary", mask_token_id=4)),
    "modernbert": Row("ModernBertForSequenceClassification", text, encoder(
        local_attention=8, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2)),
    "layoutlm": Row("LayoutLMForSequenceClassification", laid_out, encoder(max_2d_position_embeddings=64)),
    "lilt": Row("LiltForSequenceClassification", laid_out, encoder(
        max_2d_position_embeddings=64, channel_shrink_ratio=2, pad_token_id=1)),
    "canine": Row("CanineForSequenceClassification", partial(text, 16), encoder(
        num_hash_buckets=16, local_transformer_stride=8, downsampling_rate=4)),
    "rembert": Row("RemBertForSequenceClassification", text, encoder(
        input_embedding_size=24, output_embedding_size=32)),
    "megatron_bert": Row("MegatronBertForSequenceClassification", text, encoder()),
    "ibert": Row("IBertForSequenceClassification", text, encoder(pad_token_id=1)),
    "ernie": Row("ErnieForSequenceClassification", text, encoder()),
    "nomic_bert": Row("NomicBertForSequenceClassification", text, encoder()),
    "mra": Row("MraForSequenceClassification", partial(text, 64), encoder(max_position_embeddings=128)),
    "yoso": Row("YosoForSequenceClassification", text, encoder(use_expectation=True)),
    "luke": Row("LukeForSequenceClassification", text_and_entities, encoder(
        entity_vocab_size=20, entity_emb_size=24, pad_token_id=1)),
}  # fmt: skip

DECODERS = {
    "gpt2": Row("GPT2LMHeadModel", causal, gpt()),
    "gpt2_classifier": Row("GPT2ForSequenceClassification", text, gpt(num_labels=3), "eager"),
    "openai": Row("OpenAIGPTLMHeadModel", causal, gpt()),
    "gpt_bigcode": Row("GPTBigCodeForCausalLM", causal, gpt(multi_query=True)),
    "gpt_neo": Row("GPTNeoForCausalLM", causal, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "num_layers": 2, "num_heads": 4, "intermediate_size": 80,
        "attention_types": [[["global", "local"], 1]], "window_size": 4, "max_position_embeddings": 64,
        "bos_token_id": 1, "eos_token_id": 2}),
    "gpt_neox": Row("GPTNeoXForCausalLM", causal, encoder(bos_token_id=1, eos_token_id=2)),
    "gptj": Row("GPTJForCausalLM", causal, gpt(rotary_dim=8)),
    "codegen": Row("CodeGenForCausalLM", causal, gpt(rotary_dim=8)),
    "opt": Row("OPTForCausalLM", causal, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 80,
        "word_embed_proj_dim": 48, "max_position_embeddings": 64, "pad_token_id": 1}),
    "bloom": Row("BloomForCausalLM", causal, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "n_layer": 2, "n_head": 4, "pad_token_id": 0}),
    "mpt": Row("MptForCausalLM", causal, {
        "vocab_size": VOCABULARY, "d_model": 48, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2,
        "max_seq_len": 64}),
    "biogpt": Row("BioGptForCausalLM", causal, encoder()),
    "xglm": Row("XGLMForCausalLM", causal, {
        "vocab_size": VOCABULARY, "d_model": 48, "num_layers": 2, "attention_heads": 4, "ffn_dim": 80,
        "max_position_embeddings": 64}),
    "ctrl": Row("CTRLLMHeadModel", causal, {
        "vocab_size": VOCABULARY, "n_embd": 48, "n_layer": 2, "n_head": 4, "dff": 80, "n_positions": 64}),
    "imagegpt": Row("ImageGPTForCausalImageModeling", plain, gpt()),
    "llama": Row("LlamaForCausalLM", causal, decoder()),
    "llama_padded": Row("LlamaForSequenceClassification", text, decoder(num_labels=3), "eager"),
    "mistral": Row("MistralForCausalLM", causal, decoder(sliding_window=6)),
    "qwen2": Row("Qwen2ForCausalLM", causal, decoder()),
    "qwen3": Row("Qwen3ForCausalLM", causal, decoder(head_dim=12)),
    "gemma": Row("GemmaForCausalLM", causal, decoder(head_dim=12, num_key_value_heads=1)),
    "gemma2": Row("Gemma2ForCausalLM", causal, decoder(head_dim=16, query_pre_attn_scalar=24, sliding_window=6)),
    "gemma3": Row("Gemma3ForCausalLM", causal, decoder(
        head_dim=12, num_key_value_heads=1, sliding_window=6, layer_types=["sliding_attention", "full_attention"])),
    "phi": Row("PhiForCausalLM", causal, encoder(partial_rotary_factor=0.5, bos_token_id=1, eos_token_id=2)),
    "phi3": Row("Phi3ForCausalLM", causal, decoder()),
    "falcon": Row("FalconForCausalLM", causal, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "multi_query": True, "bos_token_id": 1, "eos_token_id": 2}),
    "falcon_new": Row("FalconForCausalLM", causal, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_kv_heads": 2, "new_decoder_architecture": True, "bos_token_id": 1, "eos_token_id": 2}),
    "falcon_alibi": Row("FalconForCausalLM", causal, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "multi_query": False, "alibi": True, "bos_token_id": 1, "eos_token_id": 2}),
    "stablelm": Row("StableLmForCausalLM", causal, decoder(partial_rotary_factor=0.5)),
    "starcoder2": Row("Starcoder2ForCausalLM", causal, decoder()),
    "olmo": Row("OlmoForCausalLM", causal, decoder()),
    "olmo2": Row("Olmo2ForCausalLM", causal, decoder()),
    "cohere": Row("CohereForCausalLM", causal, decoder()),
    "cohere2": Row("Cohere2ForCausalLM", causal, decoder(sliding_window=6)),
    "glm": Row("GlmForCausalLM", causal, decoder(head_dim=16)),
    "glm4": Row("Glm4ForCausalLM", causal, decoder(head_dim=16)),
    "granite": Row("GraniteForCausalLM", causal, decoder()),
    "persimmon": Row("PersimmonForCausalLM", causal, encoder(bos_token_id=1, eos_token_id=2)),
    "smollm3": Row("SmolLM3ForCausalLM", causal, decoder(no_rope_layers=[1, 0])),
    "nemotron": Row("NemotronForCausalLM", causal, decoder(head_dim=16)),
    "exaone4": Row("Exaone4ForCausalLM", causal, decoder(
        sliding_window=6, layer_types=["sliding_attention", "full_attention"])),
    "helium": Row("HeliumForCausalLM", causal, decoder(head_dim=16)),
    "arcee": Row("ArceeForCausalLM", causal, decoder()),
    "seed_oss": Row("SeedOssForCausalLM", causal, decoder(head_dim=16)),
    "diffllama": Row("DiffLlamaForCausalLM", causal, decoder()),
}  # fmt: skip

MIXTURES = {
    "mixtral": Row("MixtralForCausalLM", causal, decoder(num_local_experts=4)),
    "qwen2_moe": Row("Qwen2MoeForCausalLM", causal, decoder(
        **EXPERTS, shared_expert_intermediate_size=72, decoder_sparse_step=1)),
    "qwen3_moe": Row("Qwen3MoeForCausalLM", causal, decoder(**EXPERTS, head_dim=16, decoder_sparse_step=1)),
    "olmoe": Row("OlmoeForCausalLM", causal, decoder(num_experts=4, num_experts_per_tok=2)),
    "phimoe": Row("PhimoeForCausalLM", causal, decoder(num_local_experts=4)),
    "granitemoe": Row("GraniteMoeForCausalLM", causal, decoder(num_local_experts=4)),
    "gpt_oss": Row("GptOssForCausalLM", causal, decoder(
        num_local_experts=4, num_experts_per_tok=2, head_dim=16, sliding_window=6)),
    "deepseek_v2": Row("DeepseekV2ForCausalLM", causal, decoder(**MULTI_LATENT)),
    "deepseek_v3": Row("DeepseekV3ForCausalLM", causal, decoder(**MULTI_LATENT)),
    "dbrx": Row("DbrxForCausalLM", causal, {
        "vocab_size": VOCABULARY, "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 64,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 56, "moe_num_experts": 4, "moe_top_k": 2}}),
    "switch_transformers": Row("SwitchTransformersForConditionalGeneration", two_texts, t5(
        num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, expert_capacity=16,
        num_decoder_layers=2)),
    "nllb_moe": Row("NllbMoeForConditionalGeneration", two_texts, bart(
        num_experts=4, expert_capacity=16, encoder_sparse_step=2, decoder_sparse_step=2)),
}  # fmt: skip

STATE_SPACE = {
    "mamba": Row("MambaForCausalLM", plain, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "state_size": 8, "num_hidden_layers": 2, "expand": 2,
        "conv_kernel": 4, "time_step_rank": 6, "pad_token_id": 0}),
    "mamba2": Row("Mamba2ForCausalLM", plain, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "state_size": 8, "num_hidden_layers": 2, "expand": 2,
        "head_dim": 12, "num_heads": 8, "n_groups": 2, "conv_kernel": 4, "chunk_size": 8, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2}),
    "falcon_mamba": Row("FalconMambaForCausalLM", plain, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "state_size": 8, "num_hidden_layers": 2, "expand": 2,
        "conv_kernel": 4, "time_step_rank": 6, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
    "jamba": Row("JambaForCausalLM", causal, decoder(
        num_experts=4, num_experts_per_tok=2, expert_layer_period=2, expert_layer_offset=1, attn_layer_period=2,
        attn_layer_offset=1, mamba_d_state=8, mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=6,
        use_mamba_kernels=False)),
    "recurrent_gemma": Row("RecurrentGemmaForCausalLM", causal, decoder(
        num_key_value_heads=1, lru_width=56, attention_window_size=8, num_hidden_layers=3)),
    "rwkv": Row("RwkvForCausalLM", plain, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "attention_hidden_size": 48, "num_hidden_layers": 2,
        "intermediate_size": 80, "context_length": 64}),
    "lfm2": Row("Lfm2ForCausalLM", causal, decoder(
        layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False)),
}  # fmt: skip

SEQUENCE_TO_SEQUENCE = {
    "t5": Row("T5ForConditionalGeneration", two_texts, t5()),
    "t5_gated": Row("T5ForConditionalGeneration", two_texts, t5(
        feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "mt5": Row("MT5ForConditionalGeneration", two_texts, t5()),
    "umt5": Row("UMT5ForConditionalGeneration", two_texts, t5()),
    "longt5": Row("LongT5ForConditionalGeneration", two_texts, t5(local_radius=3)),
    "bart": Row("BartForConditionalGeneration", two_texts, bart()),
    "bart_eager": Row("BartForConditionalGeneration", two_texts, bart(), "eager"),
    "mbart": Row("MBartForConditionalGeneration", two_texts, bart()),
    "pegasus": Row("PegasusForConditionalGeneration", two_texts, bart()),
    "marian": Row("MarianMTModel", two_texts, bart(decoder_vocab_size=VOCABULARY)),
    "blenderbot": Row("BlenderbotForConditionalGeneration", two_texts, bart()),
    "blenderbot_small": Row("BlenderbotSmallForConditionalGeneration", two_texts, bart()),
    "m2m_100": Row("M2M100ForConditionalGeneration", two_texts, bart()),
    "plbart": Row("PLBartForConditionalGeneration", two_texts, bart()),
    "led": Row("LEDForConditionalGeneration", partial(two_texts, 16), bart(
        attention_window=4, max_encoder_position_embeddings=64, max_decoder_position_embeddings=64)),
    "pegasus_x": Row("PegasusXForConditionalGeneration", partial(two_texts, 16), bart(
        block_size=8, num_global_tokens=4)),
    "bigbird_pegasus": Row("BigBirdPegasusForConditionalGeneration", two_texts, bart(
        attention_type="original_full")),
    "prophetnet": Row("ProphetNetForConditionalGeneration", two_texts, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "encoder_ffn_dim": 80, "num_encoder_layers": 2,
        "num_encoder_attention_heads": 4, "decoder_ffn_dim": 72, "num_decoder_layers": 2,
        "num_decoder_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0}),
    "fsmt": Row("FSMTForConditionalGeneration", two_texts, {
        **bart(), "langs": ["en", "de"], "src_vocab_size": VOCABULARY, "tgt_vocab_size": VOCABULARY}),
}  # fmt: skip

TEXT = {**ENCODERS, **DECODERS, **MIXTURES, **STATE_SPACE, **SEQUENCE_TO_SEQUENCE}
