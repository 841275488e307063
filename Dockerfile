# The service alone: Node, the C library it needs, the compiled code and its dependencies. No shell, no npm.
#
#     docker build -t event-ingestor --build-arg COMMIT=$(git rev-parse --short=12 HEAD) .
#     docker run --read-only -v events:/data -p 127.0.0.1:9090:9090 event-ingestor

# The version that package.json pins for development.
ARG NODE=node:24.21.0-bookworm-slim

FROM ${NODE} AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY scripts/build.mjs scripts/filesStayBeside.mjs scripts/
COPY src src
# What --version shows beside the version; may be left out.
ARG COMMIT
# The build has Effect in it, which is a dependency for development only.
RUN npm run build \
  && npm prune --omit=dev --ignore-scripts \
  && find node_modules -type f \( -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -name '*.map' -o -name '*.md' \) -delete \
  && rm -rf node_modules/.bin

# The file system of the image. `ldd` names the libraries of whatever processor this is.
FROM ${NODE} AS root
RUN mkdir -p /image/etc /image/tmp /image/data \
  && cp --parents --dereference /usr/local/bin/node $(ldd /usr/local/bin/node | grep -o '/[^ ]*') /image \
  && echo 'ingestor:x:65532:65532::/app:/sbin/nologin' > /image/etc/passwd \
  && echo 'ingestor:x:65532:' > /image/etc/group \
  && chmod 1777 /image/tmp \
  && chown 65532:65532 /image/data
COPY --from=build /app/package.json /image/app/
COPY --from=build /app/node_modules /image/app/node_modules
COPY --from=build /app/dist /image/app/dist

FROM scratch
COPY --from=root /image /
WORKDIR /app
ENV NODE_ENV=production HTTP_HOST=0.0.0.0 DATABASE_PATH=/data/events.db
USER 65532:65532
EXPOSE 9090
# Not `fetch`, which would go through HTTP_PROXY (NODE_USE_ENV_PROXY).
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["/usr/local/bin/node", "-e", "require('http').get(`http://127.0.0.1:${process.env.HTTP_PORT || process.env.METRICS_PORT || 9090}/health`, { agent: false }, ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1)).on('error', () => process.exit(1))"]
# The flags are those in the second line of start.cjs, which needs a shell.
ENTRYPOINT ["/usr/local/bin/node", "--max-semi-space-size=16", "--no-allocation-site-pretenuring", "--expose-gc", "/app/dist/start.cjs"]
