# The server in a container: `docker build --target cpu .`, or `--target gpu` for an NVIDIA card.
# Neither has been built where this project is developed: there is no container engine there.
FROM python:3.12-slim AS base
RUN useradd --create-home deeptalk
WORKDIR /srv/deeptalk
COPY pyproject.toml README.md LICENSE ./
COPY src src
EXPOSE 8000
# A public address needs a key: the environment's DEEPTALK_API_KEY.
ENTRYPOINT ["deeptalk", "serve", "--host", "0.0.0.0"]
HEALTHCHECK --interval=10s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:8000/ready'))"]

FROM base AS gpu
RUN pip install --no-cache-dir torch==2.13.0 && pip install --no-cache-dir '.[serve,vad]'
USER deeptalk
CMD ["--device", "cuda"]

FROM base AS cpu
# --build-arg TORCH_INDEX=…/whl/cpu takes PyTorch's small CPU build; without it pip takes the one for cards.
ARG TORCH_INDEX=
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch==2.13.0 \
    && pip install --no-cache-dir '.[serve,vad]'
ENV OMP_NUM_THREADS=1
USER deeptalk
