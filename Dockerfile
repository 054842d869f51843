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
RUN useradd --system --no-create-home --shell /usr/sbin/nologin routeproxy
USER routeproxy
WORKDIR /etc/routeproxy
ENV PATH=/opt/routeproxy/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8082
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8082/readyz', timeout=2)"]
# Listens to the network, so set ANTHROPIC_AUTH_TOKEN: it is what clients must show.
ENTRYPOINT ["routeproxy"]
CMD ["serve", "--rules", "/etc/routeproxy/rules.toml", "--host", "0.0.0.0"]
