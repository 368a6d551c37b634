"""Whether W&B can be reached as somebody, asked without a prompt."""

from __future__ import annotations

import os
from inspect import signature
from typing import Any

_OFFLINE = ("offline", "dryrun", "disabled")


def offline_by_choice() -> bool:
    """Return whether ``WANDB_MODE`` says that nothing is to be sent."""
    return os.environ.get("WANDB_MODE", "") in _OFFLINE


def has_key() -> bool:
    """Return whether W&B finds a key in the environment, its settings or ``.netrc``.

    Returns:
        Whether it does. The key is not verified: that needs the network.

    Raises:
        ValueError: There is something that cannot be a key.
    """
    import wandb
    from wandb.sdk.lib import wbauth

    host = wandb.setup().settings.base_url
    try:
        # wandb.login() does the same, but asks the server who that is.
        found = wbauth.authenticate_session(host=host, source="lit-compress", prompt=False, **_only_asked())
    except wandb.errors.AuthenticationError as error:
        raise ValueError(
            f"Expected a usable W&B key but {' '.join(str(error).split())}; correct it with wandb login --relogin, or "
            "set WANDB_MODE=offline."
        ) from error
    return found is not None


def _only_asked() -> dict[str, Any]:
    """Return what keeps W&B from remembering the answer; wandb 0.30, which LiteRT needs, always does."""
    from wandb.sdk.lib import wbauth

    name = "update_session"
    return {name: False} if name in signature(wbauth.authenticate_session).parameters else {}
