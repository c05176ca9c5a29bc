"""The generated modules of the wire are those of the .proto files beside them."""

from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

SOURCE = Path(__file__).parent.parent / "src"


def test_the_generated_modules_are_fresh(tmp_path):
    protos = sorted((SOURCE / "tidegauge" / "v1").glob("*.proto"))
    assert protos
    includes = [f"-I{SOURCE}", f"-I{files('grpc_tools') / '_proto'}"]
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    assert protoc.main(["", *includes, *outputs, *map(str, protos)]) == 0
    for made in sorted((tmp_path / "tidegauge" / "v1").iterdir()):
        assert made.read_text() == (SOURCE / "tidegauge" / "v1" / made.name).read_text(), (
            f"{made.name} is stale: run make protos"
        )
