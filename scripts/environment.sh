# Sourced by the other scripts: makes the virtual environment once and installs an extra of this checkout.
# Usage: source scripts/environment.sh EXTRA     (LIT_COMPRESS_VENV says where; .venv by default)
extra=$1
venv=${LIT_COMPRESS_VENV:-.venv}

if [ ! -x "$venv/bin/python" ]; then
  echo "Making a virtual environment in $venv"
  python3 -m venv "$venv"
fi
# shellcheck disable=SC1091
source "$venv/bin/activate"

stamp="$venv/.lit-compress-$extra-$(cksum < pyproject.toml | cut -d' ' -f1)"
if [ ! -f "$stamp" ]; then
  if ! python -c "import torch" 2>/dev/null; then
    # Without an NVIDIA GPU the CPU build saves gigabytes; its own index is used where it can be reached.
    index=()
    cpu_index=https://download.pytorch.org/whl/cpu
    if ! command -v nvidia-smi >/dev/null &&
      python -c "import urllib.request as u; u.urlopen('$cpu_index/torch/', timeout=3)" 2>/dev/null; then
      index=(--extra-index-url "$cpu_index")
    fi
    echo "Installing torch 2.13.0"
    python -m pip install --quiet --disable-pip-version-check "${index[@]}" torch==2.13.0
  fi
  echo "Installing lit-compress[$extra]"
  python -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
  touch "$stamp"
fi
