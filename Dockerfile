# The page in a container.
#   On a CPU:                docker build -t bitune .
#   With an NVIDIA GPU:      docker build -t bitune --build-arg TORCH=cu128 .
# docs/hosting.md says how to run it.

FROM python:3.12-slim AS packages
# Which build of torch, as uv calls it: cpu, or a version of CUDA such as cu126 or cu128. That for a CPU is a tenth of the others.
ARG TORCH=cpu
RUN pip install --no-cache-dir uv && uv venv /packages
COPY requirements.txt .
RUN uv pip install --no-cache --python /packages/bin/python --torch-backend "$TORCH" -r requirements.txt

FROM python:3.12-slim
RUN useradd --uid 1000 --no-create-home bitune && install -d -o bitune /data
COPY --from=packages /packages /packages
WORKDIR /app
COPY app.py ./
COPY app app
COPY assets assets
COPY bitune bitune

ENV PATH=/packages/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    BITUNE_CACHE=/data/bitune \
    HF_HOME=/data/huggingface \
    GRADIO_TEMP_DIR=/data/gradio \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860

# Whoever comes as 1000 may write in /data alone: the base that was downloaded, and what visitors leave.
USER 1000
VOLUME /data
EXPOSE 7860
# The page answers before its model is loaded; nothing is computed for this.
HEALTHCHECK --interval=30s --timeout=10s --start-period=3m \
    CMD ["python", "-c", "import os, urllib.request as http; http.urlopen(f'http://127.0.0.1:{os.environ[\"GRADIO_SERVER_PORT\"]}/gradio_api/app_id', timeout=8)"]
CMD ["python", "app.py"]
