"""The answer to POST /v1/embeddings."""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from .....quant.checkpoint.embedding import EmbeddingConfig
from .formats import Json

if TYPE_CHECKING:  # the engine's thread imports it while HTTP answers already
    import numpy as np

_SHORTEST = 1e-12  # as torch.nn.functional.normalize has it: zeros stay zeros


def finish(vector: bytes, config: EmbeddingConfig, size: int) -> "np.ndarray":
    """The first `size` numbers of a pooled vector (float32, little-endian), normalised if the model's are."""
    import numpy as np

    numbers: np.ndarray = np.frombuffer(vector, dtype="<f4")[:size]
    if not config.normalize:
        return numbers
    length = np.linalg.norm(numbers.astype(np.float64))
    normalised: np.ndarray = (numbers / max(float(length), _SHORTEST)).astype("<f4")
    return normalised


def whole(
    model: str, vectors: Sequence[bytes], config: EmbeddingConfig, size: int, prompt_tokens: int, *, as_base64: bool
) -> Json:
    """The body of the answer. Each embedding is encoded by itself: as Python's floats, all would take much memory."""
    data = [msgspec.Raw(_item(index, finish(each, config, size), as_base64)) for index, each in enumerate(vectors)]
    spent = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return {"object": "list", "data": data, "model": model, "usage": spent}


def _item(index: int, numbers: "np.ndarray", as_base64: bool) -> bytes:
    embedding = base64.b64encode(numbers.tobytes()).decode() if as_base64 else numbers.tolist()
    return msgspec.json.encode({"object": "embedding", "index": index, "embedding": embedding})
