# The images for docs/kuberay.yaml and for containers elsewhere. They come from Ray's own, which KubeRay's probes fit.
#     docker build --target cuda -t tunebench:0.2.0 .       # the default
#     docker build --target cpu -t tunebench:0.2.0-cpu .
# Not yet built. A test holds its versions together with the package's.
ARG RAY=2.60.0

FROM rayproject/ray:${RAY}-py311-cpu AS cpu
COPY --chown=ray . /home/ray/tunebench
WORKDIR /home/ray/tunebench
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt -e '.[ray]'
CMD ["tunebench", "--help"]

FROM rayproject/ray:${RAY}-py311-gpu AS cuda
COPY --chown=ray . /home/ray/tunebench
WORKDIR /home/ray/tunebench
RUN pip install --no-cache-dir -c constraints.txt -e '.[ray]'
CMD ["tunebench", "--help"]
