"""ZenML materializer of `FileRef`: stores it as JSON, with the report or card of the directory it refers to."""

import json
from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer

from hallmark.files import FileRef
from steps.carried import carrier_of_step

SHOWN = {
    "report.html": VisualizationType.HTML,
    "data.html": VisualizationType.HTML,
    "card.md": VisualizationType.MARKDOWN,
}


class FileRefMaterializer(BaseMaterializer):
    """Stores and loads a `FileRef`; importing this module registers it."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (FileRef,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[FileRef]) -> FileRef:
        """Read the reference and check that its file or directory is unchanged; fetch it first where it is not here."""
        carrier_of_step()
        with self.artifact_store.open(f"{self.uri}/ref.json") as file:
            reference = FileRef(**json.load(file))
        reference.open()
        return reference

    def save(self, data: FileRef) -> None:
        """Write the reference."""
        with self.artifact_store.open(f"{self.uri}/ref.json", "w") as file:
            json.dump(data.as_dict(), file, sort_keys=True)

    def save_visualizations(self, data: FileRef) -> dict[str, VisualizationType]:
        """Copy report, card and pictures beside the reference, for the dashboard."""
        shown = {}
        directory = Path(data.path)
        sources = [(directory / name, kind) for name, kind in SHOWN.items()]
        sources += [(picture, VisualizationType.IMAGE) for picture in sorted(directory.glob("pictures/*.png"))]
        for source, kind in sources:
            if source.is_file():
                uri = f"{self.uri}/{source.name}"
                with self.artifact_store.open(uri, "wb") as file:
                    file.write(source.read_bytes())
                shown[uri] = kind
        return shown

    def extract_metadata(self, data: FileRef) -> dict[str, Any]:
        """Return path, digest and number of rows."""
        return {k: v for k, v in data.as_dict().items() if v is not None}

    def compute_content_hash(self, data: FileRef) -> str:
        """Return the digest of the file or directory."""
        return data.sha256
