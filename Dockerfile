# Two stages: the wheels are built with a compiler at hand, the image that runs has none.
FROM python:3.13-slim AS build
WORKDIR /build
COPY deploy/requirements.txt .
# Every dependency at the one version that was tested, and nothing that does not have its hash.
RUN python -m venv /opt/routeproxy \
 && /opt/routeproxy/bin/pip install --no-cache-dir --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY routeproxy routeproxy
RUN /opt/routeproxy/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim
COPY --from=build /opt/routeproxy /opt/routeproxy
COPY rules.example.toml /etc/routeproxy/rules.toml
RUN groupadd --system --gid 10001 routeproxy \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin routeproxy
# By number: Kubernetes' runAsNonRoot can't know who a name is.
USER 10001:10001
WORKDIR /etc/routeproxy
ENV PATH=/opt/routeproxy/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8082
# With the flags of `serve` below, so that it asks where that listens, PORT and `[server] port` included.
HEALTHCHECK --interval=15s --timeout=5s --start-period=15s \
  CMD ["routeproxy", "health", "--rules", "/etc/routeproxy/rules.toml", "--host", "0.0.0.0"]
# Listens to the network, so set ANTHROPIC_AUTH_TOKEN: it is what clients must show.
ENTRYPOINT ["routeproxy"]
CMD ["serve", "--rules", "/etc/routeproxy/rules.toml", "--host", "0.0.0.0"]
