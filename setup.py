"""Installs the zoo, the parity suite and what they stand on: `pip install -e ".[test]"`."""
from setuptools import setup

setup(
    name="jittor-cnn-zoo",
    version="0.1.0",
    description="The classic CNN zoo in Jittor, with PyTorch as its reference and proof that the two agree",
    packages=["jt_models", "jt_models.cuda", "torch_ref", "parity", "training", "zoo"],
    package_data={"jt_models.cuda": ["include/*.h", "include/cub/*.cuh", "cutt/*"],
                  "parity": ["report.html.j2"], "training": ["comparison.html.j2"]},
    py_modules=["bench", "compare", "train_jittor", "train_torch"],
    python_requires=">=3.9,<3.13",
    install_requires=[
        # What parity depends on: another Jittor or numpy changes the numbers or does not start.
        "jittor==1.3.11.0",
        "numpy<2",
        # PyTorch's last release for Python 3.9 is 2.8.
        "torch>=2.11,<2.14; python_version >= '3.10'",
        "torchvision>=0.26,<0.29; python_version >= '3.10'",
        "torch>=2.8,<2.9; python_version < '3.10'",
        "torchvision>=0.23,<0.24; python_version < '3.10'",
        # Jittor's CPU convolutions; the same oneDNN 2.2 that it would download.
        "onednn-cpu-gomp==2021.2.0; platform_system == 'Linux' and platform_machine == 'x86_64'",
        "onednn-devel-cpu-gomp==2021.2.0; platform_system == 'Linux' and platform_machine == 'x86_64'",
        "safetensors>=0.4",
        "scikit-learn>=1.3",  # the embedded handwritten digits
        "pillow",
        "matplotlib>=3.7",
        "rich>=13",
        "jinja2>=3",
        "scipy>=1.10",
        "tqdm>=4.60",
        "nvidia-ml-py>=12",  # what the driver tells of a GPU: name, memory, energy
    ],
    extras_require={
        "test": ["pytest>=7", "hypothesis>=6", "tensorboard>=2.13"],
        "tensorboard": ["tensorboard>=2.13"],
        # Libraries whose weights load and whose outputs the tests compare with.
        "zoo": ["timm>=1.0", "pretrainedmodels==0.7.4"],
    },
)
