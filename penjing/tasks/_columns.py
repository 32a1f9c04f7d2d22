"""Which columns of a table hold what."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from penjing.core import UsageError, clean

Kind = Literal["pictures", "texts", "words", "sounds", "speech"]

_PATHS = ("path", "file", "file_name", "filename", "filepath")
_LABELS = ("label", "class", "target", "category", "label_name")
CONTENT: Mapping[Kind, Sequence[str]] = {
    "pictures": ("path", "file", "image", "file_name", "filename", "filepath", "image_path"),
    "texts": (
        "text",
        "sentence",
        "question",
        "content",
        "review",
        "document",
        "message",
        "premise",
        "sentence1",
    )
    + ("question1", "text1"),
    "words": ("tokens", "words", "text", "sentence"),
    "sounds": (*_PATHS, "audio", "clip", "sound", "audio_path"),
    "speech": (*_PATHS, "audio", "clip", "sound", "audio_path"),
}
SECOND = {"premise": "hypothesis", "sentence1": "sentence2", "question1": "question2", "text1": "text2"}
LABEL: Mapping[Kind, Sequence[str]] = {
    "pictures": _LABELS,
    "texts": (*_LABELS, "coarse_label", "intent", "sentiment"),
    "words": ("tags", "ner_tags", "labels", "label"),
    "sounds": (*_LABELS, "speaker", "keyword", "language"),
    "speech": ("transcript", "transcription", "text", "sentence", "normalized_text"),
}
CALLED: Mapping[Kind, str] = {
    "pictures": "pictures",
    "texts": "texts",
    "words": "words",
    "sounds": "clips",
    "speech": "clips",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Columns that the user named; None is found by its usual names.

    `path` holds files (pictures, clips), `text` texts or words, `pair` second texts, `label` classes, tags or
    transcripts.
    """

    path: str | None = None
    label: str | None = None
    text: str | None = None
    pair: str | None = None

    def content(self, kind: Kind) -> tuple[str | None, str]:
        """The column asked for the content of `kind`, and the option that names it."""
        if kind in ("texts", "words"):
            return self.text, "text_column (--text-column)"
        return self.path, "path_column (--path-column)"

    def refuse_any(self, where: str, why: str) -> None:
        """Raises UsageError where a column was named for `where`, which has none."""
        named = [f"{name}_column ({column})" for name, column in asdict(self).items() if column is not None]
        if named:
            raise UsageError(
                f"{clean(where)} {why}, and was given {clean(', '.join(named))}. Fix: leave it out"
            )
