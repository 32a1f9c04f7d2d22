"""Where networks come from: registries, hubs and the user's own files.

Networks with a head for the task: of timm and torchvision by name, of transformers from a folder, the hub or a type,
and those that packages carry; weights from the hub, a package, a folder, a file, or none. Nothing here runs code that a
file of weights or a configuration carries.
"""

from penjing.sources._family import Member as Member
from penjing.sources._family import family_rings as family_rings
from penjing.sources._family import from_layers as from_layers
from penjing.sources._family import no_family as no_family
from penjing.sources._family import structure_missing as structure_missing
from penjing.sources._family import weights_missing as weights_missing
from penjing.sources._head import find_head as find_head
from penjing.sources._load import LoadedSource as LoadedSource
from penjing.sources._load import build_source as build_source
from penjing.sources._load import load_source as load_source
from penjing.sources._spec import SourceSpec as SourceSpec
from penjing.sources._spec import parse_source as parse_source
from penjing.sources._uniform import save_uniform as save_uniform
