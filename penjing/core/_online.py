"""Is a hub within reach? Asked once, briefly, before any library starts its long retries."""

import os
import threading

SECONDS = 4.0


def hub_address() -> str:
    """Where Hugging Face's hub is: HF_ENDPOINT, as its own library has it, or the public one."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def reachable(url: str, seconds: float = SECONDS) -> str | None:
    """None when `url`'s server answers within `seconds`, whatever the answer; otherwise the reason.

    Respects proxies and the offline switches of Hugging Face. The name look-up, which no socket timeout
    bounds, runs in a thread that is given up on.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    outcome: list[str | None] = []
    worker = threading.Thread(target=lambda: outcome.append(_ask(url, seconds)), daemon=True)
    worker.start()
    worker.join(seconds + 1.0)
    return outcome[0] if outcome else f"no answer within {seconds:.0f} s"


def _ask(url: str, seconds: float) -> str | None:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "penjing"})
    try:
        urllib.request.urlopen(request, timeout=seconds).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return None
