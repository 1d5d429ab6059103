"""How ZenML stores a reference: its JSON, and the report or card that lies beside what it refers to."""

import json
from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer

from hallmark.files import FileRef

SHOWN = {
    "report.html": VisualizationType.HTML,
    "data.html": VisualizationType.HTML,
    "card.md": VisualizationType.MARKDOWN,
}


class FileRefMaterializer(BaseMaterializer):
    """Stores a `FileRef`; registered by importing this module."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (FileRef,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[FileRef]) -> FileRef:
        """Read the reference and check that its bytes are still there."""
        with self.artifact_store.open(f"{self.uri}/ref.json") as file:
            reference = FileRef(**json.load(file))
        reference.open()
        return reference

    def save(self, data: FileRef) -> None:
        """Write the reference."""
        with self.artifact_store.open(f"{self.uri}/ref.json", "w") as file:
            json.dump(data.as_dict(), file, sort_keys=True)

    def save_visualizations(self, data: FileRef) -> dict[str, VisualizationType]:
        """Copy report, card and pictures beside the reference: the dashboard shows them."""
        shown = {}
        directory = Path(data.path)
        found = [(directory / name, kind) for name, kind in SHOWN.items()]
        found += [(picture, VisualizationType.IMAGE) for picture in sorted(directory.glob("pictures/*.png"))]
        for source, kind in found:
            if source.is_file():
                uri = f"{self.uri}/{source.name}"
                with self.artifact_store.open(uri, "wb") as file:
                    file.write(source.read_bytes())
                shown[uri] = kind
        return shown

    def extract_metadata(self, data: FileRef) -> dict[str, Any]:
        """Path, digest and rows."""
        return {k: v for k, v in data.as_dict().items() if v is not None}

    def compute_content_hash(self, data: FileRef) -> str:
        """The digest of what is referred to."""
        return data.sha256
