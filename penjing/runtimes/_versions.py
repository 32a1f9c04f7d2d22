"""Which packages a runtime runs on."""

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = {"onnx": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino", "onnx")}  # besides torch


def versions_of(runtime: str) -> dict[str, str]:
    """Versions of the packages whose change may change the runtime's times; those that are not installed left out."""
    found = {}
    for package in ("torch", *_PACKAGES.get(runtime, ())):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
