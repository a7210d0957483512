"""What a package has besides the sources: README for its page at PyPI, and compiled modules.

Those are put into a wheel where OTTLA_COMPILE=1 asks for it: `make wheel`. Without it a wheel, and with it
any installation from source, is pure Python and needs no compiler.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        sys.path.insert(0, str(Path(self.root) / "scripts"))
        from readme_page import for_pypi

        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        page = for_pypi(text, metadata.get("urls", {}).get("Source"))
        metadata["readme"] = {"content-type": "text/markdown", "text": page}


class CompiledWheel(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return list(self.config["requires"]) if _is_asked_for() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not _is_asked_for() or version == "editable":
            return
        sys.path.insert(0, str(Path(self.root) / "scripts"))
        from compiling import compile_into, is_current

        folder = Path(self.root) / "build" / "compiled"
        if not is_current(folder):
            self._aside = tempfile.TemporaryDirectory(prefix="ottla-wheel-")
            folder = Path(self._aside.name) / "compiled"
            compile_into(folder)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for path in folder.rglob("*.so"):
            build_data["force_include"][str(path)] = str(path.relative_to(folder))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_aside"):
            self._aside.cleanup()


def _is_asked_for() -> bool:
    return os.environ.get("OTTLA_COMPILE", "") not in ("", "0")
