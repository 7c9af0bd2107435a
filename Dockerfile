# The base is pinned by tag: pin its digest where you build, or keep the tag current (security fixes of Debian and Python).
ARG PYTHON=3.13.16-slim-trixie

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements/build.txt requirements/image.txt requirements/
RUN python -m venv --without-pip /opt/fastpubsub \
    && pip install --require-hashes --requirement requirements/build.txt \
    && pip --python /opt/fastpubsub/bin/python install --require-hashes --requirement requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY packages packages
COPY migrations migrations
COPY fastpubsub fastpubsub
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels ./packages/client . \
    && pip --python /opt/fastpubsub/bin/python install --no-deps wheels/*.whl

FROM build AS guide
COPY requirements/docs.txt requirements/
RUN pip install --require-hashes --requirement requirements/docs.txt
COPY CHANGELOG.md CONTRIBUTING.md SECURITY.md ./
COPY deploy deploy
COPY examples examples
COPY docs docs
RUN python -m sphinx --quiet --fail-on-warning --conf-dir docs --doctree-dir /tmp/guide . /guide

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="fastpubsub" \
      org.opencontainers.image.description="Publish/subscribe over HTTP on nothing but PostgreSQL" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/fastpubsub /opt/fastpubsub
COPY --from=guide /guide /opt/fastpubsub/share/fastpubsub/guide
ENV PATH=/opt/fastpubsub/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /srv/fastpubsub
# By number, so that Kubernetes can see that it is not root. Of the file system only /tmp is written to.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["fastpubsub", "healthcheck"]
ENTRYPOINT ["fastpubsub"]
CMD ["server"]
