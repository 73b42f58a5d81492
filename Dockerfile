# DiffRetriever and Pyserini on a CPU, with Java:
#   docker build -t diffretriever .
#   docker run --rm -v "$PWD:/data" diffretriever search --index INDEX --topics topics.tsv --output run.txt
FROM python:3.13-slim

# Where pip gets torch: the index of its CPU builds. The builds of PyPI bring 4 GB of CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /source
COPY requirements-cpu.txt requirements.lock ./
RUN pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" -c requirements.lock torch \
    && pip install --no-cache-dir -r requirements-cpu.txt -c requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps . \
    && diffretriever doctor \
    && useradd --create-home --uid 1000 user

USER 1000
WORKDIR /data
ENTRYPOINT ["diffretriever"]
CMD ["--help"]
