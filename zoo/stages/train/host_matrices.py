"""The embedding and the vocabulary's head in the host's memory instead of the GPU's.

With a vocabulary of 128k to 256k words each is 1 to 1.7 GiB, of which a pass on the labels reads little: of the head three
rows, which stay on the GPU, and of the embedding those of the batch's tokens, which are gathered on the host and sent. Neither
is trained then, and no number changes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from zoo.stages.train.classifier import LabelIds
from zoo.stages.train.label_head import keep_label_rows


@dataclass(frozen=True)
class HostMatrices:
    """Modules of a model whose `weight` can be moved to the host: an embedding, a head.

    `label_ids`: the tokens whose rows of the head stay.
    """

    modules: tuple[torch.nn.Module, ...]
    label_ids: LabelIds

    @property
    def bytes(self) -> int:
        """Bytes of the device that moving them frees; a matrix that two share counts once."""
        weights = {id(module.weight): module.weight for module in self.modules}
        return sum(weight.numel() * weight.element_size() for weight in weights.values())

    def move(self) -> None:
        """Move them; of a head the rows of the labels stay."""
        moved: dict[int, torch.nn.Parameter] = {}
        for module in self.modules:
            weight: Any = module.weight
            if isinstance(module, torch.nn.Embedding):
                module.padding_idx = None  # of a gradient that there is none of, and beyond the rows of a batch
                module.forward = HostEmbedding(module, weight.device)
            else:
                keep_label_rows(module, self.label_ids)
            if id(weight) not in moved:
                moved[id(weight)] = torch.nn.Parameter(weight.detach().cpu(), requires_grad=False)
            module.weight = moved[id(weight)]


NO_MATRICES = HostMatrices((), (0, 0, 0))


def movable(model: Any, label_ids: LabelIds, *, whole_head: bool) -> HostMatrices:
    """What can be moved of a transformers model, adapters injected or not.

    Matrices of plain modules that are not trained. `whole_head`: whether a pass reads all of the vocabulary's head. A matrix
    that is also another module's stays.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    found = [embedding] if isinstance(embedding, torch.nn.Embedding) else []
    found += [head] if type(head) is torch.nn.Linear and not whole_head else []
    found = [module for module in found if not module.weight.requires_grad]
    owners = [(module, module._parameters.get("weight")) for module in model.modules()]
    alone = [m for m in found if all(owner in found for owner, weight in owners if weight is m.weight)]
    return HostMatrices(tuple(alone), label_ids)


class HostEmbedding:
    """An embedding's forward pass for ids and a matrix on the host; what it gives is on `place`.

    The rows of the batch's different tokens are sent, and the module's own pass is made on them as on a small vocabulary, with
    what else it does (Gemma's scale). The host does not wait for the device.
    """

    def __init__(self, module: torch.nn.Module, place: torch.device) -> None:
        self.module, self.place = module, place

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        different, positions = torch.unique(ids.cpu(), return_inverse=True)
        pinned = self.place.type == "cuda"
        matrix: Any = self.module.weight
        rows = torch.empty(len(different), matrix.shape[1], dtype=matrix.dtype, pin_memory=pinned)
        torch.index_select(matrix, 0, different, out=rows)
        positions = positions.pin_memory() if pinned else positions
        small = copy.copy(self.module)
        small._parameters = {"weight": rows.to(self.place, non_blocking=True)}
        result: torch.Tensor = type(self.module).forward(small, positions.to(self.place, non_blocking=True))
        return result
