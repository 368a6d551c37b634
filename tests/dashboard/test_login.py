"""Where W&B finds a key, asked in processes of their own: wandb reads the environment once."""

import os
import subprocess
import sys

KEY = "0123456789" * 4
ASK = "from lit_compress.dashboard.login import has_key; print(has_key())"


def ask(tmp_path, **environment):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "NETRC"))}
    # A home of its own, so that the tests do not see who is logged in here.
    clean |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "WANDB_CONFIG_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", ASK],
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return result.stdout.strip().splitlines()[-1:], result.stderr


def test_without_a_key_there_is_no_question(tmp_path):
    assert ask(tmp_path) == (["False"], "")


def test_a_key_in_the_environment_or_in_netrc_is_found(tmp_path):
    assert ask(tmp_path, WANDB_API_KEY=KEY)[0] == ["True"]
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    assert ask(tmp_path)[0] == ["True"]


def test_a_key_of_another_server_is_none(tmp_path):
    (tmp_path / "netrc").write_text(f"machine other.example.org\n  login user\n  password {KEY}\n")
    assert ask(tmp_path)[0] == ["False"]


def test_refuses_what_cannot_be_a_key(tmp_path):
    _, error = ask(tmp_path, WANDB_API_KEY="short")
    assert "ValueError: Expected a usable W&B key but WANDB_API_KEY invalid" in error
    assert "wandb login --relogin" in error
