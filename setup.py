"""Installs the repository root as the package `efficientbert`."""

from pathlib import Path

from setuptools import find_packages, setup


setup(
    name="efficientbert",
    version="0.1.0",
    description="Small, fast BERT-like encoders, searched and distilled from any teacher",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=["efficientbert", *(f"efficientbert.{name}" for name in find_packages(include=["train*", "search*"]))],
    package_dir={"efficientbert": "."},
    package_data={"efficientbert": ["py.typed", "search/known/*.json"]},
    install_requires=[
        "accelerate>=1.15",
        "datasets>=5.2",
        "evaluate>=0.4.6",
        "huggingface_hub>=2.4",
        "matplotlib>=3.9",
        "optuna>=5.0",
        "psutil>=6.0",
        "pyyaml>=6.0",
        "safetensors>=0.8",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "torch>=2.9",
        "transformers>=5.23",
    ],
    extras_require={
        "embeddings": ["sentence-transformers>=6.2"],
        "onnx": ["onnx>=1.19", "onnxruntime>=1.23", "onnxscript>=0.5"],
        "test": [
            "hypothesis>=6.170",
            "mypy>=2.4",
            "onnx>=1.19",
            "onnxruntime>=1.23",
            "onnxscript>=0.5",
            "peft>=0.21",
            "pytest>=9.0",
            "pytest-xdist>=3.8",
            "ruff>=0.17",
            "sentence-transformers>=6.2",
            "tensorboard>=2.21",
        ],
    },
    entry_points={"console_scripts": ["efficientbert = efficientbert.__main__:main"]},
)
