"""Networks that were published in several sizes on the hub, by lineage: members of one read the same inputs."""

from collections.abc import Mapping, Sequence

BERTS = tuple(
    f"google/bert_uncased_L-{layers}_H-{width}_A-{width // 64}"
    for layers in (2, 4, 6, 8, 10, 12)
    for width in (128, 256, 512, 768)
)
MINILMS = (
    *(
        "nreimers/MiniLM-L3-H384-uncased",
        "nreimers/MiniLM-L6-H384-uncased",
        "microsoft/MiniLM-L12-H384-uncased",
    ),
    "sentence-transformers/paraphrase-MiniLM-L3-v2",
    *(f"sentence-transformers/all-MiniLM-L{layers}-v2" for layers in (6, 12)),
)
OF_PACKAGES = {"builtin:minilm": "sentence-transformers/all-MiniLM-L6-v2"}

LINEAGES: Mapping[str, Sequence[Sequence[str]]] = {
    "bert": (MINILMS, (*BERTS, "google-bert/bert-base-uncased", "google-bert/bert-large-uncased")),
    "roberta": (("distilbert/distilroberta-base", "FacebookAI/roberta-base", "FacebookAI/roberta-large"),),
    "electra": (tuple(f"google/electra-{size}-discriminator" for size in ("small", "base", "large")),),
    "vit": (
        tuple(f"facebook/deit-{size}-patch16-224" for size in ("tiny", "small", "base")),
        (*(f"WinKawaks/vit-{s}-patch16-224" for s in ("tiny", "small")), "google/vit-base-patch16-224"),
    ),
    "swin": (tuple(f"microsoft/swin-{size}-patch4-window7-224" for size in ("tiny", "small", "base")),),
    "dinov2": (tuple(f"facebook/dinov2-{size}" for size in ("small", "base", "large")),),
    "convnext": (tuple(f"facebook/convnext-{size}-224" for size in ("tiny", "small", "base", "large")),),
    "convnextv2": (
        tuple(
            f"facebook/convnextv2-{size}-1k-224" for size in ("atto", "femto", "pico", "nano", "tiny", "base")
        ),
    ),
    "resnet": (tuple(f"microsoft/resnet-{depth}" for depth in (18, 26, 34, 50, 101, 152)),),
    "efficientnet": (tuple(f"google/efficientnet-b{size}" for size in range(8)),),
    "segformer": (tuple(f"nvidia/mit-b{size}" for size in range(6)),),
    "mobilevit": (tuple(f"apple/mobilevit-{size}" for size in ("xx-small", "x-small", "small")),),
    "mobilenet_v2": (
        tuple(f"google/mobilenet_v2_{size}" for size in ("0.35_96", "0.75_160", "1.0_224", "1.4_224")),
    ),
    "hubert": (("ntu-spml/distilhubert", "facebook/hubert-base-ls960", "facebook/hubert-large-ll60k"),),
    "wavlm": (("microsoft/wavlm-base", "microsoft/wavlm-large"),),
    "wav2vec2": (("facebook/wav2vec2-base", "facebook/wav2vec2-large"),),
    "whisper": (tuple(f"openai/whisper-{size}" for size in ("tiny", "base", "small", "medium")),),
}


def published(source: str, model_type: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names on the hub of the sizes that `source` (hf:NAME or a builtin) came in, and of all others of its type.

    A folder is known by its name, as the hub has it.

    >>> published("hf:downloads/convnextv2-nano-1k-224", "convnextv2")[0][:2]
    ('facebook/convnextv2-atto-1k-224', 'facebook/convnextv2-femto-1k-224')
    >>> published("hf:my-own", "mobilevit")
    ((), ('apple/mobilevit-xx-small', 'apple/mobilevit-x-small', 'apple/mobilevit-small'))
    """
    own = OF_PACKAGES.get(source, source.partition(":")[2]).partition("@")[0].rstrip("/").rpartition("/")[2]
    near: list[str] = []
    far: list[str] = []
    for lineage in LINEAGES.get(model_type, ()):
        names = [name.rpartition("/")[2] for name in lineage]
        others = [name for name, short in zip(lineage, names, strict=True) if short != own]
        (near if own in names else far).extend(others)
    return tuple(near), tuple(far)
