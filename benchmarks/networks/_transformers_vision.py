"""Vision, audio and multimodal architectures of `transformers`, tiny."""

from functools import partial
from typing import Any

import torch

from benchmarks.networks._transformers_inputs import (
    VOCABULARY,
    Inputs,
    Row,
    features,
    image,
    laid_out,
    mel,
    padded,
    picture_and_text,
    text,
    tokens,
    video,
    wave,
)


def vit(**more: Any) -> dict[str, Any]:
    sizes = {
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80, "image_size": 32,
        "patch_size": 8, "num_labels": 3,
    }  # fmt: skip
    return {**sizes, **more}


def windowed(**more: Any) -> dict[str, Any]:
    sizes = {
        "image_size": 32, "patch_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4,
        "mlp_ratio": 1.5, "num_labels": 3,
    }  # fmt: skip
    return {**sizes, **more}


def staged(**more: Any) -> dict[str, Any]:
    return {"hidden_sizes": [24, 40], "depths": [1, 2], "num_labels": 3, "embedding_size": 20, **more}


def speech(**more: Any) -> dict[str, Any]:
    sizes = {
        "vocab_size": 32, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80,
        "conv_dim": [20, 24, 28], "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 3], "num_feat_extract_layers": 3,
        "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "num_labels": 3,
    }  # fmt: skip
    return {**sizes, **more}


TEXT_TOWER = {
    "vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 80, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "projection_dim": 20,
}  # fmt: skip
VISION_TOWER = {
    "hidden_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72, "image_size": 32,
    "patch_size": 8, "projection_dim": 20,
}  # fmt: skip
TOWERS = {"text_config": TEXT_TOWER, "vision_config": VISION_TOWER, "projection_dim": 20}
LLAMA = {
    "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 112, "max_position_embeddings": 64,
    "pad_token_id": 0,
}  # fmt: skip


def with_picture(size: int = 32, places: int = 16, marker: int = 98) -> Inputs:
    """Token ids in which `places` markers stand for the picture's patches."""
    ids = tokens(places + 6, 5).clamp(max=marker - 1)
    ids[:, 1 : 1 + places] = marker
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **image(size)}


def regions() -> Inputs:
    return {
        **text(), "visual_embeds": torch.randn(2, 4, 20), "visual_token_type_ids": torch.ones(2, 4, dtype=torch.long),
        "visual_attention_mask": torch.ones(2, 4),
    }  # fmt: skip


def boxes() -> Inputs:
    return {**text(), "visual_feats": torch.randn(2, 4, 20), "visual_pos": torch.rand(2, 4, 4)}


def masked_picture() -> Inputs:
    return {**image(), "noise": torch.rand(2, 16)}


def spoken() -> Inputs:
    return {"input_values": torch.randn(2, 1600), "decoder_input_ids": tokens(7).clamp(max=30)}


def read_picture() -> Inputs:
    return {**text(), "encoder_hidden_states": torch.randn(2, 5, 40)}


IMAGE = {
    "vit": Row("ViTForImageClassification", image, vit()),
    "vit_eager": Row("ViTForImageClassification", image, vit(), "eager"),
    "deit": Row("DeiTForImageClassificationWithTeacher", image, vit()),
    "beit": Row("BeitForImageClassification", image, vit(use_relative_position_bias=True)),
    "data2vec_vision": Row("Data2VecVisionForImageClassification", image, vit(use_shared_relative_position_bias=True)),
    "vit_msn": Row("ViTMSNForImageClassification", image, vit()),
    "vit_mae": Row("ViTMAEForPreTraining", masked_picture, vit(
        decoder_hidden_size=40, decoder_num_hidden_layers=1, decoder_num_attention_heads=4,
        decoder_intermediate_size=64)),
    "vitdet": Row("VitDetModel", image, vit(
        pretrain_image_size=32, window_block_indices=[0], window_size=2, use_relative_position_embeddings=True)),
    "dinov2": Row("Dinov2ForImageClassification", image, vit(mlp_ratio=2)),
    "dinov2_swiglu": Row("Dinov2WithRegistersForImageClassification", image, vit(
        mlp_ratio=2, use_swiglu_ffn=True, num_register_tokens=2)),
    "dinov3_vit": Row("DINOv3ViTModel", image, vit(num_register_tokens=2)),
    "ijepa": Row("IJepaForImageClassification", image, vit()),
    "swin": Row("SwinForImageClassification", image, windowed()),
    "swinv2": Row("Swinv2ForImageClassification", image, windowed()),
    "swin2sr": Row("Swin2SRForImageSuperResolution", image, windowed(
        patch_size=1, embed_dim=24, num_heads=[2, 2], upscale=2)),
    "donut_swin": Row("DonutSwinForImageClassification", image, windowed()),
    "hiera": Row("HieraForImageClassification", image, {
        "image_size": [32, 32], "patch_size": [7, 7], "patch_stride": [4, 4], "patch_padding": [3, 3],
        "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "masked_unit_size": [4, 4], "query_stride": [2, 2],
        "num_query_pool": 1, "masked_unit_attention": [True, False], "mlp_ratio": 2.0, "num_labels": 3}),
    "convnext": Row("ConvNextForImageClassification", image, staged(num_stages=2)),
    "convnextv2": Row("ConvNextV2ForImageClassification", image, staged(num_stages=2)),
    "dinov3_convnext": Row("DINOv3ConvNextModel", image, {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]}),
    "resnet": Row("ResNetForImageClassification", image, staged()),
    "resnet_basic": Row("ResNetForImageClassification", image, staged(layer_type="basic")),
    "regnet": Row("RegNetForImageClassification", image, staged(groups_width=8)),
    "bit": Row("BitForImageClassification", image, staged(
        embedding_size=32, hidden_sizes=[32, 64], num_groups=4)),
    "efficientnet": Row("EfficientNetForImageClassification", image, {
        "image_size": 32, "kernel_sizes": [3, 5], "in_channels": [32, 16], "out_channels": [16, 24],
        "strides": [1, 2], "num_block_repeats": [1, 1], "expand_ratios": [1, 6], "width_coefficient": 0.5,
        "hidden_dim": 640, "depthwise_padding": [], "num_labels": 3}),
    "mobilenet_v1": Row("MobileNetV1ForImageClassification", image, {
        "depth_multiplier": 0.25, "image_size": 32, "num_labels": 3}),
    "mobilenet_v2": Row("MobileNetV2ForImageClassification", image, {
        "depth_multiplier": 0.25, "image_size": 32, "num_labels": 3}),
    "mobilevit": Row("MobileViTForImageClassification", partial(image, 64), {
        "image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 16, 20, 24, 28, 32, 40],
        "num_labels": 3}),
    "mobilevitv2": Row("MobileViTV2ForImageClassification", partial(image, 64), {
        "image_size": 64, "width_multiplier": 0.25, "n_attn_blocks": [1, 1, 1], "num_labels": 3}),
    "poolformer": Row("PoolFormerForImageClassification", image, {
        "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1], "num_labels": 3}),
    "segformer": Row("SegformerForImageClassification", image, {
        "num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [16, 32],
        "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 3],
        "num_labels": 3}),
    "segformer_segmentation": Row("SegformerForSemanticSegmentation", image, {
        "num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [16, 32],
        "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 3],
        "decoder_hidden_size": 40, "num_labels": 3}),
    "glpn": Row("GLPNForDepthEstimation", partial(image, 64), {
        "num_encoder_blocks": 4, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 48],
        "num_attention_heads": [2, 2, 4, 4], "decoder_hidden_size": 16}),
    "pvt": Row("PvtForImageClassification", partial(image, 64), {
        "image_size": 64, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 48],
        "num_attention_heads": [2, 2, 4, 4], "mlp_ratios": [2, 2, 3, 3], "num_labels": 3}),
    "pvt_v2": Row("PvtV2ForImageClassification", partial(image, 64), {
        "image_size": 64, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 48],
        "num_attention_heads": [2, 2, 4, 4], "mlp_ratios": [2, 2, 3, 3], "num_labels": 3}),
    "levit": Row("LevitForImageClassification", partial(image, 64), {
        "image_size": 64, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1],
        "key_dim": [8, 8, 8], "num_labels": 3}),
    "cvt": Row("CvtForImageClassification", partial(image, 64), {
        "embed_dim": [16, 24, 32], "num_heads": [1, 2, 4], "depth": [1, 2, 3], "mlp_ratio": [2.0, 2.0, 3.0],
        "num_labels": 3}),
    "focalnet": Row("FocalNetForImageClassification", image, {
        "image_size": 32, "embed_dim": 24, "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3],
        "hidden_sizes": [24, 48], "mlp_ratio": 1.5, "num_labels": 3}),
    "swiftformer": Row("SwiftFormerForImageClassification", partial(image, 64), {
        "image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [16, 24, 32, 40], "mlp_ratio": 2, "num_labels": 3}),
    "textnet": Row("TextNetForImageClassification", partial(image, 64), {"num_labels": 3}),
    "hgnet_v2": Row("HGNetV2ForImageClassification", partial(image, 64), {
        "num_labels": 3, "stem_channels": [3, 8, 16], "stage_in_channels": [16, 24, 32, 48],
        "stage_mid_channels": [8, 16, 16, 24], "stage_out_channels": [24, 32, 48, 64], "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [2, 2, 2, 2], "hidden_sizes": [24, 32, 48, 64], "depths": [1, 1, 1, 1],
        "embedding_size": 16}),
    "dpt": Row("DPTForDepthEstimation", image, vit(
        num_hidden_layers=4, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[12, 16, 20, 24],
        fusion_hidden_size=16, is_hybrid=False)),
    "depth_anything": Row("DepthAnythingForDepthEstimation", partial(image, 32), {
        "backbone_config": {"model_type": "dinov2", **vit(mlp_ratio=2, num_hidden_layers=4),
                            "out_indices": [1, 2, 3, 4], "reshape_hidden_states": False, "apply_layernorm": True},
        "reassemble_hidden_size": 48, "patch_size": 8, "neck_hidden_sizes": [12, 16, 20, 24],
        "fusion_hidden_size": 16, "head_hidden_size": 10}),
    "upernet": Row("UperNetForSemanticSegmentation", partial(image, 64), {
        "backbone_config": {"model_type": "convnext", "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1],
                            "out_features": ["stage1", "stage2", "stage3", "stage4"]},
        "hidden_size": 20, "pool_scales": [1, 2], "use_auxiliary_head": False, "num_labels": 3}),
    "yolos": Row("YolosForObjectDetection", image, vit(image_size=[32, 32], num_detection_tokens=5)),
    "detr": Row("DetrForObjectDetection", partial(image, 64), {
        "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
        "backbone_config": {"model_type": "resnet", **staged(hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1]),
                            "out_features": ["stage4"]},
        "d_model": 48, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 72, "num_queries": 5,
        "num_labels": 3}),
    "timesformer": Row("TimesformerForVideoClassification", video, vit(num_frames=2)),
    "videomae": Row("VideoMAEForVideoClassification", video, vit(num_frames=2, tubelet_size=1)),
    "vivit": Row("VivitForVideoClassification", video, vit(num_frames=2, tubelet_size=[2, 8, 8])),
}  # fmt: skip

AUDIO = {
    "wav2vec2": Row("Wav2Vec2ForCTC", wave, speech()),
    "wav2vec2_layer_norm": Row("Wav2Vec2ForSequenceClassification", wave, speech(
        feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)),
    "hubert": Row("HubertForCTC", wave, speech()),
    "wavlm": Row("WavLMForCTC", wave, speech()),
    "data2vec_audio": Row("Data2VecAudioForCTC", wave, speech(conv_pos_kernel_size=5, num_conv_pos_embeddings=2)),
    "sew": Row("SEWForCTC", wave, speech(squeeze_factor=2)),
    "sew_d": Row("SEWDForCTC", wave, speech(
        squeeze_factor=2, max_position_embeddings=64, position_buckets=8, share_att_key=True,
        relative_attention=True, pos_att_type=("p2c", "c2p"), norm_rel_ebd="layer_norm")),
    "unispeech": Row("UniSpeechForCTC", wave, speech()),
    "unispeech_sat": Row("UniSpeechSatForCTC", wave, speech()),
    "wav2vec2_conformer": Row("Wav2Vec2ConformerForCTC", wave, speech(conv_depthwise_kernel_size=5)),
    "wav2vec2_conformer_rotary": Row("Wav2Vec2ConformerForCTC", wave, speech(
        conv_depthwise_kernel_size=5, position_embeddings_type="rotary")),
    "wav2vec2_bert": Row("Wav2Vec2BertForCTC", features, speech(
        feature_projection_input_dim=16, conv_depthwise_kernel_size=5, left_max_position_embeddings=8,
        right_max_position_embeddings=4)),
    "whisper": Row("WhisperForConditionalGeneration", mel, {
        "vocab_size": VOCABULARY, "num_mel_bins": 16, "d_model": 48, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 72,
        "max_source_positions": 20, "max_target_positions": 32, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "decoder_start_token_id": 3}),
    "whisper_classifier": Row("WhisperForAudioClassification", lambda: {"input_features": mel()["input_features"]}, {
        "num_mel_bins": 16, "d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 80,
        "max_source_positions": 20, "num_labels": 3, "decoder_layers": 1, "vocab_size": VOCABULARY,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "classifier_proj_size": 24}),
    "audio_spectrogram_transformer": Row("ASTForAudioClassification", partial(features, "input_values", 32), vit(
        patch_size=8, frequency_stride=4, time_stride=6, max_length=32, num_mel_bins=16)),
    "speech_to_text": Row("Speech2TextForConditionalGeneration", partial(features, decoder=7), {
        "vocab_size": VOCABULARY, "d_model": 48, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 72,
        "input_feat_per_channel": 16, "input_channels": 1, "conv_channels": 40, "max_source_positions": 40,
        "max_target_positions": 32, "pad_token_id": 0}),
    "moonshine": Row("MoonshineForConditionalGeneration", spoken, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 80, "encoder_num_hidden_layers": 2,
        "decoder_num_hidden_layers": 2, "encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4,
        "pad_token_id": 0, "decoder_start_token_id": 1}),
    "clap_audio": Row("ClapAudioModelWithProjection", lambda: {"input_features": torch.randn(2, 1, 64, 32)}, {
        "num_mel_bins": 32, "spec_size": 64, "patch_size": 4, "patch_stride": [4, 4], "patch_embeds_hidden_size": 16,
        "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 4], "window_size": 4, "projection_dim": 20,
        "enable_fusion": False, "mlp_ratio": 2.0, "num_hidden_layers": 2}),
    "encodec": Row("EncodecModel", lambda: {"input_values": torch.randn(2, 1, 640)}, {
        "num_filters": 8, "hidden_size": 32, "codebook_dim": 32, "codebook_size": 16, "upsampling_ratios": [4, 2],
        "num_lstm_layers": 1, "target_bandwidths": [24.0], "sampling_rate": 1600}),
    "univnet": Row("UnivNetModel", lambda: {"input_features": torch.randn(2, 12, 16),
                                            "noise_sequence": torch.randn(2, 12, 8)}, {
        "model_in_channels": 8, "model_hidden_channels": 12, "num_mel_bins": 16, "resblock_kernel_sizes": [3],
        "resblock_stride_sizes": [4], "resblock_dilation_sizes": [[1, 3]], "kernel_predictor_num_blocks": 1,
        "kernel_predictor_hidden_channels": 8}),
    "seamless_m4t_text": Row("SeamlessM4TForSpeechToText", partial(features, decoder=7), {
        "vocab_size": VOCABULARY, "hidden_size": 48, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 72,
        "speech_encoder_layers": 1, "speech_encoder_attention_heads": 4, "speech_encoder_intermediate_size": 64,
        "feature_projection_input_dim": 16, "adaptor_kernel_size": 4, "adaptor_stride": 4, "pad_token_id": 0}),
}  # fmt: skip

BLIP_TEXT = {**TEXT_TOWER, "encoder_hidden_size": 56, "sep_token_id": 2, "num_hidden_layers": 1}
MULTIMODAL = {
    "clip": Row("CLIPModel", picture_and_text, TOWERS),
    "clip_vision": Row("CLIPVisionModelWithProjection", image, VISION_TOWER),
    "siglip": Row("SiglipModel", picture_and_text, {**TOWERS, "text_config": {**TEXT_TOWER, "projection_size": 56}}),
    "chinese_clip": Row("ChineseCLIPModel", picture_and_text, TOWERS),
    "altclip": Row("AltCLIPModel", picture_and_text, {
        **TOWERS, "text_config": {**TEXT_TOWER, "project_dim": 20, "pad_token_id": 1}}),
    "metaclip_2": Row("MetaClip2Model", picture_and_text, TOWERS),
    "clipseg": Row("CLIPSegForImageSegmentation", picture_and_text, {
        **TOWERS, "extract_layers": [0, 1], "reduce_dim": 16, "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 24}),
    "x_clip": Row("XCLIPModel", lambda: {**text(), **video()}, {
        **TOWERS, "vision_config": {**VISION_TOWER, "num_frames": 2, "mit_hidden_size": 20,
                                    "mit_intermediate_size": 40, "mit_num_hidden_layers": 1,
                                    "mit_num_attention_heads": 4},
        "prompt_layers": 1, "prompt_num_attention_heads": 4}),
    "owlvit": Row("OwlViTForObjectDetection", picture_and_text, {**TOWERS, "projection_dim": 48}),
    "groupvit": Row("GroupViTModel", picture_and_text, {
        **TOWERS, "projection_intermediate_dim": 40,
        "vision_config": {"hidden_size": 48, "intermediate_size": 80, "depths": [1, 1], "num_group_tokens": [4, 0],
                          "num_output_groups": [4, 0], "num_hidden_layers": 2, "num_attention_heads": 4,
                          "image_size": 32, "patch_size": 8}}),
    "align": Row("AlignModel", picture_and_text, {
        "projection_dim": 48, "text_config": TEXT_TOWER,
        "vision_config": {"image_size": 32, "kernel_sizes": [3, 5], "in_channels": [32, 16], "out_channels": [16, 24],
                          "strides": [1, 2], "num_block_repeats": [1, 1], "expand_ratios": [1, 6], "hidden_dim": 40,
                          "depthwise_padding": []}}),
    "flava": Row("FlavaModel", picture_and_text, {
        "text_config": TEXT_TOWER, "image_config": {**VISION_TOWER, "hidden_size": 48},
        "multimodal_config": {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
                              "intermediate_size": 80}, "hidden_size": 48, "projection_dim": 20}),
    "blip": Row("BlipForImageTextRetrieval", picture_and_text, {
        "text_config": BLIP_TEXT, "vision_config": VISION_TOWER, "projection_dim": 20, "image_text_hidden_size": 20}),
    "blip_2": Row("Blip2ForImageTextRetrieval", picture_and_text, {
        "vision_config": VISION_TOWER, "image_text_hidden_size": 20, "num_query_tokens": 4,
        "qformer_config": {**TEXT_TOWER, "encoder_hidden_size": 56, "cross_attention_frequency": 1,
                           "use_qformer_text_input": True}}),
    "vilt": Row("ViltForQuestionAnswering", picture_and_text, vit(
        vocab_size=VOCABULARY, max_position_embeddings=40, max_image_length=-1)),
    "bridgetower": Row("BridgeTowerModel", picture_and_text, {
        "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 80,
        "text_config": {**TEXT_TOWER, "pad_token_id": 1},
        "vision_config": {"hidden_size": 128, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8}}),
    "git": Row("GitForCausalLM", picture_and_text, {**TEXT_TOWER, "vision_config": VISION_TOWER}),
    "lxmert": Row("LxmertForQuestionAnswering", boxes, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 80, "l_layers": 1,
        "x_layers": 1, "r_layers": 1, "visual_feat_dim": 20, "num_qa_labels": 3}),
    "visual_bert": Row("VisualBertForVisualReasoning", regions, {
        "vocab_size": VOCABULARY, "hidden_size": 48, "visual_embedding_dim": 20, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 80, "max_position_embeddings": 64, "num_labels": 3}),
    "layoutlmv3": Row("LayoutLMv3ForSequenceClassification", lambda: {**laid_out(), **image()}, {
        **TEXT_TOWER, "pad_token_id": 1, "max_2d_position_embeddings": 64, "coordinate_size": 8, "shape_size": 8,
        "input_size": 32, "patch_size": 8, "num_labels": 3, "rel_pos_bins": 8, "rel_2d_pos_bins": 8}),
    "llava": Row("LlavaForConditionalGeneration", with_picture, {
        "text_config": LLAMA, "image_token_index": 98,
        "vision_config": {"model_type": "clip_vision_model", **VISION_TOWER}, "image_seq_length": 16}),
    "paligemma": Row("PaliGemmaForConditionalGeneration", with_picture, {
        "text_config": {**LLAMA, "model_type": "gemma", "head_dim": 12, "num_key_value_heads": 1},
        "image_token_index": 98, "projection_dim": 64,
        "vision_config": {"model_type": "siglip_vision_model", **VISION_TOWER, "vision_use_head": False}}),
    "trocr": Row("TrOCRForCausalLM", read_picture, {
        "vocab_size": VOCABULARY, "d_model": 48, "cross_attention_hidden_size": 40, "decoder_layers": 2,
        "decoder_attention_heads": 4, "decoder_ffn_dim": 80, "max_position_embeddings": 64}),
    "perceiver": Row("PerceiverForSequenceClassification", lambda: {"inputs": tokens(), "attention_mask": padded()}, {
        "vocab_size": VOCABULARY, "num_latents": 6, "d_latents": 40, "d_model": 48, "num_blocks": 1,
        "num_self_attends_per_block": 2, "num_self_attention_heads": 4, "num_cross_attention_heads": 4,
        "max_position_embeddings": 64, "num_labels": 3}),
}  # fmt: skip

VISION = {**IMAGE, **AUDIO, **MULTIMODAL}
