"""A folder of weights as a repository of the hub."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, constants, errors

from videomae_jax.checkpoints.hugging_face import CARD
from videomae_jax.checkpoints.model_card import users_card
from videomae_jax.errors import InputError

_REFUSALS: Any = errors.HfHubHTTPError.__bases__
"""OSError, and whatever the client raises that huggingface_hub speaks through, which its versions choose."""


def upload_folder(folder: Path, name: str, private: bool | None, token: str | None, message: str) -> str:
    """Make the repository `name` (owner/name) if there is none, write the folder to it, and give its address.

    A README.md there stays, unless it was written here and not changed since. Raises InputError, with the way
    out, where the hub refuses or cannot be reached.
    """
    hub = HfApi(token=token)
    try:
        address = hub.create_repo(name, private=private, exist_ok=True)
        kept = [CARD] if _has_users_card(hub, name) else []
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message=message, ignore_patterns=kept)
    except (ValueError, *_REFUSALS) as error:
        raise InputError(
            f"{name} could not be written at {constants.ENDPOINT}: {error}. Name it owner/name, where the "
            "owner is you or an organization of yours, and log in by a token that may write, with `hf auth "
            "login` or HF_TOKEN"
        ) from error
    return str(address)


def _has_users_card(hub: HfApi, name: str) -> bool:
    with TemporaryDirectory() as folder:
        try:
            hub.hf_hub_download(name, CARD, local_dir=folder)
        except errors.EntryNotFoundError:
            return False
        return users_card(Path(folder)) is not None
