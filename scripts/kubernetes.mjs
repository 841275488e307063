/** Writes the alerts as a PrometheusRule for Kubernetes; with `--check` only says whether it is up to date. */
import { readFileSync, writeFileSync } from "node:fs"

const path = "deploy/kubernetes/overlays/monitoring/prometheus-rule.yaml"

const alerts = readFileSync("deploy/prometheus/alerts.yaml", "utf8")

const text = `# Made from deploy/prometheus/alerts.yaml by \`npm run kubernetes\`: kustomize cannot read a file into a field.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: event-ingestor
  labels:
    app.kubernetes.io/name: event-ingestor
spec:
${alerts.replaceAll(/^(?=.)/gm, "  ")}`

if (process.argv.includes("--check")) {
  if (readFileSync(path, "utf8") !== text) {
    console.error(`${path} is out of date: npm run kubernetes`)
    process.exit(1)
  }
} else writeFileSync(path, text)
