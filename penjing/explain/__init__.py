"""Say why: what was removed, where answers changed, and whether both networks look at the same."""

from penjing.explain._agreement import spearman as spearman
from penjing.explain._agreement import top_overlap as top_overlap
from penjing.explain._attribution import able as able
from penjing.explain._attribution import attributions as attributions
from penjing.explain._cka import cka_by_depth as cka_by_depth
from penjing.explain._cka import linear_cka as linear_cka
from penjing.explain._media import heat_uri as heat_uri
from penjing.explain._media import picture_uri as picture_uri
from penjing.explain._media import sound_uri as sound_uri
from penjing.explain._media import spectrogram_uri as spectrogram_uri
