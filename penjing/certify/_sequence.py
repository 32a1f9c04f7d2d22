"""Several candidates under one alpha."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from penjing.core import Certificate


def in_order(candidates: Iterable[tuple[str, Callable[[], Certificate]]]) -> dict[str, Certificate]:
    """Certificates by name, each candidate tested at the full alpha until the first that is not certified.

    Fixed-sequence testing (Maurer, Hothorn & Lehmacher, "Multiple comparisons in drug clinical trials and preclinical
    assays", 1995): put the candidate that is likeliest to pass first, usually the largest. That any of them is
    certified wrongly has a probability of at most alpha. Those after the first failure are not tested, and cannot be
    certified.

    >>> from penjing.certify import certify
    >>> right = [True] * 900 + [False] * 100
    >>> worse = [True] * 850 + [False] * 150
    >>> found = in_order([(name, lambda it=it: certify(right, it, 0.02)) for name, it in
    ...                   (("large", right), ("middle", worse), ("small", right))])
    >>> [certificate.verdict for certificate in found.values()]
    ['certified', 'not certified', 'cannot certify']
    """
    found: dict[str, Certificate] = {}
    failed = ""
    for name, test in candidates:
        certificate = test()
        if failed:
            why = (
                f"it comes after {failed}, which was not certified: a test of it, too, would raise the risk above "
                "alpha"
            )
            certificate = replace(certificate, verdict="cannot certify", why=why)
        elif not certificate.certified:
            failed = name
        found[name] = certificate
    return found
