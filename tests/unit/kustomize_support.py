"""Builds what `kubectl kustomize` builds, of those parts of kustomize that deploy/ uses; others fail.

A test compares the two where kubectl is installed.
"""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
Key = tuple[str, str]
KNOWN = {
    "apiVersion",
    "kind",
    "resources",
    "nameSuffix",
    "images",
    "patches",
    "generatorOptions",
    "configMapGenerator",
    "secretGenerator",
}
# What makes two items of a list one, by the list's name; other lists are replaced as a whole.
MERGE_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}


def build(folder: Path) -> dict[Key, Object]:
    """All objects of a folder's kustomization, by kind and name."""
    given = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert given.keys() <= KNOWN, given.keys() - KNOWN
    assert given.get("generatorOptions", {"disableNameSuffixHash": True}) == {"disableNameSuffixHash": True}
    found: dict[Key, Object] = {}
    for one in [*_resources(folder, given), *_generated(folder, given)]:
        key = one["kind"], one["metadata"]["name"]
        assert key not in found, key
        found[key] = one
    for patch in given.get("patches", ()):
        text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text()
        _patch(found, patch.get("target"), yaml.safe_load(text))
    for image in given.get("images", ()):
        _set_image(found, image)
    suffix = given.get("nameSuffix", "")
    for one in found.values():
        one["metadata"]["name"] += suffix
    return {(one["kind"], one["metadata"]["name"]): one for one in found.values()}


def _resources(folder: Path, given: Mapping[str, Any]) -> Iterator[Object]:
    for name in given.get("resources", ()):
        if (folder / name).is_dir():
            yield from build((folder / name).resolve()).values()
        else:
            yield from yaml.safe_load_all((folder / name).read_text())


def _generated(folder: Path, given: Mapping[str, Any]) -> Iterator[Object]:
    for kind, section in (("ConfigMap", "configMapGenerator"), ("Secret", "secretGenerator")):
        for one in given.get(section, ()):
            assert one.keys() == {"name", "files"}
            # As kustomize does, nothing from above the folder.
            paths = [folder / file for file in one["files"]]
            assert all(path.resolve().is_relative_to(folder.resolve()) for path in paths)
            texts = {path.name: path.read_text() for path in paths}
            made: Object = {"apiVersion": "v1", "kind": kind, "metadata": {"name": one["name"]}}
            if kind == "Secret":
                made["type"] = "Opaque"
                texts = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
            yield made | {"data": texts}


def _patch(found: Mapping[Key, Object], target: Mapping[str, str] | None, patch: Any) -> None:
    if target is None:
        target = {"kind": patch["kind"], "name": patch["metadata"]["name"]}
    assert target.keys() <= {"kind", "name", "labelSelector"}
    chosen = [one for one in found.values() if _matches(one, target)]
    assert chosen, target
    for one in chosen:
        if isinstance(patch, list):
            for operation in patch:
                _operate(one, operation)
        else:
            # The target's name stays, whatever the patch is called.
            changed = copy.deepcopy(patch)
            changed["metadata"].pop("name")
            _merge(one, changed)


def _matches(one: Object, target: Mapping[str, str]) -> bool:
    labels = one["metadata"].get("labels", {})
    name, _, value = target.get("labelSelector", "").partition("=")
    return (
        one["kind"] == target["kind"]
        and target.get("name") in (None, one["metadata"]["name"])
        and (not name or labels.get(name) == value)
    )


def _operate(one: Object, operation: Mapping[str, Any]) -> None:
    """One operation of a JSON patch (RFC 6902)."""
    *way, last = re.findall(r"/([^/]+)", operation["path"])
    at: Any = one
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    assert last in at, operation
    if operation["op"] == "remove":
        del at[last]
    else:
        assert operation["op"] == "replace"
        at[last] = operation["value"]


def _merge(base: Object, patch: Object) -> None:
    """A strategic merge. Of lists with a key, the patch's items come first."""
    for name, value in patch.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            _merge(base[name], value)
        elif isinstance(value, list) and name in MERGE_KEYS and name in base:
            base[name] = _merged_list(base[name], value, MERGE_KEYS[name])
        else:
            base[name] = value


def _merged_list(base: list[Object], patch: list[Object], key: str) -> list[Object]:
    left = {item[key]: item for item in base}
    merged = []
    for item in patch:
        before = left.pop(item[key], {})
        _merge(before, item)
        merged.append(before)
    return merged + list(left.values())


def _set_image(found: Mapping[Key, Object], image: Mapping[str, str]) -> None:
    assert {"name", "newTag"} <= image.keys() <= {"name", "newName", "newTag"}
    for one in found.values():
        for container in one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            # An overlay's may have a tag already.
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
