# cyclestyle in a container.
#
#   docker build -t cyclestyle:local .                        # for CPUs
#   docker build -t cyclestyle:local --build-arg VARIANT=cuda .
#   docker run --rm -v "$PWD:/work" cyclestyle:local predict --ckpt_path last.ckpt --input photos --output paintings
#
# VARIANT cuda begins with an image of PyTorch that has the CUDA libraries; cpu with one of Python alone.
ARG VARIANT=cpu

FROM python:3.12-slim-bookworm AS base-cpu

FROM pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime AS base-cuda

# The variant is chosen by the name of the stage, which a linter takes for an image without a tag.
# hadolint ignore=DL3006
FROM base-${VARIANT}

# Extras to install, such as export,demo,video
ARG EXTRAS=export,heic,video
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

WORKDIR /opt/cyclestyle
COPY pyproject.toml README.md LICENSE ./
COPY cyclestyle cyclestyle
COPY configs configs
# The package itself, whose versions are those of pyproject.toml
# hadolint ignore=DL3013
RUN pip install ".[${EXTRAS}]" \
    && useradd --create-home --uid 1000 user

USER 1000
WORKDIR /work
ENTRYPOINT ["cyclestyle"]
CMD ["--help"]
