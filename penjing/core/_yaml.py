"""YAML as people write it in a recipe: plain values, every key once, no references, no code."""

from pathlib import Path
from typing import Any

from penjing.core._errors import UsageError
from penjing.core._words import clean, cut

LARGEST = 100_000
TEXT, BOOLEAN = "tag:yaml.org,2002:str", "tag:yaml.org,2002:bool"


def yaml_package() -> Any:
    try:
        import yaml
    except ImportError:
        raise UsageError("Recipes need the package PyYAML: pip install 'penjing[vision]'") from None
    return yaml


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, values as written; anything else is a `UsageError` with the file's name.

    Keys are text, `on` too. Files over 100 kB, aliases (`*name`, which can unfold without end) and keys given twice are
    refused.
    """
    yaml = yaml_package()
    text, path = _text(Path(path)), clean(path)
    try:
        values = yaml.load(text, Loader=_loader(yaml))
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML that a recipe may hold: {clean(error, lines=True)}") from None
    except RecursionError:
        raise UsageError(f"{path} cannot be used as a recipe: it is nested too deeply") from None
    except ValueError as error:  # dates and numbers that do not exist
        raise UsageError(f"{path} is not YAML that a recipe may hold: {cut(clean(error))}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"{path} holds no recipe: a recipe is a mapping such as `model: timm:resnet18`.")
    return values


def dump_yaml(values: Any) -> str:
    """`values` as YAML that `read_yaml` accepts."""
    yaml = yaml_package()

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UsageError(f"{clean(path)} is larger than 100 kB, which no recipe is. Fix: give a recipe")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{clean(path)} cannot be read as a recipe: {clean(error)}") from None


def _loader(yaml: Any) -> Any:
    class Loader(yaml.SafeLoader):
        """SafeLoader without aliases, with every key once."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
                problem = f"{sign}{cut(event.anchor)}: anchors and aliases are refused; write the value out"
                raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if key.tag == BOOLEAN:  # YAML 1.1 reads the key `on` as true
                    key.tag = TEXT
                if isinstance(key.value, str) and key.value in seen:
                    problem = f"the key `{cut(key.value)}` is given twice; keep one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value if isinstance(key.value, str) else "")
            return super().construct_mapping(node, deep)

    return Loader
