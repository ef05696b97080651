/** What a Grafana dashboard asks Prometheus. */
import { readFileSync } from 'node:fs';

interface Dashboard {
  title: string;
  templating: { list: { name: string; type: string; query: string }[] };
  panels: { type: string; title: string; datasource?: { uid: string }; targets?: { expr: string }[] }[];
}

export function readDashboard(name: string): Dashboard {
  return JSON.parse(readFileSync(`deploy/grafana/dashboards/${name}.json`, 'utf8')) as Dashboard;
}

/** The queries of all panels, each with its panel's title. @param interval in place of Grafana's own */
export function queriesOf({ panels }: Dashboard, interval: string): [title: string, query: string][] {
  return panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr }): [string, string] => [title, expr.replaceAll('$__rate_interval', interval)]),
  );
}
