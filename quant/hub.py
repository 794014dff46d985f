"""Models of the Hugging Face hub, by way of its own client and cache (`HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` count)."""

import errno
from pathlib import Path

from ..core.errors import ModelError, ModelNotFoundError

# No pickles (*.bin, *.pth): they run code when loaded.
_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]


def snapshot(repository: str) -> Path:
    """The directory of `repository` in the hub's cache, downloaded where needed. Raises ModelError."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelError(
                f"cannot write model {repository!r} into the Hugging Face cache: {error.strerror}; free space there, "
                "or set HF_HOME to a folder on another filesystem"
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotFoundError(
            f"model {repository!r}: no such directory, not in the Hugging Face cache, and the hub did not give it "
            f"({reason}). Where there is no way to the hub, copy the model's directory here and name its path; "
            "private models need HF_TOKEN"
        ) from error
