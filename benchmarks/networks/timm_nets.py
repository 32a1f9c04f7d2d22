"""timm: at least one variant of every module in timm/models, at about the smallest picture it takes."""

import timm
import torch
from torch import nn

_BY_SIDE = {  # side of the square picture -> networks
    64: """
        tf_efficientnet_lite0 poolformer_s12 focalnet_tiny_srf lambda_resnet26t gcresnext26ts
        mobileone_s0 repvgg_a0 test_byobnet gernet_s convmixer_768_32 convnext_atto convnextv2_atto
        cpubone_nano csatv2 cs3darknet_s cspresnet50 cspnext_tiny davit_tiny densenet121 dla34
        dla46_c dpn48b dpn68 edgenext_xx_small test_efficientnet efficientnet_b0
        efficientnet_b0_g16_evos mnasnet_small mobilenetv2_050 mixnet_s spnasnet_100 tinynet_e
        fbnetc_100 mobilenetv4_conv_small mobilenetv4_hybrid_medium efficientnet_es efficientvim_m1
        efficientvit_b0 efficientvit_l1 efficientvit_m0 vit_tiny_patch16_dinov3_qkvb fasternet_t0
        fastvit_t8 fastvit_sa12 ghostnet_050 ghostnetv2_100 ghostnetv3_050 hardcorenas_a hgnetv2_b0
        hgnet_tiny sam2_hiera_tiny hrnet_w18_small iformer_t inception_next_atto lcnetv2_small
        lowformer_b0 test_mambaout mambaout_femto caformer_s18 convformer_s18 mobilenetv3_small_050
        lcnet_050 mobilenetv5_base mobilevit_xxs mobilevitv2_050 naflexvit_base_patch16_gap
        nasnetalarge nextvit_small nf_resnet26 test_nfnet nf_ecaresnet26 pnasnet5large pvt_v2_b0
        pvt_v2_b2_li qwen3_vit_88m rdnet_tiny regnetx_002 regnety_002 regnetz_005 regnetv_040
        regnetz_b16_evos repghostnet_050 repvit_m0_9 res2net50_14w_8s resnest14d resnet18 resnet26t
        ecaresnet26t seresnext26d_32x4d resnetaa50 resnetrs50 resnetblur50 resnet50_gn skresnet18
        resnetv2_18 resnetv2_50d_evos rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1
        starnet_s050 swiftformer_xs tresnet_m tresnet_v2_l twins_svt_small twins_pcpvt_small vgg11
        test_vit test_vit2 test_vit4 samvit_base_patch16_224 ese_vovnet19b_slim_dw eca_vovnet39b
        vovnet39a legacy_xception xception41p xcit_nano_12_p16_224
    """,
    96: """
        inception_v4 inception_resnet_v2 nfnet_l0 inception_next_tiny resnetv2_50x1_bit
        gemma4_vit_167m
    """,
    126: """
        deepseek_vit_412m
    """,
    128: """
        inception_v3
    """,
    160: """
        test_coatnet test_maxvit test_vit3 test_vit_relpos
    """,
    224: """
        vit_tiny_patch16_224 mixer_s16_224 levit_128s beit_base_patch16_224 beitv2_base_patch16_224
        cait_xxs24_224 coat_tiny coat_lite_tiny convit_tiny deit_tiny_patch16_224
        deit_tiny_distilled_patch16_224 deit3_small_patch16_224 efficientformer_l1
        efficientformerv2_s0 eva02_tiny_patch14_224 gcvit_xxtiny hiera_tiny_224 levit_conv_128s
        coatnet_nano_rw_224 gmlp_ti16_224 resmlp_12_224 gmixer_12_224 mvitv2_tiny nest_tiny
        pit_ti_224 pit_ti_distilled_224 swin_tiny_patch4_window7_224 swin_s3_tiny_224
        swinv2_cr_tiny_224 tiny_vit_5m_224 tnt_s_patch16_224 tnt_s_legacy_patch16_224 visformer_tiny
        vit_tiny_r_s16_p8_224 vit_relpos_small_patch16_224 vit_srelpos_small_patch16_224
        vit_small_patch16_rope_mixed_224 vit_small_patch16_18x2_224 vit_xsmall_patch16_clip_224
        vit_small_patch14_reg4_dinov2 vitamin_small_224 volo_d1_224
    """,
    240: """
        crossvit_tiny_240
    """,
    256: """
        botnet26t_256 halonet26t eca_halonext26ts sebotnet33ts_256 bat_resnext26ts
        maxvit_pico_rw_256 maxxvit_rmlp_nano_rw_256 swinv2_tiny_window8_256
    """,
}
_SIDES = {name: side for side, names in _BY_SIDE.items() for name in names.split()}
_HEAD = {"num_classes": 10}  # a network without a head must keep its whole stream: it is what the caller gets
_OPTIONS = {
    "vit_small_patch14_reg4_dinov2": {"img_size": 224, **_HEAD},
    "eva02_tiny_patch14_224": _HEAD,
    "vit_tiny_patch16_dinov3_qkvb": _HEAD,
    "gemma4_vit_167m": _HEAD,
    "qwen3_vit_88m": _HEAD,
    "deepseek_vit_412m": _HEAD,
}
NAMES = tuple(_SIDES)


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    side = _SIDES[name]
    return timm.create_model(name, pretrained=False, **_OPTIONS.get(name, {})).eval(), torch.randn(
        1, 3, side, side
    )
